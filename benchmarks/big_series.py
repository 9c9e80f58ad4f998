"""A long CT series read by SliceStream, SimpleITK and dicom2nifti, side by side: peak memory and wall time.

Makes a series of 512 x 512 slices (a body of smooth parts with noise, so that it compresses as CT does), uncompressed,
deflated or JPEG-LS. Every reader runs in a process of its own, in turns, on files that the page cache holds. Memory is
the largest resident set of the process plus that of its children; wall and CPU time end with the reading.

    pip install --target peers --no-deps dicom2nifti nibabel scipy
    python benchmarks/big_series.py --out series --peers peers --slices 1500 --rounds 3
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
)

SIDE = 512
SYNTAXES = {"plain": ExplicitVRLittleEndian, "deflated": DeflatedExplicitVRLittleEndian, "jpeg-ls": JPEGLSLossless}


def make(folder: Path, slices: int, syntax: UID) -> None:
    """Write the series unless it is there."""
    if folder.exists() and len(list(folder.iterdir())) == slices:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 15, (SIDE, SIDE))
    for index in range(slices):
        shift = rng.integers(SIDE, size=2)
        stored = body(index / slices) + np.roll(noise, tuple(shift), (0, 1))
        image = header(index)
        image.PixelData = stored.clip(0, 4095).astype("<u2").tobytes()
        image.file_meta.TransferSyntaxUID = syntax
        if syntax.is_encapsulated:
            image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            image.compress(syntax, generate_instance_uid=False)
        image.save_as(folder / f"{index:05d}.dcm", enforce_file_format=True)


def body(height: float) -> NDArray[np.float64]:
    """Return the stored values of a slice without noise: air, a body, lungs that change with the height (0 to 1)."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    values = np.full((SIDE, SIDE), 40.0)
    values[x**2 / 0.8 + y**2 / 0.45 < 1] = 1060
    for side in (-0.4, 0.4):
        values[(x - side) ** 2 / 0.08 + y**2 / 0.2 < 0.4 + 0.6 * np.sin(np.pi * height)] = 180
    return values


def header(index: int) -> Dataset:
    """Return the header of a slice, 0.5 mm after the one before."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = CTImageStorage
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = f"1.2.826.0.1.3680043.10.1.5.{index + 1}"
    image.Modality, image.PatientID, image.PatientName, image.ImageType = (
        "CT",
        "P1",
        "Big^Series",
        ["ORIGINAL", "PRIMARY"],
    )
    image.StudyInstanceUID, image.SeriesInstanceUID = "1.2.826.0.1.3680043.10.1.6", "1.2.826.0.1.3680043.10.1.7"
    image.FrameOfReferenceUID, image.InstanceNumber = "1.2.826.0.1.3680043.10.1.8", index + 1
    image.ImagePositionPatient, image.ImageOrientationPatient = ["-180", "-180", f"{index / 2:g}"], [1, 0, 0, 0, 1, 0]
    image.PixelSpacing, image.SliceThickness, image.Rows, image.Columns = ["0.7", "0.7"], "0.5", SIDE, SIDE
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.RescaleSlope, image.RescaleIntercept = "1", "-1024"
    return image


def by_preprocess(series: Path, work: Path) -> float:
    """Run the whole step: HU volume, identity map and the rest on the disk; return the mean HU."""
    from slicestream.__main__ import main
    from slicestream.volumes.volume import read_volume

    (work / "key").write_text("a key for comparisons only\n")
    folders = [f"--cohort={series}", f"--out={work / 'out'}", f"--pseudonym-key={work / 'key'}"]
    assert main(["preprocess", *folders]) == 0
    said(work)
    (path,) = (work / "out").glob("*.volume")
    return float(read_volume(path).hu.mean(dtype=np.float64))


def by_read_series(series: Path, work: Path) -> float:
    """Read the series into memory as the step does; return the mean HU."""
    from slicestream.dicom.series import read_series
    from slicestream.dicom.study import find_cohort

    (batch,) = find_cohort(series).patients[0].batches
    (read,) = read_series(batch)
    hu = read.hu.whole()
    said(work)
    return float(hu.mean(dtype=np.float64))


def by_simpleitk(series: Path, work: Path) -> float:
    """Read the series into memory with SimpleITK; return the mean HU."""
    import SimpleITK

    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series)))
    image = reader.Execute()
    said(work)
    return float(SimpleITK.GetArrayViewFromImage(image).mean(dtype=np.float64))


def by_dicom2nifti(series: Path, work: Path) -> float:
    """Convert the series to a compressed NIfTI file with dicom2nifti; return the mean HU."""
    import dicom2nifti
    import nibabel

    dicom2nifti.dicom_series_to_nifti(series, work / "out.nii.gz", reorient_nifti=False)
    said(work)
    return float(np.asarray(nibabel.load(work / "out.nii.gz").dataobj).mean(dtype=np.float64))


def said(work: Path) -> None:
    """Write down peak memory and time before what is only a check of the result."""
    import gc

    decoder = sys.modules.get("slicestream.dicom.decoder")
    if decoder is not None:
        decoder.shared_decoders().close()
    gc.collect()
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    peak, cpu = sum(use.ru_maxrss << 10 for use in used), sum(use.ru_utime + use.ru_stime for use in used)
    (work / "measured").write_text(json.dumps({"bytes": peak, "cpu": cpu, "ended": time.time()}))


READERS: dict[str, Callable[[Path, Path], float]] = {
    "slicestream preprocess": by_preprocess,
    "slicestream, into memory": by_read_series,
    "SimpleITK, into memory": by_simpleitk,
    "dicom2nifti, to .nii.gz": by_dicom2nifti,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One reading: peak memory in MB, seconds of the clock and of the CPU, mean HU."""

    peak_mb: float
    wall_s: float
    cpu_s: float
    mean_hu: float


