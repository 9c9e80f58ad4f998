"""Step `phantom`: a synthetic chest CT cohort in the UniToChest layout, with the truth about its nodules."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from slicestream.dicom.phantom_writer import HABITS, Exam, write_exam
from slicestream.errors import OptionError
from slicestream.synthesis.chest import Chest, chest_of
from slicestream.synthesis.nodules import Nodule, nodules_of
from slicestream.synthesis.scan import protocol_of, scan
from slicestream.synthesis.vessels import Vessel, vessels_of
from slicestream.volumes.files import write_text
from slicestream.volumes.staging import staged

# Nobody's secret: the phantom has no identities, and equal pseudonyms let runs be compared.
PHANTOM_KEY = "slicestream phantom key, for synthetic patients only\n"
GROWTH = 1.15  # of each diameter from the first to the second study
DATASET_COLUMNS = ("patientID", "exam", "slice", "image", "mask")
TRUTH_COLUMNS = (
    *("patientID", "exam", "series_uid", "nodule", "x_mm", "y_mm", "z_mm"),
    *("volume_mm3", "diameter_mm", "hu", "kind"),
)
Row = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = "example: slicestream phantom --patients 6 --matrix 128 --out cohort"
    parser.add_argument("--out", type=Path, default=Path(), help="folder to write the cohort into (default: here)")
    parser.add_argument("--patients", type=int, default=24, help="number of patients, 1 to 9999 (default: 24)")
    parser.add_argument("--seed", type=int, default=0, help="whole number; same seed, same bytes (default: 0)")
    parser.add_argument("--matrix", type=int, default=256, help="rows and columns of a slice, pixels (default: 256)")


def run(args: argparse.Namespace) -> None:
    """Write images/, masks/, dataset.csv, truth.csv and pseudonym_key. The second patient has two studies."""
    _check(args)
    dataset: list[Row] = []
    truth: list[Row] = []
    with staged(args.out) as room:
        for patient in range(1, args.patients + 1):
            _write_patient(room, args, patient, dataset=dataset, truth=truth)
            if patient % 8 == 0 or patient == args.patients:
                print(f"phantom: patient {patient} of {args.patients}", file=sys.stderr)
        _write_csv(room / "dataset.csv", DATASET_COLUMNS, dataset)
        _write_csv(room / "truth.csv", TRUTH_COLUMNS, truth)
        write_text(room / "pseudonym_key", PHANTOM_KEY)
    masks = sum(1 for row in dataset if row["mask"])
    print(
        f"{args.out}: {args.patients} patients, {len({(r['patientID'], r['exam']) for r in dataset})} studies, "
        f"{len(dataset)} images, {masks} with a mask, {len(truth)} nodules"
    )


def _check(args: argparse.Namespace) -> None:
    if not 1 <= args.patients <= 9999:
        raise OptionError(f"--patients {args.patients}: need 1 to 9999.")
    if args.seed < 0:
        raise OptionError(f"--seed {args.seed}: need 0 or more.")
    if not 64 <= args.matrix <= 1024:
        raise OptionError(f"--matrix {args.matrix}: need 64 to 1024 pixels.")
    there = [name for name in ("images", "masks", "dataset.csv") if (args.out / name).exists()]
    if there:
        raise OptionError(f"{args.out}: already holds {', '.join(there)}; choose an empty folder, or remove them.")


def _write_patient(room: Path, args: argparse.Namespace, patient: int, *, dataset: list[Row], truth: list[Row]) -> None:
    rng = np.random.default_rng([args.seed, patient])
    chest = chest_of(rng)
    vessels = vessels_of(chest, rng)
    nodules = nodules_of(chest, vessels, 1 + (patient + args.seed) % 5, rng)
    for number in range(1, 3 if patient == 2 else 2):
        present = nodules if number == 1 else [nodule.grown(GROWTH) for nodule in nodules]
        exam, hu, labels = _scan(args, patient, number, chest=chest, vessels=vessels, nodules=present)
        dataset.extend(_write_study(room, exam, hu, labels))
        truth.extend(_truth_rows(exam, present))


def _scan(
    args: argparse.Namespace, patient: int, number: int, *, chest: Chest, vessels: list[Vessel], nodules: list[Nodule]
) -> tuple[Exam, NDArray[np.int16], NDArray[np.uint16]]:
    rng = np.random.default_rng([args.seed, patient, number])
    protocol = protocol_of(rng, args.matrix)
    hu, labels = scan(protocol, chest, vessels, nodules, rng)
    z, y, x = (float(axis[0]) for axis in protocol.axes_mm)
    exam = Exam(
        seed=args.seed,
        patient=patient,
        exam=number,
        origin_mm=(x, y, z),
        pixel_mm=protocol.pixel_mm,
        slice_mm=protocol.slice_mm,
        habit=HABITS[(patient + number - 2) % len(HABITS)],
    )
    return exam, hu, labels


def _write_study(room: Path, exam: Exam, hu: NDArray[np.int16], labels: NDArray[np.uint16]) -> list[Row]:
    folder = Path(f"patient_{exam.patient:04d}", f"exam_{exam.exam}")
    (room / "images" / folder).mkdir(parents=True)
    (room / "masks" / folder).mkdir(parents=True)
    rows: list[Row] = []
    paths: list[Path] = []
    for index in range(len(hu)):
        number = len(hu) - index if exam.habit.head_first_numbers else index + 1
        stem = f"{exam.patient:04d}_{exam.exam}_{number:04d}"
        image, mask = Path("images") / folder / f"{stem}.dcm", Path("masks") / folder / f"{stem}_mask.png"
        paths.append(room / image)
        nodule = labels[index] > 0
        if nodule.any():
            Image.fromarray(nodule.astype(np.uint8) * 255).save(room / mask)
        ids = {"patientID": f"{exam.patient:04d}", "exam": exam.exam, "slice": number}
        rows.append({**ids, "image": image.as_posix(), "mask": mask.as_posix() if nodule.any() else ""})
    write_exam(paths, exam, hu)
    return sorted(rows, key=lambda row: int(row["slice"]))


def _truth_rows(exam: Exam, nodules: list[Nodule]) -> list[Row]:
    return [
        {
            "patientID": f"{exam.patient:04d}",
            "exam": exam.exam,
            "series_uid": exam.series_uid,
            "nodule": number,
            **dict(zip(("x_mm", "y_mm", "z_mm"), nodule.centre_mm, strict=True)),
            "volume_mm3": round(nodule.volume_mm3, 2),
            "diameter_mm": round(nodule.diameter_mm, 3),
            "hu": round(nodule.mean_hu, 1),
            "kind": nodule.kind,
        }
        for number, nodule in enumerate(nodules, start=1)
    ]


def _write_csv(path: Path, columns: tuple[str, ...], rows: list[Row]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
