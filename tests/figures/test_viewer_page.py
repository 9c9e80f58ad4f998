"""The viewer in a real browser: opened as a file, without a network, and looked at pixel by pixel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from browser import Shown, chromium, coloured, write_series
from slicestream.__main__ import main
from slicestream.figures.overlays import GREEN, RED, YELLOW
from slicestream.volumes.geometry import Geometry
from slicestream.volumes.mask import read_mask

SHAPE, SPACING_MM = (12, 40, 48), (2.0, 1.0, 1.0)
TISSUE, MARKER = 40, 1000  # HU
MARK = (slice(9, 11), slice(6, 10), slice(38, 44))  # to the head, the front and the left of the patient
ONE, OTHER = f"{1:016x}-{1:016x}", f"{2:016x}-{1:016x}"
# what to do with a supine scan (slice, row, column) to have it as another scanner would; its axes in LPS
FORMS = {
    "supine": (lambda a: a, ((0, 0, 1), (0, 1, 0), (1, 0, 0))),
    "slices to the feet, mirrored": (lambda a: a[::-1, :, ::-1], ((0, 0, -1), (0, 1, 0), (-1, 0, 0))),
    "prone": (lambda a: a[:, ::-1, ::-1], ((0, 0, 1), (0, -1, 0), (-1, 0, 0))),
    "coronal": (lambda a: a.transpose(1, 0, 2)[:, ::-1], ((0, 1, 0), (0, 0, -1), (1, 0, 0))),
}


def phantom() -> np.ndarray:
    """Tissue with a dense block up, in front and on the left of the patient, as a supine scan has it."""
    hu = np.full(SHAPE, -1000, np.int16)
    hu[:, 5:35, 4:44] = TISSUE
    hu[MARK] = MARKER
    return hu


def overlapping() -> tuple[np.ndarray, np.ndarray]:
    """Return what is predicted and what is drawn: in slice 4 they share 20 x 8 pixels and have 20 x 4 each alone."""
    predicted, drawn = np.zeros(SHAPE, np.uint16), np.zeros(SHAPE, np.uint16)
    predicted[4, 10:30, 10:22] = 1
    drawn[4, 10:30, 14:26] = 1
    predicted[7, 20:24, 30:34] = 2
    drawn[2, 30:33, 6:9] = 2
    return predicted, drawn


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two series: one with ground truth, one without."""
    room = tmp_path_factory.mktemp("viewer")
    write_series(room, phantom(), *overlapping())
    block = np.zeros(SHAPE, np.uint16)
    block[MARK] = 1
    write_series(room, phantom(), block, None, patient=2)
    return made_of(room)


def made_of(room: Path, *more: str) -> Path:
    words = ["view", "--out", str(room / "out"), *more]
    for flag, kind in (("--masks", "mask"), ("--volumes", "volume"), ("--references", "reference")):
        words += [flag, *sorted(str(path) for path in room.glob(f"*.{kind}"))]
    assert main(words) == 0
    return room / "out/viewer"


def test_it_opens_as_a_file_without_a_network_and_asks_for_its_own_files_only(browser: Browser, folder: Path) -> None:
    shown = Shown(browser, folder).wait(ONE)
    assert shown.errors == []
    outside = [url for url in shown.asked if not url.startswith((folder.as_uri(), "data:", "blob:"))]
    assert outside == []
    assert f"{folder.as_uri()}/{ONE}.js" in shown.asked
    assert f"{folder.as_uri()}/{OTHER}.js" not in shown.asked, "a series is read when it is asked for"
    assert coloured(shown.pixels(), (255, 255, 255), 8) == 0 < shown.pixels().max()


