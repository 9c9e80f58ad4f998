"""MkDocs hook: pictures of report and viewer in the tutorial; none where there is no runs/demo or no Chromium."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from playwright.sync_api import sync_playwright

RUN = Path(__file__).parents[1] / "runs/demo"
MARK = "<!-- pictures -->"
PICTURES = {  # name -> page of the run, what it shows, width in pixels, colours
    "viewer": ("viewer/index.html", "The viewer: three planes and the list of nodules", 1200, "light"),
    "report": ("report.html", "The top of the report", 1200, "light"),
    "report-dark": ("report.html", "The same in a browser that prefers dark", 1200, "dark"),
    "report-phone": ("report.html", "The same on a phone", 390, "light"),
}
WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist", "--no-sandbox")
SHOWN = "body[data-series]"  # the viewer says so that a series is on the screen
log = logging.getLogger("mkdocs.hooks.pictures")
taken: dict[str, bytes] = {}


def take(run: Path, chromium: str) -> dict[str, bytes]:
    """Return a PNG by name, of the report and the viewer of a finished run."""
    found = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(WEBGL))
        for name, (page_name, _, width, colours) in PICTURES.items():
            page = browser.new_page(
                viewport={"width": width, "height": 800}, color_scheme=colours, offline=True, reduced_motion="reduce"
            )
            page.goto((run / page_name).as_uri())
            if page_name.startswith("viewer"):
                page.wait_for_selector(SHOWN)
            found[name] = page.screenshot()
            page.close()
        browser.close()
    return found


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Take the pictures and put them beside the tutorial."""
    chromium = shutil.which("chromium")
    taken.clear()
    if chromium is None or not (RUN / "report.html").is_file():
        log.info("no pictures: they need chromium and a finished `make demo`")
        return files
    taken.update(take(RUN, chromium))
    for name, png in taken.items():
        files.append(File.generated(config, f"docs/pictures/{name}.png", content=png))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the pictures in the place of the mark."""
    lines = [f"![{PICTURES[name][1]}](pictures/{name}.png)\n\n*{PICTURES[name][1]}*" for name in taken]
    return markdown.replace(MARK, "\n\n".join(lines))
