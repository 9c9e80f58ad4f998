"""What became of each series of a cohort, and which of them show the same place."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slicestream.dicom.files import one_line, text_of
from slicestream.dicom.manifest import ANNOTATION, Finding, counted, refusal
from slicestream.dicom.series import Series, unusable
from slicestream.errors import StudyError

_TOLD = 20  # lines on what was set aside; the manifest has all
_SAME_PLACE = 0.5  # of the smaller extent, along each patient axis


@dataclass(frozen=True, kw_only=True, slots=True)
class _Used:
    """A series that became a volume. `box_mm` is (low, high) corners in patient coordinates, (2, 3)."""

    finding: Finding
    frame: tuple[str, str]
    box_mm: NDArray[np.float64]
    annotated: bool


@dataclass(kw_only=True)
class Account:
    """What was used and what was set aside. `strict`: CT that cannot be used is an error."""

    strict: bool
    _used: list[_Used] = field(default_factory=list)
    _aside: list[Finding] = field(default_factory=list)
    _elsewhere: list[Finding] = field(default_factory=list)

    @property
    def volumes(self) -> int:
        """How many volumes were made."""
        return len(self._used)

    def set_aside(self, finding: Finding, *, listed: bool = True) -> None:
        """Note what became no volume; if not `listed`, another share lists it. Raises StudyError where strict."""
        if self.strict and finding.unusable:
            raise StudyError(f"{finding.text} (--strict: nothing may be set aside.)", reason=finding.reason)
        (self._aside if listed else self._elsewhere).append(finding)

    def refusal(self, others: Account, folder: Path) -> StudyError:
        """Return the error for a cohort of which nothing can be used, here nor in `others`."""
        return StudyError(refusal([*self._aside, *self._elsewhere, *others._aside], folder))

    def unusable(self, series: Series, error: StudyError) -> None:
        """Note a series that was read but cannot be kept. Raises StudyError where strict."""
        self.set_aside(unusable(series.uid, series.slices, error))

    def used(self, series: Series, name: str, *, annotated: bool) -> None:
        """Note a series that became the volume `name`."""
        slices, rows, columns = series.geometry.shape
        spacing = ", ".join(f"{mm:.4g}" for mm in series.geometry.spacing_mm)
        text = f"{slices} slices of {rows} x {columns}, {spacing} mm"
        for what, keyword in (("kernel", "ConvolutionKernel"), ("thickness", "SliceThickness")):
            if value := _told(series, keyword):
                text += f", {what} {value}"
        finding = Finding(
            path=min(source.path for source in series.slices).parent,
            reason="used",
            found="CT",
            text=f"{text}{f', {series.stack}' * bool(series.stack)}.",
            files=len({source.path for source in series.slices}),
            series=series.uid,
            volume=name,
        )
        used = _Used(
            finding=finding,
            frame=(_told(series, "StudyInstanceUID"), _told(series, "FrameOfReferenceUID")),
            box_mm=_box_mm(series),
            annotated=annotated,
        )
        self._used.append(used)

    def findings(self) -> list[Finding]:
        """Return all, with those that show the same place told of one another."""
        found = [used.finding for used in self._used]
        for group in _groups(self._used):
            drawn, why = self._drawn(group)
            for k in group:
                others = tuple(sorted({self._used[o].finding.series for o in group if o != k}))
                reason = "used" if k in drawn or not drawn else "not-annotated"
                text = f"{found[k].text} Shows the same place as {len(group) - 1} more; {why}."
                found[k] = replace(found[k], reconstructions=others, reason=reason, text=text)
        return [*found, *self._aside]

    def notes(self) -> list[str]:
        """Return lines for the user: what could not be used, and which volumes show the same place."""
        unusable = [finding for finding in self._aside if finding.unusable]
        said_below = {"duplicate", ANNOTATION}
        rest = counted(f for f in (*self._aside, *self._elsewhere) if not f.unusable and f.reason not in said_below)
        lines = [f"set aside: {rest}"] if rest else []
        lines += [f"set aside ({f.reason}, {f.files} files): {f.text}" for f in unusable[:_TOLD]]
        if len(unusable) > _TOLD:
            lines.append(f"set aside: {len(unusable) - _TOLD} more series or files; the manifest lists them")
        copies = sum(finding.files for finding in self._aside if finding.reason == "duplicate")
        if copies:
            lines.append(f"identical copies of images, left out: {copies}")
        for group in _groups(self._used):
            names = ", ".join(self._used[k].finding.volume for k in group)
            lines.append(f"{len(group)} series of one place ({names}): all become volumes; {self._drawn(group)[1]}")
        return lines

    def _drawn(self, group: list[int]) -> tuple[list[int], str]:
        """Return which series of a group annotations were drawn on, and what follows."""
        referenced = {uid for finding in (*self._aside, *self._elsewhere) for uid in finding.references}
        drawn = [k for k in group if self._used[k].annotated or self._used[k].finding.series in referenced]
        return drawn, _rule([self._used[k].finding.volume for k in drawn])


def _told(series: Series, keyword: str) -> str:
    """Return a header element of the first slice; "" also where it is damaged, for it only describes."""
    try:
        return one_line(text_of(series.headers[0], keyword, series.slices[0].path))
    except StudyError:
        return ""


def _rule(drawn: list[str]) -> str:
    if not drawn:
        return "no annotation was drawn on any of them"
    return f"annotations were drawn on {', '.join(drawn)}, which alone is trained on and scored"


def _groups(used: list[_Used]) -> list[list[int]]:
    """Return the indices of series of one study and frame of reference whose boxes lie in one another."""
    frames: dict[tuple[str, str], list[int]] = defaultdict(list)
    for k, one in enumerate(used):
        if all(one.frame):
            frames[one.frame].append(k)
    groups: list[list[int]] = []
    for listed in frames.values():
        rest = list(listed)
        while rest:
            group = [rest.pop(0)]
            for k in list(rest):
                if any(_overlap(used[k].box_mm, used[member].box_mm) for member in group):
                    group.append(k)
                    rest.remove(k)
            if len(group) > 1:
                groups.append(group)
    return groups


def _overlap(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    common = np.minimum(one[1], other[1]) - np.maximum(one[0], other[0])
    smaller = np.minimum(one[1] - one[0], other[1] - other[0])
    return bool((common >= _SAME_PLACE * smaller).all())


def _box_mm(series: Series) -> NDArray[np.float64]:
    geometry = series.geometry
    corners = np.stack(np.meshgrid(*[(-0.5, n - 0.5) for n in geometry.shape], indexing="ij"), axis=-1).reshape(-1, 3)
    origin = np.array([float(n) for n in series.headers[0].ImagePositionPatient])
    places = origin + geometry.offset_lps_mm(corners)
    return np.stack((places.min(axis=0), places.max(axis=0)))
