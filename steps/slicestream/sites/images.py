"""The container images that containers/build made here, each known by its build: a hash of all that went in."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

from slicestream.errors import WorkflowError

FOLDER = Path("containers/images")
BUILD = "SLICESTREAM_IMAGE="  # the variable of every image: its name and tag, then @build: and the hash
SHOWN_DIGITS = 12


def folder_of(where: Path) -> Path | None:
    """Return the folder of images that is nearest to a StreamFlow file: beside it or above. None if there is none."""
    parents = where.resolve().parents
    return next((parent / FOLDER for parent in parents if (parent / FOLDER).is_dir()), None)


def local_builds(folder: Path | None) -> dict[str, tuple[Path, str]]:
    """Return archive and build of each image of a folder, by its name without the tag.

    Raises
    ------
    WorkflowError
        An archive is damaged.
    """
    found: dict[str, tuple[Path, str]] = {}
    for archive in sorted(folder.glob("*.tar")) if folder else []:
        try:
            name, build = divided(_variable(archive))
        except (OSError, tarfile.TarError, KeyError, ValueError, IndexError) as error:
            raise WorkflowError(f"{archive}: not a docker-archive ({error}); make it again with make images") from error
        if build:
            found[name] = archive, build
    return found


def divided(value: str) -> tuple[str, str]:
    """Return name without tag, and build, of what an image says of itself; "" for what it does not say."""
    image, _, build = value.strip().partition("@build:")
    return nameless_tag(image), build


def nameless_tag(image: str) -> str:
    """Return an image's name without its tag."""
    name, colon, tag = image.rpartition(":")
    return name if colon and "/" not in tag else image


def _variable(archive: Path) -> str:
    """Return what an archive's image says of itself, "" if nothing."""
    with tarfile.open(archive, "r:") as tar:
        manifest = _json(tar, "manifest.json")
        variables = _json(tar, manifest[0]["Config"])["config"].get("Env") or []
    return next((one.removeprefix(BUILD) for one in variables if one.startswith(BUILD)), "")


def _json(tar: tarfile.TarFile, name: str) -> Any:
    member = tar.extractfile(name)
    if member is None:
        raise KeyError(name)
    return json.load(member)
