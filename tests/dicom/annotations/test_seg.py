from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID, JPEG2000Lossless, JPEGLSLossless, RLELossless

import output_cases as cases
import places
from seg_files import LABELLED, LUNG, NODULE, edited, frames, written
from slicestream.dicom.annotations import seg
from slicestream.dicom.annotations.drawing import SeriesPlace
from slicestream.dicom.segmentation import write_segmentation
from slicestream.errors import AnnotationError
from slicestream.volumes.geometry import Geometry

# an item without offsets, then the end of the sequence
NO_FRAMES = b"\xfe\xff\x00\xe0\x00\x00\x00\x00\xfe\xff\xdd\xe0\x00\x00\x00\x00"


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    return written(tmp_path / "seg.dcm", places.place(), places.blobs())


def test_our_own_export_comes_back_as_the_same_labels(tmp_path: Path) -> None:
    path = tmp_path / "case.dcm"
    write_segmentation(path, cases.mask(), cases.headers())
    where = SeriesPlace(
        uid="1.2.3.4",
        frame_of_reference_uid="1.2.3.5",
        instance_uids=tuple(header.SOPInstanceUID for header in cases.headers()),
        geometry=cases.geometry(),
        origin_lps_mm=cases.ORIGIN_LPS_MM,
    )
    drawing = seg.read(path, where)
    assert np.array_equal(drawing.labels, np.searchsorted([0, 2, 5], cases.labels()))
    assert [nodule.name for nodule in drawing.nodules] == [
        "Nodule candidate 2, score 0.910",
        "Nodule candidate 5, score 0.400",
    ]
    assert seg.referenced(path) == "1.2.3.4"


@pytest.mark.parametrize("direction", [places.AXIAL, places.oblique()], ids=["axial", "oblique"])
@pytest.mark.parametrize("form", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_each_type_of_another_program_comes_back_as_the_same_labels(
    form: str, direction: np.ndarray, tmp_path: Path
) -> None:
    where = places.place(direction=direction)
    pixels = places.blobs()
    drawing = seg.read(written(tmp_path / "seg.dcm", where, pixels, form=form), where)
    assert np.array_equal(drawing.labels, pixels)
    assert [(nodule.label, nodule.name) for nodule in drawing.nodules] == [(1, "first"), (2, "second"), (3, "third")]
    assert not any("grid" in note for note in drawing.notes)
    assert any("fractional" in note for note in drawing.notes) == (form == "FRACTIONAL")


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless], ids=lambda uid: uid.name)
@pytest.mark.parametrize("form", ["FRACTIONAL", "LABELMAP"])
def test_compressed_frames_are_read_in_another_process(
    form: str, syntax: UID, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "seg.dcm", places.place(), places.blobs(), form=form, transfer_syntax_uid=syntax)
    monkeypatch.setattr(seg, "iter_pixels", None)  # decodes in this one
    assert np.array_equal(seg.read(path, places.place()).labels, places.blobs())


@pytest.mark.parametrize("form", ["FRACTIONAL", "LABELMAP"])
@pytest.mark.parametrize("keep", [slice(0, -1), slice(0, 0)], ids=["a frame too few", "none"])
def test_missing_compressed_frames_are_told_in_one_line(form: str, keep: slice, tmp_path: Path) -> None:
    path = written(tmp_path / "seg.dcm", places.place(), places.blobs(), form=form, transfer_syntax_uid=RLELossless)

    def shorten(dataset: Dataset) -> None:
        parts = list(generate_frames(dataset.PixelData, number_of_frames=int(dataset.NumberOfFrames)))
        dataset.PixelData = encapsulate(parts[keep]) if parts[keep] else NO_FRAMES

    with pytest.raises(AnnotationError) as caught:
        seg.read(edited(path, shorten), places.place())
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_frames_whose_bits_end_within_a_byte_are_read(form: str, tmp_path: Path) -> None:
    where = places.place((6, 5, 7))
    pixels = np.random.default_rng(2).integers(0, 4, (6, 5, 7), np.uint8)
    drawing = seg.read(written(tmp_path / "seg.dcm", where, pixels, form=form), where)
    assert np.array_equal(drawing.labels, pixels)


def test_a_seg_without_a_marked_voxel_is_a_series_without_nodules(tmp_path: Path) -> None:
    where = places.place()
    faint = np.full(where.geometry.shape, 0.2, np.float32)
    path = written(tmp_path / "seg.dcm", where, faint, form="FRACTIONAL", kinds=(NODULE,))
    drawing = seg.read(path, where)
    assert (drawing.nodules, drawing.labels.any()) == ((), np.False_)
    assert drawing.notes[-1] == "nothing is marked"


