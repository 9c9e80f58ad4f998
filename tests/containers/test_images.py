import json
import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from oci import Container, Image, cannot, image, start

from disc_slices import write_sides
from made import ball, volume
from slicestream import RESEARCH_ONLY, __version__
from slicestream.__main__ import main
from slicestream.volumes.mask import read_mask
from slicestream.volumes.seal import verify
from slicestream.volumes.volume import write_volume
from tiny_model import write_hu_model

TOP = Path(__file__).parents[2]
BUILD = TOP / "containers" / "build"
DATE = 1767225600
SPACING_MM = (2.0, 1.0, 1.0)
both = pytest.mark.parametrize("name", ["train", "infer"])


@pytest.fixture(scope="module", params=["train", "infer"])
def container(request, tmp_path_factory):
    yield from started(request.param, tmp_path_factory)


@pytest.fixture(scope="module")
def infer_container(tmp_path_factory):
    yield from started("infer", tmp_path_factory)


def started(name, tmp_path_factory):
    bundle = tmp_path_factory.mktemp(name)
    yield start(name, bundle)
    shutil.rmtree(bundle)  # a gigabyte


@pytest.fixture
def work(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    for parent in (tmp_path, *list(tmp_path.parents)[:2]):  # pytest's folders are for root alone
        parent.chmod(0o755)
    return folder


def folders(top):
    return {**os.environ, "OUT": str(top / "images"), "SLICESTREAM_CONTAINERS": str(top / "store")}


def modules(container: Container, *names: str) -> set[str]:
    code = "import importlib.util as u, sys; print(*[n for n in sys.argv[1:] if u.find_spec(n)])"
    done = container.run("/opt/slicestream/bin/python", "-c", code, *names)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_infer_image_is_under_450_mb_uncompressed():
    assert image("infer").path.stat().st_size < 450e6


@both
def test_image_bears_the_tag_that_the_workflows_and_environments_ask_for(name):
    assert image(name).manifest["RepoTags"] == [f"localhost/slicestream/{name}:{__version__}"]
    asked = set()
    for path in [*TOP.glob("workflows/tools/*.cwl"), *TOP.glob("environments/**/*")]:
        if path.is_file():
            asked |= set(re.findall(rf"slicestream/{name}:([0-9.]+)", path.read_text()))
    assert asked == {__version__}


@both
def test_image_runs_as_a_user_without_rights_and_says_what_it_is(name):
    config = image(name).config
    assert config["User"] == "10001:10001"
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
    assert labels["title"] == f"slicestream/{name}"
    assert labels["version"] == __version__
    assert labels["licenses"] == "Apache-2.0"
    assert RESEARCH_ONLY in labels["description"]
    assert re.fullmatch(r"[0-9a-f]{40}(-changed)?|unknown", labels["revision"])
    assert labels["source"]


def test_infer_image_holds_neither_torch_nor_dicom_nor_a_runner(infer_container):
    unwanted = ["torch", "onnx", "pydicom", "SimpleITK", "highdicom", "streamflow", "cwltool", "matplotlib", "pip"]
    unwanted += ["openvino.tools", "openvino_telemetry"]
    assert modules(infer_container, "openvino", *unwanted) == {"openvino"}


def test_image_holds_no_dicom_no_runner_no_pip_and_no_trace_of_the_machine(container):
    assert modules(container, "slicestream", "pydicom", "SimpleITK", "highdicom", "streamflow", "pip") == {
        "slicestream"
    }
    root = container.bundle / "rootfs"
    assert not list(root.glob("etc/apt/sources.list*"))
    assert (root / "etc/hostname").read_text() == (root / "etc/resolv.conf").read_text() == ""
    assert not list(root.rglob("direct_url.json"))  # would name a folder


def test_equal_inputs_give_equal_bytes_since_no_file_is_younger_and_no_pyc_holds_a_time(container):
    paths = list((container.bundle / "rootfs").rglob("*"))
    assert max(path.lstat().st_mtime for path in paths) == DATE
    ours = [path for path in paths if path.suffix == ".pyc" and "opt/slicestream" in str(path)]
    assert ours
    assert {struct.unpack("<I", path.read_bytes()[4:8])[0] for path in ours} == {1}  # PEP 552: a hash, not checked


def test_command_is_on_the_path_of_a_login_shell_and_cannot_write_to_the_root(container):
    bare = container.run(
        "env", "-i", "sh", "-l", "-c", "id -u; slicestream --version; touch /x || touch /tmp/x", uid=4242
    )
    assert bare.stdout.split("\n")[:2] == ["4242", f"slicestream {__version__}"]
    assert bare.returncode == 0
    assert "Read-only file system" in bare.stderr


@pytest.mark.parametrize("uid", [10001, 4242])
def test_infer_in_the_container_finds_what_infer_outside_finds(infer_container, work, uid):
    model = write_hu_model(work / "model.onnx")
    shape = (12, 50, 61)
    hu = np.full(shape, -800, np.int16)
    hu[ball(shape, (6, 35, 40), 8.0, SPACING_MM)] = 40
    given = work / "a.volume"
    write_volume(given, volume(hu, spacing_mm=SPACING_MM, series=1))
    flags = ["infer", "--model", str(model), "--volumes", str(given), "--out"]
    done = infer_container.run("slicestream", *flags, work / "inside", work=work, uid=uid)
    assert done.returncode == 0, done.stderr
    assert main([*flags, str(work / "outside")]) == 0
    (inside,), (outside,) = (list((work / side).glob("*.mask")) for side in ("inside", "outside"))
    assert inside.stat().st_uid == uid
    assert np.array_equal(read_mask(inside, "mask").labels > 0, hu == 40)
    assert read_mask(inside, "mask").content_hash == read_mask(outside, "mask").content_hash


def test_training_in_the_container_gives_the_model_of_training_outside(work, tmp_path_factory):
    (sides := work / "sides").mkdir()
    write_sides(sides, slices=4)
    flags = [
        "train",
        "--training",
        str(sides / "training-000.slices"),
        "--validation",
        str(sides / "validation-000.slices"),
    ]
    flags += ["--recipe", "phantom", "--epochs", "1", "--threads", "1", "--device", "cpu", "--seed", "3"]
    for container in started("train", tmp_path_factory):
        done = container.run("slicestream", *flags, "--checkpoints", work / "c1", "--out", work / "inside", work=work)
        assert done.returncode == 0, done.stderr
    assert main([*flags, "--checkpoints", str(work / "c2"), "--out", str(work / "outside")]) == 0
    assert (work / "inside" / "curves.svg").stat().st_size > 1000
    assert json.loads((work / "inside" / "model.json").read_text())["recipe"]["name"] == "phantom"
    assert verify(work / "inside" / "model.onnx") == verify(work / "outside" / "model.onnx")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["export"], "containers/build: export: need train or infer\n"),
        (["--build-arg", "TORCH=2"], "containers/build: --build-arg TORCH=2: need BASE=, PYTHON= or TORCH_INDEX=\n"),
    ],
)
def test_build_refuses_what_it_does_not_know(words, line):
    done = subprocess.run([BUILD, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


def test_build_without_buildah_says_so_in_one_line(tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ["bash", "date", "dirname", "sed", "git", "find", "sort", "xargs", "sha256sum", "cut", "cat"]:
        (tools / tool).symlink_to(shutil.which(tool))
    settings = {
        **os.environ,
        "PATH": str(tools),
        "OUT": str(tmp_path / "images"),
        "SLICESTREAM_CONTAINERS": str(tmp_path / "store"),
    }
    done = subprocess.run([BUILD, "infer"], env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert (
        done.stderr == "containers/build: no buildah here, so no images; install it (on Debian: debian-packages.txt)\n"
    )
    assert {path.name for path in tmp_path.iterdir()} == {"bin"}


@pytest.mark.slow
def test_image_built_again_from_nothing_has_the_same_layers(tmp_path):
    first = image("infer")
    subprocess.run([BUILD, "infer"], env=folders(tmp_path), check=True)
    again = Image(tmp_path / "images" / "infer.tar")
    if (again.path.parent / ".infer.inputs").read_bytes() != (first.path.parent / ".infer.inputs").read_bytes():
        cannot("the sources have changed since the image was built: make images")
    assert len(again.layers) == 3
    assert again.layers[1:] == first.layers[1:]  # the first is Debian's, whose mirror moves
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
    shutil.rmtree(tmp_path)
