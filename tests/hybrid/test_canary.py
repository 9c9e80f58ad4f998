"""Nothing that leaves the laptop tells who a patient is: marks in every such place, and a search through both sites."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from watch import Watch, files_below

from bed import need_bed
from canary import PLAIN, needles, plant, search
from hybrid import BED, kubectl, on_site, start

pytestmark = pytest.mark.slow
DISKS = [BED / "hpc/sites/hpc/upper", BED / "hpc/sites/hpc/scratch", BED / "kubernetes/var", BED / "kubernetes/log"]
SENT = [
    BED / "hpc/sites/hpc/scratch/slicestream",
    BED / "hpc/sites/hpc/upper/var/lib/slurm",
    BED / "hpc/sites/hpc/upper/tmp",
    BED / "kubernetes/var/kubelet/pods",
]
# What a careless tool does: an unsalted hash for a name.
CARELESS = """
import hashlib, sys
import slicestream.dicom.pseudonyms as pseudonyms
plain = lambda key, kind, identity: hashlib.sha256(identity.encode()).hexdigest()[:16]
pseudonyms.pseudonym = plain
import slicestream.preprocess, slicestream.dicom.study, slicestream.dicom.series
for module in list(sys.modules.values()):
    if getattr(module, "pseudonym", None) is not None and module.__name__.startswith("slicestream"):
        module.pseudonym = plain
from slicestream.__main__ import main
sys.exit(main())
"""


def written_since(path: Path, began: float) -> bool:
    """Tell whether a plain file was written since then; a file that is gone was not."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_mtime >= began


def searched(cohort: Path, room: Path, **environment: str) -> set[str]:
    """Run main.cwl on a marked cohort; return the marks found in all that the sites got, said and kept."""
    identities = plant(cohort, room / "marked")
    key = shutil.copy(cohort / "pseudonym_key", room / "key")
    wanted = needles(identities)
    began = time.time()
    watch = Watch(SENT, [folder / f"watch-{room.name}" for folder in (BED, BED / "kubernetes/var/kubelet")])
    watch.start()
    try:
        inputs = {"cohort": room / "marked", "pseudonym_key": key, "recipe": "phantom", "epochs": 1, "threads": 1}
        run = start(room / "run", "main", inputs, **environment)
        assert run.wait() == 0, run.said()[-3000:]
        watch.stop()
        names = " ".join(path.name for path in watch.kept())
        assert "training-" in names, names
        assert ".volume" in names, names
        assert any(b"slicestream\0train" in spoken for spoken in watch.spoken)
        found = {what for spoken in watch.spoken for what in search(spoken, wanted)}
        records = on_site("scontrol", "show", "job", "--details") + kubectl("get", "events,pods", "-o", "yaml")
        found |= search(records.encode(), wanted)
        changed = [path for path in files_below(DISKS) if written_since(path, began - 1)]
        for path in [*watch.kept(), *changed]:
            with contextlib.suppress(FileNotFoundError):  # a pod's files go with it; the watch has them
                found |= search(path.name.encode() + b"\n" + path.read_bytes(), wanted)
        return found
    finally:
        watch.clear()


def test_a_mark_is_found_plain_coded_hashed_and_packed() -> None:
    """The search itself can fail."""
    import base64
    import gzip
    import hashlib

    import blosc2

    wanted = needles({"Someone^Else"})
    for word in PLAIN:
        base64_text = base64.b64encode(b"ab" + word.encode())
        for hidden in (word.encode(), word.encode().hex().encode(), word.encode("utf-16-le"), base64_text):
            assert search(b"before" + hidden + b"after", wanted)
            assert search(gzip.compress(b"before" + hidden), wanted)
    assert search(hashlib.sha1(b"Someone^Else").hexdigest()[:16].encode(), wanted)
    text = np.frombuffer(PLAIN[0].encode().ljust(64), np.int16)
    packed = blosc2.compress2(np.tile(text, 1000), typesize=2, filters=[blosc2.Filter.BITSHUFFLE])
    assert PLAIN[0].encode() not in packed
    assert search(packed, wanted)
    assert search(blosc2.compress2(np.arange(5000)) + packed, wanted)
    assert not search(b"nothing of that", wanted)


def test_nothing_that_tells_who_a_patient_is_leaves_the_laptop(cohort: Path, tmp_path: Path) -> None:
    need_bed()
    assert searched(cohort, tmp_path) == set()


def test_the_search_finds_an_unsalted_hash_when_pseudonyms_are_switched_off(cohort: Path, tmp_path: Path) -> None:
    need_bed()
    careless = tmp_path / "bin" / "slicestream"
    careless.parent.mkdir()
    careless.write_text(f"#!{sys.executable}\n{CARELESS}")
    careless.chmod(0o755)
    found = searched(cohort, tmp_path, PATH=f"{careless.parent}:{os.environ['PATH']}")
    assert any(what.startswith("sha256 of") for what in found), found