def test_fractions_from_one_half_are_nodule(tmp_path: Path) -> None:
    where = places.place()
    fraction = np.zeros(where.geometry.shape, np.float32)
    fraction[3, 10, 10:15] = (0.2, 0.49, 0.5, 0.8, 1.0)
    path = written(tmp_path / "seg.dcm", where, fraction, form="FRACTIONAL", kinds=(NODULE,), max_fractional_value=200)
    assert np.argwhere(seg.read(path, where).labels).tolist() == [[3, 10, 12], [3, 10, 13], [3, 10, 14]]


def test_where_segments_overlap_the_smaller_has_the_voxel(tmp_path: Path) -> None:
    where = places.place()
    pixels = np.zeros((*where.geometry.shape, 3), np.uint8)
    pixels[2:5, 10:20, 10:20, 0] = 1
    pixels[3, 12:15, 12:15, 1] = 1
    pixels[3, 12:15, 12:15, 2] = 1  # wholly covered by its like
    drawing = seg.read(written(tmp_path / "seg.dcm", where, pixels), where)
    assert np.bincount(drawing.labels.ravel())[1:].tolist() == [291, 9]
    assert [nodule.name for nodule in drawing.nodules] == ["first", "second"]
    assert any("covered wholly by others, left out: 'third'" in note for note in drawing.notes)


@pytest.mark.parametrize(
    ("structure", "labels"),
    [("second", [2]), ("SEC*", [2]), ("/^(first|third)$/", [1, 3]), ("Nodule", [1, 3])],
    ids=["name", "wildcard", "regular expression", "coded meaning"],
)
def test_segments_are_chosen_by_label_or_meaning(structure: str, labels: list[int], tmp_path: Path) -> None:
    path = written(tmp_path / "seg.dcm", places.place(), places.blobs(), kinds=(NODULE, LUNG, NODULE))
    drawing = seg.read(path, places.place(), structure=structure)
    assert np.array_equal(drawing.labels > 0, np.isin(places.blobs(), labels))
    assert [nodule.name for nodule in drawing.nodules] == [LABELLED[n - 1] for n in labels]
    assert any(structure in note for note in drawing.notes)


def test_a_lung_among_the_nodules_is_never_taken_silently(tmp_path: Path) -> None:
    path = written(tmp_path / "seg.dcm", places.place(), places.blobs(), kinds=(NODULE, LUNG, NODULE))
    with pytest.raises(AnnotationError, match=r"'second \(Lung\)'.*--structure"):
        seg.read(path, places.place())
    with pytest.raises(AnnotationError, match=r"no segment matches 'tumour'; there are 'first \(Nodule\)'"):
        seg.read(path, places.place(), structure="tumour")


def test_a_single_segment_is_taken_whatever_it_is_and_it_is_said(tmp_path: Path) -> None:
    pixels = (places.blobs() == 1).astype(np.uint8)
    path = written(tmp_path / "seg.dcm", places.place(), pixels, kinds=(LUNG,))
    drawing = seg.read(path, places.place())
    assert drawing.labels.sum() == pixels.sum()
    assert any("only segment taken: 'first (Lung)'" in note for note in drawing.notes)


def remove(keyword: str) -> Callable[[Dataset], None]:
    return lambda dataset: delattr(dataset, keyword)


DAMAGE = {
    "no pixels": remove("PixelData"),
    "pixels cut short": lambda dataset: setattr(dataset, "PixelData", dataset.PixelData[:100]),
    "no segments": remove("SegmentSequence"),
    "no frames": remove("PerFrameFunctionalGroupsSequence"),
    "fewer frames than said": lambda dataset: setattr(dataset, "NumberOfFrames", 3),
    "no geometry": remove("SharedFunctionalGroupsSequence"),
    "no type": remove("SegmentationType"),
    "a surface": lambda dataset: setattr(dataset, "SegmentationType", "SURFACE"),
    "a huge frame": lambda dataset: (setattr(dataset, "Rows", 65535), setattr(dataset, "Columns", 65535)),
    "a skewed frame": lambda dataset: setattr(
        dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0],
        "ImageOrientationPatient",
        [1, 0, 0, 0.5, 0.5, 0],
    ),
    "frames of two orientations": lambda dataset: setattr(
        frames(dataset)[1],
        "PlaneOrientationSequence",
        [Dataset.from_json({"00200037": {"vr": "DS", "Value": [0, 1, 0, 0, 0, 1]}})],
    ),
    "a frame of no segment": lambda dataset: delattr(frames(dataset)[1], "SegmentIdentificationSequence"),
    "a position that is none": lambda dataset: setattr(
        frames(dataset)[0].PlanePositionSequence[0], "ImagePositionPatient", ["1e400", "0", "0"]
    ),
    "two frames of one segment at one place": lambda dataset: setattr(
        frames(dataset)[1], "PlanePositionSequence", frames(dataset)[0].PlanePositionSequence
    ),
}


