"""One HTML file that shows the run, and the trained model's folder with its card."""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from slicestream import RESEARCH_ONLY
from slicestream.errors import ArtefactError, ModelError, OptionError
from slicestream.figures.course import read_sites
from slicestream.figures.facts import (
    read_history,
    read_metrics,
    read_nodules,
    read_records,
    read_split,
)
from slicestream.figures.gallery import gallery, nearest, overlay_files
from slicestream.figures.kpis import figures
from slicestream.figures.model_card import CardFacts, model_card
from slicestream.figures.page import Content, render
from slicestream.volumes.documents import Facts, read_json
from slicestream.volumes.files import atomic_path, write_text
from slicestream.volumes.record import RunRecord, recorded
from slicestream.volumes.seal import verify
from slicestream.volumes.staging import staged

HEADLINE = ("split", "iou", "dice", "nodules", "cases", "slices")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `slicestream report`."""
    parser.epilog = (
        "example: slicestream report --nodules results/nodules.csv --overlays "
        "results/overlays --records */*.run.json --out page"
    )
    parser.add_argument("--split", type=Path, metavar="FILE", help="split.json, for the cohort table")
    parser.add_argument("--history", type=Path, metavar="FILE", help="history.csv of the training, for its curves")
    parser.add_argument("--metrics", type=Path, metavar="FILE", help="metrics.json of evaluate")
    parser.add_argument("--nodules", type=Path, required=True, metavar="FILE", help="nodules.csv of export")
    parser.add_argument("--overlays", type=Path, required=True, metavar="DIR", help="overlays folder of export")
    parser.add_argument(
        "--records", type=Path, nargs="+", required=True, metavar="FILE", help="*.run.json of the steps"
    )
    parser.add_argument(
        "--model", type=Path, metavar="FILE", help="model.onnx; with --weights and --card: makes model/ and the card"
    )
    parser.add_argument("--weights", type=Path, metavar="FILE", help="weights.safetensors of the same training")
    parser.add_argument("--card", type=Path, metavar="FILE", help="model.json of the same training")
    parser.add_argument(
        "--sites", type=Path, metavar="FILE", help="sites.json of a run on sites: jobs, and bytes between the sites"
    )
    parser.add_argument(
        "--viewer", action="store_true", help="lead from each nodule to viewer/index.html beside the page"
    )
    parser.add_argument(
        "--title", default="Lung nodule segmentation", help="heading of the page (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="output folder (default: here)")


def run(args: argparse.Namespace) -> None:
    """Write report.html, model/ and model-card.md where a model was trained, and the run record."""
    made = datetime.now(UTC)
    metrics = read_metrics(args.metrics) if args.metrics else None
    model = _trained(args.model, args.weights, args.card, metrics)
    nodules, overlays = read_nodules(args.nodules), overlay_files(args.overlays)
    leads = nearest([path.stem for path in overlays], nodules)
    content = Content(
        title=args.title,
        made=made,
        records=read_records(args.records),
        nodules=nodules,
        pictures=gallery(overlays, set(leads.values())),
        overlays=len(overlays),
        leads=leads,
        split=read_split(args.split) if args.split else (),
        history=read_history(args.history) if args.history else {},
        metrics=metrics,
        card=model.card if model else None,
        sites=read_sites(args.sites) if args.sites else None,
        viewer=args.viewer,
    )
    with staged(args.out) as room, recorded("report", room) as record:
        _note_inputs(record, args, model)
        page = room / "report.html"
        write_text(page, render(content))
        record.add_output(page, hashlib.sha256(page.read_bytes()).hexdigest())
        if model:
            _write_model(room / "model", model, record)
            split = read_json(args.split) if args.split else None
            facts = CardFacts(card=model.card, split=split, metrics=metrics, records=content.records)
            for path in (room / "model-card.md", room / "model" / "model-card.md"):
                write_text(path, model_card(facts))
            record.add_output(path, _file_hash(path))
        record.items, record.unit = len(content.nodules), "nodules"
        measured = [figure.to_header() for figure in figures(content.records, content.jobs_and_links[1])]
        record.parameters = {"title": args.title, "notice": RESEARCH_ONLY, "kpis": measured}
        record.versions |= {name: version(name) for name in ("jinja2", "pillow")}
    print(args.out / "report.html")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Model:
    """A trained model whose three files belong together; `card` is completed with the test metrics."""

    model: Path
    weights: Path
    card: Facts
    model_hash: str
    weights_hash: str


def _trained(model: Path | None, weights: Path | None, card: Path | None, metrics: Facts | None) -> _Model | None:
    """Check that model, weights, card and metrics are of one training. Raises ModelError where they are not."""
    if model is None and weights is None and card is None:
        return None
    if model is None or weights is None or card is None:
        raise OptionError(
            "--model, --weights, --card: some were given, some not; need all three, or none. "
            "Give model.onnx, weights.safetensors and model.json of one training."
        )
    facts = read_json(card)
    model_hash, weights_hash = verify(model), _file_hash(weights)
    _check_named(card, facts, {"model.onnx": (model, model_hash), "weights.safetensors": (weights, weights_hash)})
    scored = metrics["models"] if metrics else []
    if scored and scored != [model_hash]:
        others = ", ".join(f"{str(other)[:12]}…" for other in scored)
        raise ModelError(
            f"{model}: content hash {model_hash[:12]}…, but the metrics are of {others}; models were swapped. "
            "Give the model that made the masks."
        )
    if metrics:
        facts = {**facts, "evaluation": {key: metrics[key] for key in HEADLINE}}
    return _Model(model=model, weights=weights, card=facts, model_hash=model_hash, weights_hash=weights_hash)


def _check_named(card: Path, facts: Facts, files: dict[str, tuple[Path, str]]) -> None:
    hashes = facts.get("content_hashes")
    if not isinstance(hashes, dict):
        raise ModelError(f"{card}: no content_hashes; need model.json of `slicestream train`. Check which file it is.")
    for name, (path, found) in files.items():
        if hashes.get(name) != found:
            raise ModelError(
                f"{path}: hash {found[:12]}…, but {card} names {name} {str(hashes.get(name))[:12]}…; files of "
                "different trainings were mixed. Give those of one training."
            )


def _write_model(folder: Path, model: _Model, record: RunRecord) -> None:
    for name, source, content_hash in (
        ("model.onnx", model.model, model.model_hash),
        ("weights.safetensors", model.weights, model.weights_hash),
    ):
        with atomic_path(folder / name) as partial:
            shutil.copyfile(source, partial)
        record.add_output(folder / name, content_hash)
    card = folder / "model.json"
    write_text(card, json.dumps(model.card, indent=1, sort_keys=True) + "\n")
    record.add_output(card, _file_hash(card))


def _note_inputs(record: RunRecord, args: argparse.Namespace, model: _Model | None) -> None:
    given = [args.split, args.history, args.metrics, args.nodules, args.model, args.weights, args.card, args.sites]
    given += args.records
    for path in given:
        if path is not None:
            # of a model by content, as in the records of the steps before
            content_hash = model.model_hash if model and path == model.model else _file_hash(path)
            record.add_input(path.name, content_hash, path.stat().st_size)


def _file_hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ArtefactError(f"{path}: {error.strerror}; need a readable file. Check the name.") from error