def test_clicking_a_nodule_goes_there(browser: Browser, folder: Path) -> None:
    shown = Shown(browser, folder).wait(ONE)
    rows = shown.page.locator("#nodules button")
    assert rows.all_inner_texts()[1].split("\n")[:2] == ["2 · false positive", "5.2 mm"]
    assert [row.split("\n")[0] for row in rows.all_inner_texts()][2] == "missed"
    rows.nth(1).click()
    slice_, row, column = shown.place()
    assert (slice_, 20 <= row < 24, 30 <= column < 34) == (7, True, True)
    assert shown.mm_ras() == pytest.approx([-column * 1.0, -row * 1.0, 14.0], abs=1e-3)
    assert shown.run("location.hash") == f"#series={ONE}&nodule=2"
    assert shown.page.locator("#place").inner_text().startswith(f"slice 7 of 0–11, row {row}, column {column} · 40 HU")
    rows.nth(2).click()
    assert shown.place()[0] == 2
    assert shown.run("location.hash") == f"#series={ONE}&nodule=r2"
    shown.page.get_by_label("Next nodule").click()
    assert shown.place()[0] == 4
    shown.page.get_by_label("Previous nodule").click()
    assert shown.place()[0] == 2


def test_masks_have_the_papers_colours_and_are_toggled(browser: Browser, folder: Path) -> None:
    shown = Shown(browser, folder, f"#series={ONE}&nodule=1").wait(ONE)
    shown.press("a")
    shown.page.locator("#opacity").fill("100")

    def counted() -> list[float]:
        pixels = shown.pixels()
        unit = (pixels.shape[0] / 40) ** 2  # pixels of the canvas per pixel of the slice
        return [coloured(pixels, colour, 3) / unit for colour in (GREEN, RED, YELLOW)]

    assert counted() == pytest.approx([80, 80, 160], rel=0.15)
    shown.page.get_by_role("button", name="Prediction").click()
    assert counted() == pytest.approx([240, 0, 0], rel=0.1)
    shown.press("g")
    assert counted() == [0, 0, 0]
    shown.press("r")
    assert counted() == pytest.approx([0, 240, 0], rel=0.1)
    assert shown.page.get_by_role("button", name="Prediction").get_attribute("aria-pressed") == "true"
    assert shown.page.get_by_role("button", name="Ground truth").get_attribute("aria-pressed") == "false"


