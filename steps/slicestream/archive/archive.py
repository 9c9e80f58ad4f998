"""An archive by its address, whatever it speaks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from slicestream.archive.access import authorization, tls_context
from slicestream.archive.address import AE_TITLE, Address
from slicestream.archive.instances import Instance, LocalFile, Series, Study
from slicestream.errors import OptionError

CALLING = "SLICESTREAM"


class Archive(Protocol):
    """What can be asked of an archive. All raise ArchiveError, and TransientError where trying again may help."""

    @property
    def reads_back(self) -> str:
        """The service by which it gives instances back."""

    def probe(self, study: str) -> None:
        """Find a wrong address, password or title before anything is sent."""

    def studies(self, *, study: str = "", patient_id: str = "", limit: int = 100) -> list[Study]:
        """Return the studies of a UID or of a patient."""

    def series(self, study: str) -> list[Series]:
        """Return the series of a study."""

    def instances(self, study: str, series: str) -> list[Instance]:
        """Return the instances of a series."""

    def fetch(self, instance: Instance, path: Path) -> None:
        """Write an instance to `path`."""

    def store(self, files: Sequence[LocalFile], done: set[str]) -> dict[str, str]:
        """Send files; return why it did not take some, by SOP Instance UID, and add the rest to `done`."""

    def close(self, *, broken: bool = False) -> None:
        """Close the connections; where something is `broken`, without a word."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """How to be let in: files of --ca, --cert and --credentials, and our own AE title."""

    ca: Path | None = None
    certificate: Path | None = None
    credentials: Path | None = None
    calling: str = CALLING


@contextmanager
def archive_at(address: Address, access: Access) -> Iterator[Archive]:
    """Yield the archive; close its connections at the end. Connects only when asked. Raises OptionError."""
    tls = tls_context(address, ca=access.ca, certificate=access.certificate)
    if address.dimse:
        from slicestream.archive.dimse import Dimse

        if not AE_TITLE.fullmatch(access.calling):
            raise OptionError(f"--aet '{access.calling}': no AE title; need 1 to 16 characters, no backslash.")
        if access.credentials:
            raise OptionError(f"--credentials: {address} is let in by AE title and certificate. Leave it out.")
        archive: Archive = Dimse(address, tls=tls, calling=access.calling)
    else:
        from slicestream.archive.dicomweb import DicomWeb

        archive = DicomWeb(address, tls=tls, authorization=authorization(address, access.credentials))
    try:
        yield archive
    except BaseException:
        archive.close(broken=True)
        raise
    archive.close()
