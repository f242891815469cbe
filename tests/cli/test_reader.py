"""Lines of a file of any size, and the args that each of them holds."""

from __future__ import annotations

import io
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigra.cli.run.reader import BadLineError, Line, LineReader, parse


def read_all(data: bytes, limit: int) -> list[tuple[Line, bytes]]:
    reader = LineReader(io.BytesIO(data), limit)
    lines = []
    while (line := reader.read()) is not None:
        lines.append((line, b"".join(reader.rest())))
    return lines


@given(st.lists(st.sampled_from([b"\n", b"a", b"bcd", b"\r\n", b"\xff", b"{}"])), st.integers(1, 9))
def test_no_byte_is_lost_or_made_up(parts, limit):
    """What the reader gives, put together, is the file, whatever the limit is."""
    data = b"".join(parts)
    assert data == b"".join(line.data + rest for line, rest in read_all(data, limit))


@given(st.lists(st.sampled_from([b"\n", b"a", b"bcd", b"ef"])), st.integers(1, 9))
def test_lines_are_numbered_as_an_editor_does(parts, limit):
    """Numbers count from 1, and a long line is one line."""
    data = b"".join(parts)
    assert list(range(1, len(data.splitlines()) + 1)) == [
        line.number for line, _ in read_all(data, limit)
    ]


def test_the_rest_of_a_long_line_may_be_left_unread():
    """Who does not ask for the rest of a long line gets the next line all the same."""
    reader = LineReader(io.BytesIO(b"x" * 100 + b"\n{}\n"), 10)
    first, second = reader.read(), reader.read()
    assert (False, Line(2, b"{}\n")) == (first is not None and first.whole, second)


def test_a_long_line_is_not_held_in_memory():
    """A line of 64 MB costs less than 2 MB of memory."""

    class Endless(io.RawIOBase):
        left = 64_000_000

        def readable(self):
            return True

        def readinto(self, buffer):
            size = min(len(buffer), self.left)
            buffer[:size] = b"x" * size
            self.left -= size
            return size

    reader = LineReader(io.BufferedReader(Endless()), 100_000)
    tracemalloc.start()
    line = reader.read()
    size = len(line.data) + sum(map(len, reader.rest()))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (64_000_000, True) == (size, peak < 2_000_000)


@pytest.mark.parametrize("data", [b"\n", b"  \t\r\n", b"", b"\xef\xbb\xbf\n"])
def test_white_space_is_blank(data):
    """A line of white space is blank, a byte order mark before it or not."""
    assert Line(1, data).blank


def test_a_byte_order_mark_is_passed_over():
    """The mark that some editors put at the start of a file is no part of the JSON."""
    assert {"a": 1} == parse(Line(1, b'\xef\xbb\xbf{"a": 1}\r\n'), 100)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"a": ', "not JSON: Expecting value (column 7)"),
        (b'{"a": NaN}', "not strict JSON: NaN is not a JSON number"),
        (b'{"a": [-Infinity]}', "not strict JSON: -Infinity is not a JSON number"),
        (b"[1]", "a JSON array, not an object of args"),
        (b'"a"', "a JSON string, not an object of args"),
        (b"null", "a JSON null, not an object of args"),
        (b"1e3", "a JSON number, not an object of args"),
        (b'{"a": "\xe9"}', "not UTF-8 (from byte 8 of the line on)"),
        (b'{"a": 1, "a": 2}', "ambiguous: an object has the same key twice"),
        (b'{"a": ' + b"9" * 5000 + b"}", "holds an integer that is too long"),
        (b"[" * 200_000 + b"]" * 200_000, "nested too deeply"),
        ("{}".encode("utf-16"), "not UTF-8 (from byte 1 of the line on)"),
    ],
)
def test_a_bad_line_says_what_is_wrong_with_it(data, reason):
    """The reason names the fault and its place, and never a value."""
    with pytest.raises(BadLineError) as caught:
        parse(Line(2, data + b"\n"), 100)
    assert reason == caught.value.reason


def test_a_line_over_the_limit_is_bad():
    """The beginning of a long line is never taken for the line."""
    with pytest.raises(BadLineError) as caught:
        parse(Line(1, b'{"a": 1}', whole=False), 8)
    assert "longer than the 8 bytes that a line may have" == caught.value.reason
