from __future__ import annotations

import base64
import hashlib
import html
import html.parser
import json
import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

import output_cases as cases
from slicestream import RESEARCH_ONLY
from slicestream.__main__ import main
from slicestream.volumes import scores, seal
from slicestream.volumes.metrics import compare

SECTIONS = {"metrics", "cases", "gallery", "nodules", "split", "training", "model", "runs", "provenance"}
PLOTS = {"froc", "sensitivity", "volumes", "loss", "agreement", "timeline"}  # two candidates are no calibration
HISTORY = "epoch,training_loss,validation_loss,validation_iou,seconds\n1,0.9,0.8,0.2,3\n2,0.5,,0.5,3\n"
NAMESPACES = ("1999/xhtml", "1999/xlink", "2000/svg", "2000/xmlns/", "XML/1998/namespace")
VENDORED = {  # of d3 7.9.2 and @observablehq/plot 0.6.17, as npm has them
    "d3.min.js": "912111098ea99503a6f4967361d2bbdc9dbf58cf9c678c8e27e5b02d1a07f0c1",
    "plot.umd.min.js": "4358086467740777dd788d6b27a95cebdbaefdd50c730a3060117073bd7134cb",
}
SPLIT = {"table": [{"side": "training", "patients": 4021, "series": 5, "images": 61}]}