@pytest.mark.filterwarnings("ignore")  # pydicom's, of the values that are wrong on purpose
@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_told_in_one_line(change: Callable[[Dataset], object], binary: Path) -> None:
    edited(binary, change)
    with pytest.raises(AnnotationError) as caught:
        seg.read(binary, places.place())
    assert str(caught.value).startswith(f"{binary}: ")
    assert "\n" not in str(caught.value)
    assert seg.referenced(binary) == places.SERIES


def test_a_file_cut_off_anywhere_is_an_error_or_no_seg(binary: Path) -> None:
    whole = binary.read_bytes()
    for end in range(0, len(whole), len(whole) // 40):
        binary.write_bytes(whole[:end])
        assert seg.referenced(binary) in (None, "", places.SERIES)
        with pytest.raises(AnnotationError):
            seg.read(binary, places.place())


def test_what_cannot_be_parsed_names_no_series_and_is_told_when_read(binary: Path) -> None:
    content = binary.read_bytes()
    at = content.index(b"\x08\x00\x15\x11SQ")  # ReferencedSeriesSequence, of a type that there is not
    binary.write_bytes(content[: at + 4] + b"\x53\xfa" + content[at + 6 :])
    assert seg.referenced(binary) == ""
    with pytest.raises(AnnotationError):
        seg.read(binary, places.place())


def test_two_voxels_with_one_between_are_two_parts(tmp_path: Path) -> None:
    pixels = np.zeros((8, 40, 48), np.uint8)
    pixels[3, 10, [10, 12]] = 1
    drawing = seg.read(written(tmp_path / "seg.dcm", places.place(), pixels, kinds=(NODULE,)), places.place())
    assert any("2 separate parts" in note for note in drawing.notes)


def test_other_files_are_not_of_this_format(tmp_path: Path) -> None:
    (tmp_path / "text.dcm").write_text("not DICOM")
    header = places.headers(places.place())[0]
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    header.save_as(tmp_path / "ct.dcm", enforce_file_format=True)
    assert seg.referenced(tmp_path / "text.dcm") is None
    assert seg.referenced(tmp_path / "ct.dcm") is None
    assert seg.referenced(tmp_path / "absent.dcm") is None


@pytest.mark.real
def test_the_segmentation_of_lidc_idri_0001_is_read_as_highdicom_reads_it(data: Path) -> None:
    path = data / "ct/LIDC-IDRI-0001_SEG/nodule_seg.dcm"
    dataset = pydicom.dcmread(path)
    z_mm = [float(group.PlanePositionSequence[0].ImagePositionPatient[2]) for group in frames(dataset)]
    where = SeriesPlace(
        uid="1.2.3",
        frame_of_reference_uid=dataset.FrameOfReferenceUID,
        instance_uids=tuple(f"1.2.3.{n}" for n in range(12)),
        geometry=Geometry(shape=(12, 512, 512), spacing_mm=(2.5, 0.703125, 0.703125)),
        origin_lps_mm=(0.0, 0.0, min(z_mm) - 5.0),  # two slices below the lowest frame
    )
    drawing = seg.read(path, where)
    volume = highdicom.seg.segread(path).get_volume(combine_segments=True)
    assert volume.affine[:3, 0].tolist() == [0.0, 0.0, -2.5]  # highdicom counts the slices downwards
    assert np.array_equal(drawing.labels[2:10], volume.array[::-1])
    assert drawing.labels.sum() == 6843
    assert not drawing.labels[:2].any()
    assert not drawing.labels[10:].any()
    assert [(nodule.label, nodule.name) for nodule in drawing.nodules] == [(1, "Nodule")]
    assert seg.referenced(path) == ""  # it names no series, its frame of reference must do
