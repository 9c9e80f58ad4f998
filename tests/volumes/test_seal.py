import hashlib
from pathlib import Path

import pytest

from slicestream.errors import ModelError
from slicestream.volumes.seal import UNSEALED, seal, verify

MARK = b"\x0a\x0ccontent_hash\x12\x40"
OPEN = b"weights" + MARK + UNSEALED.encode() + b"rest"


def test_seal_is_the_hash_of_the_file_with_zeros_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(seal(OPEN))
    assert verify(path) == hashlib.sha256(OPEN).hexdigest()
    assert hashlib.sha256(OPEN).hexdigest().encode() in path.read_bytes()


def test_sealing_a_sealed_model_changes_nothing() -> None:
    assert seal(seal(OPEN)) == seal(OPEN)


@pytest.mark.parametrize("place", [0, len(OPEN) - 1, len(b"weights" + MARK) + 5])
def test_one_changed_byte_breaks_the_seal(tmp_path: Path, place: int) -> None:
    damaged = bytearray(seal(OPEN))
    damaged[place] ^= 1
    path = tmp_path / "model.onnx"
    path.write_bytes(damaged)
    with pytest.raises(ModelError, match="changed or damaged"):
        verify(path)


@pytest.mark.parametrize("content", [b"", b"something else", OPEN[:-20]])
def test_a_file_without_a_seal_is_no_model_of_ours(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="not a model of ours"):
        verify(path)


def test_a_missing_model_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No such file"):
        verify(tmp_path / "model.onnx")
