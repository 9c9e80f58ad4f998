import json
import subprocess
import sys
import threading

import numpy as np
import pytest

from made import ball, volume
from slicestream.__main__ import main
from slicestream.infer import _ahead
from slicestream.volumes.mask import check_same_volume, read_mask
from slicestream.volumes.volume import read_volume, write_volume
from tiny_model import write_hu_model, write_model_of_another_shape, write_random_model, write_two_path_model

SPACING_MM = (2.0, 1.0, 1.0)


@pytest.fixture
def model(tmp_path):
    return write_hu_model(tmp_path / "model.onnx")


@pytest.fixture
def written(tmp_path):
    """Write a volume with two balls of tissue, 10 and 16 mm, in air of -800 HU; return its path."""
    return write_balls(tmp_path, series=1)


def write_balls(folder, *, series, rise=0):
    shape = (12, 50, 61)
    hu = np.full(shape, -800, np.int16)
    hu[ball(shape, (6, 15 + rise, 15), 5.0, SPACING_MM)] = 40
    hu[ball(shape, (6, 35, 40), 8.0, SPACING_MM)] = 40
    made = volume(hu, spacing_mm=SPACING_MM, series=series)
    write_volume(folder / f"{made.id}.volume", made)
    return folder / f"{made.id}.volume"


def infer(tmp_path, model, *volumes, options=()):
    out = tmp_path / "out"
    code = main(["infer", "--model", str(model), "--volumes", *map(str, volumes), "--out", str(out), *options])
    return code, out


def refused(capsys, code, out):
    error = capsys.readouterr().err
    assert code == 2
    assert error.startswith("slicestream infer: ")
    assert error.count("\n") == 1
    assert not out.exists() or list(out.iterdir()) == []
    return error


def test_balls_of_known_place_are_found_and_bound_to_volume_and_model(tmp_path, model, written):
    code, out = infer(tmp_path, model, written)
    assert code == 0
    given = read_volume(written)
    mask = read_mask(out / written.with_suffix(".mask").name, "mask")
    check_same_volume(written, mask, given)
    assert np.array_equal(mask.labels > 0, given.hu == 40)
    small, large = ball((12, 50, 61), (6, 15, 15), 5, SPACING_MM), ball((12, 50, 61), (6, 35, 40), 8, SPACING_MM)
    assert sorted(c.voxels for c in mask.candidates) == [small.sum(), large.sum()]
    assert all(c.score > 0.99 for c in mask.candidates)
    assert mask.settings["lung_mask"]["reason"] == "field of view 50 mm, under 220 mm: a crop"
    assert mask.settings["threshold"] == 0.5


def test_second_network_scores_candidates_anew_and_changes_no_voxel(tmp_path, model, written):
    _, out = infer(tmp_path, model, written)
    plain = read_mask(out / written.with_suffix(".mask").name, "mask")
    two = write_two_path_model(tmp_path / "two.onnx")
    _, out = infer(tmp_path, two, written)
    mask = read_mask(out / written.with_suffix(".mask").name, "mask")
    assert np.array_equal(mask.labels > 0, plain.labels > 0)
    # its score falls with what is bright: the smaller ball now comes first
    assert [c.voxels for c in mask.candidates] == sorted(c.voxels for c in plain.candidates)
    assert mask.candidates[0].score > mask.candidates[1].score
    assert (mask.settings["score"], plain.settings["score"]) == ("second network", "mean probability")


def test_record_says_slices_engine_threads_and_hashes(tmp_path, model, written):
    _, out = infer(tmp_path, model, written, options=["--threads", "1"])
    (path,) = out.glob("infer-*.run.json")
    record = json.loads(path.read_text())
    assert (record["items"], record["unit"]) == (12, "slices")
    assert record["device"].endswith(", 1 threads")
    assert "openvino" in record["versions"]
    assert record["parameters"]["precision"] in ("bfloat16", "float32")
    assert record["inputs"][written.name] == read_volume(written).content_hash
    mask = written.with_suffix(".mask").name
    assert record["outputs"] == {mask: read_mask(out / mask, "mask").content_hash}


