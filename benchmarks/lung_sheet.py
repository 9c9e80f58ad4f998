"""The lung mask on whole scans: a contact sheet of every series to look at, and a table.

A sheet has a series' slices in order (all, or evenly chosen), lung window, the mask's outline in green, annotated
nodules in red; number from 0 and height over the first slice. Last the whole in one: mean HU seen from the front and
the depth of the mask. Names are pseudonyms under a fixed key. Crops get no mask, so no sheet.

    python benchmarks/lung_sheet.py --data ../shared/data --out runs/lung-sheets
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom.misc import is_dicom

from slicestream.__main__ import main as slicestream
from slicestream.volumes.files import atomic_path
from slicestream.volumes.lungs import Lungs, find_lungs
from slicestream.volumes.mask import read_mask
from slicestream.volumes.shapes import box_of
from slicestream.volumes.volume import Volume, Window, read_volume

WINDOW = Window(low_hu=-1300, high_hu=300)
GREEN, RED, BLUE = (0, 230, 90), (255, 60, 60), (60, 130, 255)
TILE, ACROSS = 288, 8  # pixels, tiles


@dataclass(frozen=True, kw_only=True, slots=True)
class Scan:
    """A volume, its lungs, the mask at its voxels, the nodules' labels (None without a reference), median seconds."""

    volume: Volume
    lungs: Lungs
    inside: NDArray[np.bool_]
    labels: NDArray[np.uint16] | None
    seconds: float


def cohorts(data: Path) -> list[Path]:
    """Return `data` where images or a table lie in it, else its folders: each is read as a cohort of its own."""
    inside = sorted(path for path in data.iterdir() if not path.name.startswith("."))
    folders = [path for path in inside if path.is_dir()]
    plain = (data / "dataset.csv").exists() or any(is_dicom(path) for path in inside if path.is_file())
    return [data] if plain or not folders else folders


def scan_of(path: Path, rounds: int) -> Scan:
    """Return the volume at `path` with its lungs and what is beside it, and the median time of finding them."""
    volume, seconds = read_volume(path), []
    for _ in range(rounds):
        start = time.perf_counter()
        lungs = find_lungs(volume.hu, volume.geometry)
        seconds.append(time.perf_counter() - start)
    beside = path.with_suffix(".reference")
    labels = read_mask(beside, "reference").labels if beside.exists() else None
    inside = at_voxels(lungs, volume.hu.shape)
    return Scan(volume=volume, lungs=lungs, inside=inside, labels=labels, seconds=statistics.median(seconds))


