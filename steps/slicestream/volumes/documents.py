"""JSON objects that other steps wrote: untrusted, as they may come back from another site."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from slicestream.errors import ArtefactError

Facts = dict[str, Any]

MAX_BYTES = 256 << 20


def read_json(path: Path) -> Facts:
    """Read a JSON object. Raises ArtefactError."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"over {MAX_BYTES} bytes")
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (OSError, ValueError, RecursionError) as error:
        raise ArtefactError(f"{path}: no readable JSON ({brief(error)}). Make or fetch the file again.") from error
    if not isinstance(document, dict):
        raise ArtefactError(f"{path}: holds a {type(document).__name__}; need a JSON object. Check which file it is.")
    return document


def brief(error: Exception) -> str:
    """Return what an error says, on one line and short."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else str(error)
    return " ".join(text.split())[:160]


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")
