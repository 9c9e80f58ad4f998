import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from slicestream.errors import ArtefactError
from slicestream.figures.curves import plot_history

HEAD = "epoch,learning_rate,training_loss,validation_loss,validation_dice,validation_iou,validation_iou_per_slice\n"
ROWS = "1,0.01,1.2,1.1,0.2,0.1,0.1\n2,0.01,0.8,0.9,0.4,0.3,0.2\n3,0.01,0.5,0.6,0.7,0.6,0.5\n"


def test_plot_is_svg_with_every_curve_named(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text(HEAD + ROWS)
    plot_history(tmp_path / "history.csv", tmp_path / "curves.svg")
    text = " ".join(ET.parse(tmp_path / "curves.svg").getroot().itertext())
    for label in ("training", "validation", "Dice, pooled", "IoU, pooled", "IoU, mean over slices", "epoch"):
        assert label in text


def test_same_history_gives_same_bytes_and_no_date(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text(HEAD + ROWS)
    for name in ("a.svg", "b.svg"):
        plot_history(tmp_path / "history.csv", tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert b"dc:date" not in (tmp_path / "a.svg").read_bytes()


@pytest.mark.parametrize("content", ["", HEAD, "epoch\n1\n", HEAD + "1,0.1,nan,1,1,1,1\n", HEAD + "1,2\n"])
def test_a_history_without_usable_epochs_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "history.csv").write_text(content)
    with pytest.raises(ArtefactError, match="not a usable training history"):
        plot_history(tmp_path / "history.csv", tmp_path / "curves.svg")
    assert not (tmp_path / "curves.svg").exists()
