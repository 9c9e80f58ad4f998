"""LIDC-IDRI messages with shapes of known areas: what is read is those areas, to the pixel."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from matplotlib.path import Path as Polygon

from lidc_files import RATED, SERIES, box, message, nodule, place, ring, roi
from slicestream.dicom.annotations.consensus import Consensus
from slicestream.dicom.annotations.drawing import Drawing
from slicestream.dicom.annotations.lidc import read, referenced
from slicestream.errors import AnnotationError, OptionError


def drawn(path: Path, *sessions: list[str], rule: str = "majority", minimum: int = 1) -> Drawing:
    return read(message(path, sessions), place(), consensus=Consensus(rule=rule, minimum_readers=minimum))


def disc(radius: float, row: float, column: float, shape: tuple[int, int] = (32, 32)) -> np.ndarray:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def test_a_disc_is_what_its_outline_encloses_without_the_outline(tmp_path: Path) -> None:
    inside = disc(7.3, 15, 14)
    drawing = drawn(tmp_path / "a.xml", [nodule(roi(ring(inside), 2))])
    assert np.array_equal(drawing.labels[2] > 0, inside)
    assert drawing.labels.sum() == inside.sum() == 177  # Gauss's circle problem, r² = 53
    assert (drawing.nodules[0].form, drawing.nodules[0].readers) == ("outline", 1)


def test_x_is_the_column_and_y_the_row_counted_from_0(tmp_path: Path) -> None:
    drawing = drawn(tmp_path / "a.xml", [nodule(roi(box(4, 20, 3, 6), 1))])
    assert np.argwhere(drawing.labels).min(axis=0).tolist() == [1, 4, 20]
    assert np.argwhere(drawing.labels).max(axis=0).tolist() == [1, 6, 25]


def test_outlines_are_filled_as_pylidc_fills_them(tmp_path: Path) -> None:
    """pylidc: pixels that matplotlib's path contains, without the points of the chain themselves."""
    generator = np.random.default_rng(4)
    grid = np.stack(np.mgrid[:32, :32], axis=-1).reshape(-1, 2)
    for _ in range(60):
        height, width, turn = generator.uniform(2, 11), generator.uniform(2, 11), generator.uniform(0, np.pi)
        y, x = grid.reshape(32, 32, 2).transpose(2, 0, 1) - generator.uniform(14, 17, (2, 1, 1))
        along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        chain = ring((along / width) ** 2 + (across / height) ** 2 <= 1)
        theirs = Polygon([*chain, chain[0]], closed=True).contains_points(grid).reshape(32, 32)
        theirs[tuple(np.transpose(chain))] = False
        drawing = drawn(tmp_path / "a.xml", [nodule(roi(chain))])
        assert np.array_equal(drawing.labels[0] > 0, theirs)


def test_an_exclusion_takes_its_outline_and_what_is_in_it(tmp_path: Path) -> None:
    hole = roi(box(8, 8, 2, 2), inclusion="FALSE")
    drawing = drawn(tmp_path / "a.xml", [nodule(hole, roi(box(4, 4, 10, 10)))])
    assert np.count_nonzero(drawing.labels) == 10 * 10 - 4 * 4


def test_two_outlines_on_a_slice_are_one_nodule(tmp_path: Path) -> None:
    drawing = drawn(tmp_path / "a.xml", [nodule(roi(box(4, 4, 3, 3)), roi(box(4, 12, 3, 3)), roi(box(4, 8, 3, 3), 1))])
    assert np.bincount(drawing.labels.ravel())[1:].tolist() == [27]


def test_a_chain_with_gaps_is_joined_by_straight_lines_and_closed(tmp_path: Path) -> None:
    drawing = drawn(tmp_path / "a.xml", [nodule(roi([(3, 3), (3, 14), (14, 14), (14, 3)]))])
    assert np.count_nonzero(drawing.labels) == 100


