"""What a reference says of its nodules survives the file, and nothing else gets in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from made import reference
from slicestream.errors import ArtefactError
from slicestream.volumes.artefact import read_artefact, write_artefact
from slicestream.volumes.mask import Candidate, Mask, ReferenceNodule, read_mask, write_mask

OUTLINE = ReferenceNodule(label=1, readers=3, ratings={"malignancy": 3.5, "subtlety": 4.0})
POINT = ReferenceNodule(label=0, form="point", index=(1.5, 0.0, 2.0))


def drawn(*nodules: ReferenceNodule) -> Mask:
    labels = np.zeros((2, 3, 3))
    labels[0, 0, 0] = 1
    return replace(reference(labels), candidates=(Candidate(label=1, score=1.0, voxels=1),), nodules=nodules)


def test_nodules_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_mask(tmp_path / "a.reference", drawn(OUTLINE, POINT))
    assert read_mask(tmp_path / "a.reference", "reference").nodules == (OUTLINE, POINT)


def test_references_of_older_versions_have_no_nodules_and_are_read(tmp_path: Path) -> None:
    write_mask(tmp_path / "new.reference", drawn(OUTLINE))
    artefact = read_artefact(tmp_path / "new.reference", "reference")
    old = {name: value for name, value in artefact.header.items() if name != "nodules"}
    write_artefact(tmp_path / "old.reference", "reference", old, artefact.arrays)
    found = read_mask(tmp_path / "old.reference", "reference")
    assert found.nodules == ()
    assert found.candidates == drawn().candidates


def test_a_mask_of_a_model_says_nothing_of_nodules(tmp_path: Path) -> None:
    write_mask(tmp_path / "a.mask", replace(drawn(), kind="mask", model_hash="cd" * 32))
    assert "nodules" not in read_artefact(tmp_path / "a.mask", "mask").header


GOOD = {"label": 1, "form": "outline", "readers": 2, "ratings": {"malignancy": 3.0}, "index": None}


@pytest.mark.parametrize(
    "change",
    [
        {"form": "cube"},
        {"readers": 0},
        {"label": -1},
        {"label": 2},
        {"label": 0},
        {"label": "first"},
        {"index": [0, 0, 0]},
        {"label": 0, "index": [0, 0]},
        {"label": 0, "index": [0, 0, float("inf")]},
        {"ratings": {"malignancy": float("nan")}},
        {"ratings": {"malignancy": "high"}},
        {"ratings": {"read by Dr Who": 3.0}},
        {"ratings": {"x" * 33: 3.0}},
        {"ratings": [3.0]},
        {"ratings": None},
    ],
    ids=str,
)
def test_malformed_nodules_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    write_mask(tmp_path / "a.reference", drawn(OUTLINE))
    artefact = read_artefact(tmp_path / "a.reference", "reference")
    for number, entry in enumerate((GOOD, GOOD | change)):
        header = artefact.header | {"nodules": [entry]}
        write_artefact(tmp_path / f"{number}.reference", "reference", header, artefact.arrays)
    assert read_mask(tmp_path / "0.reference", "reference").nodules[0].readers == 2
    with pytest.raises(ArtefactError, match="not a usable reference"):
        read_mask(tmp_path / "1.reference", "reference")


@pytest.mark.parametrize("nodules", ["none", [1], {"label": 1}, None], ids=str)
def test_what_is_no_list_of_nodules_is_refused(tmp_path: Path, nodules: Any) -> None:
    write_mask(tmp_path / "a.reference", drawn(OUTLINE))
    artefact = read_artefact(tmp_path / "a.reference", "reference")
    write_artefact(tmp_path / "b.reference", "reference", artefact.header | {"nodules": nodules}, artefact.arrays)
    with pytest.raises(ArtefactError, match="not a usable reference"):
        read_mask(tmp_path / "b.reference", "reference")
