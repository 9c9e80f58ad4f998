"""The seal of a model file: its own hash inside it, so that a damaged or swapped model is found without a second file.

The hash stands in ONNX's metadata under `content_hash`: SHA-256 of the file's bytes with the 64 hash characters
replaced by 64 ASCII zeros. It is found by its protobuf bytes, so that neither side needs the onnx package.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from slicestream.errors import ModelError

KEY = "content_hash"
UNSEALED = "0" * 64
# A StringStringEntryProto: field 1 (key, 12 bytes), field 2 (value, 64 bytes).
_MARK = b"\x0a\x0c" + KEY.encode() + b"\x12\x40"


def seal(model: bytes) -> bytes:
    """Return `model`, whose metadata has `content_hash` of any 64 characters, with its hash in place."""
    start = _hash_start(model)
    return model[:start] + _hash(model, start).encode() + model[start + 64 :]


def verify(path: Path) -> str:
    """Return the hash (64 hex digits) of a sealed model. Raises ModelError where it is damaged or has no seal."""
    try:
        model = path.read_bytes()
        start = _hash_start(model)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path}: not a model of ours ({error}); need a model.onnx that `slicestream train` wrote. "
            "Check the name, or train it again."
        ) from error
    inside, found = model[start : start + 64], _hash(model, start)
    if inside != found.encode():
        raise ModelError(
            f"{path}: content hash {found[:12]}…, but {inside[:12].decode(errors='replace')}… was sealed in it; "
            "the model was changed or damaged on the way. Fetch or train it again."
        )
    return found


def _hash_start(model: bytes) -> int:
    # Metadata follow the graph and its weights, so the last mark is the real one.
    start = model.rfind(_MARK)
    if start < 0 or start + len(_MARK) + 64 > len(model):
        raise ValueError("no seal inside")
    return start + len(_MARK)


def _hash(model: bytes, start: int) -> str:
    digest = hashlib.sha256(memoryview(model)[:start])
    digest.update(UNSEALED.encode())
    digest.update(memoryview(model)[start + 64 :])
    return digest.hexdigest()