def test_windows_show_tissue_as_dark_as_they_should(browser: Browser, folder: Path) -> None:
    shown = Shown(browser, folder, f"#series={ONE}&slice=6").wait(ONE)
    shown.press("a", "r", "g")

    def grey() -> int:
        pixels = shown.pixels()
        return int(pixels[pixels.shape[0] // 2, pixels.shape[1] // 2, 0])

    for key, name, low, high in (("2", "Mediastinum", -160, 240), ("3", "Bone", -500, 1300), ("1", "Lung", -1300, 300)):
        shown.press(key)
        assert grey() == pytest.approx(255 * (TISSUE - low) / (high - low), abs=3), name
        assert shown.page.get_by_role("button", name=name).get_attribute("aria-pressed") == "true"
    shown.page.get_by_label("W", exact=True).fill("200")
    shown.page.get_by_label("C", exact=True).fill("90")
    shown.press("Enter")
    assert grey() == pytest.approx(255 * 0.25, abs=3)
    assert shown.page.get_by_role("button", name="Lung").get_attribute("aria-pressed") == "false"


def test_a_link_leads_to_series_nodule_and_slice(browser: Browser, folder: Path) -> None:
    shown = Shown(browser, folder, f"#series={OTHER}&nodule=1").wait(OTHER)
    assert shown.place()[0] in (9, 10)
    assert shown.page.get_by_role("button", name="Ground truth").is_disabled()
    shown.run(f"location.hash = '#series={ONE}&nodule=r2'")
    shown.wait(ONE)
    shown.page.wait_for_function("scanned(voxel())[0] === 2")
    shown.run(f"location.hash = '#series={ONE}&slice=11'")
    shown.page.wait_for_function("scanned(voxel())[0] === 11")
    shown.page.get_by_label("Series").select_option(OTHER)
    shown.wait(OTHER)
    assert shown.errors == []
    shown.run("location.hash = '#series=none'")
    shown.page.get_by_text("Series none is not in this folder.").wait_for()


def test_a_series_left_out_is_named_and_a_lost_file_too(browser: Browser, folder: Path, tmp_path: Path) -> None:
    size = (folder / f"{ONE}.js").stat().st_size
    small = made_of(folder.parents[1], "--most-mb", str((size + 5) / 1e6), "--out", str(tmp_path)).parent
    shown = Shown(browser, tmp_path / "viewer", f"#series={OTHER}")
    shown.page.get_by_role("alert").get_by_text(f"Series {OTHER} was left out").wait_for()
    assert OTHER in shown.page.locator("#left-out").inner_text()
    (tmp_path / "viewer" / f"{ONE}.js").unlink()
    shown.run(f"location.hash = '#series={ONE}'")
    shown.page.get_by_text(f"{ONE}.js cannot be read. It must lie beside index.html.").wait_for()
    assert small


def test_keys_alone_are_enough(browser: Browser, folder: Path) -> None:
    shown = Shown(browser, folder, f"#series={ONE}&slice=5").wait(ONE)
    shown.press("ArrowUp", "ArrowUp", "ArrowDown")
    assert shown.place()[0] == 6
    shown.press("PageUp")
    assert shown.place()[0] == 11, "stops at the last slice"
    row = shown.place()[1]
    shown.press("c", "ArrowDown")
    assert shown.place()[1] == row + 1, "coronal slices go on to the back"
    shown.press("n")
    assert shown.place()[0] == 4
    shown.press("n", "n", "p")
    assert shown.place()[0] == 7
    shown.press("?")
    assert shown.page.get_by_role("dialog").is_visible()
    shown.press("Escape")
    assert not shown.page.get_by_role("dialog").is_visible()
    for _ in range(40):  # every control can be reached
        shown.press("Tab")
        if shown.run("document.activeElement.dataset.key") == "r2":
            break
    shown.press("Enter")
    assert shown.place()[0] == 2


def test_the_wheel_scrolls_and_a_click_moves_the_crosshair(browser: Browser, folder: Path) -> None:
    shown = Shown(browser, folder, f"#series={ONE}&slice=5").wait(ONE)
    shown.press("a")
    shown.pixels()
    box = shown.page.locator("#gl").bounding_box()
    assert box is not None
    shown.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    shown.page.mouse.wheel(0, 100)
    shown.page.wait_for_function("scanned(voxel())[0] !== 5")
    assert abs(shown.place()[0] - 5) == 1
    shown.page.mouse.click(box["x"] + box["width"] * 0.65, box["y"] + box["height"] * 0.25)
    _, row, column = shown.place()
    assert row < 14
    assert column > 28, "the patient's left is on the right"
    shown.page.keyboard.down("Control")
    shown.page.mouse.wheel(0, -100)
    shown.page.wait_for_function("viewer.scene.pan2Dxyzmm[3] > 1.05")
    shown.page.keyboard.up("Control")
    shown.press("0")
    assert shown.run("viewer.scene.pan2Dxyzmm[3]") == 1
    shown.page.mouse.down(button="right")
    shown.page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.25, steps=4)
    shown.page.mouse.up(button="right")
    shown.page.wait_for_function("state.window[1] > 1600")
    assert shown.run("state.window[1]") == pytest.approx(1600 + 2 * 0.05 * box["width"], abs=2)
    assert shown.page.get_by_label("C", exact=True).input_value() == "-500"
    assert shown.page.get_by_role("button", name="Lung").get_attribute("aria-pressed") == "false"


@pytest.fixture(scope="module")
def turned(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> tuple[Shown, Path]:
    """The phantom as different scanners would have it, a series each, and a page that shows them."""
    room = tmp_path_factory.mktemp("turned")
    block = np.zeros(SHAPE, np.uint16)
    block[MARK] = 1
    for patient, (form, (turn, axes)) in enumerate(FORMS.items(), start=1):
        hu, labels = np.ascontiguousarray(turn(phantom())), np.ascontiguousarray(turn(block))
        along_slice, along_row, along_column = ((float(x), float(y), float(z)) for x, y, z in axes)
        geometry = Geometry(
            shape=(hu.shape[0], hu.shape[1], hu.shape[2]),
            spacing_mm=(1.0, 2.0, 1.0) if form == "coronal" else SPACING_MM,
            direction_lps=(along_slice, along_row, along_column),
        )
        write_series(room, hu, labels, None, patient=patient, geometry=geometry)
    return Shown(browser, made_of(room)).wait(), room


@pytest.mark.parametrize("form", FORMS)
def test_left_front_and_head_are_where_they_belong(form: str, turned: tuple[Shown, Path]) -> None:
    shown, room = turned
    series = f"{1 + list(FORMS).index(form):016x}-{1:016x}"
    mask = read_mask(room / f"{series}.mask", "mask")
    shown.run(f"location.hash = '#series={series}&nodule=1'")
    shown.wait(series)
    shown.page.wait_for_function("state.nodule === 0")
    index = shown.place()
    assert mask.labels[tuple(index)] == 1
    assert shown.mm_ras() == pytest.approx(mask.geometry.offset_lps_mm(np.array(index)) * (-1, -1, 1), abs=1e-3)
    assert " · 1000 HU · " in shown.page.locator("#place").inner_text()
    # where the block is: above the middle in all planes; on the right, but at the nose's side in the sagittal one
    shown.run("setMask('prediction', false)")
    for key, right in (("a", True), ("c", True), ("s", False)):
        shown.press(key)
        pixels = shown.pixels()
        rows, columns = np.nonzero((pixels > 240).all(axis=2))
        assert len(rows) > 100
        assert rows.mean() < 0.45 * pixels.shape[0], key
        assert (columns.mean() > 0.5 * pixels.shape[1]) == right, key
    assert shown.errors == []


@pytest.mark.parametrize(("scheme", "width"), [("light", 800), ("dark", 390)])
def test_axe_finds_nothing(browser: Browser, folder: Path, scheme: str, width: int) -> None:
    shown = Shown(browser, folder, color_scheme=scheme, viewport={"width": width, "height": 600}).wait(ONE)
    found = Axe().run(shown.page)
    assert found.violations_count == 0, found.generate_report()
    assert shown.run("document.documentElement.scrollWidth") <= width, "nothing stands out on the side"
    assert shown.run("scrollY") == 0, "the page begins at its top"
    shown.page.locator("#nodules button").last.click()
    above, height = shown.run("(({top}) => [top, innerHeight])(document.querySelector('#gl').getBoundingClientRect())")
    assert -1 <= above < height / 2, "the picture is in view"


def test_3d_shows_the_masks(browser: Browser, folder: Path) -> None:
    shown = Shown(browser, folder, f"#series={OTHER}&nodule=1").wait(OTHER)
    shown.press("v")
    shown.page.locator("#opacity").fill("100")

    def reddish() -> int:  # bones are not as red
        pixels = shown.pixels()
        return int((pixels[..., 0] > 60 + 2 * pixels[..., 1:].max(axis=2)).sum())

    assert reddish() > 100
    shown.press("r")
    assert reddish() == 0
    before = shown.run("viewer.scene.renderAzimuth")
    box = shown.page.locator("#gl").bounding_box()
    assert box is not None
    shown.page.mouse.move(box["x"] + 200, box["y"] + 150)
    shown.page.mouse.down()
    shown.page.mouse.move(box["x"] + 260, box["y"] + 150, steps=3)
    shown.page.mouse.up()
    assert shown.run("viewer.scene.renderAzimuth") != before
    assert shown.errors == []