class Page(html.parser.HTMLParser):
    """What a test wants to know of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sections: set[str] = set()
        self.plots: set[str] = set()
        self.references: list[str] = []
        self.tags: set[str] = set()
        self.scripts = 0
        self.handlers: list[str] = []
        self.style = ""
        self.within = ""
        self.words: list[str] = []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.within = tag
        self.handlers += [name for name in found if name.startswith("on")]
        self.tags.add(tag)
        if tag == "section":
            self.sections.add(found["id"] or "")
        self.plots |= {found["data-plot"] or ""} if "data-plot" in found else set()
        self.scripts += tag == "script"
        self.references += [
            found[name] or "" for name in ("src", "href", "xlink:href", "data", "action") if name in found
        ]

    def handle_endtag(self, tag: str) -> None:
        self.within = ""

    def handle_data(self, data: str) -> None:
        if self.within == "style":
            self.style += data
        elif self.within != "script":
            self.words.append(data)


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, Path]:
    """Write everything a report can be made from, by flag; the model is a sealed file of a few bytes."""
    case = cases.write_case(tmp_path)
    flags = ["--masks", case["mask"], "--volumes", case["volume"], "--references", case["reference"]]
    out = tmp_path / "export"
    assert main(["export", *map(str, flags), "--identities", str(case["identity"]), "--out", str(out)]) == 0
    model = b"graph " + b"\x0a\x0ccontent_hash\x12\x40" + b"0" * 64
    (tmp_path / "model.onnx").write_bytes(seal.seal(model))
    (tmp_path / "weights.safetensors").write_bytes(b"weights")
    model_hash = seal.verify(tmp_path / "model.onnx")
    hashes = {"model.onnx": model_hash, "weights.safetensors": hashlib.sha256(b"weights").hexdigest()}
    card = {"architecture": "unet-24x5", "content_hashes": hashes, "window": {"low_hu": -1300.0}}
    (tmp_path / "model.json").write_text(json.dumps(card))
    metrics = scores.summarise([compare(cases.mask(), cases.reference())], split="test", resamples=20)
    (tmp_path / "metrics.json").write_text(json.dumps({**metrics, "models": [model_hash]}))
    (tmp_path / "history.csv").write_text(HISTORY)
    (tmp_path / "split.json").write_text(json.dumps(SPLIT))
    found = {name: tmp_path / f"{name}.json" for name in ("split", "metrics")}
    found |= {"history": tmp_path / "history.csv", "nodules": out / "nodules.csv", "overlays": out / "overlays"}
    found |= {"model": tmp_path / "model.onnx", "weights": tmp_path / "weights.safetensors"}
    return found | {"card": tmp_path / "model.json", "records": out / "export.run.json"}


def words_of(parts: dict[str, Path], out: Path) -> list[str]:
    return ["report", *(word for name, path in parts.items() for word in (f"--{name}", str(path))), "--out", str(out)]


def written(parts: dict[str, Path], out: Path, *more: str) -> str:
    assert main([*words_of(parts, out), *more]) == 0
    return (out / "report.html").read_text()


def test_a_full_run_has_every_section_and_its_figures(
    parts: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Page(written(parts, tmp_path / "out"))
    assert page.sections == SECTIONS
    assert page.plots == PLOTS
    # 40 voxels shared, 49 predicted, 60 annotated
    assert f"{40 / (49 + 60 - 40):.3f}" in page.text
    assert "split test" in page.text
    assert "training 4 021 5 61" in page.text
    assert "1 true positives, 1 false positives, 1 missed" in page.text
    assert page.text.count(RESEARCH_ONLY) == 2
    assert "unet-24x5" in page.text
    assert capsys.readouterr().out.strip().endswith("report.html")


def test_it_reaches_for_nothing_outside_itself(parts: dict[str, Path], tmp_path: Path) -> None:
    text = written(parts, tmp_path / "out")
    page = Page(text)
    assert any(reference.startswith("data:") for reference in page.references)
    assert all(reference.startswith(("data:image/jpeg;base64,", "#")) for reference in page.references)
    assert page.tags & {"link", "iframe", "object", "base", "form"} == set()
    # the libraries name XML's namespaces and where they come from
    named = set(re.findall(r"https?://[\w./-]*", text))
    assert named <= {"https://d3js.org"} | {f"http://www.w3.org/{name}" for name in NAMESPACES}
    assert re.search(r"@import|url\(", page.style) is None
    assert str(tmp_path) not in text


def test_the_page_allows_its_own_scripts_and_no_other(parts: dict[str, Path], tmp_path: Path) -> None:
    text = written(parts, tmp_path / "out")
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    rules = dict(rule.split(" ", 1) for rule in html.unescape(policy).split("; "))
    assert rules["default-src"] == "'none'"
    assert set(rules) == {"default-src", "img-src", "style-src", "script-src"}
    scripts = re.findall(r"<script>(.*?)</script>", text, flags=re.S)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert rules["script-src"].split() == [f"'sha256-{value}'" for value in hashes]
    assert len(scripts) == 4


def test_the_page_is_small_but_for_its_overlays(parts: dict[str, Path], tmp_path: Path) -> None:
    text = written(parts, tmp_path / "out")
    assert len(re.sub(r"data:image/jpeg;base64,[^\"]*", "", text)) < 600_000


def test_the_libraries_are_the_files_of_their_packages() -> None:
    for name, known in VENDORED.items():
        found = files("slicestream.figures").joinpath("vendor", name).read_bytes()
        assert hashlib.sha256(found).hexdigest() == known


def test_new_studies_need_no_training_no_metrics_and_no_references(tmp_path: Path) -> None:
    case, out = cases.write_case(tmp_path, with_reference=False), tmp_path / "export"
    words = ["--masks", case["mask"], "--volumes", case["volume"], "--identities", case["identity"], "--out", out]
    assert main(["export", *map(str, words)]) == 0
    parts = {"nodules": out / "nodules.csv", "overlays": out / "overlays", "records": out / "export.run.json"}
    page = Page(written(parts, tmp_path / "out"))
    assert page.sections == {"gallery", "nodules", "runs", "provenance"}
    assert "ground truth only" not in page.text
    assert "2 candidates" in page.text
    assert not (tmp_path / "out" / "model").exists()
    assert not (tmp_path / "out" / "model-card.md").exists()


def test_a_run_without_any_finding_is_told_so(tmp_path: Path) -> None:
    case = cases.write_case(tmp_path, np.zeros(cases.SHAPE, np.uint16), with_reference=False)
    out = tmp_path / "export"
    words = ["--masks", case["mask"], "--volumes", case["volume"], "--identities", case["identity"], "--out", out]
    assert main(["export", *map(str, words)]) == 0
    parts = {"nodules": out / "nodules.csv", "overlays": out / "overlays", "records": out / "export.run.json"}
    text = Page(written(parts, tmp_path / "out")).text
    assert "No candidate was found." in text
    assert "No slice was marked." in text


def test_hostile_strings_are_text_and_nothing_else(parts: dict[str, Path], tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
    record = cases.write_record(
        tmp_path, "train", "2026-01-01T00:00:00+00:00", "2026-01-01T00:00:05+00:00", host=evil, versions={evil: evil}
    )
    metrics = json.loads(parts["metrics"].read_text())
    parts["metrics"].write_text(json.dumps({**metrics, "split": evil, "definitions": {evil: evil, "pooled": evil}}))
    card = json.loads(parts["card"].read_text())
    parts["card"].write_text(json.dumps({**card, evil: evil}))
    parts["split"].write_text(json.dumps({"table": [{"side": evil, "patients": 1, "series": 1, "images": 1}]}))
    parts["history"].write_text('epoch,"<b>loss</b>","x ""loss"" y"\n1,0.5,1\n2,0.4,1\n')
    overlay = next(parts["overlays"].iterdir())
    overlay.rename(overlay.with_name("<b>" + overlay.name))
    page = Page(written({**parts, "records": record}, tmp_path / "out", "--title", evil))
    assert page.scripts == 5  # the page's own four and its data
    assert page.handlers == []
    assert "alert(1)" in page.text
    assert all(reference.startswith(("data:image/jpeg;base64,", "#")) for reference in page.references)


def test_kpis_are_those_of_the_records(parts: dict[str, Path], tmp_path: Path) -> None:
    day = "2026-03-01T10:"
    records = [
        cases.write_record(
            tmp_path, "preprocess", f"{day}00:00+00:00", f"{day}00:40+00:00", seconds=40.0, items=150, unit="slices"
        ),
        cases.write_record(
            tmp_path, "preprocess", f"{day}00:10+00:00", f"{day}00:45+00:00", seconds=35.0, items=100, unit="slices"
        ),
        cases.write_record(tmp_path, "train", f"{day}01:00+00:00", f"{day}31:30+00:00", seconds=1830.0, site="hpc"),
        cases.write_record(
            tmp_path,
            "infer",
            f"{day}32:00+00:00",
            f"{day}35:00+00:00",
            seconds=180.0,
            site="cloud",
            inputs={"model.onnx": "c0ffee" * 10},
        ),
        cases.write_record(tmp_path, "infer", f"{day}32:00+00:00", f"{day}33:20+00:00", seconds=80.0, site="cloud"),
    ]
    words = [word for word in words_of(parts, tmp_path / "out") if word not in ("--records", str(parts["records"]))]
    assert main([*words, "--records", *map(str, records)]) == 0
    text = Page((tmp_path / "out" / "report.html").read_text()).text
    assert "toppi: pre-processing images 1 min 15 s 300.0 ms per slice, 250 slices" in text
    assert "totm: training models 30 min 30 s" in text
    assert "ttmip: model in production 31 min 30 s" in text
    assert "to the first masks 33 min 20 s" in text
    assert "preprocess: speed-up 1.67 laptop: cpu (2 cores) T(1) / T(n), n = 2 processes on one host" in text
    assert "energy – laptop, hpc, cloud no counter" in text
    told = json.loads((tmp_path / "out" / "report.run.json").read_text())["parameters"]["kpis"]
    assert {"name": "totm", "value": 1830.0, "unit": "s"}.items() <= told[1].items()
    assert f"Model {'c0ffee' * 10}" in text
    assert text.index("hpc") < text.index("cloud")


def test_the_model_folder_holds_the_three_files_and_the_test_metrics(parts: dict[str, Path], tmp_path: Path) -> None:
    written(parts, tmp_path / "out")
    folder = tmp_path / "out" / "model"
    assert {path.name for path in folder.iterdir()} == {
        "model.onnx",
        "weights.safetensors",
        "model.json",
        "model-card.md",
    }
    assert (folder / "model-card.md").read_bytes() == (tmp_path / "out" / "model-card.md").read_bytes()
    assert (folder / "model.onnx").read_bytes() == parts["model"].read_bytes()
    card, metrics = json.loads((folder / "model.json").read_text()), json.loads(parts["metrics"].read_text())
    assert card["architecture"] == "unet-24x5"
    assert card["evaluation"]["split"] == "test"
    assert card["evaluation"]["iou"] == metrics["iou"]
    assert "cases_detail" not in card["evaluation"]


def refused(parts: dict[str, Path], out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line that a refused report prints; nothing may have been written."""
    capsys.readouterr()
    assert main(words_of(parts, out)) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert not out.exists()
    return said


