"""The model card: what a model is for, what it was made from, how good it is and where it ends. Markdown, no times.

Only what the run's own files say: what they do not say is "not known". The files may come back from another site, so
all text of theirs is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slicestream import RESEARCH_ONLY
from slicestream.figures.claim import ITEMS
from slicestream.figures.facts import OVERLAPS, SIZES, Record
from slicestream.volumes.documents import Facts

UNKNOWN = "not known"
NOTHING = "–"
FEW_PATIENTS = 20  # with fewer on the test side the card says that they are few


@dataclass(frozen=True, kw_only=True, slots=True)
class CardFacts:
    """What a card is written from; `split` and `metrics` are those of the same run, or None."""

    card: Facts
    split: Facts | None
    metrics: Facts | None
    records: Sequence[Record]


def model_card(facts: CardFacts) -> str:
    """Return the card as Markdown. The same facts give the same text."""
    card = facts.card
    parts = [
        f"# Model card: {_text(_get(card, 'architecture'))}",
        f"**{RESEARCH_ONLY}**",
        f'"{UNKNOWN}": the files of the run do not say it. Figures are those of `metrics.json` and `model.json`.',
        "## Model",
        _table(("fact", "value"), _model_rows(card)),
        "## Intended use",
        "Research on the segmentation of lung nodules in chest CT: candidates with a score, as masks in the geometry "
        "of a series, to be looked at by people who know CT.",
        "## Not intended",
        "Diagnosis, screening, triage, treatment or any other decision about a patient; use without anyone looking; "
        "images other than CT; telling benign from malignant. The score is no calibrated probability of disease.",
        "## Data",
        _table(("side", "patients", "series", "images"), _side_rows(facts)),
        _data_words(facts),
        "## Division",
        _division_words(facts),
        "## Training",
        _table(("setting", "value"), _training_rows(card)),
        "## Results",
        *_results(facts.metrics),
        "## Limits",
        "\n".join(f"- {line}" for line in _limits(facts)),
        "## CLAIM",
        "Checklist for Artificial Intelligence in Medical Imaging, 2024 update (Tejani et al., Radiol Artif Intell "
        "2024;6(4):e240300), as far as a run can fill it; whoever publishes fills the rest.",
        _table(("item", "asks for", "answer"), _claim_rows(facts)),
        "## Hashes",
        _table(("file", "SHA-256"), _hash_rows(facts)),
        "## Versions",
        _table(("library", "version"), _version_rows(facts)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _model_rows(card: Facts) -> Iterable[tuple[str, Any]]:
    yield "architecture", _get(card, "architecture")
    yield "kind", "2D U-Net, slice by slice; probability of nodule per pixel"
    yield "neighbouring slices on either side, seen as channels", _get(card, "context")
    if "reach_mm" in card:
        yield "second network", "3D, at two scales; scores each candidate anew"
    for name in ("format", "version", "labels", "threshold", "min_score", "temperature"):
        yield name.replace("_", " "), _get(card, name)
    yield "spacing it was trained at, row and column, mm", _get(card, "spacing_mm")
    yield "window, HU", [_get(card, "window", "low_hu"), _get(card, "window", "high_hu")]
    yield "licence of the program", "Apache-2.0"
    yield "licence of the weights", f"{UNKNOWN}: what the data's terms allow"


def _side_rows(facts: CardFacts) -> list[Sequence[Any]]:
    rows = _get(facts.split or {}, "table")
    if isinstance(rows, list):
        return [[row.get(name) for name in ("side", "patients", "series", "images")] for row in rows]
    data = _get(facts.card, "data")
    sides = data if isinstance(data, Mapping) else {}
    return [[side, _get(sides, side, "patients"), None, _get(sides, side, "slices")] for side in sorted(sides)]


def _data_words(facts: CardFacts) -> str:
    lines = [
        "Images: slices with a nodule, and the chosen share of those without.",
        *(
            f"Of the {side} side {_text(_get(facts.card, 'data', side, 'annotated_slices'))} of "
            f"{_text(_get(facts.card, 'data', side, 'slices'))} slices have a nodule."
            for side in ("training", "validation")
        ),
        f"Backgrounds, only trained on: {_text(_get(facts.split or {}, 'backgrounds', 'series'))} series.",
        f"Where the data come from, scanners, protocols, age and sex of the patients: {UNKNOWN}; the files that reach "
        "training hold none of it, by design.",
    ]
    return " ".join(lines)


def _division_words(facts: CardFacts) -> str:
    split = facts.split or {}
    fractions = _get(split, "fractions")
    shares = (
        ", ".join(f"{_text(n)} {_text(v)}" for n, v in fractions.items()) if isinstance(fractions, Mapping) else UNKNOWN
    )
    return (
        f"By patient: all images of a patient are on one side. By chance from the seed {_text(_get(split, 'seed'))}, "
        f"shares of the images asked for: {shares}. Left out by the user: "
        f"{_text(_get(split, 'excluded_patients'))} patients; without annotation, on no side: "
        f"{_text(_get(split, 'patients_without_annotation'))}."
    )


def _training_rows(card: Facts) -> list[tuple[str, Any]]:
    rows = [
        (f"{part}: {name}", value) for part in ("training", "validation") for name, value in _flat(_get(card, part))
    ]
    return [*rows, *((f"recipe: {name}", value) for name, value in _flat(_get(card, "recipe")))]


def _results(metrics: Facts | None) -> list[str]:
    if metrics is None:
        return ["Not evaluated in this run."]
    nodules, definitions = metrics["nodules"], metrics["definitions"]
    overlaps = [
        (
            f"{words}, {name.replace('_', ' ')}",
            *_interval(metrics[measure][name]),
        )
        for measure, words in (("iou", "IoU"), ("dice", "Dice"))
        for name in OVERLAPS
    ]
    found = nodules["intervals"]["sensitivity"]
    counts = {"all": nodules["count"], **nodules["counts"]}
    sizes = [
        (f"sensitivity, {_text(name)} ({_text(counts.get(name))} nodules)", *_interval(found[name])) for name in SIZES
    ]
    rates = [("false positives per scan", *_interval(nodules["intervals"]["false_positives_per_scan"]))]
    points = [
        (f"sensitivity at {_text(rate)} false positives per scan", *_interval(point))
        for rate, point in metrics.get("operating_points", {}).items()
    ]
    calibration = [("expected calibration error of scores", *_interval(_get(metrics, "calibration", "error")))]
    error = metrics.get("volume_error")
    volumes = [
        (
            "volume error of nodules hit, %: bias, limits of agreement",
            *_interval(error, ("bias", "low", "high")),
        )
    ]
    return [
        f"Side: {_text(metrics['split'])}. Patients: {_text(metrics['patients'])}, series: {_text(metrics['cases'])}, "
        f"slices: {_text(metrics['slices'])}, nodules: {_text(nodules['count'])}.",
        _table(("figure", "value", "low", "high"), [*overlaps, *sizes, *rates, *points, *calibration, *volumes]),
        f"{NOTHING}: nothing to compute it from. Sizes are longest diameters in mm. Definitions:",
        "\n".join(f"- {_text(name)}: {_text(words)}" for name, words in sorted(definitions.items())),
    ]


def _limits(facts: CardFacts) -> list[str]:
    near = "" if not _get(facts.card, "context") else f" with {_text(_get(facts.card, 'context'))} on either side"
    lines = [
        f"One slice at a time{near}: what only others show, such as a vessel that runs through, it cannot see.",
        f"Tested, if at all, on the cohort it was trained on; on other scanners, protocols and populations: {UNKNOWN}.",
        "The reference is what readers drew; readers differ among themselves, and nobody measured by how much here.",
        "Candidates outside the lung mask are dropped, unless that was switched off: what lies there is missed.",
        f"Bias with age, sex, origin, lung disease or dose: {UNKNOWN}.",
    ]
    if spheres := _get(facts.metrics, "nodules", "forms", "sphere"):
        lines.append(
            f"Of the reference nodules tested on, {_text(spheres)} are spheres made of a centre and a diameter: IoU, "
            "Dice and volume error are not against outlines."
        )
    patients = (facts.metrics or {}).get("patients")
    if facts.metrics is None:
        lines.insert(0, "No test metrics: how good it is, is not known.")
    elif isinstance(patients, int) and patients < FEW_PATIENTS:
        lines.insert(0, f"Tested on few patients ({patients}): the figures are rough.")
    return lines


def _claim_rows(facts: CardFacts) -> list[tuple[int, str, str]]:
    answers = _answers(facts)
    return [(number, item, answers.get(key) or UNKNOWN) for number, item, key in ITEMS]


def _answers(facts: CardFacts) -> dict[str, str]:
    """Return what a run can say of CLAIM's items; those that depend on a file of the run are left out without it."""
    answers = {
        "technique": "Deep learning: a 2D U-Net",
        "intended_use": "Intended use, above",
        "preprocessing": "Whole HU, seen through the window above",
        "subsets": "Data, above" if facts.split else "",
        "deidentification": "Pixels, geometry and keyed pseudonyms reach training; no header does",
        "missing": "In a series that readers drew in, slices without a drawing count as without nodule",
        "model": "Model, above; weights beside this card",
        "software": "Versions, below",
        "ensembling": "None; where asked for, the mean over four mirrored copies at prediction",
        "limits": "Limits, above",
        "implications": "None: for research only",
        "availability": "Program: Apache-2.0; model: with this card; data: " + UNKNOWN,
    }
    if "training" in facts.card:
        answers |= {"initialization": "At random, from the seed", "training": "Training, above"}
        answers |= {"selection": "Best epoch and threshold by IoU on the validation side"}
    if facts.split:
        answers |= {"assignment": "Division, above", "disjoint": "Patient", "numbers": "Data and Division, above"}
        left_out = _text(_get(facts.split, "excluded_patients"))
        answers["exclusion"] = f"{left_out} patients left out by the user; why: {UNKNOWN}"
    if facts.metrics:
        answers |= {"metrics": "Results, above", "performance": "Results, above"}
        answers |= {
            "diagnostic": "Sensitivity and false positives per scan, above; specificity is not defined for candidates"
        }
        answers |= {"internal": f"Side {_text(facts.metrics['split'])}, above", "external": "None in this run"}
        answers |= {"uncertainty": f"Intervals: {_text(facts.metrics['definitions'].get('interval', UNKNOWN))}"}
        answers |= {
            "robustness": "Sensitivity by size of nodule, above",
            "failures": "Missed nodules and false positives: nodules.csv of the run",
        }
    return answers


