"""Multi-frame CT (PS3.3 A.38 Enhanced CT, A.70 Legacy Converted): frames as if each were an image of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    generate_uid,
)

from slicestream.dicom.files import needed, one_line, optional, read_dicom, whole
from slicestream.errors import SeriesError, StudyError

MULTI_FRAME = frozenset({EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage})
# Functional group → its elements that an image of one frame has in its header, and their names there.
_GROUPS = {
    "PlanePositionSequence": {"ImagePositionPatient": ""},
    "PlaneOrientationSequence": {"ImageOrientationPatient": ""},
    "PixelMeasuresSequence": {"PixelSpacing": "", "SliceThickness": ""},
    "PixelValueTransformationSequence": {"RescaleIntercept": "", "RescaleSlope": "", "RescaleType": ""},
    "FrameContentSequence": {"FrameAcquisitionNumber": "AcquisitionNumber", "TemporalPositionIndex": ""},
    "CTImageFrameTypeSequence": {"FrameType": "ImageType"},
    "CTReconstructionSequence": {"ConvolutionKernel": ""},
    "CTXRayDetailsSequence": {"KVP": ""},
    "CardiacSynchronizationSequence": {"NominalPercentageOfCardiacPhase": ""},
}
_LEFT_OUT = {
    "PerFrameFunctionalGroupsSequence",
    "SharedFunctionalGroupsSequence",
    "DimensionIndexSequence",
    "DimensionOrganizationSequence",
    "NumberOfFrames",
}


def frames_of(image: Dataset, path: Path) -> list[Dataset]:
    """Return one header per frame, in the file's order: what is shared, and the frame's own. Raises SeriesError.

    ReferencedFrameNumber, from 1, says which frame it was.
    """
    if optional(image, "ConcatenationUID", path):
        raise SeriesError(
            f"{path}: part of a concatenation (an image cut into several files); need it whole. "
            "Export it unconcatenated, or as one file per slice.",
            reason="concatenation",
        )
    count, per_frame = whole(image, "NumberOfFrames", path), needed(image, "PerFrameFunctionalGroupsSequence", path)
    if len(per_frame) != count:
        raise SeriesError(
            f"{path}: {count} frames, but functional groups of {len(per_frame)}; need one each. Fetch it again.",
            reason="functional-groups",
        )
    try:
        shared = next(iter(image.get("SharedFunctionalGroupsSequence") or ()), Dataset())
        plain = [element for element in image if element.keyword not in _LEFT_OUT]
        return [_frame(image, plain, [shared, own], number) for number, own in enumerate(per_frame, start=1)]
    except Exception as error:  # values are parsed when asked for, and may be anything
        raise SeriesError(
            f"{path}: functional groups cannot be read ({one_line(str(error))}). Fetch it again.",
            reason="functional-groups",
        ) from error


def _frame(image: Dataset, plain: Sequence[DataElement], groups: Sequence[Dataset], number: int) -> Dataset:
    frame = Dataset()
    for element in plain:
        frame.add(element)
    for sequence, names in _GROUPS.items():
        for group in groups:  # the frame's own after what is shared
            for item in group.get(sequence) or ():
                for name, plain_name in names.items():
                    if name in item:
                        setattr(frame, plain_name or name, item[name].value)
    frame.ReferencedFrameNumber = number
    frame.file_meta = image.file_meta
    frame.set_original_encoding(*image.original_encoding)
    return frame


class FramePixels:
    """Pixels frame by frame: plain ones from their place in the file, others from what is kept of each file."""

    def __init__(self) -> None:
        self._files: dict[Path, tuple[Any, list[bytes] | None]] = {}  # element, or its fragments frame by frame

    def element(self, path: Path, header: Dataset, frame: int) -> DataElement:
        """Return PixelData of one frame (from 0). Raises StudyError, SeriesError."""
        if path not in self._files:
            self._files[path] = self._opened(path)
        element, parts = self._files[path]
        if parts is not None:
            if frame >= len(parts):
                raise SeriesError(f"{path}: pixels of {len(parts)} frames; need more. Fetch it again.")
            return DataElement("PixelData", "OB", parts[frame])
        size = whole(header, "Rows", path) * whole(header, "Columns", path) * whole(header, "BitsAllocated", path) // 8
        if size * (frame + 1) > element.length:
            raise SeriesError(
                f"{path}: pixels cannot be decoded (too few for frame {frame + 1}); truncated. Fetch it again."
            )
        if element.value is not None:
            return DataElement("PixelData", "OW", element.value[size * frame : size * (frame + 1)])
        with path.open("rb") as file:
            file.seek(element.value_tell + size * frame)
            return DataElement("PixelData", "OW", file.read(size))

    @staticmethod
    def _opened(path: Path) -> tuple[Any, list[bytes] | None]:
        head = read_dicom(path, specific_tags=["SOPClassUID"], stop_before_pixels=True)
        syntax = UID(str(needed(head.file_meta, "TransferSyntaxUID", path)), validation_mode=config.IGNORE)
        if not syntax.is_transfer_syntax:
            raise SeriesError(f"{path}: transfer syntax {syntax}; need one of DICOM. Fetch it again.")
        plain = not syntax.is_encapsulated and syntax != DeflatedExplicitVRLittleEndian
        read = read_dicom(path, specific_tags=["NumberOfFrames", "PixelData"], defer_size=1 if plain else None)
        if "PixelData" not in read:
            raise StudyError(
                f"{path}: DICOM without pixels, or truncated before them; need an image. Fetch it again.",
                reason="no-pixels",
            )
        element: Any = read.get_item("PixelData", keep_deferred=True)
        if not syntax.is_encapsulated:
            return element, None
        try:  # without an offset table the number of frames says where one ends
            frames = generate_frames(element.value, number_of_frames=whole(read, "NumberOfFrames", path))
            return None, [encapsulate([part]) for part in frames]
        except Exception as error:  # damaged fragments fail in any way
            raise SeriesError(
                f"{path}: pixels cannot be decoded ({one_line(str(error))}); damaged. Fetch it again."
            ) from error


def standing_in(frames: Sequence[Dataset]) -> dict[str, Dataset]:
    """Make frames of multi-frame images look as images of their own, in place, for a writer that knows only those.

    Returns name that stands in (SOPInstanceUID) → class, UID and frame that it stands for; empty where there are none.
    """
    found: dict[str, Dataset] = {}
    for frame in frames:
        number = frame.get("ReferencedFrameNumber")
        if frame.get("SOPClassUID") not in MULTI_FRAME or number is None:
            continue
        real = Dataset()
        real.ReferencedSOPClassUID, real.ReferencedSOPInstanceUID = frame.SOPClassUID, frame.SOPInstanceUID
        real.ReferencedFrameNumber = number
        frame.SOPClassUID = CTImageStorage
        frame.SOPInstanceUID = generate_uid(prefix=None, entropy_srcs=[str(frame.SOPInstanceUID), str(number)])
        del frame.ReferencedFrameNumber
        found[frame.SOPInstanceUID] = real
    return found


def name_frames(written: Dataset, real: Mapping[str, Dataset]) -> None:
    """Put the frames themselves, in place, wherever `written` refers to what stands in for them."""
    if not real:
        return
    for item in written.get("ReferencedSeriesSequence") or ():
        whole_images: dict[str, Dataset] = {}
        for image in item.ReferencedInstanceSequence:
            named = Dataset()
            meant = real.get(image.ReferencedSOPInstanceUID, image)
            named.ReferencedSOPClassUID = meant.ReferencedSOPClassUID
            named.ReferencedSOPInstanceUID = meant.ReferencedSOPInstanceUID
            whole_images[named.ReferencedSOPInstanceUID] = named
        item.ReferencedInstanceSequence = list(whole_images.values())
    for group in written.get("PerFrameFunctionalGroupsSequence") or ():
        for derivation in group.get("DerivationImageSequence") or ():
            for image in derivation.SourceImageSequence:
                image.update(real.get(image.ReferencedSOPInstanceUID, Dataset()))
