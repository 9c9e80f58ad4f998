"""Files that cannot be handed on by cleaning their headers: what identifies may stand in their pixels or documents.

The rule: who says YES stays here, whatever is asked. Who says NO goes. Who says nothing goes if the pixels are those
of a scanner or of a computation on them by kind (below), else stays, until somebody who has looked at them says so.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom import Dataset

from slicestream.dicom.files import optional, text_of

# Modalities whose pictures carry text as a habit, and kinds of files that are screens, photographs or scans of paper.
_TEXT_IS_USUAL = {"US", "IVUS", "BDUS", "OT", "SC", "ES", "XC", "GM", "OP", "DOC", "SMR", "RF", "ECG", "HD"}
_PICTURES = ("Secondary Capture", "Ultrasound", "Video", "VL ", "Visible Light", "Photograph")
# Derived by their nature, and drawn by programs that write no text into them.
_COMPUTED = ("Segmentation", "Parametric Map", "RT Dose")
_HEADS = ("HEAD", "BRAIN", "SKULL", "FACE", "NECK", "SINUS", "ORBIT", "JAW", "MAXILLA", "MANDIBLE")
_DECLARE = "say NO in the header after somebody has looked, or use --accept-unstated"


def why_aside(dataset: Dataset, path: Path, *, accept_unstated: bool = False) -> str | None:
    """Return why a file must not be handed on, None where it may. The answer holds no value of the file but kinds."""
    kind = str(getattr(optional(dataset, "SOPClassUID", path), "name", ""))
    reason = _why_by_kind(kind)
    for name in ("BurnedInAnnotation", "RecognizableVisualFeatures"):
        if text_of(dataset, name, path).upper() == "YES":
            reason = reason or f"{name} is YES"
    if reason is None and "PixelData" in dataset:
        if _has_hidden_bits(dataset, path):
            return "something in the bits above BitsStored of its pixels (an old overlay?)"
        if not accept_unstated and text_of(dataset, "BurnedInAnnotation", path).upper() != "NO":
            reason = _why_unstated(kind, dataset, path)
    return reason


def _why_by_kind(kind: str) -> str | None:
    if not kind:
        return "no SOP class"
    if kind.startswith("Media Storage Directory"):
        return "an index of other files (DICOMDIR)"
    return "a document in a DICOM file, which may hold any text" if kind.startswith("Encapsulated") else None


def _why_unstated(kind: str, dataset: Dataset, path: Path) -> str | None:
    if text_of(dataset, "Modality", path) in _TEXT_IS_USUAL or any(word in kind for word in _PICTURES):
        return f"a kind of picture that often shows text, and no BurnedInAnnotation; {_DECLARE}"
    if text_of(dataset, "ConversionType", path):
        return f"a capture or scan (ConversionType), and no BurnedInAnnotation; {_DECLARE}"
    if _original(dataset, path) or any(word in kind for word in _COMPUTED):
        return None
    return f"not an ORIGINAL image, and no BurnedInAnnotation; {_DECLARE}"


def shows_a_head(dataset: Dataset, path: Path) -> bool:
    """Return whether it is an image of a head by its header: from a stack of those a face can be rebuilt."""
    part = " ".join(text_of(dataset, name, path) for name in ("BodyPartExamined", "StudyDescription", "ProtocolName"))
    return "PixelData" in dataset and any(word in part.upper() for word in _HEADS)


def _original(dataset: Dataset, path: Path) -> bool:
    kinds = optional(dataset, "ImageType", path)
    first = kinds if isinstance(kinds, str) else next(iter(kinds or ()), "")
    return str(first).strip().upper() == "ORIGINAL"


def _has_hidden_bits(dataset: Dataset, path: Path) -> bool:
    """Return whether uncompressed 16-bit pixels hold more than the sign and the padding above their stored bits."""
    allocated, stored, high = (optional(dataset, name, path) for name in ("BitsAllocated", "BitsStored", "HighBit"))
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if allocated != 16 or not isinstance(stored, int) or high != stored - 1 or not 0 < stored < 16:
        return False
    if syntax is None or (syntax.is_compressed and not syntax.is_deflated):
        return False
    data: bytes = dataset.PixelData
    order = "<" if syntax.is_little_endian else ">"
    values = np.frombuffer(data[: len(data) // 2 * 2], f"{order}u2")
    above = values >> stored
    fine = above == 0
    if optional(dataset, "PixelRepresentation", path) == 1:
        ones = (1 << (16 - stored)) - 1
        fine = np.where(values >> (stored - 1) & 1, above == ones, above == 0)
    padding = optional(dataset, "PixelPaddingValue", path)
    if isinstance(padding, int):
        fine |= values == padding % (1 << 16)
    return not bool(fine.all())
