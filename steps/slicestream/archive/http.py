"""One HTTP request to an archive, with what goes wrong told apart: what may pass, what the user can mend."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import urllib3
from urllib3.exceptions import HTTPError

from slicestream.archive.address import Address
from slicestream.archive.faults import told
from slicestream.archive.multipart import PIECE
from slicestream.archive.patience import ANSWER_S, CONNECT_S, Pace, TransientError
from slicestream.errors import ArchiveError

OVERLOAD = {408, 429, 500, 502, 503, 504}
LONGEST_JSON = 64 * 1024**2


class Http:
    """Requests to one archive. Redirects are not followed and no proxy is used: credentials go to this host alone."""

    def __init__(self, address: Address, *, tls: ssl.SSLContext | None, authorization: str) -> None:
        self._address, self._authorization = address, authorization
        self._pool = urllib3.PoolManager(
            ssl_context=tls,
            retries=False,
            timeout=urllib3.Timeout(connect=CONNECT_S, read=ANSWER_S),
            maxsize=8,
            block=True,
        )

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    @contextmanager
    def request(
        self, method: str, path: str, *, headers: Mapping[str, str], body: Iterable[bytes] | None = None
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """Yield the answer, of any status but those that `_refuse` knows, its content not read yet.

        Raises
        ------
        TransientError
            Connection lost, no answer in time, or a status that says to try later.
        ArchiveError
            Unknown host, untrusted certificate, refused credentials, a redirect.
        """
        url = str(self._address) + path
        given = {"User-Agent": "slicestream", **headers}
        if self._authorization:
            given["Authorization"] = self._authorization
        try:
            response = self._pool.request(
                method, url, headers=given, body=body, preload_content=False, redirect=False, decode_content=False
            )
        except (HTTPError, OSError) as error:
            raise told(error, self._address) from error
        try:
            self._refuse(response)
            yield response
        finally:
            response.close()  # one that was read to its end has left its connection to the next request

    def _refuse(self, response: urllib3.BaseHTTPResponse) -> None:
        status, where = response.status, self._address
        if status in OVERLOAD:
            raise TransientError(f"HTTP {status}{said(response)}", _pause_s(response.headers.get("Retry-After", "")))
        if 300 <= status < 400:
            to = re.sub(r"//[^/@]*@", "//", response.headers.get("Location", "")).partition("?")[0][:120]
            raise ArchiveError(f"{where}: leads on to '{to}'; not followed. Give that address if you trust it.")
        if status == 401:
            with_what = "refuses the credentials" if self._authorization else "asks for credentials"
            raise ArchiveError(
                f"{where}: {with_what} (HTTP 401); need SLICESTREAM_ARCHIVE_USER and SLICESTREAM_ARCHIVE_PASSWORD, "
                "SLICESTREAM_ARCHIVE_TOKEN, or a line in ~/.netrc. Set them."
            )
        if status == 403:
            raise ArchiveError(f"{where}: forbids this user what was asked (HTTP 403). Ask its administrator.")


def pieces(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """Yield the content, watched for trickling. Raises TransientError."""
    pace = Pace()
    stream = response.stream(PIECE)
    while True:
        try:
            piece = next(stream, b"")
        except (HTTPError, OSError) as error:
            raise TransientError(f"connection lost while it answered ({type(error).__name__})") from error
        if not piece:
            return
        pace.add(len(piece))
        yield piece


def content(response: urllib3.BaseHTTPResponse, *, where: str) -> bytes:
    """Return the content. Raises ArchiveError where it is over LONGEST_JSON bytes, TransientError."""
    whole = bytearray()
    for piece in pieces(response):
        whole += piece
        if len(whole) > LONGEST_JSON:
            raise ArchiveError(f"{where}: gives an answer of over {LONGEST_JSON} bytes. Narrow the question.")
    return bytes(whole)


def said(response: urllib3.BaseHTTPResponse) -> str:
    """Return the start of what an archive wrote about a failure, as ` (…)`, printable, "" for nothing of use."""
    try:
        text = response.read(2000).decode("utf-8", "replace")
    except (HTTPError, OSError):
        return ""
    found = re.search(r'"(?:Details|Message|errorMessage)"\s*:\s*"([^"]{1,200})', text)
    short = found[1] if found else "" if "<" in text or "{" in text else text[:200]
    short = "".join(sign if sign.isprintable() else " " for sign in short)
    return f" ({' '.join(short.split())})" if short.strip() else ""


def _pause_s(text: str) -> float | None:
    return float(text) if re.fullmatch(r"[0-9]{1,6}", text.strip()) else None
