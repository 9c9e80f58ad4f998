from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest

import output_cases as cases
from slicestream import RESEARCH_ONLY
from slicestream.figures.claim import ITEMS
from slicestream.figures.facts import Record
from slicestream.figures.model_card import CardFacts, model_card
from slicestream.volumes import scores
from slicestream.volumes.metrics import compare

HASHES = {"model.onnx": "aa" * 32, "weights.safetensors": "bb" * 32}
CARD = {
    "architecture": "unet-24x5",
    "content_hashes": HASHES,
    "window": {"low_hu": -1300.0, "high_hu": 300.0},
    "spacing_mm": [0.703125, 0.703125],
    "threshold": 0.45,
    "context": 1,
    "temperature": 1.6,
    "training": {"seed": 7, "epochs_run": 61, "best_epoch": 48},
    "validation": {"iou_pooled": 0.6123},
    "recipe": {"epochs": 80, "augmentation": {"zoom": 1.1}},
    "data": {"training": {"patients": 247, "slices": 13589, "annotated_slices": 12001}},
    "versions": {"torch": "2.9.1"},
}
SPLIT = {
    "seed": 3,
    "fractions": {"training": 0.8, "validation": 0.1, "test": 0.1},
    "excluded_patients": 5,
    "patients_without_annotation": 2,
    "backgrounds": {"series": 11, "images": 90},
    "table": [{"side": "training", "patients": 247, "series": 300, "images": 13589}],
    "patients": {"0123456789abcdef": "training", "fedcba9876543210": "test"},
}


def metrics() -> dict[str, Any]:
    found = scores.summarise([compare(cases.mask(), cases.reference())], split="test", resamples=20)
    return json.loads(json.dumps(found))


def record(step: str, **facts: Any) -> Record:
    day = datetime(2031, 4, 5, 6, 7, 8, tzinfo=UTC)
    usual: dict[str, Any] = {"site": "hospital-hpc", "host": "node-17", "device": "H100", "start": day, "end": day}
    usual |= {"seconds": 1234.5, "items": 1, "unit": "slices", "bytes_in": 1, "bytes_out": 1}
    usual |= {"inputs": {}, "outputs": {}, "versions": {"slicestream": "0.1.0"}}
    return Record(step=step, **(usual | facts))


def facts(**changed: Any) -> CardFacts:
    inputs = {"training-000.slices": "cc" * 32, "validation-000.slices": "dd" * 32}
    masks = {f"{cases.SERIES}.mask": "ee" * 32}
    records = [record("train", inputs=inputs), record("export", inputs=masks, versions={"pydicom": "3.0.2"})]
    usual: dict[str, Any] = {"card": CARD, "split": SPLIT, "metrics": metrics(), "records": records}
    return CardFacts(**(usual | changed))


def rows(text: str, heading: str) -> dict[str, list[str]]:
    """Return the rows of the table under a heading by their first cell."""
    part = text.partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    cells = [[cell.strip() for cell in line[1:-1].split("|")] for line in part.splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in cells[2:]}


def test_every_metric_is_the_one_of_the_file_with_its_interval() -> None:
    found, table = metrics(), rows(model_card(facts()), "## Results")

    def cells(entry: dict[str, Any]) -> list[str]:
        return ["–" if entry[n] is None else str(entry[n]) for n in ("value", "low", "high")]

    for name in ("pooled", "per_slice", "per_slice_empty_is_one", "per_slice_annotated", "per_case"):
        assert table[f"IoU, {name.replace('_', ' ')}"] == cells(found["iou"][name])
        assert table[f"Dice, {name.replace('_', ' ')}"] == cells(found["dice"][name])
    # 40 voxels shared, 49 predicted, 60 annotated
    assert float(table["IoU, pooled"][0]) == pytest.approx(40 / 69, abs=1e-6)
    intervals = found["nodules"]["intervals"]
    assert table["sensitivity, all (2 nodules)"] == cells(intervals["sensitivity"]["all"])
    assert table["false positives per scan"] == cells(intervals["false_positives_per_scan"])
    assert table["expected calibration error of scores"] == cells(found["calibration"]["error"])
    assert table["sensitivity at 1 false positives per scan"] == cells(found["operating_points"]["1"])
    for name, words in found["definitions"].items():
        assert f"- {name}: {words}" in model_card(facts()).replace("&#42;", "*")


