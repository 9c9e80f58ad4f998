"""What lies in the package of other people's work is what they published, with their licences."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

VIEWER = Path(__file__).parents[2] / "steps/slicestream/figures/viewer"
LOCK = json.loads((VIEWER / "vendor/package-lock.json").read_text())["packages"]
BUNDLED = {path.removeprefix("node_modules/"): entry for path, entry in LOCK.items() if path}


def test_the_licences_name_all_that_is_bundled() -> None:
    text = (VIEWER / "assets/niivue-licences.txt").read_text(encoding="utf-8")
    headed = set(re.findall(r"^== (\S+)$", text, flags=re.M))
    assert headed == {name for name, entry in BUNDLED.items() if not entry.get("optional")}
    assert text.count("AS IS") >= len(headed) - 1  # but for ISC's "as is" in other words
    assert {entry["license"] for entry in BUNDLED.values()} <= {"MIT", "ISC", "BSD-2-Clause"}


def test_the_lock_pins_by_hash_and_names_no_registry() -> None:
    assert BUNDLED["@niivue/niivue"]["version"] == "0.69.0"
    assert all(entry["integrity"].startswith("sha512-") for entry in BUNDLED.values())
    assert not any("resolved" in entry for entry in BUNDLED.values())


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed; users need none")
def test_npm_gives_the_same_bytes_again(tmp_path: Path) -> None:
    done = subprocess.run(
        [VIEWER / "vendor/remake", tmp_path], capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode and re.search(r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT|ENETUNREACH", done.stderr):
        pytest.skip("npm reaches no registry")
    assert done.returncode == 0, done.stderr
    for name in ("niivue.js", "niivue-licences.txt"):
        assert (tmp_path / name).read_bytes() == (VIEWER / "assets" / name).read_bytes(), name
