"""The report: one HTML file without any outside resource, from facts, plots and overlays."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from slicestream import RESEARCH_ONLY, __version__
from slicestream.figures import course, plots, tables
from slicestream.figures.facts import OVERLAPS, Record
from slicestream.figures.gallery import Picture
from slicestream.figures.kpis import figures, kpis
from slicestream.figures.nodules import STATUSES
from slicestream.figures.words import FILTERS
from slicestream.volumes.documents import Facts

ROWS_SHOWN = 1000  # of the nodule table, the worst first; the whole of it is in nodules.csv
VIEWER = "viewer/index.html"  # beside the page
SCRIPTS = ("vendor/d3.min.js", "vendor/plot.umd.min.js", "report_tables.js", "report_plots.js")
PLURALS = {
    "true_positive": "true positives",
    "false_positive": "false positives",
    "missed": "missed",
    "candidate": "candidates",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """All that a report may show; what a run lacks is None or empty and its section is left out.

    `leads` is the name of the overlay that a row of `nodules` leads to, by index; `sites` are jobs and links of a run
    on sites; with `viewer` the rows lead to the viewer beside the page.
    """

    title: str
    made: datetime
    records: Sequence[Record]
    nodules: Sequence[Facts]
    pictures: Sequence[Picture]
    overlays: int
    leads: Mapping[int, str] = field(default_factory=dict)
    split: Sequence[Facts] = ()
    history: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    metrics: Facts | None = None
    card: Facts | None = None
    sites: tuple[Sequence[course.Job], Sequence[course.Link]] | None = None
    viewer: bool = False

    @property
    def jobs_and_links(self) -> tuple[Sequence[course.Job], Sequence[course.Link]]:
        """Return jobs and links: those of the sites, else what the run records tell of them."""
        return self.sites or course.jobs_of(self.records)


def render(content: Content) -> str:
    """Return the page. Every text is escaped; nothing in it reaches out of the file."""
    environment = Environment(
        loader=PackageLoader("slicestream.figures", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    rows = _nodule_rows(content)
    data, links = _plots(content, rows)
    scripts = [_own(name) for name in SCRIPTS]
    return environment.get_template(
        "report.html.j2"
    ).render(
        content=content,
        version=__version__,
        notice=RESEARCH_ONLY,
        style=Markup(_own("report.css")),  # noqa: S704  our own file
        licence=Markup(_own("vendor/LICENSE")),  # noqa: S704  our own file
        scripts=[Markup(script) for script in scripts],  # noqa: S704  our own files
        policy=_policy(scripts),
        data=_json(data),
        plots=data,
        links=links,
        overlaps=OVERLAPS,
        counts=_counts(content.nodules),
        compared=any(row["status"] != "candidate" for row in content.nodules),
        series=sorted({(row["patient"], row["series"]) for row in content.nodules}),
        cases=tables.case_rows(content.metrics) if content.metrics else [],
        rows=rows[:ROWS_SHOWN],
        pictured=_pictured(rows),
        shown=[name for name in content.split if name["side"] != "all"],
        kpis=kpis(content.records),
        figures=figures(content.records, links),
        parameters=tables.parameters(content.records),
        command=tables.command(content.records, scored=content.metrics is not None),
        versions=_versions(content.records),
        models=_models(content.records),
        # the figures of the evaluation stand in their own section
        card=tables.flat({name: fact for name, fact in (content.card or {}).items() if name != "evaluation"}),
    )


def _nodule_rows(content: Content) -> list[Facts]:
    """Return the rows, worst first, each with its anchor, its overlay's and its place in the viewer."""
    rows = []
    for number, row in enumerate(content.nodules):
        name = content.leads.get(number, "")
        label = f"r{row['matched']:.0f}" if row["nodule"] is None else f"{row['nodule']:.0f}"  # r: a missed one
        viewer = f"{VIEWER}#series={row['patient']}-{row['series']}&nodule={label}"
        rows.append({**row, "overlay": name and f"o-{name}", "viewer": viewer if content.viewer else ""})
    return tables.nodule_rows(rows)


def _pictured(rows: Sequence[Facts]) -> dict[str, list[Facts]]:
    """Return the nodules that lead to each picture, by its anchor."""
    found: dict[str, list[Facts]] = {}
    for row in rows[:ROWS_SHOWN]:
        if row["overlay"]:
            found.setdefault(row["overlay"], []).append(row)
    return found


def _plots(content: Content, rows: Sequence[Facts]) -> tuple[Facts, Sequence[course.Link]]:
    """Return what the plots are drawn from, empty where there is nothing for one, and the sites' links."""
    jobs, links = content.jobs_and_links
    metrics, shown = content.metrics, tables.anchors(rows[:ROWS_SHOWN])
    data = {
        "froc": plots.froc(metrics) if metrics else None,
        "sensitivity": plots.sensitivity(metrics) if metrics else None,
        "volumes": plots.volumes(metrics, shown) if metrics else None,
        "calibration": plots.calibration(content.nodules),
        "training": plots.training(content.history),
        "timeline": course.timeline(jobs, links),
        "steps": course.joined(content.records),
    }
    return data, links


def _own(name: str) -> str:
    return files("slicestream.figures").joinpath(name).read_text(encoding="utf-8").strip()


def _json(data: Facts) -> Markup:
    """Return JSON that cannot end its script element."""
    text = json.dumps(data, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)  # noqa: S704  no markup is left in it


def _policy(scripts: Sequence[str]) -> str:
    """Return a content security policy: these scripts run, no other; no request leaves."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{value}'" for value in hashes)
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"


def _counts(nodules: Sequence[Facts]) -> dict[str, int]:
    """Return how many rows there are of each status, by its plural; those without a row are left out."""
    counts = Counter(row["status"] for row in nodules)
    return {PLURALS[status]: counts[status] for status in STATUSES if counts[status]}


def _versions(records: Sequence[Record]) -> list[tuple[str, str]]:
    found: dict[str, set[str]] = {}
    for record in records:
        for name, value in record.versions.items():
            found.setdefault(name, set()).add(value)
    return [(name, ", ".join(sorted(values))) for name, values in sorted(found.items())]


def _models(records: Sequence[Record]) -> list[str]:
    """Return the content hashes of the models that the run used or made."""
    named = (item for record in records for item in (*record.inputs.items(), *record.outputs.items()))
    return sorted({content_hash for name, content_hash in named if name.endswith(".onnx")})
