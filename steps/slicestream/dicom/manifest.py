"""What was found in a cohort and what became of it: a list for people and programs, which stays on the laptop."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

FORMAT = 1
VOLUME = "volume"
SET_ASIDE = "set aside"
ANNOTATION = "annotation"
# What is rightly no volume, so that `--strict` lets it pass: reason → what it is called in notes.
COMPANIONS = {
    "not-dicom": "not DICOM",
    "dicomdir": "DICOMDIR",
    "localizer": "localizer",
    "secondary-capture": "secondary capture",
    "companion": "",  # by its modality
    "other-modality": "",
    "duplicate": "identical copy",
    ANNOTATION: "",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was found.

    Attributes
    ----------
    path : file, or folder of the files
    reason : one word; docs/data.md lists them
    found : what it is: modality, or kind of object
    text : for people, one line
    files : how many there are
    series : SeriesInstanceUID, "" where there is none
    volume : name of the artefact that it became, "" where it was set aside
    references : SeriesInstanceUIDs that an annotation was drawn on
    reconstructions : SeriesInstanceUIDs of the same acquisition, this one not counted
    """

    path: Path
    reason: str
    found: str
    text: str
    files: int = 1
    series: str = ""
    volume: str = ""
    references: tuple[str, ...] = ()
    reconstructions: tuple[str, ...] = ()

    def as_annotation(self) -> Finding:
        """Return what is told of a file whose annotations are read."""
        return replace(self, reason=ANNOTATION, text=f"{self.path}: annotations, of the series that they name.")

    @property
    def unusable(self) -> bool:
        """Whether this is CT, or was meant to be, of which no volume could be made."""
        return not self.volume and self.reason not in COMPANIONS

    def to_entry(self, root: Path) -> dict[str, Any]:
        """Return the JSON form, paths relative to the cohort."""
        return {
            "path": self.path.relative_to(root).as_posix() if self.path.is_relative_to(root) else str(self.path),
            "series": self.series or None,
            "found": self.found,
            "files": self.files,
            "outcome": VOLUME if self.volume else ANNOTATION if self.reason == ANNOTATION else SET_ASIDE,
            "reason": self.reason,
            "text": self.text,
            "volume": self.volume or None,
            "references": list(self.references),
            "reconstructions": list(self.reconstructions),
        }


def manifest_text(findings: Iterable[Finding], *, root: Path, share: str) -> str:
    """Return the manifest of a share as JSON, sorted by path."""
    entries = [finding.to_entry(root) for finding in findings]
    entries.sort(key=lambda entry: (entry["path"], entry["series"] or "", entry["volume"] or ""))
    counts = Counter(str(entry["outcome"]) for entry in entries)
    document = {"format": FORMAT, "share": share, "counts": dict(sorted(counts.items())), "entries": entries}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def counted(findings: Iterable[Finding]) -> str:
    """Return companions as '3 SEG, 1 localizer', "" where there are none."""
    counts: Counter[str] = Counter()
    for finding in findings:
        counts[COMPANIONS.get(finding.reason) or finding.found] += finding.files
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))


def refusal(findings: Iterable[Finding], folder: Path) -> str:
    """Return the one line for a cohort of which nothing can be used: its first fault, and how many more there are."""
    # a file that names no series comes first: what is missing in a series may be it
    listed = sorted(findings, key=lambda finding: (finding.series != "", str(finding.path)))
    faults = [finding for finding in listed if finding.unusable]
    faults = faults or [finding for finding in listed if finding.reason == "other-modality"]
    if faults:
        more = f" ({len(faults) - 1} more set aside; nothing is left.)" if len(faults) > 1 else ""
        return f"{faults[0].text}{more}"
    aside = counted(listed)
    return f"{folder}: no CT image{', only ' * bool(aside)}{aside}; need DICOM files of CT. Check the folder."
