"""A small part of the fuzz run (`benchmarks/fuzz.py`), always the same; and that it sees what it looks for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

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
