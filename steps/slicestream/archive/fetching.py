"""Fetching one study from an archive: never a guess which, all of it or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydicom.errors import InvalidDicomError

from slicestream.archive.archive import Archive
from slicestream.archive.instances import Instance, Series, Study, header
from slicestream.archive.patience import TransientError, patiently
from slicestream.archive.progress import Progress
from slicestream.errors import ArchiveError, StudyError

SHOWN = 50  # of the studies that match


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """Which study: by its UID or by patient; of it one series or all, of one modality or of any."""

    study: str = ""
    patient_id: str = ""
    series: str = ""
    modality: str = ""


class AmbiguousError(ArchiveError):
    """Several studies match; `lines` describes each, for the user's own terminal."""

    def __init__(self, message: str, lines: Sequence[str]) -> None:
        super().__init__(message)
        self.lines = lines


def find(archive: Archive, wanted: Wanted, *, where: str, retries: int) -> list[Series]:
    """Return the series to fetch, all of one study.

    Raises
    ------
    AmbiguousError
        Several studies match.
    ArchiveError
        None matches, or nothing in it, or the archive cannot be asked.
    """

    def ask() -> list[Study]:
        # one more than are shown: an archive may match more loosely than it was asked
        found = archive.studies(study=wanted.study, patient_id=wanted.patient_id, limit=SHOWN + 1)
        return [one for one in found if wanted.study in ("", one.uid) and wanted.patient_id in ("", one.patient_id)]

    studies = patiently(ask, where=where, retries=retries)
    if wanted.modality:
        studies = [one for one in studies if not one.modalities or wanted.modality in one.modalities]
    if not studies:
        raise ArchiveError(f"{where}: no study matches. Check --study or --patient-id, and --modality.")
    if len({one.uid for one in studies}) > 1:
        more = "at least " if len(studies) > SHOWN else ""
        raise AmbiguousError(
            f"{where}: {more}{len(studies)} studies match; need one. Give --study with one of the UIDs above.",
            [f"{one.uid}  {one.date}  {'/'.join(one.modalities)}  {one.description}" for one in studies],
        )
    study = studies[0].uid
    found = patiently(lambda: archive.series(study), where=where, retries=retries)
    kept = [one for one in found if wanted.series in ("", one.uid) and wanted.modality in ("", one.modality)]
    if not kept:
        there = ", ".join(sorted({f"{one.modality or '?'} {one.uid}" for one in found})) or "none"
        raise ArchiveError(f"{where}: no series of the study matches; it has {there}. Check --series and --modality.")
    return kept


def fetch(archive: Archive, series: Sequence[Series], folder: Path, *, where: str, retries: int) -> int:
    """Write every instance as <series UID>/<SOP Instance UID>.dcm in `folder`; return the bytes.

    Raises
    ------
    ArchiveError
        An instance is not given, is another than asked for, or there are more or fewer than the archive says.
    """
    instances: list[Instance] = []
    for one in series:
        found = patiently(partial(archive.instances, one.study, one.uid), where=where, retries=retries)
        unique = {instance.uid: instance for instance in found}
        if (one.count is not None and one.count != len(unique)) or not unique:
            raise ArchiveError(
                f"{where}: series {one.uid}: lists {len(unique)} instances but counts {one.count}; still receiving? "
                "Run again later."
            )
        instances += unique.values()
    progress = Progress("fetched", total=len(instances))
    whole = 0
    for instance in instances:
        path = folder / instance.series / f"{instance.uid}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        patiently(partial(_fetch, archive, instance, path, where), where=where, retries=retries)
        size = path.stat().st_size
        whole += size
        progress.add(1, size)
    progress.end()
    return whole


def _fetch(archive: Archive, instance: Instance, path: Path, where: str) -> None:
    archive.fetch(instance, path)
    try:
        dataset = header(path)
    except (InvalidDicomError, StudyError) as error:
        raise TransientError(f"{instance.uid} came damaged") from error
    names = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    found = tuple(str(dataset.get(name) or "") for name in names)
    if found != (instance.study, instance.series, instance.uid):
        raise ArchiveError(f"{where}: asked for instance {instance.uid}, got another. Ask its administrator.")
