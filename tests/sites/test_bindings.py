"""What sees an identity stays on this machine, whatever a StreamFlow file says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from slicestream.errors import BindingError
from slicestream.sites.bindings import check_bindings

ROOT = Path(__file__).parents[2]
DEPLOYMENTS = {
    "laptop": {"type": "local", "config": {}},
    "login": {"type": "ssh", "config": {"nodes": ["hpc"]}},
    "hpc": {"type": "slurm", "config": {}, "wraps": "login"},
    "cloud": {"type": "kubernetes", "config": {"files": []}},
    "disguised": {"type": "local", "config": {}, "wraps": {"deployment": "login"}},
}


def bound(*bindings: tuple[str, str], workflow: Path = ROOT / "workflows/main.cwl", **config: Any) -> dict[str, Any]:
    targets = [{"step": step, "target": {"deployment": deployment}} for step, deployment in bindings]
    body = {"type": "cwl", "config": {"file": str(workflow), **config}, "bindings": targets}
    return {"workflows": {"main": body}, "deployments": DEPLOYMENTS}


def check(config: dict[str, Any]) -> str:
    try:
        check_bindings(config, where="streamflow.yml")
    except BindingError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("path", ["streamflow.yml", "environments/local/streamflow.yml"])
def test_the_shipped_files_keep_identities_here(path: str) -> None:
    check_bindings(yaml.safe_load((ROOT / path).read_text()), where=str(ROOT / path))


def test_training_inference_and_packing_may_leave() -> None:
    assert check(bound(("/train", "hpc"), ("/infer", "cloud"), ("/split", "hpc"), ("/pick", "cloud"))) == ""


@pytest.mark.parametrize("deployment", ["hpc", "cloud", "login", "disguised", "no such"])
@pytest.mark.parametrize("step", ["preprocess", "export", "evaluate", "view", "report"])
def test_a_step_that_sees_identities_may_not(step: str, deployment: str) -> None:
    said = check(bound((f"/{step}", deployment)))
    assert said.startswith(f"streamflow.yml: workflow main: step /{step} goes to deployment '{deployment}'")
    assert "need type local" in said
    assert "\n" not in said


def test_the_line_says_file_step_deployment_type_and_what_to_do() -> None:
    assert check(bound(("/preprocess", "disguised"))) == (
        "streamflow.yml: workflow main: step /preprocess goes to deployment 'disguised' through 'login' of type ssh, "
        "but it may see identities; need type local. Bind it to a local deployment, or to none."
    )


def test_a_binding_of_the_whole_workflow_covers_them_unless_they_have_their_own() -> None:
    home = [(f"/{step}", "laptop") for step in ("preprocess", "evaluate", "export", "view", "report")]
    assert check(bound(("/", "hpc"), *home)) == ""
    assert "step /export goes to deployment 'hpc'" in check(
        bound(("/", "hpc"), *(one for one in home if one[0] != "/export"))
    )


def test_one_remote_target_of_several_is_enough_to_refuse_even_behind_a_filter() -> None:
    config = bound(("/preprocess", "laptop"))
    binding = config["workflows"]["main"]["bindings"][0]
    binding["target"] = [{"deployment": "laptop"}, {"deployment": "cloud"}]
    binding["filters"] = ["mine"]
    assert "deployment 'cloud'" in check(config)


def test_the_old_words_for_deployments_are_understood() -> None:
    config = bound(("/preprocess", "laptop"))
    config["models"] = config.pop("deployments")
    config["workflows"]["main"]["bindings"][0]["target"] = {"model": "hpc"}
    assert "deployment 'hpc'" in check(config)


def test_another_name_does_not_hide_the_program(tmp_path: Path) -> None:
    (tmp_path / "flow.cwl").write_text(
        yaml.safe_dump(
            {
                "class": "Workflow",
                "steps": {
                    "harmless": {"run": str(ROOT / "workflows/tools/preprocess.cwl")},
                    "nested": {
                        "run": {
                            "class": "Workflow",
                            "steps": {"deep": {"run": str(ROOT / "workflows/tools/export.cwl")}},
                        }
                    },
                    "train": {"run": str(ROOT / "workflows/tools/train.cwl")},
                    "unknown": {"run": "https://example.org/tool.cwl"},
                },
            }
        )
    )
    flow = tmp_path / "flow.cwl"
    assert check(bound(("/train", "hpc"), workflow=flow)) == ""
    for path, step in (
        ("/harmless", "/harmless"),
        ("/nested", "/nested/deep"),
        ("/nested/deep", "/nested/deep"),
        ("/unknown", "/unknown"),
    ):
        assert f"step {step} goes to" in check(bound((path, "hpc"), workflow=flow)), path


def test_without_the_workflow_file_the_names_decide(tmp_path: Path) -> None:
    gone = tmp_path / "gone.cwl"
    assert check(bound(("/train", "hpc"), workflow=gone)) == ""
    assert "step /evaluate goes to" in check(bound(("/", "hpc"), workflow=gone))
    assert "step /sub/export goes to" in check(bound(("/sub/export", "hpc"), workflow=gone))


def test_a_packed_workflow_stays_whole(tmp_path: Path) -> None:
    packed = tmp_path / "packed.cwl"
    packed.write_text("{cwlVersion: v1.2, $graph: []}")
    assert check(bound(("/train", "laptop"), workflow=packed)) == ""
    assert "step /train goes to" in check(bound(("/train", "hpc"), workflow=packed))


@pytest.mark.parametrize(
    ("port", "leaves"), [("/train/model", True), ("/preprocess/volumes", False), ("/cohort", False)]
)
def test_a_port_may_lie_elsewhere_only_at_a_step_that_may(port: str, leaves: bool) -> None:
    config = bound()
    config["workflows"]["main"]["bindings"] = [{"port": port, "target": {"deployment": "hpc", "workdir": "/x"}}]
    assert (check(config) == "") == leaves


def test_a_container_of_a_step_that_stays_is_not_made_in_a_cluster() -> None:
    def docker(kind: str) -> list[dict[str, Any]]:
        return [{"step": "/", "deployment": {"type": kind, "config": {}}}]

    assert check(bound(docker=docker("none"))) == ""
    assert "gets its container from a deployment of type kubernetes" in check(bound(docker=docker("kubernetes")))
