"""What many tests share: a small phantom cohort, made once, and the real data where there is any."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from slicestream.__main__ import main

# A job in the background of a script ignores Ctrl-C, and so would all that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

PATIENTS = 6  # one for each scanner habit; the second has two studies


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom cohort of 6 patients, 7 studies, 128 x 128 pixels, in the UniToChest layout. Not to be written to."""
    folder = tmp_path_factory.mktemp("phantom") / "cohort"
    assert main(["phantom", "--patients", str(PATIENTS), "--matrix", "128", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def preprocessed(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What preprocess makes of the phantom cohort, in one share. Not to be written to."""
    folder = tmp_path_factory.mktemp("preprocessed") / "out"
    key = str(cohort / "pseudonym_key")
    assert main(["preprocess", "--cohort", str(cohort), "--pseudonym-key", key, "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def data() -> Path:
    """The real CT data: $SLICESTREAM_DATA, else ../shared/data beside the repository."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SLICESTREAM_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real CT data at {folder}; set SLICESTREAM_DATA")
    return folder
