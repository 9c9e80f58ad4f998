import json
import zipfile

import numpy as np
import pytest

from made import mask, reference, volume
from slicestream.errors import ArtefactError
from slicestream.volumes.artefact import content_hash, read_artefact, read_header, write_artefact
from slicestream.volumes.mask import check_same_volume, read_mask, write_mask
from slicestream.volumes.slices import SliceStack, read_slices, write_slices
from slicestream.volumes.volume import SeriesId, Window, read_volume, write_volume, write_voxels

HU = np.random.default_rng(0).integers(-1024, 3071, (3, 40, 50)).astype(np.int16)
LABELS = (HU > 2000).astype(np.uint16)


def rewritten(path, *, header=None, drop=None):
    """Write the archive again with another header document or without a member."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist() if name != drop}
    if header is not None:
        members["header.json"] = json.dumps(header(json.loads(members["header.json"]))).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_volume_comes_back_as_it_went(tmp_path):
    given = volume(HU, spacing_mm=(2.5, 0.7, 0.7))
    sealed = write_volume(tmp_path / "a.volume", given)
    read = read_volume(tmp_path / "a.volume")
    assert np.array_equal(read.hu, HU)
    assert (read.id, read.geometry, read.content_hash) == (given.id, given.geometry, sealed)
    assert read_header(tmp_path / "a.volume", "volume")[1] == sealed


class OneByOne:
    """HU whose slices follow one another in two places, as when they are decoded on the way."""

    shape, dtype = HU.shape, HU.dtype

    def __iter__(self):
        places = np.empty((2, *HU.shape[1:]), np.int16)
        for number, hu in enumerate(HU):
            places[number % 2] = hu
            yield places[number % 2]


def test_volume_whose_slices_come_one_by_one_is_the_same_file(tmp_path):
    given = volume(HU)
    sealed = write_volume(tmp_path / "a.volume", given)
    assert write_voxels(tmp_path / "b.volume", given.id, given.geometry, OneByOne()) == sealed
    assert (tmp_path / "a.volume").read_bytes() == (tmp_path / "b.volume").read_bytes()


def test_mask_and_slices_come_back_as_they_went(tmp_path):
    given = mask(LABELS)
    write_mask(tmp_path / "a.mask", given)
    read = read_mask(tmp_path / "a.mask", "mask")
    assert np.array_equal(read.labels, LABELS)
    assert (read.candidates, read.volume_hash, read.model_hash) == (
        given.candidates,
        given.volume_hash,
        given.model_hash,
    )
    stack = SliceStack.of_series(given.id, hu=HU, nodule=LABELS.astype(np.uint8), spacing_mm=(1.0, 0.5, 0.5))
    write_slices(tmp_path / "a.slices", [stack])
    (back,) = read_slices(tmp_path / "a.slices")
    assert np.array_equal(back.hu, HU)
    assert np.array_equal(back.nodule, LABELS)


def test_same_content_gives_the_same_bytes(tmp_path):
    for name in ("a.volume", "b.volume"):
        write_volume(tmp_path / name, volume(HU))
    assert (tmp_path / "a.volume").read_bytes() == (tmp_path / "b.volume").read_bytes()


def test_content_hash_is_of_the_meaning_and_not_of_the_memory_order():
    arrays = {"hu": HU}
    wanted = content_hash("volume", {"a": 1, "b": 2}, arrays)
    assert content_hash("volume", {"b": 2, "a": 1}, {"hu": np.asfortranarray(HU)}) == wanted
    assert content_hash("volume", {"a": 1, "b": 2}, {"hu": HU.astype(">i2")}) == wanted
    assert content_hash("volume", {"a": 1, "b": 2}, {"hu": HU.reshape(3, 50, 40)}) != wanted
    assert content_hash("mask", {"a": 1, "b": 2}, arrays) != wanted


def test_every_flipped_byte_is_found_and_the_file_named(tmp_path):
    path = tmp_path / "a.volume"
    write_volume(path, volume(HU))
    whole = path.read_bytes()
    read = read_volume(path)
    wrong = []
    for position in range(0, len(whole), len(whole) // 60):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        try:
            again = read_volume(path)
        except ArtefactError as error:
            told = str(path) in str(error)
        else:  # a byte of ZIP's own that carries nothing: what is read must still be right
            told = np.array_equal(again.hu, read.hu) and again.content_hash == read.content_hash
        if not told:
            wrong.append(position)
    assert wrong == []


def test_random_damage_is_never_a_traceback(tmp_path):
    path = tmp_path / "a.volume"
    write_volume(path, volume(HU[:2, :8, :8]))
    whole, generator = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(1000):
        damaged = bytearray(whole)
        for position in generator.integers(len(whole), size=3):
            damaged[position] = generator.integers(256)
        path.write_bytes(damaged)
        try:
            read_volume(path)
        except ArtefactError:
            refused += 1
    assert refused > 900


@pytest.mark.parametrize("hu", [HU, np.zeros_like(HU)], ids=["values", "one value"])
def test_random_damage_of_packed_voxels_is_found_behind_a_valid_checksum(tmp_path, hu):
    path, generator = tmp_path / "a.volume", np.random.default_rng(0)
    write_volume(path, volume(hu))
    with zipfile.ZipFile(path) as archive:
        packed, header = archive.read("hu.blosc2"), archive.read("header.json")
    wrong = []
    for number in range(600):
        damaged = bytearray(packed)
        for position in generator.integers(32 if number % 2 else len(packed), size=2):
            damaged[position] = generator.integers(256)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(
                "hu.blosc2", bytes(damaged[: generator.integers(len(packed))] if number % 9 == 0 else damaged)
            )
            archive.writestr("header.json", header)
        try:
            if not np.array_equal(read_volume(path).hu, hu):
                wrong.append(number)
        except ArtefactError:
            continue
    assert wrong == []


def test_a_chunk_that_would_be_read_from_elsewhere_is_refused(tmp_path):
    path = tmp_path / "a.volume"
    write_volume(path, volume(HU))
    with zipfile.ZipFile(path) as archive:
        packed, header = bytearray(archive.read("hu.blosc2")), archive.read("header.json")
    packed[31] |= 0x08  # "lazy": its bytes are in a file that the reader is to have open
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hu.blosc2", bytes(packed))
        archive.writestr("header.json", header)
    with pytest.raises(ArtefactError, match=r"array 'hu' cannot be read \(no chunk at 0 of"):
        read_volume(path)


def test_changed_voxels_with_a_valid_archive_are_found(tmp_path):
    path = tmp_path / "a.volume"
    write_volume(path, volume(HU))
    write_volume(tmp_path / "b.volume", volume(HU + 1))
    with zipfile.ZipFile(tmp_path / "b.volume") as other:
        packed = other.read("hu.blosc2")
    with zipfile.ZipFile(path) as archive:
        header = archive.read("header.json")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.json", header)
        archive.writestr("hu.blosc2", packed)
    with pytest.raises(ArtefactError, match=r"a\.volume: content hash .* was sealed in it"):
        read_volume(path)


@pytest.mark.parametrize("keep", [0, 10, 200, -1])
def test_truncated_file_is_refused(tmp_path, keep):
    path = tmp_path / "a.volume"
    write_volume(path, volume(HU))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ArtefactError, match=r"a\.volume"):
        read_volume(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ArtefactError, match=r"gone\.volume: cannot be opened"):
        read_volume(tmp_path / "gone.volume")


def test_wrong_kind_says_what_it_holds_and_what_is_needed(tmp_path):
    write_mask(tmp_path / "a.reference", reference(LABELS))
    with pytest.raises(ArtefactError, match="holds a reference; need a mask"):
        read_mask(tmp_path / "a.reference", "mask")


def test_mask_of_another_volume_is_found(tmp_path):
    one, other = volume(HU), volume(HU, series=2)
    for name, item in (("one", one), ("other", other)):
        write_volume(tmp_path / name, item)
    one, other = read_volume(tmp_path / "one"), read_volume(tmp_path / "other")
    made = mask(LABELS, volume_hash=one.content_hash)
    check_same_volume(tmp_path / "a.mask", made, one)
    with pytest.raises(ArtefactError, match=r"a\.mask: made from volume .* swapped"):
        check_same_volume(tmp_path / "a.mask", made, other)


@pytest.mark.parametrize(
    "spec",
    [
        {"dtype": "int16", "shape": [10**6, 10**6, 10**3]},
        {"dtype": "object", "shape": [3, 40, 50]},
        {"dtype": "int16", "shape": [-3, 40, 50]},
        {"dtype": "int16", "shape": [3, 40, 49]},
        {"dtype": "int16", "shape": [3, 0, 50]},
        {"dtype": "uint16", "shape": [3, 40, 50]},
        {"dtype": "int16", "shape": "3"},
        {"shape": [3, 40, 50]},
        None,
    ],
)
def test_header_that_lies_about_its_array_is_refused(tmp_path, spec):
    path = tmp_path / "a.volume"
    write_volume(path, volume(HU))
    rewritten(path, header=lambda document: document | {"arrays": {"hu": spec}})
    with pytest.raises(ArtefactError, match=r"a\.volume"):
        read_volume(path)


@pytest.mark.parametrize(
    "header",
    [
        lambda _: [],
        lambda _: {},
        lambda document: document | {"format": 99},
        lambda document: document | {"header": []},
        lambda document: document | {"arrays": []},
        lambda document: document | {"header": {}},
        lambda document: document | {"header": document["header"] | {"patient": "Doe^John"}},
        lambda document: document | {"header": document["header"] | {"spacing_mm": [0, 1, 1]}},
    ],
)
def test_header_that_is_none_is_refused(tmp_path, header):
    path = tmp_path / "a.volume"
    write_volume(path, volume(HU))
    rewritten(path, header=header)
    with pytest.raises(ArtefactError, match=r"a\.volume"):
        read_volume(path)


def test_sealed_volume_with_an_unusable_geometry_is_refused(tmp_path):
    header = {"patient": "0" * 16, "series": "1" * 16, "shape": [3, 40, 51], "spacing_mm": [1, 1, 1]}
    header["direction_lps"] = [[0, 0, 1], [0, 1, 0], [1, 0, 0]]
    write_artefact(tmp_path / "a.volume", "volume", header, {"hu": HU})
    with pytest.raises(ArtefactError, match="not a usable volume"):
        read_volume(tmp_path / "a.volume")


def test_missing_array_is_refused(tmp_path):
    path = tmp_path / "a.volume"
    write_volume(path, volume(HU))
    rewritten(path, drop="hu.blosc2")
    with pytest.raises(ArtefactError, match="array 'hu' cannot be read"):
        read_volume(path)


def test_header_over_its_limit_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "a.volume"
    write_volume(path, volume(HU))
    monkeypatch.setattr("slicestream.volumes.artefact._MAX_HEADER_BYTES", 100)
    with pytest.raises(ArtefactError, match="header over 100 bytes"):
        read_volume(path)


def test_empty_array_and_plain_arrays_survive(tmp_path):
    arrays = {"flat": np.arange(5, dtype=np.float32)}
    empty = {"none": (0, 4, 4), "rowless": (3, 0, 4), "nothing": (0,)}
    arrays |= {name: np.zeros(shape, np.uint8) for name, shape in empty.items()}
    write_artefact(tmp_path / "a", "thing", {}, arrays)
    back = read_artefact(tmp_path / "a", "thing").arrays
    assert {name: back[name].shape for name in empty} == empty
    assert back["flat"].tolist() == [0, 1, 2, 3, 4]


def test_pseudonym_that_is_none_is_refused():
    with pytest.raises(ValueError, match="not 16 hex digits"):
        SeriesId(patient="Doe^John", series="0" * 16)


def test_window_maps_its_ends_to_0_and_1():
    hu = np.array([-2000, -1300, -500, 300, 3000], np.int16)
    assert Window().scale(hu).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]
    with pytest.raises(ValueError, match="low must be under high"):
        Window(low_hu=300, high_hu=-1300)
