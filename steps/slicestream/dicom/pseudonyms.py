"""Names for outside: hashes keyed with the site's own secret."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from slicestream.errors import OptionError

_SHORTEST_KEY_BYTES = 16


def read_key(path: Path) -> bytes:
    """Return the secret, without white space around it. Raises OptionError."""
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise OptionError(
            f"--pseudonym-key {path}: {error.strerror}; need the site's secret. "
            "Make it once and keep it: head -c 32 /dev/urandom | base64 > pseudonym_key && chmod 600 pseudonym_key"
        ) from error
    if len(key) < _SHORTEST_KEY_BYTES:
        raise OptionError(
            f"--pseudonym-key {path}: {len(key)} bytes; need {_SHORTEST_KEY_BYTES} or more, else names can be guessed. "
            "Make it once and keep it: head -c 32 /dev/urandom | base64 > pseudonym_key && chmod 600 pseudonym_key"
        )
    return key


def pseudonym(key: bytes, kind: str, identity: str) -> str:
    """Return 16 hex digits: HMAC-SHA256 (RFC 2104) of `kind` ("patient", "series") and the identity."""
    return hmac.new(key, f"{kind}\0{identity}".encode(), hashlib.sha256).hexdigest()[:16]
