"""multipart/related: any way of cutting a stream gives the same file, and nothing else passes for one."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicestream.archive.multipart import FormError, body, boundary_of, length, save_only_part
from slicestream.archive.patience import TransientError

HEAD = b"--mark\r\nContent-Type: application/dicom\r\nContent-Length: 5\r\n\r\n"
END = b"\r\n--mark--\r\n"


def saved(pieces: list[bytes], limit: int = 10**6) -> bytes:
    out = io.BytesIO()
    assert save_only_part(pieces, b"mark", out, limit=limit) == out.tell()
    return out.getvalue()


@given(content=st.binary(max_size=300), cuts=st.lists(st.integers(0, 400), max_size=12), preamble=st.booleans())
def test_however_the_stream_is_cut_the_part_is_the_same(content: bytes, cuts: list[int], preamble: bool) -> None:
    whole = (b"preamble\r\n" if preamble else b"") + HEAD + content + END
    places = sorted({0, *(cut for cut in cuts if cut < len(whole)), len(whole)})
    pieces = [whole[a:b] for a, b in pairwise(places)]
    assert saved(pieces) == content


@given(st.binary(max_size=200))
def test_any_other_bytes_are_refused_with_one_of_our_errors(garbage: bytes) -> None:
    with pytest.raises((FormError, TransientError)):
        saved([garbage])


def test_a_file_with_a_line_that_looks_like_a_boundary_stays_whole() -> None:
    content = b"\r\n--mar\r\n--\r\n-mark\r\n\r\n"
    assert saved([HEAD + content + END]) == content


def test_a_stream_that_ends_early_may_be_asked_for_again() -> None:
    for end in range(len(HEAD), len(HEAD) + 10):
        with pytest.raises(TransientError, match="ends in the middle"):
            saved([(HEAD + b"12345" + END)[:end]])


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (HEAD + b"one" + b"\r\n--mark\r\n" + HEAD + b"two" + END, "several parts"),
        (b"--mark\r\nContent-Type: text/html\r\n\r\n<html>" + END, "no part of the type application/dicom"),
        (b"--other\r\nContent-Type: application/dicom\r\n\r\nx" + END, "no part of the type application/dicom"),
        (HEAD + bytes(2000) + END, "over 1000 bytes"),
        (b"--mark\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", "header is over"),
    ],
)
def test_what_was_not_asked_for_is_refused(stream: bytes, reason: str) -> None:
    with pytest.raises(FormError, match=reason):
        saved([stream[at : at + 700] for at in range(0, len(stream), 700)], limit=1000)


@pytest.mark.parametrize(
    "given_type",
    [
        'multipart/related; type="application/dicom"; boundary=mark',
        'Multipart/Related; boundary="mark"; type="application/dicom"',
        "multipart/related;boundary=mark;start=x",
    ],
)
def test_the_boundary_is_found_in_every_form(given_type: str) -> None:
    assert boundary_of(given_type) == b"mark"


@pytest.mark.parametrize("given_type", ["", "application/dicom", "text/html; boundary=mark", "multipart/related"])
def test_another_content_type_is_refused(given_type: str) -> None:
    with pytest.raises(FormError, match="need multipart/related"):
        boundary_of(given_type)


def test_a_request_is_as_long_as_it_says_and_reads_back(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("one", "two")]
    for size, path in enumerate(files):
        path.write_bytes(bytes(range(256)) * 300 * size)
    whole = b"".join(body(files, "mark"))
    assert len(whole) == length(files, "mark")
    assert saved([b"".join(body(files[1:], "mark"))]) == files[1].read_bytes()
    assert whole.count(b"--mark") == 3
