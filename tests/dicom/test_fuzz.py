"""A small part of the fuzz run (`benchmarks/fuzz.py`), always the same; and that it sees what it looks for."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest

from slicestream.__main__ import main

FUZZ = Path(__file__).parents[2] / "benchmarks" / "fuzz.py"


def test_three_hundred_damaged_files_are_results_or_single_lines() -> None:
    done = subprocess.run(
        [sys.executable, FUZZ, "--inputs", "300", "--seed", "3"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    total = next(line for line in done.stdout.splitlines() if line.startswith("| all |"))
    inputs, results, refused, violations = (int(cell) for cell in total.split("|")[3:-1])
    assert (inputs, violations) == (300, 0)
    assert results > 50
    assert refused > 100


def test_the_fuzz_run_sees_what_must_not_be(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    script = (
        "import json, sys, time\nfrom pathlib import Path\n"
        "sys.path.insert(0, sys.argv[1])\nimport fuzz\n"
        "bench = fuzz.Bench(work=Path(sys.argv[2]), neighbour=b'')\n"
        "out = Path(sys.argv[2]) / 'out'\n"
        "def say(*lines):\n"
        "    for line in lines: print(line, file=sys.stderr)\n"
        "    return 2\n"
        "said = 'slicestream preprocess: no'\n"
        "fuzz.MOST_SECONDS = 0.3\n"
        "cases = {\n"
        "    'exception': lambda _: 1 / 0,\n"
        "    'hang': lambda _: time.sleep(5),\n"
        "    'slow': lambda _: time.sleep(0.4) or say(said),\n"
        "    'two lines': lambda _: say(said, 'and more'),\n"
        "    'no line': lambda _: 2,\n"
        "    'nothing written': lambda _: 0,\n"
        "    'half a result': lambda _: (out.mkdir(), (out / 'a.volume').touch()) and say(said),\n"
        "    'stray file': lambda _: Path(sys.argv[2]).with_name('stray').write_text('x') and say(said),\n"
        "    'refused': lambda _: say(said),\n"
        "}\n"
        "found = {}\n"
        "for name, fuzz.slicestream in cases.items():\n"
        "    found[name] = bench.read(b'', beside=False)[0]\n"
        "print(json.dumps(found))\n"
    )
    arguments = [sys.executable, "-c", script, FUZZ.parent, tmp_path / "work"]
    found = json.loads(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)
    assert found.pop("refused") == "refused"
    assert set(found.values()) == {"violation"}, found


def test_no_file_that_pydicom_carries_breaks_the_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert len(files) > 80
    (tmp_path / "key").write_text("a secret of the tests only\n")
    read = []
    for number, path in enumerate(files):
        cohort, out = tmp_path / f"cohort{number}", tmp_path / f"out{number}"
        cohort.mkdir()
        shutil.copy(path, cohort / "0.dcm")
        status = main(["preprocess", f"--cohort={cohort}", f"--out={out}", f"--pseudonym-key={tmp_path / 'key'}"])
        said = capsys.readouterr().err
        if status == 0:
            read.append(path.stem)
        else:
            assert (status, said.count("\n"), out.exists() and list(out.iterdir())) == (2, 1, False), (path, said)
    assert "CT_small" in read
