"""A JPEG lossless encoder of a page, written from ITU-T T.81 (process 14): it shares no line with any decoder."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

_CODE_BITS = 5  # every category, 0 to 16, has a Huffman code of five bits: its own number


def encode(pixels: NDArray[np.integer], *, precision: int, predictor: int) -> bytes:
    """Return a JPEG stream of grey values (row, column), 0 to 2^precision - 1; `predictor` 1 to 7 is T.81 table H.1."""
    rows, columns = pixels.shape
    frame = struct.pack(">BHHB3B", precision, rows, columns, 1, 1, 0x11, 0)
    table = bytes([0, *(17 if bits == _CODE_BITS else 0 for bits in range(1, 17)), *range(17)])
    scan = struct.pack(">B2BBBB", 1, 1, 0, predictor, 0, 0)
    header = b"".join(_segment(*part) for part in ((0xC3, frame), (0xC4, table), (0xDA, scan)))
    return b"\xff\xd8" + header + _entropy_coded(pixels, precision, predictor) + b"\xff\xd9"


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _entropy_coded(pixels: NDArray[np.integer], precision: int, predictor: int) -> bytes:
    bits = []
    for difference in (pixels.astype(np.int64) - _predicted(pixels, precision, predictor)).ravel().tolist():
        difference = (difference + 32768) % 65536 - 32768  # noqa: PLW2901  # modulo 2^16 (H.1.2.1)
        category = abs(difference).bit_length()
        bits.append(f"{category:0{_CODE_BITS}b}")
        if 0 < category < 16:
            extra = difference if difference > 0 else difference + (1 << category) - 1
            bits.append(f"{extra:0{category}b}")
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\x00")


def _predicted(pixels: NDArray[np.integer], precision: int, predictor: int) -> NDArray[np.int64]:
    values = pixels.astype(np.int64)
    left, above, corner = np.zeros_like(values), np.zeros_like(values), np.zeros_like(values)
    left[:, 1:], above[1:], corner[1:, 1:] = values[:, :-1], values[:-1], values[:-1, :-1]
    predicted = (
        left,
        above,
        corner,
        left + above - corner,
        left + ((above - corner) >> 1),
        above + ((left - corner) >> 1),
        (left + above) >> 1,
    )[predictor - 1].copy()
    predicted[0] = left[0]
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 0] = 1 << (precision - 1)
    return predicted
