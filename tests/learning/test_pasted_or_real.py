"""A network that has not seen the patients hardly tells pasted nodules from real ones; crude pastes it does."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from slicestream.__main__ import main
from slicestream.volumes.slices import read_slices

pytestmark = pytest.mark.real

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("pasted_or_real")


@pytest.fixture(scope="module")
def material(data: Path, benchmark: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A third of the patients of `lidc-mini`."""
    folder = tmp_path_factory.mktemp("pasted")
    (folder / "key").write_text("a key for this test only")
    words = [
        "--cohort",
        data / "lidc-mini",
        "--share",
        "1/3",
        "--pseudonym-key",
        folder / "key",
        "--out",
        folder / "crops",
    ]
    assert main(["preprocess", *(str(word) for word in words)]) == 0
    stacks = [stack for stack in read_slices(folder / "crops" / "training-1of3.slices") if len(stack.hu)]
    return benchmark.gather(stacks, benchmark.places_in_crops(stacks))


def test_places_are_as_far_from_walls_and_as_dense_as_those_of_real_nodules(
    material: Any, benchmark: ModuleType
) -> None:
    mine, lent = torch.arange(len(material.own)), torch.arange(len(material.places))
    found = benchmark.alike(material, mine, lent, torch.Generator().manual_seed(0))
    wall_mm, density_hu = (material.kind[found] - material.real_kind).abs().mean(0).tolist()
    assert wall_mm < 1
    assert density_hu < 30


def test_a_pasted_nodule_is_hardly_told_from_a_real_one(material: Any, benchmark: ModuleType) -> None:
    auc, low, high = benchmark.cross_validated(material, benchmark.Question())
    assert auc <= 0.75
    assert low < auc < high


def test_a_crude_paste_is_told_from_a_real_nodule(material: Any, benchmark: ModuleType) -> None:
    auc, *_ = benchmark.cross_validated(material, benchmark.Question(blend=benchmark.crude))
    assert auc > 0.9