def at_voxels(lungs: Lungs, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the mask at the volume's own voxels; nothing where there is none."""
    if lungs.inside is None:
        return np.zeros(shape, np.bool_)
    indices = (np.arange(n) // step for n, step in zip(shape, lungs.steps, strict=True))
    return lungs.inside[np.ix_(*indices)]


def sheet(scan: Scan, at_most: int) -> Image.Image:
    """Return the contact sheet, RGB."""
    count = len(scan.volume.hu)
    shown = np.unique(np.linspace(0, count - 1, min(count, at_most)).round().astype(int)).tolist()
    tiles = [tile(scan, index) for index in shown] + fronts(scan)
    across = min(ACROSS, len(tiles))
    page = Image.new("RGB", (across * TILE, -(-len(tiles) // across) * TILE))
    for number, image in enumerate(tiles):
        page.paste(image, (number % across * TILE, number // across * TILE))
    return page


def tile(scan: Scan, index: int) -> Image.Image:
    """Return one slice with outlines and its number and height."""
    slice_mm, *spacing_mm = scan.volume.geometry.spacing_mm
    image = fitted(WINDOW.scale(scan.volume.hu[index]), spacing_mm)
    image = outlined(image, scan.inside[index], GREEN)
    if scan.labels is not None:
        image = outlined(image, scan.labels[index] > 0, RED)
    ImageDraw.Draw(image).text((3, 2), f"{index}   {index * slice_mm:.0f} mm", fill=(255, 255, 0))
    return image


def fronts(scan: Scan) -> list[Image.Image]:
    """Return what is seen from the front: mean HU with the mask's shadow outlined, and the mask's depth in blue."""
    axes = np.abs(np.asarray(scan.volume.geometry.direction_lps))
    depth = int(axes[:, 1].argmax())
    down = 0 if depth else 1  # slices of an axial scan, rows of a coronal one
    rest = [axis for axis in range(3) if axis != depth]
    spacing_mm = [scan.volume.geometry.spacing_mm[axis] for axis in rest]
    turned = slice(None, None, -1 if scan.volume.geometry.direction_lps[down][2] > 0 else 1)  # the head is up
    grey = np.mean([WINDOW.scale(plane) for plane in np.moveaxis(scan.volume.hu, depth, 0)], axis=0)[turned]
    deep = scan.inside.sum(axis=depth)[turned]
    shadow = outlined(fitted(grey, spacing_mm), deep > 0, GREEN)
    return [shadow, fitted(deep / max(1, deep.max()), spacing_mm, BLUE)]


def fitted(
    grey: NDArray[np.floating], spacing_mm: list[float], colour: tuple[int, int, int] | None = None
) -> Image.Image:
    """Return values from 0 to 1 as a tile, as large as fits, in true proportions."""
    rgb = np.asarray(colour or (255, 255, 255)) * grey.clip(0, 1)[..., None]
    high, wide = (n * mm for n, mm in zip(grey.shape, spacing_mm, strict=True))
    scale = TILE / max(high, wide)
    size = (max(1, round(wide * scale)), max(1, round(high * scale)))
    page = Image.new("RGB", (TILE, TILE))
    page.paste(Image.fromarray(rgb.astype(np.uint8)).resize(size, Image.Resampling.BILINEAR), (0, 0))
    page.info["size"] = size
    return page


def outlined(page: Image.Image, inside: NDArray[np.bool_], colour: tuple[int, int, int]) -> Image.Image:
    """Return the tile with the inner edge of `inside` drawn in."""
    wide, high = size = page.info["size"]
    shown = np.asarray(Image.fromarray(inside).resize(size))
    edge = shown.copy()
    edge[1:-1, 1:-1] &= ~(shown[:-2, 1:-1] & shown[2:, 1:-1] & shown[1:-1, :-2] & shown[1:-1, 2:])
    pixels = np.array(page)
    pixels[:high, :wide][edge] = colour
    image = Image.fromarray(pixels)
    image.info["size"] = size
    return image


def sides_ml(scan: Scan) -> tuple[float, float]:
    """Return the aerated lung (under -500 HU, inside the mask) right and left of the bones' middle, in ml."""
    direction = np.asarray(scan.volume.geometry.direction_lps)
    across = int(np.abs(direction[:, 0]).argmax())
    rest = tuple(axis for axis in range(3) if axis != across)
    lung = np.count_nonzero(scan.inside & (scan.volume.hu < -500), axis=rest) * scan.volume.geometry.voxel_mm3 / 1000
    if not lung.any():
        return 0.0, 0.0
    bones = np.count_nonzero(scan.volume.hu[box_of(scan.inside)[0]] > 200, axis=rest).cumsum()
    middle = int(np.searchsorted(bones, bones[-1] / 2))
    low, high = float(lung[:middle].sum()), float(lung[middle:].sum())
    return (low, high) if direction[across, 0] > 0 else (high, low)


def nodules_inside(scan: Scan) -> str:
    """Return how many nodules there are, the share of their voxels inside, and that of the nodule least inside."""
    if scan.labels is None or not scan.labels.any():
        return "–"
    voxels = np.bincount(scan.labels.reshape(-1))
    hits = np.bincount(scan.labels[scan.inside], minlength=len(voxels))
    present = np.flatnonzero(voxels[1:]) + 1
    share = hits[present].sum() / voxels[present].sum()
    return f"{len(present)}: {share:.3f}, least {(hits[present] / voxels[present]).min():.3f}"


def row(scan: Scan) -> str:
    """Return a series' line of the table."""
    shape, spacing_mm = scan.volume.geometry.shape, scan.volume.geometry.spacing_mm
    right, left = sides_ml(scan)
    grid = f"{' × '.join(map(str, shape))} | {' × '.join(f'{mm:.2f}' for mm in spacing_mm)}"
    found = scan.lungs.reason or "mask"
    figures = f"{right:.0f} | {left:.0f} | {nodules_inside(scan)} | {scan.seconds:.2f}"
    return f"| {scan.volume.id} | {grid} | {found} | {figures} |"


def show(cohort: Path, args: argparse.Namespace) -> int:
    """Write the sheets of a cohort and print its rows; return how many crops there were."""
    crops = 0
    with TemporaryDirectory(dir=args.out) as name:
        work = Path(name)
        (work / "key").write_text("a key for contact sheets only\n")
        options = ["--cohort", str(cohort), "--out", str(work / "out"), "--pseudonym-key", str(work / "key")]
        with redirect_stdout(sys.stderr):  # the table alone goes to stdout
            refused = slicestream(["preprocess", *options])
        if refused:
            print(f"{cohort.name}: no series read", file=sys.stderr)
            return 0
        for path in sorted((work / "out").glob("*.volume")):
            scan = scan_of(path, args.rounds)
            if scan.lungs.reason.endswith("a crop"):
                crops += 1
                continue
            with atomic_path(args.out / f"{scan.volume.id}.png") as target:
                sheet(scan, args.at_most).save(target, format="PNG")
            print(row(scan), flush=True)
    return crops


def main() -> None:
    """Write all sheets, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a cohort, or a folder of cohorts")
    parser.add_argument("--out", type=Path, required=True, help="folder for the sheets, a PNG per series")
    parser.add_argument("--at-most", type=int, default=62, help="slices on a sheet (default 62)")
    parser.add_argument("--rounds", type=int, default=3, help="times that a mask is made, for the median (default 3)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    print("| series | slices × rows × columns | mm | mask | right, ml | left, ml | nodules: voxels inside | s |")
    print(f"| {'--- | ' * 8}".rstrip(), flush=True)
    crops = sum(show(cohort, args) for cohort in cohorts(args.data))
    if crops:
        print(f"\n{crops} crops: no mask, no sheet")


if __name__ == "__main__":
    main()
