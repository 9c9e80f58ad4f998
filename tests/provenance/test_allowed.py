"""What may be told of a run, decided value by value."""

from __future__ import annotations

import pytest

from slicestream.provenance import allowed

ID = "0123456789abcdef-fedcba9876543210"


@pytest.mark.parametrize(
    "name", [f"{ID}.volume", f"{ID}-sr.dcm", "model.onnx", "training-1of2.slices", "split.run.json"]
)
def test_artefacts_that_steps_name_themselves_have_a_kind(name: str) -> None:
    assert allowed.kind_of(name) is not None


@pytest.mark.parametrize(
    "name", ["Rossi_Mario.onnx", "IM0001.dcm", "1.2.826.0.1.dcm", f"{ID}.identity", "pseudonym_key"]
)
def test_names_that_anybody_could_have_given_have_none(name: str) -> None:
    assert allowed.kind_of(name) is None


def test_a_deployment_goes_by_its_alias_and_a_host_by_none() -> None:
    assert allowed.alias("hpc") == "hpc"
    assert allowed.alias("__LOCAL__") == "laptop"
    assert allowed.alias("login.hospital.example") == "other"
    assert allowed.site_kind("slurm") == "slurm"
    assert allowed.site_kind("molinette") == "other"


def test_settings_keep_figures_and_words_and_lose_texts_and_unknown_names() -> None:
    recorded = {
        "recipe": {"name": "laptop", "window": {"low_hu": -1300.0}, "widths": [12, 24], "note": "of Mario Rossi"},
        "title": "Mario Rossi",
        "structure": "GTV_Rossi",
        "consensus": "level-3",
        "share": "1/2",
        "flips": True,
    }
    assert allowed.parameters(recorded) == {
        "consensus": "level-3",
        "flips": True,
        "recipe.name": "laptop",
        "recipe.widths": "12 24",
        "recipe.window.low_hu": -1300.0,
        "share": "1/2",
    }


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("device", "cuda (NVIDIA H100 80GB HBM3, bfloat16)", "gpu at /home/rossi"),
        ("device", "Intel(R) Xeon(R) CPU @ 2.20GHz, 2 threads", "a\nb"),
        ("gres", "gpu:0,1", "node/gpu"),
        ("job", "4711", "4711; rm"),
    ],
)
def test_texts_have_the_form_that_steps_give_them_or_are_left_out(kind: str, good: str, bad: str) -> None:
    assert allowed.text(kind, good) == good
    assert allowed.text(kind, bad) == ""
