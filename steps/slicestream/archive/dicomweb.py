"""A DICOMweb archive: QIDO-RS to look, WADO-RS to fetch, STOW-RS to store (PS3.18)."""

from __future__ import annotations

import json
import secrets
import ssl
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from slicestream.archive.address import Address
from slicestream.archive.http import Http, content, pieces, said
from slicestream.archive.instances import Instance, LocalFile, Series, Study, checked_uid, count_of
from slicestream.archive.multipart import FormError, body, boundary_of, length, save_only_part
from slicestream.archive.reasons import reason_text
from slicestream.errors import ArchiveError

JSON = {"Accept": "application/dicom+json"}
PAGE, PAGES = 1000, 1000
LARGEST_INSTANCE = 4 * 1024**3
STUDY, SERIES, INSTANCE = "0020000D", "0020000E", "00080018"
FAILED, STORED = "00081198", "00081199"
Item = Mapping[str, Any]
Asked = Mapping[str, str | Sequence[str]]


class DicomWeb:
    """One archive at a DICOMweb root."""

    reads_back = "WADO-RS"

    def __init__(self, address: Address, *, tls: ssl.SSLContext | None, authorization: str) -> None:
        self._address = address
        self._http = Http(address, tls=tls, authorization=authorization)

    def close(self, *, broken: bool = False) -> None:
        """Close the connections, which is the same for a `broken` one."""
        self._http.close()

    def studies(self, *, study: str = "", patient_id: str = "", limit: int = 100) -> list[Study]:
        """Return the studies of a UID or of a patient, `limit` at most. Raises ArchiveError, TransientError."""
        asked: Asked = {"StudyInstanceUID": study} if study else {"PatientID": patient_id}
        fields = ("00080061", "00081030", "00080020", "00100020")
        found = self._page("/studies", {**asked, "includefield": fields, "limit": str(limit)})
        return [
            Study(
                uid=self._uid(item, STUDY),
                patient_id=_text(item, "00100020"),
                date=_text(item, "00080020"),
                description=_text(item, "00081030"),
                modalities=tuple(str(value) for value in _values(item, "00080061")),
            )
            for item in found
        ]

    def series(self, study: str) -> list[Series]:
        """Return the series of a study. Raises ArchiveError, TransientError."""
        return [
            Series(
                study=study,
                uid=self._uid(item, SERIES),
                modality=_text(item, "00080060"),
                description=_text(item, "0008103E"),
                count=count_of(_text(item, "00201209")),
            )
            for item in self._all(f"/studies/{study}/series", {"includefield": ("0008103E", "00201209")})
        ]

    def instances(self, study: str, series: str) -> list[Instance]:
        """Return the instances of a series. Raises ArchiveError, TransientError."""
        found = self._all(f"/studies/{study}/series/{series}/instances", {})
        return [
            Instance(study=study, series=series, uid=self._uid(item, INSTANCE), sop_class=_text(item, "00080016"))
            for item in found
        ]

    def fetch(self, instance: Instance, path: Path) -> None:
        """Write an instance as the archive keeps it, in its own transfer syntax. Raises ArchiveError, TransientError.

        An instance that is not there is an ArchiveError.
        """
        where = f"/studies/{instance.study}/series/{instance.series}/instances/{instance.uid}"
        accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
        with self._http.request("GET", where, headers={"Accept": accept}) as response, path.open("wb") as out:
            if response.status != 200:
                raise ArchiveError(f"{self._address}: {instance.uid}: HTTP {response.status}{said(response)}")
            try:
                boundary = boundary_of(response.headers.get("Content-Type", ""))
                save_only_part(pieces(response), boundary, out, limit=LARGEST_INSTANCE)
            except FormError as error:
                raise ArchiveError(f"{self._address}: {instance.uid}: {error}. Ask its administrator.") from error

    def store(self, files: Sequence[LocalFile], done: set[str]) -> dict[str, str]:
        """Send files in one request; return why it did not take some, by SOP Instance UID, and add the rest to `done`.

        Raises
        ------
        TransientError
            Nobody knows which of them arrived: ask with `instances` before sending again.
        ArchiveError
        """
        paths = [file.path for file in files]
        boundary = secrets.token_hex(16)  # random, so that no file holds it
        headers = JSON | {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Content-Length": str(length(paths, boundary)),
        }
        sent = {file.instance.uid for file in files}
        with self._http.request("POST", "/studies", headers=headers, body=body(paths, boundary)) as response:
            if response.status not in (200, 202, 409):
                text = said(response)
                raise ArchiveError(
                    f"{self._address}: does not take {files[0].path.name}{' and others' if len(files) > 1 else ''}: "
                    f"HTTP {response.status}{text}. {_advice(response.status)}"
                )
            answer = self._json(content(response, where=str(self._address)))
        failures = _failures(answer, sent)
        done |= sent - set(failures)
        return failures

    def probe(self, study: str) -> None:
        """Ask a small question, so that a wrong address or password is found before anything is sent."""
        self.studies(study=study, limit=1)

    def _all(self, path: str, asked: Asked) -> Iterator[Item]:
        """Yield what matches, page by page; an archive that ignores the offset is found out by its repetition."""
        seen: set[tuple[str, ...]] = set()
        for page in range(PAGES):
            found = self._page(path, {**asked, "limit": str(PAGE), "offset": str(page * PAGE)})
            fresh = {key: item for item in found if (key := _key(item)) not in seen}
            yield from fresh.values()
            if len(found) < PAGE or not fresh:
                return
            seen |= set(fresh)
        raise ArchiveError(f"{self._address}: more than {PAGE * PAGES} answers. Narrow the question.")

    def _page(self, path: str, asked: Asked) -> list[Item]:
        with self._http.request("GET", f"{path}?{urlencode(asked, doseq=True)}", headers=JSON) as response:
            if response.status == 204:
                return []
            if response.status in (404, 405, 501):
                raise ArchiveError(
                    f"{self._address}: HTTP {response.status} for {path.partition('?')[0]}; need the root of DICOMweb, "
                    "such as …/dicom-web (Orthanc) or …/dcm4chee-arc/aets/NAME/rs. Check the address."
                )
            if response.status != 200:
                raise ArchiveError(f"{self._address}: HTTP {response.status}{said(response)} for {path}")
            found = self._json(content(response, where=str(self._address)))
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise ArchiveError(f"{self._address}: answers with other than a list; need DICOMweb. Check the address.")
        return found

    def _json(self, text: bytes) -> Any:
        try:
            return json.loads(text) if text.strip() else []
        except (ValueError, RecursionError):
            raise ArchiveError(f"{self._address}: answers with no JSON; need DICOMweb. Check the address.") from None

    def _uid(self, item: Item, tag: str) -> str:
        return checked_uid(_text(item, tag), where=str(self._address), what=f"({tag[:4]},{tag[4:]})")


def _failures(answer: Any, sent: set[str]) -> dict[str, str]:
    """Return why instances were not stored, or not as sent, from the answer of STOW-RS (PS3.18 Table I.2-1)."""
    failures: dict[str, str] = {}
    whole = answer if isinstance(answer, dict) else {}
    for item in _values(whole, FAILED):
        failures[_text(item, "00081155")] = reason_text(_text(item, "00081197"))
    for item in _values(whole, STORED):
        if warning := _text(item, "00081196"):
            failures[_text(item, "00081155")] = f"stored, but {reason_text(warning)}"
    return {uid: reason for uid, reason in failures.items() if uid in sent}


def _advice(status: int) -> str:
    return {
        413: "Its limit for a request is too low: raise it there.",
        415: "It does not speak STOW-RS as the standard has it.",
        507: "It is full: free space there, then run again.",
    }.get(status, "Check the address, or ask its administrator.")


def _values(item: Item, tag: str) -> list[Any]:
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


def _text(item: Item, tag: str) -> str:
    values = _values(item, tag) if isinstance(item, dict) else []
    return str(values[0]) if values else ""


def _key(item: Item) -> tuple[str, ...]:
    return tuple(_text(item, tag) for tag in (STUDY, SERIES, INSTANCE))