@pytest.mark.parametrize("flips", [[], ["--flips"]])
def test_batch_size_and_threads_do_not_change_a_byte_of_the_mask(tmp_path, written, flips):
    model = write_random_model(tmp_path / "random.onnx")
    masks = []
    for size, threads in (("1", "1"), ("3", "2"), ("8", "1")):
        options = ["--batch-size", size, "--threads", threads, "--threshold", "0.4", *flips]
        _, out = infer(tmp_path, model, written, options=options)
        masks.append((out / written.with_suffix(".mask").name).read_bytes())
    assert masks[0] == masks[1] == masks[2]


def test_float32_is_asked_for_and_the_mask_says_so(tmp_path, model, written):
    _, out = infer(tmp_path, model, written, options=["--precision", "float32"])
    assert read_mask(out / written.with_suffix(".mask").name, "mask").settings["precision"] == "float32"


def test_each_of_several_volumes_gets_its_own_mask(tmp_path, model):
    paths = [write_balls(tmp_path, series=number, rise=number) for number in range(1, 5)]
    _, out = infer(tmp_path, model, *paths)
    for path in paths:
        mask = read_mask(out / path.with_suffix(".mask").name, "mask")
        check_same_volume(path, mask, read_volume(path))
        assert np.array_equal(mask.labels > 0, read_volume(path).hu == 40)


def test_one_item_is_worked_on_ahead_of_the_one_in_use_and_no_more():
    second, begun = threading.Event(), []

    def work(item):
        begun.append(item)
        if item == 2:
            second.set()
        return -item

    results = _ahead(work, iter(range(1, 7)))
    assert next(results) == -1
    assert second.wait(timeout=30)
    assert begun == [1, 2]
    assert list(results) == [-2, -3, -4, -5, -6]


def test_no_volumes_write_only_the_record(tmp_path, model):
    code, out = infer(tmp_path, model)
    assert code == 0
    (only,) = out.iterdir()
    assert json.loads(only.read_text())["items"] == 0


def test_progress_is_on_stderr_and_stdout_is_left_alone(tmp_path, model, written, capsys):
    infer(tmp_path, model, written)
    said = capsys.readouterr()
    assert said.out == ""
    assert "infer: volume 1/1, 12 slices: 2 candidates" in said.err


def test_least_score_is_the_models_unless_told_otherwise(tmp_path, written):
    model = write_random_model(tmp_path / "random.onnx")
    found = {}
    for least in ("0", "0.9999"):
        _, out = infer(tmp_path, model, written, options=["--threshold", "0.4", "--min-score", least])
        found[least] = read_mask(out / written.with_suffix(".mask").name, "mask")
    assert len(found["0"].candidates) > len(found["0.9999"].candidates)
    assert found["0.9999"].settings["min_score"] == 0.9999
    assert found["0.9999"].settings["dropped"]["low_score"] > 0
    picky = write_hu_model(tmp_path / "picky.onnx", min_score="0.25")
    _, out = infer(tmp_path, picky, written)
    assert read_mask(out / written.with_suffix(".mask").name, "mask").settings["min_score"] == 0.25


def test_a_models_temperature_moves_scores_and_nothing_else(tmp_path, written):
    masks = {}
    for temperature in ("1", "3"):
        model = write_hu_model(tmp_path / f"{temperature}.onnx", over_hu=38.0, temperature=temperature)
        # 2 HU over its limit are less than a step of bfloat16
        _, out = infer(tmp_path, model, written, options=["--precision", "float32"])
        masks[temperature] = read_mask(out / written.with_suffix(".mask").name, "mask")
    assert [mask.settings["temperature"] for mask in masks.values()] == [1.0, 3.0]
    assert np.array_equal(masks["1"].labels, masks["3"].labels)
    plain, tempered = ([c.score for c in mask.candidates] for mask in masks.values())
    assert len(plain) == 2
    wanted = [1 / (1 + (1 / score - 1) ** (1 / 3)) for score in plain]
    assert tempered == pytest.approx(wanted, rel=0.02)
    assert max(tempered) < min(plain)


