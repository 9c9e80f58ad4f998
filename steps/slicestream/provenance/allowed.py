"""What of a run may stand in a crate. Whatever is not named here stays out: a crate goes to others."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_ID = r"[0-9a-f]{16}-[0-9a-f]{16}"  # pseudonyms of patient and series
LAPTOP = "laptop"
OTHER = "other"  # stands for a name that might tell more than an alias
_SITE_KINDS = frozenset((LAPTOP, "slurm", "occam", "kubernetes"))
_NAMES = {
    "alias": r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}",  # a deployment's name; one with dots could be a host's
    "step": r"[a-z][a-z_]{0,39}",
    "tag": r"\d+of\d+|[0-9a-f]{8}",
    "run": r"[0-9a-f]{12}",
    "hash": r"[0-9a-f]{64}",
    "job": r"\d{1,12}",
    "gres": r"[a-z]+(:[A-Za-z0-9_,.\-]+)+",
    "device": r"[\w ()@.,×+\-]{1,120}",
    "image": r"localhost/slicestream/[a-z]+:[\w.-]+@build:[0-9a-f]{64}",
    "library": r"[A-Za-z0-9][\w.-]{0,59}",
    "unit": r"[a-z]{1,20}",
    "word": r"[A-Za-z0-9][\w.\-]{0,39}(/\d+)?",
}
_PATTERNS = {name: re.compile(pattern) for name, pattern in _NAMES.items()}

# Settings of the steps. Not here: titles and patterns, which are anybody's text.
_PARAMETERS = frozenset(
    (
        *("share", "negatives", "excluded_patients", "consensus", "minimum_readers"),  # preprocess
        *("seed", "fractions"),  # split
        *("recipe", "compile", "processes", "images_per_second"),  # train
        *("architecture", "window_hu", "threshold", "min_diameter_mm", "min_score", "flips", "lung_mask"),  # infer
        *("batch_size", "threads", "precision"),
        "split",  # evaluate
        *("overlays_per_series", "segmentation", "captures", "nifti"),  # export
        "most_mb",  # view
    )
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A kind of artefact that may be named.

    `ports` are what tools call it; `of_content` says that its hash is of what it means, not of its bytes.
    """

    pattern: re.Pattern[str]
    ports: tuple[str, ...]
    media_type: str
    of_content: bool = False


def _kind(pattern: str, ports: str, media_type: str = "application/octet-stream", *, of_content: bool = False) -> Kind:
    return Kind(
        pattern=re.compile(pattern.replace("<id>", _ID)),
        ports=tuple(ports.split()),
        media_type=media_type,
        of_content=of_content,
    )


_KINDS = (
    _kind(r"<id>\.volume", "volumes", of_content=True),
    _kind(r"<id>\.reference", "references", of_content=True),
    _kind(r"<id>\.mask", "masks", of_content=True),
    _kind(r"training-\d+of\d+\.slices", "slices", of_content=True),
    _kind(r"series-\d+of\d+\.json", "index indexes", "application/json"),
    _kind(r"training-\d{3,}\.slices", "training", of_content=True),
    _kind(r"validation-\d{3,}\.slices", "validation", of_content=True),
    _kind(r"split\.json", "split", "application/json"),
    _kind(r"model\.onnx", "model", of_content=True),
    _kind(r"weights\.safetensors", "weights"),
    _kind(r"model\.json", "card", "application/json"),
    _kind(r"history\.csv", "history", "text/csv"),
    _kind(r"curves\.svg", "curves", "image/svg+xml"),
    _kind(r"metrics\.json", "metrics", "application/json"),
    _kind(r"nodules\.csv", "nodules", "text/csv"),
    _kind(r"<id>(-labelmap)?\.dcm", "segmentations", "application/dicom", of_content=True),
    _kind(r"<id>-sr\.dcm", "measurements", "application/dicom", of_content=True),
    _kind(r"<id>-\d{4,}\.dcm", "key_images", "application/dicom", of_content=True),
    _kind(r"report\.html", "report", "text/html"),
    _kind(r"model-card\.md", "model_card", "text/markdown"),
    _kind(r"[a-z]+(-(\d+of\d+|[0-9a-f]{8}))?\.run\.json", "records run_record", "application/json"),
)
# Taken along whole: made of figures and fixed words, by steps that see no identity. Place in the run's folder.
TAKEN = ("metrics.json", "model/model.json", "model-card.md")


def kind_of(name: str) -> Kind | None:
    """Return the kind of an artefact of this file name, None for one that may not be named."""
    return next((kind for kind in _KINDS if kind.pattern.fullmatch(name)), None)


def text(kind: str, value: object) -> str:
    """Return a text if it has the form that `kind` must have, else nothing."""
    return value if isinstance(value, str) and _PATTERNS[kind].fullmatch(value) else ""


def alias(deployment: object) -> str:
    """Return what a crate calls a place: the deployment's name in the StreamFlow file."""
    return LAPTOP if deployment in ("__LOCAL__", "", None) else text("alias", deployment) or OTHER


def site_kind(site: object) -> str:
    """Return what kind of site a run record names."""
    return str(site) if site in _SITE_KINDS else OTHER


def parameters(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that may be named, nested ones with dotted names, lists of figures as text."""
    return dict(sorted(pair for key in _PARAMETERS & set(recorded) for pair in _flat(key, recorded[key])))


def _flat(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, bool | int | float):
        yield key, value
    elif isinstance(value, str):
        if word := text("word", value):
            yield key, word
    elif isinstance(value, dict):
        for inner, one in value.items():
            if re.fullmatch("[a-z_0-9]+", str(inner)):
                yield from _flat(f"{key}.{inner}", one)
    elif isinstance(value, list) and all(isinstance(one, bool | int | float) for one in value):
        yield key, " ".join(f"{one:g}" for one in value)
