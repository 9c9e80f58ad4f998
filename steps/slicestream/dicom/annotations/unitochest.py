"""The UniToChest layout: dataset.csv says which image belongs to whom and which mask to which image."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from slicestream.errors import AnnotationError

TABLE = "dataset.csv"
_COLUMNS = ("patientID", "exam", "image", "mask")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One image of the table; `mask` is None where no reader drew on it."""

    patient: str
    exam: str
    image: Path
    mask: Path | None


def read_table(folder: Path) -> list[Row]:
    """Read dataset.csv and see that every file it names is there. Raises AnnotationError."""
    table = folder / TABLE
    try:
        with table.open(newline="", encoding="utf-8-sig") as text:
            reader = csv.DictReader(text)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise AnnotationError(f"{table}: no column {', '.join(missing)}; need {','.join(_COLUMNS)}. Add it.")
            rows = [_row(folder, table, reader.line_num, fields) for fields in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise AnnotationError(f"{table}: not a CSV table in UTF-8 ({error}). Save it as CSV, UTF-8.") from error
    if not rows:
        raise AnnotationError(f"{table}: no rows; need one per image. Fill it, or remove it to read a plain folder.")
    seen: set[Path] = set()
    for row in rows:
        if row.image in seen:
            raise AnnotationError(f"{table}: image {row.image} stands in two rows; need one. Remove the other.")
        seen.add(row.image)
    return rows


def read_mask(path: Path, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which pixels (row, column) are nodule. Raises AnnotationError."""
    try:
        with Image.open(path) as image:
            size, mode = (image.height, image.width), image.mode
            pixels = np.asarray(image) if size == shape and mode in ("1", "L") else None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "not a whole image" if isinstance(error, UnidentifiedImageError) else str(error)
        raise AnnotationError(
            f"{path}: mask cannot be read ({reason}); need an 8-bit grey PNG. Make it again."
        ) from error
    if size != shape:
        raise AnnotationError(
            f"{path}: mask of {size[0]} x {size[1]} pixels, its image has {shape[0]} x {shape[1]}; need the same size. "
            "Check that the row names the right mask."
        )
    if pixels is None:
        raise AnnotationError(f"{path}: mask of mode {mode}; need 8-bit grey (0 and 255). Convert it.")
    if pixels.dtype == np.bool_:
        return pixels
    nodule: NDArray[np.bool_] = pixels == 255
    strange = pixels[(pixels != 0) & ~nodule]
    if strange.size:
        raise AnnotationError(
            f"{path}: mask holds the value {strange.min()}; need 0 (background) and 255 (nodule) only. Convert it."
        )
    return nodule


def _row(folder: Path, table: Path, line: int, fields: dict[str, str | None]) -> Row:
    values = {name: (fields[name] or "").strip() for name in _COLUMNS}
    for name in ("patientID", "exam", "image"):
        if not values[name]:
            raise AnnotationError(f"{table}: line {line}: no {name}; need one in every row. Fill it in.")
    return Row(
        patient=values["patientID"],
        exam=values["exam"],
        image=_inside(folder, table, line, values["image"]),
        mask=_inside(folder, table, line, values["mask"]) if values["mask"] else None,
    )


def _inside(folder: Path, table: Path, line: int, name: str) -> Path:
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or "\0" in name:
        raise AnnotationError(
            f"{table}: line {line}: '{name}' leads out of the cohort folder; need a path within it. Correct the row."
        )
    path = folder / relative
    if not path.is_file():
        raise AnnotationError(
            f"{table}: line {line}: file '{name}' is not in the cohort folder. Add the file or remove the row."
        )
    return path