BAD = {
    "metrics": [("[]", "need a JSON object"), ('{"split": "test"', "no readable JSON"), ("{}", "'split' is missing")],
    "split": [('{"table": [{"side": "test"}]}', "no usable split table"), ('{"table": NaN}', "NaN is no JSON number")],
    "records": [('{"step": "train"}', "no usable run record")],
    "history": [("epoch,loss\n1,two\n", "not a table of numbers"), ("epoch,loss\n1,2,3\n", "rows of differing length")],
    "nodules": [("patient,series\n", "is missing"), ("\x00", "no readable table")],
    "card": [("{}", "no content_hashes")],
}


@pytest.mark.parametrize("bad", [(name, *each) for name, found in BAD.items() for each in found])
def test_a_damaged_file_is_named_in_one_line(
    bad: tuple[str, str, str], parts: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, text, words = bad
    parts[name].write_text(text)
    said = refused(parts, tmp_path / "out", capsys)
    assert str(parts[name]) in said
    assert words in said


def test_a_bad_nodule_row_is_named_by_its_line(
    parts: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = parts["nodules"].read_text().splitlines()
    parts["nodules"].write_text("\n".join([*lines[:2], lines[2].replace("false_positive", "good")]) + "\n")
    assert "line 3: status 'good'" in refused(parts, tmp_path / "out", capsys)


def test_a_file_that_is_no_png_is_refused(
    parts: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    next(parts["overlays"].iterdir()).write_bytes(b"GIF89a")
    assert "no readable overlay" in refused(parts, tmp_path / "out", capsys)


def test_metrics_of_another_model_are_refused(
    parts: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = json.loads(parts["metrics"].read_text())
    parts["metrics"].write_text(json.dumps({**metrics, "models": ["ff" * 32]}))
    assert "models were swapped" in refused(parts, tmp_path / "out", capsys)


def test_weights_of_another_training_are_refused(
    parts: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts["weights"].write_bytes(b"others")
    assert "files of different trainings were mixed" in refused(parts, tmp_path / "out", capsys)


def test_a_damaged_model_is_refused(parts: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts["model"].write_bytes(b"x" + parts["model"].read_bytes())
    assert "the model was changed or damaged" in refused(parts, tmp_path / "out", capsys)


def test_a_model_without_its_card_is_refused(
    parts: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del parts["card"]
    assert "need all three, or none" in refused(parts, tmp_path / "out", capsys)