def test_data_division_and_training_are_those_of_their_files() -> None:
    text = model_card(facts())
    assert rows(text, "## Data")["training"] == ["247", "300", "13589"]
    assert "12001 of 13589 slices have a nodule" in text
    assert "seed 3" in text
    assert "Left out by the user: 5 patients" in text
    settings = rows(text, "## Training")
    assert settings["training: best_epoch"] == ["48"]
    assert settings["recipe: augmentation: zoom"] == ["1.1"]
    model = rows(text, "## Model")
    assert (model["threshold"], model["temperature"]) == (["0.45"], ["1.6"])
    assert model["neighbouring slices on either side, seen as channels"] == ["1"]
    assert "One slice at a time with 1 on either side" in text


def test_hashes_of_model_weights_and_data_stand_in_it_and_versions_too() -> None:
    text = model_card(facts())
    data = {"training-000.slices": ["cc" * 32], "validation-000.slices": ["dd" * 32]}
    assert rows(text, "## Hashes") == {name: [value] for name, value in HASHES.items()} | data
    assert rows(text, "## Versions") == {"pydicom": ["3.0.2"], "slicestream": ["0.1.0"], "torch": ["2.9.1"]}


def test_nothing_identifying_and_no_time_or_place_is_in_it() -> None:
    text = model_card(facts())
    for word in ("0123456789abcdef", "fedcba9876543210", "hospital-hpc", "node-17", "H100", "2031", "1234.5"):
        assert word not in text


def test_claim_is_whole_and_unknown_items_say_so() -> None:
    assert [number for number, *_ in ITEMS] == list(range(1, 45))
    table = rows(model_card(facts()), "## CLAIM")
    assert list(table) == [str(number) for number in range(1, 45)]
    unknown = {number for number, _, key in ITEMS if not key}
    for number in unknown:
        assert table[str(number)][1] == "not known"
    assert {13, 16, 18, 36, 44} <= unknown  # what no run can know is never made up
    assert table["20"] == ["Level at which partitions are disjoint", "Patient"]
    assert table["33"][1] == "None in this run"


def test_every_answer_belongs_to_an_item() -> None:
    keys = [key for *_, key in ITEMS if key]
    assert len(keys) == len(set(keys))
    text = rows(model_card(facts()), "## CLAIM")
    answered = {number for number, _, key in ITEMS if key}
    assert all(text[str(number)][1] != "not known" for number in answered)


def test_what_the_run_lacks_is_not_known_and_nothing_is_made_up() -> None:
    text = model_card(facts(card={"content_hashes": HASHES}, split=None, metrics=None, records=[]))
    assert "Not evaluated in this run." in text
    assert "how good it is, is not known" in text
    assert rows(text, "## Model")["architecture"] == ["not known"]
    table = rows(text, "## CLAIM")
    for number in ("19", "25", "28", "32", "35", "37"):
        assert table[number][1] == "not known"
    assert RESEARCH_ONLY in text


def test_few_patients_are_called_few() -> None:
    assert "Tested on few patients (1)" in model_card(facts())
    many = metrics() | {"patients": 120}
    assert "Tested on few" not in model_card(facts(metrics=many))


def test_spheres_are_told_from_outlines() -> None:
    assert "are spheres" not in model_card(facts())
    found = metrics()
    found["nodules"]["forms"] = {"outline": 1, "sphere": 31}
    assert "Of the reference nodules tested on, 31 are spheres" in model_card(facts(metrics=found))


def test_the_same_facts_give_the_same_card() -> None:
    assert model_card(facts()) == model_card(facts())


def test_text_of_other_sites_cannot_become_markup() -> None:
    evil = "a|b\n# <script>alert(1)</script> [x](http://e) `c`"
    card = CARD | {"architecture": evil, "recipe": {evil: evil}}
    text = model_card(facts(card=card, split=SPLIT | {"seed": evil}))
    assert "<script" not in text
    assert "[x]" not in text
    assert len(re.findall(r"^# ", text, flags=re.M)) == 1
    assert len(rows(text, "## Training")) == len(rows(model_card(facts()), "## Training")) - 1


def test_card_tells_of_a_second_network_where_the_model_has_one() -> None:
    assert "second network" not in model_card(facts())
    assert "| second network | 3D, at two scales" in model_card(facts(card=CARD | {"reach_mm": 3.75}))
