from __future__ import annotations

import csv
import gzip
import struct
from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

import places
from slicestream.dicom.annotations import images
from slicestream.dicom.annotations.drawing import Drawing, SeriesPlace
from slicestream.dicom.nifti import write_nifti
from slicestream.errors import AnnotationError

FORMATS = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd")
STEPS_MM = {"slice": 2.5, "row": 0.7, "column": 0.8}


def image_of(where: SeriesPlace, labels: np.ndarray) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray(labels)
    image.SetSpacing(where.geometry.spacing_mm[::-1])
    image.SetDirection(np.array(where.geometry.direction_lps[::-1]).T.ravel().tolist())
    image.SetOrigin(where.origin_lps_mm)
    return image


def written(path: Path, where: SeriesPlace, labels: np.ndarray) -> Path:
    SimpleITK.WriteImage(image_of(where, labels), str(path))
    return path


def nifti_by_hand(path: Path, labels: np.ndarray, affine_ras: np.ndarray, *, codes: tuple[int, int] = (0, 1)) -> Path:
    """Write NIfTI-1 with nothing but struct: labels (i, j, k), `affine_ras` (4, 4) as sform, by the standard's text."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *labels.shape, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 2, 8)  # unsigned char
    struct.pack_into("<8f", header, 76, 1, *np.linalg.norm(affine_ras[:3, :3], axis=0), 0, 0, 0, 0)
    struct.pack_into("<3f", header, 108, 352, 1, 0)
    header[123] = 2  # mm
    struct.pack_into("<2h", header, 252, *codes)
    struct.pack_into("<12f", header, 280, *affine_ras[:3].ravel())
    header[344:348] = b"n+1\0"
    path.write_bytes(bytes(header) + labels.astype(np.uint8).tobytes(order="F"))
    return path


def landmarks(drawing: Drawing, where: SeriesPlace) -> dict[int, list[float]]:
    """Return the centre of each label in patient coordinates, mm LPS."""
    points = places.points(where)
    return {int(n): points[drawing.labels == n].mean(axis=0).tolist() for n in np.unique(drawing.labels) if n}


@pytest.mark.parametrize("direction", [places.AXIAL, places.oblique()], ids=["axial", "oblique"])
@pytest.mark.parametrize("suffix", FORMATS)
def test_each_format_comes_back_as_the_same_labels(suffix: str, direction: np.ndarray, tmp_path: Path) -> None:
    where = places.place(direction=direction)
    path = written(tmp_path / f"mask{suffix}", where, places.blobs())
    drawing = images.read(path, where)
    assert np.array_equal(drawing.labels, places.blobs())
    assert [(nodule.label, nodule.name) for nodule in drawing.nodules] == [(1, "1"), (2, "2"), (3, "3")]
    assert drawing.notes == ("each of its 3 values is a nodule",)
    assert images.referenced(path) == ""


def test_our_own_nifti_comes_back_as_the_same_labels(tmp_path: Path) -> None:
    where = places.place(direction=places.oblique())
    write_nifti(tmp_path / "mask.nii.gz", places.blobs(), where.geometry, where.origin_lps_mm)
    assert np.array_equal(images.read(tmp_path / "mask.nii.gz", where).labels, places.blobs())


def test_three_blobs_of_a_nifti_made_by_hand_lie_where_they_should_in_the_patient(tmp_path: Path) -> None:
    """NIfTI is RAS: a blob at x = +60 lies on the patient's right, which is -60 in DICOM's LPS."""
    where = places.place((60, 100, 120), spacing_mm=(2.0, 2.0, 2.0), origin_lps_mm=(-120.0, -100.0, -60.0))
    affine = np.array([[-2.0, 0, 0, 118], [0, 0, 2.0, -98], [0, -2.0, 0, 56], [0, 0, 0, 1]])  # i to L, j to I, k to A
    known_ras = {1: (60.0, 40.0, 20.0), 2: (-70.0, 40.0, 20.0), 3: (60.0, -50.0, -30.0)}
    labels = np.zeros((119, 59, 99), np.uint8)
    for label, point in known_ras.items():
        i, j, k = (int(n) for n in np.round(np.linalg.solve(affine, [*point, 1.0])[:3]))
        labels[i - 2 : i + 3, j - 1 : j + 2, k - 1 : k + 2] = label
    drawing = images.read(nifti_by_hand(tmp_path / "by_hand.nii", labels, affine), where)
    assert landmarks(drawing, where) == {n: [-x, -y, z] for n, (x, y, z) in known_ras.items()}
    first = np.argwhere(drawing.labels == 1)
    assert np.ptp(first, axis=0).tolist() == [2, 2, 4]  # long from left to right


def test_big_endian_nifti_is_read(tmp_path: Path) -> None:
    where = places.place()
    path = written(tmp_path / "m.nii", where, places.blobs())
    little = path.read_bytes()
    big = bytearray(little)
    for at, code, count in (
        (0, "i", 1), (32, "i", 1), (40, "h", 8), (56, "f", 3), (68, "h", 4), (76, "f", 11), (120, "h", 1),
        (124, "f", 4), (140, "i", 2), (252, "h", 2), (256, "f", 18), (352, "H", places.blobs().size),
    ):  # fmt: skip
        struct.pack_into(f">{count}{code}", big, at, *struct.unpack_from(f"<{count}{code}", little, at))
    path.write_bytes(big)
    assert np.array_equal(images.read(path, where).labels, places.blobs())


AXES = [(order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)]


@pytest.mark.parametrize("suffix", [".nii", ".mha", ".nrrd"])
def test_an_asymmetric_object_lands_in_place_from_all_48_orders_and_directions_of_axes(
    suffix: str, tmp_path: Path
) -> None:
    where = places.place(direction=places.oblique())
    image = image_of(where, places.blobs())
    for order, signs in AXES:
        turned = SimpleITK.Flip(SimpleITK.PermuteAxes(image, order), [sign < 0 for sign in signs], False)
        assert turned.TransformIndexToPhysicalPoint((0, 0, 0)) != image.GetOrigin() or signs == (1, 1, 1)
        SimpleITK.WriteImage(turned, str(tmp_path / f"mask{suffix}"))
        drawing = images.read(tmp_path / f"mask{suffix}", where)
        assert np.array_equal(drawing.labels, places.blobs()), (order, signs)
        assert len(drawing.notes) == 1, (order, signs)


@pytest.mark.parametrize(("space", "sign"), [("right-anterior-superior", (-1, -1)), ("LAS", (1, -1))])
def test_nrrd_in_another_space_than_lps_lands_in_place(space: str, sign: tuple[int, int], tmp_path: Path) -> None:
    where = places.place()
    x, y = sign
    origin = np.array(where.origin_lps_mm) * (x, y, 1)
    header = (
        f"NRRD0004\ntype: uint8\ndimension: 3\nspace: {space}\nsizes: 48 40 8\nencoding: raw\n"
        f"space directions: ({x * 0.8},0,0) (0,{y * 0.7},0) (0,0,2.5)\n"
        f"space origin: ({','.join(str(n) for n in origin)})\n\n"
    )
    path = tmp_path / "mask.nrrd"
    path.write_bytes(header.encode() + places.blobs().astype(np.uint8).tobytes())
    assert np.array_equal(images.read(path, where).labels, places.blobs())


def test_a_finer_turned_grid_is_carried_over_as_simpleitk_would(tmp_path: Path) -> None:
    where = places.place()
    x, y, z = np.array([-81.0, -37.0, 39.0]) - 10.0 * places.oblique().sum(axis=0)
    fine = places.place((40, 40, 40), spacing_mm=(0.5, 0.5, 0.5), direction=places.oblique(), origin_lps_mm=(x, y, z))
    labels = np.zeros(fine.geometry.shape, np.uint8)
    labels[10:28, 12:30, 10:25], labels[12:20, 30:36, 28:33] = 1, 2
    path = written(tmp_path / "mask.mha", fine, labels)
    target = image_of(where, np.zeros(where.geometry.shape, np.uint8))
    expected = SimpleITK.Resample(image_of(fine, labels), target, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor)
    drawing = images.read(path, where)
    assert np.array_equal(drawing.labels, SimpleITK.GetArrayFromImage(expected))
    assert any(
        "drawn on another grid (0.5 x 0.5 x 0.5 mm, the series has 2.5 x 0.7 x 0.8 mm)" in n for n in drawing.notes
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.float32, np.float64])
def test_one_value_is_split_into_its_26_connected_parts(dtype: type, tmp_path: Path) -> None:
    where = places.place()
    mask = (places.blobs() > 0).astype(dtype)
    mask[3, 10, 41] = 1  # touches the first blob at a corner
    drawing = images.read(written(tmp_path / "mask.nii.gz", where, mask), where)
    assert np.array_equal(drawing.labels > 0, mask > 0)
    assert sorted(np.bincount(drawing.labels.ravel())[1:].tolist()) == [2, 133, 208]
    assert [nodule.name for nodule in drawing.nodules] == ["part 1", "part 2", "part 3"]
    assert any("3 separate parts" in note for note in drawing.notes)


@pytest.mark.parametrize(("structure", "values"), [("2", [2]), ("1,3", [1, 3]), ("2 - 9", [2, 3])])
def test_values_are_chosen(structure: str, values: list[int], tmp_path: Path) -> None:
    where = places.place()
    drawing = images.read(written(tmp_path / "m.nrrd", where, places.blobs()), where, structure=structure)
    assert np.array_equal(drawing.labels > 0, np.isin(places.blobs(), values))
    assert len(drawing.nodules) == len(values)


@pytest.mark.parametrize(
    ("structure", "words"), [("7", "the value 7 .*there are 1, 2, 3"), ("nodule", "such as 2, 1,3")]
)
def test_values_that_are_not_there_are_refused(structure: str, words: str, tmp_path: Path) -> None:
    where = places.place()
    with pytest.raises(AnnotationError, match=words):
        images.read(written(tmp_path / "m.nrrd", where, places.blobs()), where, structure=structure)


def test_an_empty_mask_is_a_series_without_nodules(tmp_path: Path) -> None:
    where = places.place()
    drawing = images.read(written(tmp_path / "m.nii.gz", where, np.zeros(where.geometry.shape, np.uint8)), where)
    assert not drawing.labels.any()
    assert (drawing.nodules, drawing.notes) == ((), ("nothing is marked",))


def test_a_mask_of_another_place_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "m.nii.gz", places.place(), places.blobs())
    with pytest.raises(AnnotationError, match=r"'1' lies to 0% within series .* at least 90%"):
        images.read(path, places.place(origin_lps_mm=(500.0, 0.0, 0.0)))


def test_a_nodule_cut_by_the_border_of_the_series_is_noted(tmp_path: Path) -> None:
    labels = places.blobs()
    labels[6, 35, 44:46] = 0
    path = written(tmp_path / "m.nii.gz", places.place(), labels)
    x, y, z = places.place().origin_lps_mm
    drawing = images.read(path, places.place((8, 40, 48), origin_lps_mm=(x, y + 0.7 * 21, z)), structure="2")
    assert int((drawing.labels > 0).sum()) == 4 * 12 * 4
    assert any("7.7% of it lies outside the series" in note for note in drawing.notes)


def edge(dtype: type, value: float) -> np.ndarray:
    labels = places.blobs().astype(dtype)
    labels[0, 0, 0] = value
    return labels


VALUES = {
    "a negative label": (edge(np.int16, -1), r"value -1; need labels"),
    "a HU image": (np.full((8, 40, 48), -500, np.int16), r"value -500"),
    "a fraction": (np.clip(edge(np.float32, 0.5), 0, 1), r"value 0\.5; need 0 and 1"),
    "labels in float": (places.blobs().astype(np.float32), r"need 0 and 1 only"),
    "not a number": (np.clip(edge(np.float64, np.nan), 0, 1), r"no number"),
    "infinity": (np.where(places.blobs() > 0, np.inf, 0), r"no number"),
    "any number of values": (np.arange(8 * 40 * 48, dtype=np.uint16).reshape(8, 40, 48), r"over 1000"),
    "speckles": ((np.indices((8, 40, 48)) % 2 == 0).all(axis=0).astype(np.uint8), "over 1000"),
}


@pytest.mark.parametrize(("labels", "words"), VALUES.values(), ids=VALUES.keys())
def test_values_that_are_no_labels_are_refused(labels: np.ndarray, words: str, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=words):
        images.read(written(tmp_path / "m.nii.gz", places.place(), labels), places.place())


def test_what_is_no_number_is_refused_in_other_formats_too(tmp_path: Path) -> None:
    labels = np.where(places.blobs() > 0, np.nan, 0)
    for suffix in (".mha", ".nrrd"):
        with pytest.raises(AnnotationError, match="value nan"):
            images.read(written(tmp_path / f"m{suffix}", places.place(), labels), places.place())


def test_four_axes_vectors_and_complex_numbers_are_refused(tmp_path: Path) -> None:
    where = places.place()
    SimpleITK.WriteImage(SimpleITK.Image([4, 4, 4, 2], SimpleITK.sitkUInt8), str(tmp_path / "4d.nii"))
    SimpleITK.WriteImage(SimpleITK.Image([4, 4, 4], SimpleITK.sitkVectorUInt8, 3), str(tmp_path / "rgb.nrrd"))
    SimpleITK.WriteImage(SimpleITK.Image([4, 4, 4], SimpleITK.sitkComplexFloat32), str(tmp_path / "complex.nii"))
    SimpleITK.WriteImage(SimpleITK.Image([4, 4], SimpleITK.sitkUInt8), str(tmp_path / "2d.mha"))
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(AnnotationError, match="need 3 axes"):
            images.read(path, where)


def patched(path: Path, at: int, form: str, *values: float) -> Path:
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, at, *values)
    path.write_bytes(content)
    return path


NIFTI_DAMAGE: dict[str, tuple[int, str, tuple[float, ...], str]] = {
    "a size of 27 TB": (40, "<8h", (3, 30000, 30000, 30000, 1, 1, 1, 1), "need at most 1.5 GiB"),
    "no place": (252, "<2h", (0, 0), "does not say where it lies"),
    "another sform than qform": (292, "<f", (50.0,), "qform and sform with pixdim put its voxels"),
    "an sform of other voxel sizes": (280, "<f", (5.0,), "mm apart"),
    "an sform that mirrors": (320, "<f", (-2.5,), "mm apart"),
    "another header": (0, "<i", (7,), "no NIfTI image; need NIfTI-1"),
    "NIfTI-2": (0, "<i", (540,), "NIfTI-2; need NIfTI-1"),
}


@pytest.mark.parametrize(("at", "form", "values", "words"), NIFTI_DAMAGE.values(), ids=NIFTI_DAMAGE.keys())
def test_a_nifti_whose_header_cannot_be_trusted_is_refused(
    at: int, form: str, values: tuple[float, ...], words: str, tmp_path: Path
) -> None:
    where = places.place()
    path = patched(written(tmp_path / "m.nii", where, places.blobs()), at, form, *values)
    with pytest.raises(AnnotationError, match=words) as caught:
        images.read(path, where)
    assert "\n" not in str(caught.value)


def swap(old: bytes, new: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(path.read_bytes().replace(old, new))


ELSEWHERE = "one file in the same"
HEADERS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "MHA without a place": (".mha", swap(b"Offset", b"Comment"), "does not say where it lies"),
    "MHD that names a file elsewhere": (".mhd", swap(b"m.raw", b"/etc/passwd"), ELSEWHERE),
    "MHD that names a file above": (".mhd", swap(b"m.raw", b"../other.raw"), ELSEWHERE),
    "MHD that names many": (".mhd", swap(b"m.raw", b"m%d.raw 1 9 1"), ELSEWHERE),
    "MHD whose voxels are gone": (".mhd", lambda path: path.with_suffix(".raw").unlink(), ELSEWHERE),
    "MHD with another separator": (".mhd", swap(b"DataFile =", b"DataFile :"), "none"),
    "MHA with sheared axes": (".mha", swap(b"Matrix = 1 0 0", b"Matrix = 1 1 0"), "perpendicular"),
    "MHA of 8 PB": (".mha", swap(b"= 48 40 8", b"= 99999 99999 99999"), "at most 1.5 GiB"),
    "NRRD without a space": (".nrrd", swap(b"space: left-posterior-superior\n", b""), "space"),
    "NRRD in a scanner's space": (".nrrd", swap(b"left-posterior-superior", b"scanner-xyz"), "space"),
    "NRRD that names a file": (".nrrd", swap(b"space:", b"data file: x.raw\nspace:"), "another file"),
}


@pytest.mark.parametrize(("suffix", "change", "words"), HEADERS.values(), ids=HEADERS.keys())
def test_a_text_header_that_cannot_be_trusted_is_refused(
    suffix: str, change: Callable[[Path], object], words: str, tmp_path: Path
) -> None:
    (tmp_path / "other.raw").write_bytes(bytes(2 * 8 * 40 * 48))
    (tmp_path / "in").mkdir()
    path = written(tmp_path / f"in/m{suffix}", places.place(), places.blobs())
    before = path.read_bytes()
    change(path)
    assert path.read_bytes() != before or suffix == ".mhd"
    with pytest.raises(AnnotationError, match=words) as caught:
        images.read(path, places.place())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_cut_off_anywhere_is_an_error_and_no_library_writes_to_the_terminal(
    suffix: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    where = places.place()
    path = written(tmp_path / f"m{suffix}", where, np.random.default_rng(1).integers(0, 9, (8, 40, 48), np.uint8))
    cut = path.with_suffix(".raw") if suffix == ".mhd" else path
    whole = cut.read_bytes()
    for end in range(0, len(whole), len(whole) // 20 + 1):
        cut.write_bytes(whole[:end])
        with pytest.raises(AnnotationError) as caught:
            images.read(path, where)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_what_is_not_an_image_is_refused_or_not_of_this_format(tmp_path: Path) -> None:
    for suffix in FORMATS:
        path = tmp_path / f"m{suffix}"
        path.write_bytes(gzip.compress(b"text") if suffix.endswith("gz") else b"text")
        assert images.referenced(path) == ""
        with pytest.raises(AnnotationError):
            images.read(path, places.place())
    (tmp_path / "m.png").write_bytes(b"")
    assert images.referenced(tmp_path / "m.png") is None
    assert images.referenced(tmp_path / "absent.nii") is None


@pytest.mark.real
def test_real_lidc_masks_have_the_voxels_that_their_table_says_and_lie_on_their_nodules(data: Path) -> None:
    folder = data / "lidc-voi"
    with (folder / "labels.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))[::10]
    brighter = 0
    for row in rows:
        image = SimpleITK.ReadImage(str(folder / row["image"]))
        hu = SimpleITK.GetArrayFromImage(image)
        z, y, x = image.GetSpacing()[::-1]
        axes = np.array(image.GetDirection()).reshape(3, 3).T[::-1]  # some lie prone
        where = places.place(hu.shape, spacing_mm=(z, y, x), direction=axes, origin_lps_mm=image.GetOrigin())
        drawing = images.read(folder / row["mask"], where)
        assert int((drawing.labels > 0).sum()) == int(row["mask_voxels"])
        assert not any("grid" in note for note in drawing.notes)
        brighter += hu[drawing.labels > 0].mean() > hu[drawing.labels == 0].mean()
        with pytest.raises(AnnotationError, match=r"value -\d+; need labels"):
            images.read(folder / row["image"], where)
    assert len(rows) == 80
    assert brighter >= 76