def test_a_spicule_along_itself_encloses_nothing(tmp_path: Path) -> None:
    square = box(4, 4, 5, 5)
    corner = square.index((9, 9))
    spicule = [(9 + n, 9 + n) for n in (1, 2, 3, 2, 1, 0)]
    drawing = drawn(tmp_path / "a.xml", [nodule(roi([*square[: corner + 1], *spicule, *square[corner + 1 :]]))])
    assert np.count_nonzero(drawing.labels) == 25


def test_a_nodule_at_the_rim_of_the_image_keeps_its_last_pixel(tmp_path: Path) -> None:
    drawing = drawn(tmp_path / "a.xml", [nodule(roi(box(0, 0, 5, 5))), nodule(roi(box(27, 27, 5, 5)))])
    assert np.bincount(drawing.labels.ravel())[1:].tolist() == [25, 25]
    assert drawing.labels[0, 0, 0] == 1
    assert drawing.labels[0, 31, 31] == 2


FOUR = [[nodule(roi(box(10, 5 + k, 10, 10)), ratings=RATED | {"malignancy": 2 + k})] for k in (0, 1, 2, 3)]


@pytest.mark.parametrize(
    ("rule", "columns"),
    [("any", 13), ("majority", 11), ("all", 7), ("level-1", 13), ("level-2", 11), ("level-3", 9), ("level-4", 7)],
)
def test_readers_who_shift_by_a_pixel_each_agree_on_a_known_area(tmp_path: Path, rule: str, columns: int) -> None:
    drawing = drawn(tmp_path / "a.xml", *FOUR, rule=rule)
    assert np.count_nonzero(drawing.labels) == 10 * columns
    (one,) = drawing.nodules
    assert (one.label, one.readers, one.ratings["malignancy"]) == (1, 4, 3.5)
    assert set(one.ratings) == set(RATED)


def test_of_three_readers_two_are_the_majority(tmp_path: Path) -> None:
    assert np.count_nonzero(drawn(tmp_path / "a.xml", *FOUR[:3]).labels) == 100


def test_staple_follows_the_three_who_agree(tmp_path: Path) -> None:
    same = [nodule(roi(box(10, 5, 10, 10)))]
    drawing = drawn(tmp_path / "a.xml", same, same, same, [nodule(roi(box(10, 8, 10, 10)))], rule="staple")
    assert np.argwhere(drawing.labels).min(axis=0).tolist() == [0, 10, 5]
    assert np.count_nonzero(drawing.labels) == 100
    assert np.count_nonzero(drawn(tmp_path / "b.xml", same, same, rule="staple").labels) == 100


def test_staple_of_shifted_readers_lies_between_all_and_any(tmp_path: Path) -> None:
    most, staple, least = (drawn(tmp_path / "a.xml", *FOUR, rule=rule).labels > 0 for rule in ("any", "staple", "all"))
    assert (least <= staple).all()
    assert (staple <= most).all()
    assert np.count_nonzero(staple) in (90, 110)  # whole columns: those of three readers, or of two


def test_nodules_that_fewer_readers_drew_are_left_out_and_counted(tmp_path: Path) -> None:
    lonely = nodule(roi(box(24, 24, 3, 3), 4))
    drawing = drawn(tmp_path / "a.xml", [*FOUR[0], lonely], *FOUR[1:], minimum=2)
    assert [n.readers for n in drawing.nodules] == [4]
    assert "nodules marked by fewer than 2 readers, left out: 1" in drawing.notes


def test_a_rule_without_a_voxel_leaves_the_nodule_out_and_says_so(tmp_path: Path) -> None:
    drawing = drawn(tmp_path / "a.xml", *FOUR[:2], rule="level-3")
    assert not drawing.labels.any()
    assert drawing.notes == ("nodules without a voxel by the rule 'level-3', left out: 1",)


def test_distant_outlines_are_two_nodules_and_near_ones_are_one(tmp_path: Path) -> None:
    """Slices are 2 mm apart, pixels 0.5 mm: outlines up to four pixels apart are of one nodule."""
    for gap, expected in ((6, 1), (7, 2)):  # of the areas; their outlines are two pixels nearer
        readers = [nodule(roi(box(10, 2, 5, 5)))], [nodule(roi(box(10, 7 + gap - 1, 5, 5)))]
        assert len(drawn(tmp_path / "a.xml", *readers, rule="any").nodules) == expected, gap