def measured(reader: str, series: Path, out: Path, peers: Path | None) -> Measured:
    """Read the series in a process of its own."""
    work = out / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    search = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(peers) if peers else None]))
    command = [sys.executable, __file__, "--out", out, "--measure", reader, "--series", series]
    start = time.time()
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": search}, check=True, stdout=subprocess.PIPE, text=True
    )
    found = json.loads((work / "measured").read_text())
    mean = float(done.stdout.split()[-1])
    return Measured(peak_mb=found["bytes"] / 1e6, wall_s=found["ended"] - start, cpu_s=found["cpu"], mean_hu=mean)


def compare(args: argparse.Namespace) -> None:
    """Measure every reader in turns and print the table."""
    for name in args.syntaxes:
        series = args.out / f"{name}-{args.slices}"
        make(series, args.slices, SYNTAXES[name])
        size = sum(path.stat().st_size for path in series.iterdir())
        rows: dict[str, list[Measured]] = {reader: [] for reader in READERS}
        for _ in range(args.rounds):
            for reader, found in rows.items():
                found.append(measured(reader, series, args.out, args.peers))
                print(f"{name}, {reader}: {found[-1]}", file=sys.stderr, flush=True)
        means = sorted({round(one.mean_hu, 3) for found in rows.values() for one in found})
        print(f"\n{args.slices} slices, {name}, {size / 1e6:.0f} MB; mean HU {means}; medians of {args.rounds} rounds")
        print("| reader | peak memory, MB | ratio | wall, s | range | ratio | CPU, s | ratio |")
        print(f"| {'--- | ' * 8}".rstrip())
        first = medians(rows["slicestream preprocess"])
        for reader, found in rows.items():
            peak, wall, cpu = medians(found)
            least, most = (limit(one.wall_s for one in found) for limit in (min, max))
            print(
                f"| {reader} | {peak:.0f} | {peak / first[0]:.2f} | {wall:.1f} | {least:.1f} to {most:.1f} "
                f"| {wall / first[1]:.2f} | {cpu:.1f} | {cpu / first[2]:.2f} |"
            )


def medians(found: list[Measured]) -> tuple[float, float, float]:
    """Return the median peak memory, wall time and CPU time."""
    peak, wall, cpu = zip(*((one.peak_mb, one.wall_s, one.cpu_s) for one in found), strict=True)
    return statistics.median(peak), statistics.median(wall), statistics.median(cpu)


def main() -> None:
    """Compare, or be one of the compared."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the series (0.8 GB per kind) and results")
    parser.add_argument("--slices", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--syntaxes", nargs="+", choices=SYNTAXES, default=["plain", "jpeg-ls"])
    parser.add_argument("--peers", type=Path, help="folder that dicom2nifti and nibabel are installed in")
    parser.add_argument("--measure", choices=READERS, help=argparse.SUPPRESS)
    parser.add_argument("--series", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(READERS[args.measure](args.series, args.out / "work"))
    else:
        compare(args)


if __name__ == "__main__":
    main()
