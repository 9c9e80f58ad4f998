"""MkDocs hook: the site has the repository's own tree, so that a relative link leads to the same file in both."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = (
    "*.md",
    "docs/*.md",
    "docs/decisions/*.md",
    "environments/*/*.md",
    "containers/*.md",
    "tests/testbed/*.md",
)
DECISIONS = "docs/decisions/README.md"
LINK = re.compile(r"\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put the repository's pages, and the files that they link to, in the place of docs/."""
    for file in list(files):
        if file.src_dir == config.docs_dir:
            files.remove(file)
    pages = sorted({path for pattern in PAGES for path in ROOT.glob(pattern)})
    linked = {path for page in pages for path in _linked_files(page)}
    for path in [*pages, *sorted(linked.difference(pages))]:
        files.append(File(path.relative_to(ROOT).as_posix(), str(ROOT), config.site_dir, use_directory_urls=False))
    files.append(File.generated(config, DECISIONS, content=_decisions()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: object) -> str:
    """Lead to a folder's page where the repository's link is to the folder."""
    here = (ROOT / page.file.src_uri).parent

    def to_page(found: re.Match[str]) -> str:
        folder = here / found[1]
        return f"]({found[1].rstrip('/')}/README.md{found[2] or ''})" if folder.is_dir() else found[0]

    return LINK.sub(to_page, markdown)


def _linked_files(page: Path) -> list[Path]:
    targets = [(page.parent / found[1]).resolve() for found in LINK.finditer(page.read_text(encoding="utf-8"))]
    return [target for target in targets if target.is_file() and target.is_relative_to(ROOT)]


def _decisions() -> str:
    """Return a page that lists the records by their headings."""
    lines = ["# Decisions", "", "What others may question, what was measured, and what follows.", ""]
    for path in sorted(ROOT.glob("docs/decisions/*.md")):
        title = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        lines.append(f"- [{title}]({path.name})")
    return "\n".join([*lines, ""])
