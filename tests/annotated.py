"""Series of `ct_files` with what was drawn on them, through `preprocess`."""

from __future__ import annotations

from pathlib import Path

from ct_files import ROOT
from lidc_files import RATED, box, message, nodule, roi
from slicestream.__main__ import main
from slicestream.volumes.mask import Mask, read_mask

TABLE_HEAD = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"  # of LUNA16


def preprocess(cohort: Path, out: Path, *options: str) -> int:
    """Run the step with a key of its own; return the exit code."""
    key = cohort.parent / "key"
    key.write_text("a secret of the tests only\n")
    return main(["preprocess", "--cohort", str(cohort), "--pseudonym-key", str(key), "--out", str(out), *options])


def references(out: Path) -> list[Mask]:
    """Return the references that the step wrote."""
    return [read_mask(path, "reference") for path in sorted(out.glob("*.reference"))]


def instance(k: int, series: int = 1) -> str:
    """The SOPInstanceUID that ct_series gives its slice k."""
    return f"{ROOT}.{series}.{round(2.5 * k * 1000) + 10**7}"


def reading(path: Path, *sessions: list[str], series: int = 1) -> Path:
    """Write the readings of a series of `ct_series`, a session per reader."""
    return message(path, sessions, uid=f"{ROOT}.{series}")


def outline(top: int, left: int, size: int, *slices: int, malignancy: int = 3, series: int = 1) -> str:
    """A rated nodule that is a square of pixels on some slices."""
    rois = (roi(box(top, left, size, size), uid=instance(k, series)) for k in slices)
    return nodule(*rois, ratings=RATED | {"malignancy": malignancy}, name="IL057_127364")
