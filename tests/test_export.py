from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK

import output_cases as cases
from slicestream import RESEARCH_ONLY
from slicestream.__main__ import main
from slicestream.volumes.mask import Candidate, read_mask, write_mask
from slicestream.volumes.measures import DECIMALS
from slicestream.volumes.volume import SeriesId

OTHER = SeriesId(patient="1111111111111111", series="2222222222222222")


def arguments(*found: dict[str, Path], out: Path, references: bool = True) -> list[str]:
    flags = {"--masks": "mask", "--volumes": "volume", "--identities": "identity"}
    if references:
        flags["--references"] = "reference"
    words = ["export"]
    for flag, kind in flags.items():
        words += [flag, *(str(case[kind]) for case in found)]
    return [*words, "--out", str(out)]


def test_a_series_gives_seg_overlays_table_and_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case, out = cases.write_case(tmp_path), tmp_path / "out"
    assert main(arguments(case, out=out)) == 0
    seg = pydicom.dcmread(out / "segmentations" / f"{cases.SERIES}.dcm")
    assert int(seg.pixel_array.sum()) == 49
    assert len(list((out / "overlays").glob("*.png"))) == 4
    rows = list(csv.DictReader((out / "nodules.csv").read_text().splitlines()))
    assert [row["status"] for row in rows] == ["true_positive", "false_positive", "missed"]
    record = json.loads((out / "export.run.json").read_text())
    assert (record["items"], record["unit"]) == (1, "series")
    assert set(record["outputs"]) == {f"{cases.SERIES}.dcm", f"{cases.SERIES}-sr.dcm", "nodules.csv"}
    assert set(record["inputs"]) == {f"{cases.SERIES}.mask", f"{cases.SERIES}.volume"}
    said = capsys.readouterr().out
    assert "1 series: 1 DICOM SEG, 1 DICOM SR, 4 overlays, 2 candidates" in said
    assert RESEARCH_ONLY in said


def test_the_same_input_gives_the_same_hashes(tmp_path: Path) -> None:
    case, outputs = cases.write_case(tmp_path), []
    for name in ("one", "two"):
        assert main(arguments(case, out=tmp_path / name)) == 0
        outputs.append(json.loads((tmp_path / name / "export.run.json").read_text())["outputs"])
    assert outputs[0] == outputs[1]


def test_a_mask_without_candidates_gives_no_seg_and_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, out = cases.write_case(tmp_path, np.zeros(cases.SHAPE, np.uint16)), tmp_path / "out"
    assert main(arguments(case, out=out, references=False)) == 0
    assert list((out / "segmentations").iterdir()) == []
    assert [path.name for path in (out / "measurements").iterdir()] == [f"{cases.SERIES}-sr.dcm"]
    assert list((out / "overlays").iterdir()) == []
    assert len((out / "nodules.csv").read_text().splitlines()) == 1
    assert f"no candidates, so no DICOM SEG: 1 series ({cases.SERIES})" in capsys.readouterr().out
    assert json.loads((out / "export.run.json").read_text())["parameters"]["series_without_candidates"] == [
        str(cases.SERIES)
    ]


def columns_of(report: Path) -> list[dict[str, str]]:
    """Return what the report says of each candidate, by the names of the table, as the table writes it."""
    names = {("118565006", ""): "volume_mm3", ("103339001", ""): "longest_diameter_mm"}
    names |= {("103340004", ""): "perpendicular_diameter_mm", ("mean-probability", ""): "score"}
    names |= {("112031", "Mean"): "mean_hu", ("112031", "Standard Deviation"): "std_hu"}
    found = []
    content = highdicom.sr.srread(report).content
    assert isinstance(content, highdicom.sr.MeasurementReport)
    for group in content.get_volumetric_roi_measurement_groups():
        row = {"nodule": group.tracking_identifier.removeprefix("candidate ")}
        for one in group.get_measurements():
            name = names[(one.name.value, one.derivation.meaning if one.derivation else "")]
            row[name] = f"{one.value:.{DECIMALS[name]}f}"
        found.append(row)
    return found


def test_the_report_and_the_table_hold_the_same_figures(tmp_path: Path) -> None:
    case, out = cases.write_case(tmp_path), tmp_path / "out"
    assert main(arguments(case, out=out)) == 0
    rows = list(csv.DictReader((out / "nodules.csv").read_text().splitlines()))
    found = columns_of(out / "measurements" / f"{cases.SERIES}-sr.dcm")
    assert len(found) == 2
    for stated in found:
        row = next(row for row in rows if row["nodule"] == stated["nodule"])
        assert len(stated) == 7
        assert {name: row[name] for name in stated} == stated


