import json
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from made import mask, reference
from slicestream.__main__ import main
from slicestream.volumes.mask import write_mask

SCHEMA = json.loads((Path(__file__).parent.parent / "docs" / "metrics.schema.json").read_text(encoding="utf-8"))


def write(folder, *, patient=1, series=1, found=10, drawn=10, volume_hash="ab" * 32):
    """Write a mask of `found` and a reference of `drawn` pixels in a row; return their paths."""
    folder.mkdir(exist_ok=True)
    labels, truth = np.zeros((3, 40, 40), np.uint16), np.zeros((3, 40, 40), np.uint16)
    labels[1, 5, :found] = 1
    truth[1, 5, :drawn] = 1
    predicted = mask(labels, patient=patient, series=series)
    annotated = reference(truth, patient=patient, series=series, volume_hash=volume_hash)
    paths = folder / f"{predicted.id}.mask", folder / f"{predicted.id}.reference"
    write_mask(paths[0], predicted)
    write_mask(paths[1], annotated)
    return paths


def evaluate(out, masks, references, *options):
    masks, references = (list(map(str, paths)) for paths in (masks, references))
    return main(["evaluate", "--masks", *masks, "--references", *references, "--out", str(out), *options])


def metrics(out):
    return json.loads((out / "metrics.json").read_text(encoding="utf-8"))


def refused(capsys, code, out):
    error = capsys.readouterr().err
    assert code == 2
    assert error.count("\n") == 1
    assert not out.exists() or list(out.iterdir()) == []
    return error


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def write_split(tmp_path, sides):
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"seed": 0, "patients": {f"{n:016x}": side for n, side in sides.items()}}))
    return str(path)


def test_metrics_follow_the_published_schema(tmp_path, out):
    Draft202012Validator.check_schema(SCHEMA)
    pairs = [write(tmp_path, patient=n, series=n, found=n * 3, drawn=10) for n in range(1, 5)]
    assert evaluate(out, *zip(*pairs, strict=True), "--split-name", "test") == 0
    Draft202012Validator(SCHEMA).validate(metrics(out))
    assert evaluate(out, [], []) == 0
    Draft202012Validator(SCHEMA).validate(metrics(out))


def test_schema_refuses_a_figure_without_its_split():
    assert not Draft202012Validator(SCHEMA).is_valid({"iou": {}, "dice": {}})


def test_figures_are_the_hand_computed_ones_and_stand_beside_their_split(tmp_path, out, capsys):
    pairs = [write(tmp_path, patient=1, found=5), write(tmp_path, patient=2, series=2, found=10)]
    evaluate(out, *zip(*pairs, strict=True), "--split-name", "validation")
    found = metrics(out)
    assert found["split"] == "validation"
    assert found["iou"]["pooled"]["value"] == 0.75
    assert (found["iou"]["pooled"]["low"], found["iou"]["pooled"]["high"]) == (0.5, 1.0)
    assert found["nodules"]["sensitivity"]["10-30"] == 1.0
    assert (found["cases"], found["slices"], found["slices_annotated"]) == (2, 6, 2)
    assert [case["iou"] for case in found["cases_detail"]] == [0.5, 1.0]
    table = capsys.readouterr().out
    assert table.startswith("split: validation: 2 patients, 2 series")
    assert "0.750 (0.500 to 1.000)" in table


def test_same_files_in_any_order_give_the_same_bytes(tmp_path, out):
    pairs = [write(tmp_path, patient=n % 3, series=n, found=n) for n in range(1, 7)]
    masks, references = zip(*pairs, strict=True)
    evaluate(out, masks, references)
    first = (out / "metrics.json").read_bytes()
    evaluate(out, masks[::-1], references[2:] + references[:2])
    assert (out / "metrics.json").read_bytes() == first


def test_mask_without_a_reference_is_listed_and_not_scored(tmp_path, out, capsys):
    scored, unscored = write(tmp_path), write(tmp_path, patient=2, series=2)
    assert evaluate(out, [scored[0], unscored[0]], [scored[1]]) == 0
    assert metrics(out)["not_scored"] == [unscored[0].stem]
    assert metrics(out)["cases"] == 1
    assert "not scored, for want of a reference: 1 series" in capsys.readouterr().out


def test_reference_without_its_mask_is_one_line(tmp_path, out, capsys):
    one, other = write(tmp_path), write(tmp_path, patient=2, series=2)
    code = evaluate(out, [one[0]], [one[1], other[1]])
    assert f"{other[1]}: no mask of series {other[1].stem}" in refused(capsys, code, out)


def test_references_of_other_sides_are_left_out(tmp_path, out):
    test, training = write(tmp_path), write(tmp_path, patient=2, series=2)
    split = write_split(tmp_path, {1: "test", 2: "training"})
    assert evaluate(out, [test[0]], [test[1], training[1]], "--split", split, "--split-name", "test") == 0
    assert metrics(out)["cases"] == 1


@pytest.mark.parametrize(("side", "message"), [("training", "is on the training side"), (None, "is on no side")])
def test_mask_of_another_side_is_one_line(tmp_path, out, capsys, side, message):
    paths = write(tmp_path)
    split = write_split(tmp_path, {1: side} if side else {})
    code = evaluate(out, [paths[0]], [paths[1]], "--split", split, "--split-name", "test")
    error = refused(capsys, code, out)
    assert str(paths[0]) in error
    assert message in error


def test_mask_and_reference_of_two_volumes_name_both_files(tmp_path, out, capsys):
    found, drawn = write(tmp_path, volume_hash="ef" * 32)
    error = refused(capsys, evaluate(out, [found], [drawn]), out)
    assert str(found) in error
    assert str(drawn) in error


def test_series_given_twice_is_one_line(tmp_path, out, capsys):
    found, drawn = write(tmp_path)
    assert "was already given as" in refused(capsys, evaluate(out, [found, found], [drawn]), out)


def test_masks_and_references_swapped_are_one_line(tmp_path, out, capsys):
    found, drawn = write(tmp_path)
    assert "holds a reference; need a mask" in refused(capsys, evaluate(out, [drawn], [found]), out)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"patients": []}'])
def test_file_that_is_no_split_is_one_line(tmp_path, out, capsys, text):
    found, drawn = write(tmp_path)
    (tmp_path / "split.json").write_text(text)
    code = evaluate(out, [found], [drawn], "--split", str(tmp_path / "split.json"), "--split-name", "test")
    assert "not a usable split" in refused(capsys, code, out)


def test_record_holds_what_was_compared(tmp_path, out):
    found, drawn = write(tmp_path)
    evaluate(out, [found], [drawn])
    record = json.loads((out / "evaluate.run.json").read_text())
    assert sorted(record["inputs"]) == [found.name, drawn.name]
    assert list(record["outputs"]) == ["metrics.json"]
    assert (record["items"], record["unit"]) == (1, "series")