def test_two_nodules_of_one_reader_stay_two_and_the_other_reader_joins_the_one_he_covers_more(tmp_path: Path) -> None:
    parts = [nodule(roi(box(10, 4, 6, 6))), nodule(roi(box(10, 11, 6, 4)))]  # one column between them
    drawing = drawn(tmp_path / "a.xml", parts, [nodule(roi(box(10, 4, 6, 11)))], rule="any")
    assert [n.readers for n in drawing.nodules] == [2, 1]
    assert np.bincount(drawing.labels.ravel())[1:].tolist() == [6 * 11 - 24, 24]  # the smaller one has what both have


def test_touching_nodules_of_two_readers_pair_up_by_overlap(tmp_path: Path) -> None:
    pair = [nodule(roi(box(10, 4, 6, 6))), nodule(roi(box(10, 10, 6, 6)))]
    shifted = [nodule(roi(box(10, 11, 6, 6))), nodule(roi(box(10, 5, 6, 6)))]
    drawing = drawn(tmp_path / "a.xml", pair, shifted, rule="all")
    assert [n.readers for n in drawing.nodules] == [2, 2]
    assert np.bincount(drawing.labels.ravel())[1:].tolist() == [30, 30]


def test_nodules_under_3_mm_have_a_place_and_no_voxel(tmp_path: Path) -> None:
    point = nodule(roi([(9, 21)], 3), ratings=None)
    drawing = drawn(tmp_path / "a.xml", [point], [nodule(roi([(9, 22)], 3), ratings=None)])
    assert not drawing.labels.any()
    (one,) = drawing.nodules
    assert (one.label, one.form, one.readers, one.ratings) == (0, "point", 2, {})
    assert one.centre_lps_mm == pytest.approx((-10 + 0.5 * 21.5, -20 + 0.5 * 9, 100 + 2 * 3))
    assert drawing.notes == ("nodules with a place only (under 3 mm), no part of the mask: 1",)


def test_a_point_on_a_nodule_that_others_outlined_is_no_second_nodule(tmp_path: Path) -> None:
    drawing = drawn(tmp_path / "a.xml", *FOUR[:2], [nodule(roi([(14, 10)]), ratings=None)])
    assert [(n.form, n.readers) for n in drawing.nodules] == [("outline", 2)]
    assert drawing.notes == ("marks without an area on nodules that others outlined: 1",)


def test_slices_go_by_instance_uid_and_by_position_where_that_is_unknown(tmp_path: Path) -> None:
    chain = box(10, 10, 4, 4)
    rois = roi(chain, 1, z_mm=108.0), roi(chain, uid="1.9", z_mm=104.4), roi(chain, uid="", z_mm="110.0")
    drawing = drawn(tmp_path / "a.xml", [nodule(*rois)])
    assert np.flatnonzero(drawing.labels.any(axis=(1, 2))).tolist() == [1, 2, 5]


def test_positions_count_downwards_in_a_stack_from_head_to_foot(tmp_path: Path) -> None:
    path = message(tmp_path / "a.xml", [[nodule(roi(box(10, 10, 4, 4), uid="", z_mm=96.0))]])
    assert np.flatnonzero(read(path, place(down=True)).labels.any(axis=(1, 2))).tolist() == [2]


def test_outlines_on_slices_that_are_not_there_are_counted(tmp_path: Path) -> None:
    chain = box(10, 10, 4, 4)
    drawing = drawn(
        tmp_path / "a.xml", [nodule(roi(chain, 1), roi(chain, uid="1.9", z_mm=94.0), roi(chain, uid="1.8"))]
    )
    assert np.count_nonzero(drawing.labels) == 16
    assert drawing.notes == ("outlines on slices that are not there, left out: 2",)