def test_series_of_one_study_share_a_report_and_those_of_another_patient_do_not(tmp_path: Path) -> None:
    beside = SeriesId(patient=cases.SERIES.patient, series="2222222222222222")
    found = [cases.write_case(tmp_path / str(series), series=series) for series in (cases.SERIES, beside, OTHER)]
    out = tmp_path / "out"
    assert main(arguments(*found, out=out)) == 0
    names = {path.name for path in (out / "measurements").iterdir()}
    assert names == {f"{beside}-sr.dcm", f"{OTHER}-sr.dcm"}
    assert len(columns_of(out / "measurements" / f"{beside}-sr.dcm")) == 4
    assert len(columns_of(out / "measurements" / f"{OTHER}-sr.dcm")) == 2


@pytest.mark.parametrize(
    ("choice", "endings"), [("binary", [""]), ("labelmap", ["-labelmap"]), ("both", ["", "-labelmap"])]
)
def test_the_form_of_the_seg_is_chosen_and_the_report_references_it(
    choice: str, endings: list[str], tmp_path: Path
) -> None:
    case, out = cases.write_case(tmp_path), tmp_path / "out"
    assert main([*arguments(case, out=out), "--segmentation", choice]) == 0
    written = {path.name: pydicom.dcmread(path) for path in (out / "segmentations").iterdir()}
    assert set(written) == {f"{cases.SERIES}{ending}.dcm" for ending in endings}
    for dataset in written.values():
        assert int((dataset.pixel_array > 0).sum()) == 49
    report = pydicom.dcmread(out / "measurements" / f"{cases.SERIES}-sr.dcm")
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    uids = {item.ReferencedSOPInstanceUID for series in evidence for item in series.ReferencedSOPSequence}
    assert written[f"{cases.SERIES}{endings[0]}.dcm"].SOPInstanceUID in uids


def test_captures_are_written_where_asked_for(tmp_path: Path) -> None:
    case, out = cases.write_case(tmp_path), tmp_path / "out"
    assert main([*arguments(case, out=out), "--captures", "--overlays", "2"]) == 0
    names = sorted(path.stem for path in (out / "captures").iterdir())
    assert names == sorted(path.stem for path in (out / "overlays").iterdir())
    assert len(names) == 2
    record = json.loads((out / "export.run.json").read_text())
    assert {f"{name}.dcm" for name in names} <= set(record["outputs"])


def test_nifti_copies_lie_in_patient_space(tmp_path: Path) -> None:
    case, out = cases.write_case(tmp_path), tmp_path / "out"
    assert main([*arguments(case, out=out), "--nifti"]) == 0
    ct = SimpleITK.ReadImage(str(out / "nifti" / f"{cases.SERIES}-ct.nii.gz"))
    mask = SimpleITK.ReadImage(str(out / "nifti" / f"{cases.SERIES}-mask.nii.gz"))
    assert np.array_equal(SimpleITK.GetArrayFromImage(mask), cases.labels())
    assert np.allclose(ct.GetOrigin(), cases.ORIGIN_LPS_MM, atol=1e-4)
    assert ct[20, 10, 1] == 50


def test_no_overlays_when_none_are_asked_for(tmp_path: Path) -> None:
    case, out = cases.write_case(tmp_path), tmp_path / "out"
    assert main([*arguments(case, out=out), "--overlays", "0"]) == 0
    assert list((out / "overlays").iterdir()) == []


