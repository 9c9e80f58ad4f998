"""Key images: the overlays as Secondary Capture in the study of their source, for viewers that show no SEG."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from highdicom.sc import SCImage
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from slicestream import RESEARCH_ONLY
from slicestream.dicom import result
from slicestream.volumes.mask import Mask
from slicestream.volumes.volume import Window

SERIES_NUMBER = 9004
# What is true of the source's pixels is true of the picture beneath the colours.
_OF_THE_PIXELS = (
    "BurnedInAnnotation", "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip
_LETTERS = (("L", "R"), ("P", "A"), ("H", "F"))  # where LPS axes lead, up and down


def write_captures(
    folder: Path,
    mask: Mask,
    headers: Sequence[Dataset],
    pictures: Iterable[tuple[int, NDArray[np.uint8]]],
    *,
    window: Window,
) -> Iterator[tuple[Path, str]]:
    """Write `<patient>-<series>-<slice>.dcm` for each picture; yield its path and a hash of its meaning.

    Parameters
    ----------
    headers : pixel-less source headers, in the order of the mask's slices
    pictures : index of the slice, RGB (row, column, 3), as wide and high as the slice
    window : that the grey values were seen through

    Raises
    ------
    ArtefactError
        The headers do not fit the mask.
    StudyError
        A header holds what no DICOM file may.
    OutputError
    """
    with result.built("secondary capture", mask.id):
        sources = result.sources_of(mask, headers)
    for number, (index, pixels) in enumerate(pictures, start=1):
        path = folder / f"{mask.id}-{index:04d}.dcm"
        with result.built("secondary capture", mask.id):
            capture = _capture(mask, sources[index], pixels, number=number, index=index)
            capture.DerivationDescription = (
                f"Lung window, {window.low_hu:g} to {window.high_hu:g} HU. Red: candidates of SliceStream "
                f"{result.version_of(mask)}; green: readers, where there are any; yellow: both. {RESEARCH_ONLY}"
            )
            for keyword in _OF_THE_PIXELS:
                if keyword in headers[index]:
                    capture[keyword] = headers[index][keyword]
        result.save(path, capture)
        yield path, result.meaning_hash(str(capture.SOPInstanceUID), capture.PixelData)


def _capture(mask: Mask, source: Dataset, pixels: NDArray[np.uint8], *, number: int, index: int) -> SCImage:
    seed = result.seed_of(mask, source)
    _, row_mm, column_mm = mask.geometry.spacing_mm
    capture = SCImage.from_ref_dataset(
        ref_dataset=source,
        pixel_array=pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        series_instance_uid=result.uid_of(seed, "capture series"),
        series_number=SERIES_NUMBER,
        # the readers' marks are in the picture, not in the mask
        sop_instance_uid=result.uid_of(seed, f"capture {index} {result.meaning_hash(pixels.tobytes())}"),
        instance_number=number,
        patient_orientation=_orientation(mask),
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        **result.equipment(mask.model_hash),
        series_description="SliceStream key images, for research only",
    )
    capture.Laterality = ""  # both sides are in it
    capture.PixelSpacing = [f"{row_mm:.8g}", f"{column_mm:.8g}"]
    capture.SourceImageSequence = [_reference(source)]
    return capture


def _reference(source: Dataset) -> Dataset:
    reference, purpose = Dataset(), Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    if "ReferencedFrameNumber" in source:
        reference.ReferencedFrameNumber = source.ReferencedFrameNumber
    code: Code = codes.DCM.SourceImageForImageProcessingOperation
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = (
        code.value,
        code.scheme_designator,
        code.meaning,
    )
    reference.PurposeOfReferenceCodeSequence = [purpose]
    return reference


def _orientation(mask: Mask) -> tuple[str, str]:
    """Return where a row and where a column of the picture lead, by the nearest axis of the patient."""
    _, along_row_index, along_column_index = mask.geometry.direction_lps

    def letter(axis: Sequence[float]) -> str:
        nearest = int(np.abs(axis).argmax())
        return _LETTERS[nearest][0 if axis[nearest] > 0 else 1]

    return letter(along_column_index), letter(along_row_index)
