"""Where an archive is: `https://host/dicom-web`, or `dicom://AET@host:port` (dicoms:// with TLS)."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from slicestream.errors import OptionError

DEFAULT_PORT = {"http": 80, "https": 443, "dicom": 104, "dicoms": 2762}
AE_TITLE = re.compile(r"[ -\[\]-~]{1,16}")  # PS3.5 6.2, AE: 16 characters, no backslash, no control character
NEED = "need https://host/dicom-web or dicom://AET@host:port (dicoms:// with TLS)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """An archive. `path` is the DICOMweb root without its last slash, `aet` the title that a DIMSE archive goes by."""

    scheme: str
    host: str
    port: int
    path: str = ""
    aet: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == DEFAULT_PORT[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{self.aet and self.aet + '@'}{host}{port}{self.path}"

    @property
    def dimse(self) -> bool:
        """Whether it speaks DIMSE, not DICOMweb."""
        return self.scheme.startswith("dicom")

    @property
    def tls(self) -> bool:
        """Whether what is sent is encrypted."""
        return self.scheme in ("https", "dicoms")


def parse_address(text: str, *, flag: str, insecure: bool = False) -> Address:
    """Return the address that a flag gives.

    Raises
    ------
    OptionError
        Of another form, with a password in it (which is not repeated), or unencrypted to another machine.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise OptionError(f"{flag}: not an address; {NEED}.") from None
    if parts.password is not None or (parts.username and parts.scheme in ("http", "https")):
        raise OptionError(
            f"{flag}: holds a user or password, which others on this machine can see. Leave it out; give it in "
            "SLICESTREAM_ARCHIVE_USER and SLICESTREAM_ARCHIVE_PASSWORD or in ~/.netrc."
        )
    if parts.scheme not in DEFAULT_PORT or not parts.hostname or parts.query or parts.fragment:
        raise OptionError(f"{flag} {text}: {NEED}.")
    address = Address(
        scheme=parts.scheme,
        host=parts.hostname,
        port=port or DEFAULT_PORT[parts.scheme],
        path=parts.path.rstrip("/"),
        aet=_title(parts, flag) if parts.scheme.startswith("dicom") else "",
    )
    if not address.tls and not insecure and not _is_here(address.host):
        raise OptionError(
            f"{flag} {address}: not encrypted, and {address.host} is another machine: names of patients would go over "
            f"the network in clear. Use {address.scheme}s://, or add --insecure if the network is closed."
        )
    return address


def _title(parts: SplitResult, flag: str) -> str:
    title = parts.username or ""
    if not AE_TITLE.fullmatch(title) or parts.path.strip("/"):
        raise OptionError(f"{flag} {parts.scheme}://…: AE title '{title}', path '{parts.path}'; {NEED}.")
    return title


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