def refused(words: list[str], out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line that a refused run prints; nothing may have been written."""
    assert main(words) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert not out.exists() or list(out.iterdir()) == []
    return said


def test_a_mask_of_another_volume_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case, out = cases.write_case(tmp_path), tmp_path / "out"
    write_mask(case["mask"], cases.mask(volume_hash="00" * 32))
    assert "files were swapped" in refused(arguments(case, out=out), out, capsys)


def test_a_reference_of_another_volume_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case, out = cases.write_case(tmp_path), tmp_path / "out"
    write_mask(case["reference"], cases.reference(volume_hash="00" * 32))
    assert "files were swapped" in refused(arguments(case, out=out), out, capsys)


def test_a_mask_without_its_volume_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case, other, out = cases.write_case(tmp_path), cases.write_case(tmp_path, series=OTHER), tmp_path / "out"
    words = arguments({**case, "volume": other["volume"]}, out=out)
    assert "no volume of series" in refused(words, out, capsys)


def test_a_series_in_no_identity_map_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case, other, out = cases.write_case(tmp_path), cases.write_case(tmp_path, series=OTHER), tmp_path / "out"
    words = arguments({**case, "identity": other["identity"]}, out=out)
    assert "is in no identity map given" in refused(words, out, capsys)


def test_one_mask_given_twice_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case, out = cases.write_case(tmp_path), tmp_path / "out"
    words = arguments(case, out=out)
    words.insert(2, str(case["mask"]))
    assert "a second mask of series" in refused(words, out, capsys)


def test_mask_and_volume_given_the_wrong_way_round_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, out = cases.write_case(tmp_path), tmp_path / "out"
    words = arguments({**case, "mask": case["volume"], "volume": case["mask"]}, out=out)
    assert "holds a volume; need a mask" in refused(words, out, capsys)


def test_a_negative_number_of_overlays_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case, out = cases.write_case(tmp_path), tmp_path / "out"
    assert "--overlays -1" in refused([*arguments(case, out=out), "--overlays", "-1"], out, capsys)


def test_results_of_an_earlier_run_are_not_mixed_with_new_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, out = cases.write_case(tmp_path), tmp_path / "out"
    assert main(arguments(case, out=out)) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main([*arguments(case, out=out), "--overlays", "1"]) == 2
    assert "measurements: not empty; nothing was changed" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def export_references(preprocessed: Path, folder: Path, *more: str) -> Path:
    """Export the readers' masks of a preprocessed cohort as if a model had found them; return the output folder."""
    masks, words = folder / "masks", ["export", "--out", str(folder / "out")]
    for path in sorted(preprocessed.glob("*.reference")):
        drawn = read_mask(path, "reference")
        counts = np.bincount(drawn.labels.ravel())
        found = tuple(Candidate(label=n, score=1.0, voxels=int(counts[n])) for n in range(1, len(counts)) if counts[n])
        model_hash = cases.MODEL_HASH
        write_mask(masks / f"{drawn.id}.mask", replace(drawn, kind="mask", candidates=found, model_hash=model_hash))
    for flag, pattern in (("--volumes", "*.volume"), ("--identities", "*.identity"), ("--references", "*.reference")):
        words += [flag, *map(str, sorted(preprocessed.glob(pattern)))]
    assert main([*words, *more, "--masks", *map(str, sorted(masks.iterdir()))]) == 0
    return folder / "out"


def test_the_phantoms_nodules_stand_where_they_were_put_in_patient_coordinates(
    cohort: Path, preprocessed: Path, tmp_path: Path
) -> None:
    out = export_references(preprocessed, tmp_path)
    rows = list(csv.DictReader((out / "nodules.csv").read_text().splitlines()))
    assert {row["status"] for row in rows} == {"true_positive"}
    named = {}  # series UID of the source, by way of the SEG, to the pseudonym in the table
    for path in (out / "segmentations").iterdir():
        named[pydicom.dcmread(path).ReferencedSeriesSequence[0].SeriesInstanceUID] = path.stem.partition("-")[2]
    truth = list(csv.DictReader((cohort / "truth.csv").read_text().splitlines()))
    assert len(truth) == len(rows)
    axes = ("x_mm", "y_mm", "z_mm")
    off_mm, volume_off = [], []
    for nodule in truth:
        near = [row for row in rows if row["series"] == named[nodule["series_uid"]]]
        place = np.array([float(nodule[axis]) for axis in axes])
        away = [float(np.linalg.norm(place - [float(row[axis]) for axis in axes])) for row in near]
        off_mm.append(min(away))
        found = near[int(np.argmin(away))]
        volume_off.append(float(found["volume_mm3"]) / float(nodule["volume_mm3"]) - 1)
    assert max(off_mm) < 2.0
    assert abs(float(np.median(volume_off))) < 0.1


@pytest.mark.real
def test_real_scans_give_results_that_equal_their_masks_and_that_dciodvfy_accepts(data: Path, tmp_path: Path) -> None:
    key, made = tmp_path / "key", tmp_path / "preprocessed"
    key.write_text("a secret of the tests only\n")
    words = ["--cohort", str(data / "fullframe-open"), "--pseudonym-key", str(key), "--out", str(made)]
    assert main(["preprocess", *words]) == 0
    out = export_references(made, tmp_path, "--segmentation", "both", "--captures", "--overlays", "2")
    for path in sorted((tmp_path / "masks").iterdir()):
        mask = read_mask(path, "mask")
        count = int((mask.labels > 0).sum())
        binary, labelmap = (out / "segmentations" / f"{path.stem}{ending}.dcm" for ending in ("", "-labelmap"))
        assert int(pydicom.dcmread(binary).pixel_array.sum()) == count
        assert int((pydicom.dcmread(labelmap).pixel_array > 0).sum()) == count
        assert labelmap.stat().st_size < binary.stat().st_size
    accepted = [
        *(("Segmentation", path) for path in (out / "segmentations").iterdir() if "labelmap" not in path.name),
        *(("Comprehensive3DSR", path) for path in (out / "measurements").iterdir()),
        *(("SCImage", path) for path in (out / "captures").iterdir()),
    ]
    for kind, path in accepted:
        said = cases.dciodvfy(path)
        assert kind in said
        assert "Error" not in said
    assert len(accepted) == 3 + len(list((out / "measurements").iterdir())) + 6
    rows = list(csv.DictReader((out / "nodules.csv").read_text().splitlines()))
    stated = [row for path in (out / "measurements").iterdir() for row in columns_of(path)]
    assert sorted(row["volume_mm3"] for row in stated) == sorted(row["volume_mm3"] for row in rows)