def test_what_is_no_nodule_is_not_read(tmp_path: Path) -> None:
    other = f"<nonNodule><nonNoduleID>7</nonNoduleID>{roi([(3, 3)])}</nonNodule>"
    drawing = drawn(tmp_path / "a.xml", [other, nodule(roi(box(10, 10, 4, 4)))], [other])
    assert len(drawing.nodules) == 1
    assert drawing.notes == ("marks of what is no nodule, not read: 2",)


def test_a_reading_without_nodules_is_an_empty_drawing(tmp_path: Path) -> None:
    drawing = drawn(tmp_path / "a.xml", [], [], [], [])
    assert (drawing.labels.shape, int(drawing.labels.max()), drawing.nodules) == ((6, 32, 32), 0, ())


def test_ratings_out_of_their_scale_are_left_out_and_counted(tmp_path: Path) -> None:
    ratings = {"malignancy": 0, "calcification": 6, "internalStructure": 5, "texture": "solid", "subtlety": 2}
    drawing = drawn(tmp_path / "a.xml", [nodule(roi(box(10, 10, 4, 4)), ratings=ratings)])
    assert drawing.nodules[0].ratings == {"subtlety": 2.0, "calcification": 6.0}
    assert drawing.notes == ("ratings out of their scale, left out: 3",)


def test_the_series_is_named_with_and_without_a_namespace(tmp_path: Path) -> None:
    for space in (True, False):
        path = message(tmp_path / "a.xml", FOUR, space=space)
        assert referenced(path) == SERIES
        assert np.count_nonzero(read(path, place()).labels) == 110


def test_another_xml_is_none_of_ours(tmp_path: Path) -> None:
    for name, text in (("a.xml", "<annotation><object/></annotation>"), ("b.xml", "<a>"), ("c.txt", "hello")):
        (tmp_path / name).write_text(text)
        assert referenced(tmp_path / name) is None


def test_readings_of_a_radiograph_are_known_and_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(
        '<IdriReadMessage xmlns="http://www.nih.gov/idri"><ResponseHeader><CTSeriesInstanceUid>1.5</CTSeriesInstanceUid>'
        "<CXRSeriesInstanceUid>1.6</CXRSeriesInstanceUid></ResponseHeader></IdriReadMessage>"
    )
    assert referenced(path) == "1.6"
    with pytest.raises(
        AnnotationError, match="readings of a chest radiograph \\(IdriReadMessage\\); need those of a CT"
    ):
        read(path, place())


BOMB = (
    '<!DOCTYPE l [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    + "]>"
)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (BOMB, "&i;"),
        ('<!DOCTYPE l [<!ENTITY x SYSTEM "file:///etc/passwd">]>', "&x;"),
        ('<!DOCTYPE l SYSTEM "http://localhost:9/l.dtd">', "n"),
    ],
    ids=["entity expansion", "external entity", "external DTD"],
)
def test_xml_with_entities_or_a_dtd_is_refused(tmp_path: Path, head: str, name: str) -> None:
    path = tmp_path / "a.xml"
    path.write_text(f"{head}<LidcReadMessage><noduleID>{name}</noduleID></LidcReadMessage>")
    with pytest.raises(AnnotationError, match="need a whole file without DTD and entities"):
        referenced(path)


def test_a_truncated_message_is_refused_and_so_is_a_huge_file(tmp_path: Path) -> None:
    path = message(tmp_path / "a.xml", FOUR)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(AnnotationError, match="XML cannot be read"):
        referenced(path)
    with path.open("r+b") as file:
        file.truncate(17 << 20)
    with pytest.raises(AnnotationError, match="need at most 16777216"):
        referenced(path)


CHAIN = box(10, 10, 4, 4)


