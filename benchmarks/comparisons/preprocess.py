"""From DICOM to what a network is given."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import big_series
from harness import CONTENDERS, PEERS, ROOT, Comparison, Contender, faster
from inputs import phantom_cohort

SLICES = {"trial": 12, "bench": 300, "full": 1000}
PATIENTS = {"trial": 2, "bench": 8, "full": 32}
MATRIX = {"trial": 128, "bench": 512, "full": 512}
REAL = Path(os.environ.get("SLICESTREAM_DATA", ROOT.parent / "shared/data")) / "ct/CPTAC-PDA_C3N-00249"
OURS = "slicestream preprocess"


def comparisons(size: str, inputs: Path) -> list[Comparison]:
    """Return: a made series, a real one where there is one, two processes against one."""
    made = inputs / f"series-{SLICES[size]}"
    big_series.make(made, SLICES[size], big_series.SYNTAXES["plain"])
    what = "the whole step (read, check, de-identify, HU, write, hash) in one process, which packs in a "
    what += "second thread and has a decoder for each core; imports are not timed."
    missing = "" if REAL.is_dir() else "the real series is not here (SLICESTREAM_DATA names the folder of the data)"
    return [
        _beside_peers("preprocess", made, f"{SLICES[size]} made slices of 512 × 512, uncompressed: {what}"),
        _beside_peers(
            "preprocess-real", REAL, f"102 slices of 512 × 512, JPEG-LS (CPTAC-PDA C3N-00249): {what}", missing
        ),
        _processes(phantom_cohort(inputs, PATIENTS[size], MATRIX[size]), PATIENTS[size], MATRIX[size]),
    ]


def _beside_peers(name: str, cohort: Path, how: str, missing: str = "") -> Comparison:
    recipe, itk, dicom2nifti = "the paper's recipe", "SimpleITK, .nii.gz", "dicom2nifti"
    what, slices = name.replace("-", ", "), sum(1 for _ in cohort.rglob("*.dcm"))
    return Comparison(
        name=name,
        how=how,
        unit="slices/s",
        contenders=[
            _ours(OURS, cohort, 1),
            _peer(recipe, "paper_preprocess", cohort, ("*.png", slices), "pydicom", "pillow"),
            _peer(itk, "simpleitk_series", cohort, ("*.nii.gz", 1), "SimpleITK"),
            _peer(dicom2nifti, "dicom2nifti_series", cohort, ("*.nii.gz", 1), "dicom2nifti"),
        ],
        claims=[faster(what, OURS, peer, goal) for peer, goal in ((recipe, 11), (itk, 4), (dicom2nifti, 6))],
        missing=missing,
    )


def _processes(cohort: Path, patients: int, matrix: int) -> Comparison:
    one, two = "one process", "two processes"
    return Comparison(
        name="preprocess-scaling",
        how=f"{patients} phantom patients of {matrix} × {matrix} in every transfer syntax; two processes do a share "
        "each. Each process, and the decoder that it starts, is held to a core of its own, for one process alone uses "
        "a second core where it is free. The ratio is the efficiency T(1) / (2 T(2)).",
        unit="slices/s",
        contenders=[_ours(one, cohort, 1, cores=1), _ours(two, cohort, 2, cores=1)],
        claims=[faster("preprocess, efficiency of 2 processes", two, one, 0.85, among=2)],
    )


def _ours(name: str, cohort: Path, processes: int, *, cores: int = 0) -> Contender:
    script = CONTENDERS / "our_preprocess.py"
    command = [sys.executable, script, cohort, "{work}", str(processes), str(cores)]
    return Contender(name=name, command=command, libraries=("slicestream", "blosc2"))


def _peer(name: str, script: str, cohort: Path, makes: tuple[str, int], *libraries: str) -> Contender:
    command = [PEERS / "python", CONTENDERS / f"{script}.py", cohort, "{work}"]
    return Contender(name=name, command=command, makes=makes, libraries=libraries)
