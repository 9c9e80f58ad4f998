import json

import pytest

from slicestream.volumes.files import write_text
from slicestream.volumes.record import recorded, tag_of


def test_record_holds_what_was_read_and_written(tmp_path, monkeypatch):
    monkeypatch.setenv("SLICESTREAM_SITE", "cloud")
    monkeypatch.setenv("SLICESTREAM_IMAGE", "localhost/slicestream/infer:0.1.0@build:12")
    with recorded("infer", tmp_path, tag="ab") as record:
        write_text(tmp_path / "out", "12345")
        record.add_input("a.volume", "h1", 100)
        record.add_output(tmp_path / "out", "h2")
        record.items, record.unit = 3, "slices"
    written = json.loads((tmp_path / "infer-ab.run.json").read_text())
    assert (written["step"], written["site"], written["items"], written["unit"]) == ("infer", "cloud", 3, "slices")
    assert written["image"] == "localhost/slicestream/infer:0.1.0@build:12"
    assert (written["inputs"], written["bytes_in"]) == ({"a.volume": "h1"}, 100)
    assert (written["outputs"], written["bytes_out"]) == ({"out": "h2"}, 5)
    assert written["start"] <= written["end"]
    assert written["seconds"] >= 0


def test_step_that_fails_leaves_no_record(tmp_path):
    with pytest.raises(RuntimeError), recorded("infer", tmp_path):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_tag_depends_on_the_names_and_not_on_their_order():
    assert tag_of(["a", "b"]) == tag_of(["b", "a"])
    assert tag_of(["a"]) != tag_of(["b"])
    assert len(tag_of([])) == 8
