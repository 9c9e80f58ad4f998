"""CWL and StreamFlow files, found valid or not by the runners themselves, each in a process of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from slicestream.errors import WorkflowError

CWLTOOL = "import sys; from cwltool.main import main; sys.exit(main())"  # python -m cwltool exits 0 in any case
# StreamFlow's own schema, with what plugins add to it; of several faults the one that is nearest to the matter.
VALIDATE = """
import logging
import sys
logging.disable(logging.INFO)
from jsonschema.exceptions import best_match
from jsonschema.validators import validator_for
from streamflow.config.validator import SfValidator
from streamflow.ext.utils import load_extensions
load_extensions()
validator = SfValidator()
with open(sys.argv[1]) as file:
    config = validator.yaml.load(file)
schema = validator.schema.get_config(config["version"]).contents
fault = best_match(validator_for(schema)(schema, registry=validator.schema.registry).iter_errors(config))
if fault:
    sys.exit(f"{fault.json_path}: {fault.message}")
"""
TIMEOUT_S = 120
MESSAGE_LENGTH = 300


def validate_cwl(path: Path) -> None:
    """Refuse a file that is not valid CWL. Raises WorkflowError."""
    said = _said_by("cwltool", ["-c", CWLTOOL, "--quiet", "--disable-color", "--strict", "--validate", str(path)], path)
    if said:
        raise WorkflowError(f"{path}: not valid CWL ({said}); correct it")


def read_streamflow(path: Path) -> dict[str, Any]:
    """Return the content of a valid StreamFlow file whose files exist. Raises WorkflowError."""
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WorkflowError(f"{path}: {error.strerror}; need a StreamFlow or CWL file. Check the path.") from error
    except (ValueError, yaml.YAMLError) as error:
        raise WorkflowError(f"{path}: not YAML ({' '.join(str(error).split())}); correct it") from error
    if not isinstance(config, dict) or "version" not in config:
        raise WorkflowError(f"{path}: no 'version: v1.0'; need a StreamFlow file, or one that ends with .cwl")
    said = _said_by("streamflow", ["-c", VALIDATE, str(path)], path)
    if said:
        raise WorkflowError(f"{path}: StreamFlow refuses it ({said}); correct it")
    for name, where in _files(config):
        if not (path.parent / name).is_file():
            raise WorkflowError(f"{path}: {where} names {name}, which is not there; correct the path, or make the file")
    return config


def _files(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each file that a StreamFlow file names, and where it does."""
    for name, workflow in config["workflows"].items():
        for key in ("file", "settings"):
            if key in workflow["config"]:
                yield workflow["config"][key], f"workflow {name}"
    for name, deployment in config.get("deployments", {}).items():
        settings = deployment["config"]
        for file in settings.get("files", []) if isinstance(settings.get("files"), list) else []:
            yield file, f"deployment {name}"
        for service in settings.get("services", {}).values() if deployment["type"] in ("ssh", "slurm") else []:
            file = service.get("file") if isinstance(service, dict) else service
            if file:
                yield file, f"deployment {name}"


def _said_by(runner: str, arguments: list[str], path: Path) -> str:
    """Return what a runner has against a file, in one line; "" if nothing."""
    if importlib.util.find_spec(runner) is None:
        raise WorkflowError(f"{path}: cannot be checked without {runner}; pip install slicestream[laptop]")
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    if done.returncode == 0:
        return ""
    said = (done.stderr or done.stdout or f"exit status {done.returncode}").strip()
    line = " ".join((said.rpartition("\n")[2] if "Traceback" in said else said).split())
    return line if len(line) <= MESSAGE_LENGTH else f"…{line[-MESSAGE_LENGTH:]}"