@pytest.mark.parametrize(
    ("marks", "said"),
    [
        ([nodule(roi(CHAIN, uid="1.9"))], "all 1 outlines are on slices that the series does not have"),
        ([nodule(roi(box(10, 29, 4, 4)))], "an outline leaves an image of 32 x 32 pixels"),
        ([nodule(roi([(-2, 3)]))], "an outline leaves an image"),
        ([nodule(roi([(10**30, 3)]))], "an outline leaves an image"),
        ([nodule(roi([]))], "no edgeMap within an image"),
        ([nodule(roi(CHAIN, inclusion="MAYBE"))], "inclusion 'MAYBE'; need TRUE or FALSE"),
        ([nodule(roi(CHAIN, z_mm="high"))], "could not convert string to float: 'high'; need numbers"),
        ([nodule("<roi><inclusion>TRUE</inclusion><edgeMap><xCoord>1</xCoord></edgeMap></roi>")], "need numbers"),
        ([nodule(roi(CHAIN))] * 301, "301 nodules drawn; need at most 300"),
    ],
)
def test_what_no_reader_can_have_drawn_is_refused(tmp_path: Path, marks: list[str], said: str) -> None:
    with pytest.raises(AnnotationError) as caught:
        drawn(tmp_path / "a.xml", marks)
    assert said in str(caught.value)


def test_a_damaged_message_is_read_or_refused_in_one_line(tmp_path: Path) -> None:
    generator = np.random.default_rng(11)
    hole = roi(box(12, 8, 2, 2), inclusion="FALSE")
    whole = message(
        tmp_path / "a.xml", [[nodule(roi(box(10, 5, 10, 10)), hole)], [nodule(roi([(3, 3)]), ratings=None)]]
    )
    text = np.frombuffer(whole.read_bytes(), np.uint8)
    digits = np.flatnonzero((text >= ord("0")) & (text <= ord("9")))
    found, refusals = 0, []
    for number in range(600):
        damaged = text.copy()
        places = generator.choice(digits if number % 2 else len(text), 3)
        damaged[places] = generator.choice(list(b"0123456789- \n\xff<") if number % 4 < 2 else list(b"012"), 3)
        whole.write_bytes(damaged.tobytes())
        try:
            found += isinstance(read(whole, place()), Drawing)
        except AnnotationError as error:
            refusals.append(str(error))
    assert not any("\n" in text for text in refusals)
    assert min(found, len(refusals)) > 50


def test_nodules_that_fill_memory_are_refused(tmp_path: Path) -> None:
    spread = [nodule(roi(box(1, 1, 900, 900), 0), roi(box(1, 1, 2, 2), 99)) for _ in range(4)]
    path = message(tmp_path / "a.xml", [spread])
    with pytest.raises(AnnotationError, match="boxes hold over"):
        read(path, place((100, 1024, 1024)))


def test_outlines_that_take_minutes_to_compare_are_refused_at_once(tmp_path: Path) -> None:
    def comb(first: int) -> str:
        there = [(row, column) for row in range(first, 400, 4) for column in range(4, 400)[:: (-1) ** (row // 4)]]
        return nodule(roi([*there, *there[::-1]]))  # the way back closes it, so that it encloses nothing

    path = message(tmp_path / "a.xml", [[comb(4)], [comb(6)]])
    start = time.monotonic()
    with pytest.raises(AnnotationError, match="too many, or too long, to compare"):
        read(path, place((6, 512, 512)))
    assert time.monotonic() - start < 10


def test_many_large_outlines_are_refused_before_they_are_filled(tmp_path: Path) -> None:
    corners = [(1, 1), (1, 1000), (1000, 1000), (1000, 1)]
    path = message(tmp_path / "a.xml", [[nodule(*[roi(corners)] * 400)]])
    with pytest.raises(AnnotationError, match="boxes hold over"):
        read(path, place((6, 1024, 1024)))


@pytest.mark.parametrize(
    ("rule", "minimum"), [("most", 1), ("level-0", 1), ("level-", 1), ("", 1), ("any", 0)], ids=str
)
def test_unknown_rules_are_refused(rule: str, minimum: int) -> None:
    with pytest.raises(OptionError, match="need"):
        Consensus(rule=rule, minimum_readers=minimum)