def test_small_components_go_by_the_stated_diameter(tmp_path, model, written):
    _, out = infer(tmp_path, model, written, options=["--min-diameter-mm", "12"])
    mask = read_mask(out / written.with_suffix(".mask").name, "mask")
    assert len(mask.candidates) == 1
    assert mask.settings["dropped"]["too_small"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch-size", "0"], "--batch-size 0: need a whole number of slices, 1 or more"),
        (["--min-score", "1"], "--min-score 1: need a score from 0 to under 1"),
        (["--min-score", "-0.1"], "--min-score -0.1: need"),
        (["--threshold", "0"], "--threshold 0: need a probability between 0 and 1"),
        (["--threshold", "1"], "--threshold 1: need"),
        (["--threshold", "nan"], "--threshold nan: need"),
        (["--threads", "0"], "--threads 0: need 1 or more"),
        (["--min-diameter-mm", "-1"], "--min-diameter-mm -1: need millimetres"),
    ],
)
def test_option_out_of_range_is_one_line(tmp_path, model, capsys, options, message):
    assert message in refused(capsys, *infer(tmp_path, model, options=options))


def test_damaged_model_is_one_line(tmp_path, model, written, capsys):
    content = bytearray(model.read_bytes())
    content[100] ^= 1
    model.write_bytes(content)
    assert "was sealed in it" in refused(capsys, *infer(tmp_path, model, written))


def test_model_of_another_architecture_is_one_line(tmp_path, written, capsys):
    model = write_model_of_another_shape(tmp_path / "other.onnx")
    assert "another architecture" in refused(capsys, *infer(tmp_path, model, written))


def test_truncated_volume_is_one_line(tmp_path, model, written, capsys):
    written.write_bytes(written.read_bytes()[:-40])
    assert f"{written}: cannot be opened" in refused(capsys, *infer(tmp_path, model, written))


def test_volume_given_twice_is_one_line(tmp_path, model, written, capsys):
    assert "was already given as" in refused(capsys, *infer(tmp_path, model, written, written))


def test_mask_given_as_volume_is_one_line(tmp_path, model, written, capsys):
    _, out = infer(tmp_path, model, written)
    capsys.readouterr()
    mask = out / written.with_suffix(".mask").name
    code = main(["infer", "--model", str(model), "--volumes", str(mask), "--out", str(tmp_path / "second")])
    assert "holds a mask; need a volume" in refused(capsys, code, tmp_path / "second")


def test_second_volume_damaged_keeps_nothing_of_the_first(tmp_path, model, written, capsys):
    other = write_balls(tmp_path, series=2)
    content = bytearray(other.read_bytes())
    content[-400] ^= 1
    other.write_bytes(content)
    code, out = infer(tmp_path, model, written, other)
    assert code == 2
    assert str(other) in capsys.readouterr().err
    assert not out.exists()


def test_infer_never_imports_torch_pydicom_or_simpleitk(tmp_path, model, written):
    unwanted = [
        "torch",
        "pydicom",
        "SimpleITK",
        "highdicom",
        "onnx",
        "matplotlib",
        "PIL",
        "scipy",
        "openvino_telemetry",
    ]
    arguments = ["infer", "--model", str(model), "--volumes", str(written), "--out", str(tmp_path)]
    code = (
        "import sys\n"
        "from slicestream.__main__ import main\n"
        f"code = main({arguments!r})\n"
        f"found = [name for name in {unwanted!r} if name in sys.modules]\n"
        "print(code, found)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0 []\n"
    assert written.with_suffix(".mask").exists()
