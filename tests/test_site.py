"""The documentation as a site: whole, with no broken link, and asking nothing of another host."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from browser import chromium
from test_docs import ROOT

SITE_KINDS = {"local": "environments/local/streamflow.yml", "slurm": "streamflow.yml"}
SITE_KINDS |= {"occam": "environments/occam/streamflow.yml", "kubernetes": "streamflow.yml"}
FETCHED = {"src", "srcset", "poster", "data"}  # attributes whose address a browser fetches
NOT_FETCHED = {"canonical", "next", "prev"}  # what a <link> may say without a request


def build(config: Path, into: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", config, "--site-dir", into]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    built = build(ROOT / "mkdocs.yml", folder)
    assert built.returncode == 0, built.stderr
    return folder


class Addresses(HTMLParser):
    """The addresses that a browser asks for when it opens a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.found += [given[name] for name in FETCHED & set(given)]
        if tag == "link" and not set(given.get("rel", "").split()) & NOT_FETCHED:
            self.found.append(given["href"])
        self.found += re.findall(r"url\(([^)]+)\)", given.get("style", ""))


def test_a_page_asks_for_its_own_files_alone(site: Path) -> None:
    asked = 0
    for page in site.glob("**/*.html"):
        for address in Addresses(page.read_text(encoding="utf-8")).found:
            assert not re.match(r"[a-z]+:|//", address) or address.startswith("data:"), (page.name, address)
            if page.name != "404.html" and not address.startswith("data:"):  # 404 is served from any place
                assert (page.parent / re.split(r"[?#]", address)[0]).resolve().is_file(), (page.name, address)
                asked += 1
    assert asked > 100
    for sheet in site.glob("assets/stylesheets/*.css"):
        assert not re.search(r"(url\(|@import )[\"']?(https?:)?//", sheet.read_text(encoding="utf-8"))


def test_a_browser_fetches_its_own_files_alone(site: Path) -> None:
    asked: list[str] = []
    with chromium() as browser:
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        for name in ("index.html", "docs/tutorial.html", "docs/decisions/index.html"):
            page.goto((site / name).as_uri(), wait_until="load")
            assert page.locator("article h1").count() == 1
    assert len(asked) > 10
    assert {address.partition(":")[0] for address in asked} <= {"file", "data", "blob"}


def test_an_address_of_another_host_would_be_seen() -> None:
    text = '<link rel="stylesheet" href="https://fonts.example/a.css"><script src="//cdn.example/b.js"></script>'
    assert len([one for one in Addresses(text).found if re.match(r"[a-z]+:|//", one)]) == 2


def test_every_page_of_the_documentation_is_in_the_site(site: Path) -> None:
    start = (site / "index.html").read_text(encoding="utf-8")
    for path in sorted(ROOT.glob("docs/*.md")):
        assert (site / "docs" / f"{path.stem}.html").is_file()
        assert f'href="docs/{path.stem}.html' in start
    listed = (site / "docs/decisions/index.html").read_text(encoding="utf-8")
    for path in sorted(ROOT.glob("docs/decisions/*.md")):
        assert f'href="{path.stem}.html"' in listed


def test_a_broken_link_fails_the_build(tmp_path: Path) -> None:
    (tmp_path / "docs/decisions").mkdir(parents=True)
    for hook in ROOT.glob("docs/site_*.py"):
        shutil.copy(hook, tmp_path / "docs")
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    (tmp_path / "mkdocs.yml").write_text(config.partition("not_in_nav:")[0], encoding="utf-8")
    (tmp_path / "docs/usage.md").write_text("# Usage\n")
    for text, status in (("[a](docs/usage.md#usage)", 0), ("[a](docs/gone.md)", 1), ("[a](docs/usage.md#gone)", 1)):
        (tmp_path / "README.md").write_text(f"# Start\n\n{text}\n")
        built = build(tmp_path / "mkdocs.yml", tmp_path / "site")
        assert built.returncode == status, built.stderr
        assert ("gone" in built.stderr) == bool(status)


def is_part(small: object, whole: object) -> bool:
    """Return whether a document is in another one, parts of mappings and of lists left out."""
    if isinstance(small, dict):
        return isinstance(whole, dict) and all(key in whole and is_part(small[key], whole[key]) for key in small)
    if isinstance(small, list):
        return isinstance(whole, list) and all(any(is_part(one, other) for other in whole) for one in small)
    return small == whole


@pytest.mark.parametrize("kind", SITE_KINDS)
def test_the_page_of_a_site_kind_shows_what_its_streamflow_file_says(kind: str) -> None:
    text = (ROOT / "environments" / kind / "README.md").read_text(encoding="utf-8")
    whole = yaml.safe_load((ROOT / SITE_KINDS[kind]).read_text(encoding="utf-8"))
    shown = [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.+?)^```", text, flags=re.M | re.S)]
    assert shown
    for part in shown:
        assert set(part) == {"workflows", "deployments"}
        assert is_part(part, whole)
        assert not is_part({**part, "version": "v2.0"}, whole)