def _hash_rows(facts: CardFacts) -> list[tuple[str, Any]]:
    hashes = _get(facts.card, "content_hashes")
    rows = sorted(hashes.items()) if isinstance(hashes, Mapping) else []
    data = {
        name: value
        for record in facts.records
        if record.step == "train"
        for name, value in record.inputs.items()
        if re.fullmatch(r"(training|validation)-\d+\.slices", name)
    }
    return [*rows, *sorted(data.items())]


def _version_rows(facts: CardFacts) -> list[tuple[str, Any]]:
    versions = _get(facts.card, "versions")
    found: dict[str, set[str]] = {}
    for source in (versions if isinstance(versions, Mapping) else {}, *(record.versions for record in facts.records)):
        for name, value in source.items():
            found.setdefault(str(name), set()).add(str(value))
    return [(name, ", ".join(sorted(values))) for name, values in sorted(found.items())]


def _interval(entry: Any, names: Sequence[str] = ("value", "low", "high")) -> list[Any]:
    found = [_get(entry, name) for name in names]
    return [NOTHING if value is None else value for value in found]


def _get(facts: Any, *names: str) -> Any:
    """Return what stands at a path of names, None where there is nothing."""
    for name in names:
        facts = facts.get(name) if isinstance(facts, Mapping) else None
    return facts


def _flat(facts: Any, before: str = "") -> list[tuple[str, Any]]:
    if not isinstance(facts, Mapping):
        return []
    rows: list[tuple[str, Any]] = []
    for name, value in sorted(facts.items()):
        rows += _flat(value, f"{before}{name}: ") if isinstance(value, Mapping) else [(f"{before}{name}", value)]
    return rows


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    lines += [" | ".join(_text(cell) for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def _text(value: Any) -> str:
    """Return a value on one line, with nothing in it that Markdown or HTML would act on; numbers as they stand."""
    if value is None or value == "":
        return UNKNOWN
    if isinstance(value, list):
        return ", ".join(_text(one) for one in value)
    text = " ".join(str(value).split())
    return re.sub(r"([\\`*\[\]|<>#])", lambda found: f"&#{ord(found[0])};", text.replace("&", "&amp;"))
