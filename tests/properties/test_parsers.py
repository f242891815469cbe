"""Whatever bytes a parser is given, it reads them or refuses them in the way that it promises."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parsers import PARSERS

WORDS = [
    b"[" * 100_000, b"{", b"}", b"]", b'"', b",", b"null", b"-", b"0", b"9" * 30, b"1e400", b"NaN",
    b"\\ud800", b"\\u0000", b"\xff", b"\xc2\xa0", b"\n", b"\r", b'"args":', b'"sigra":', b'"body":',
]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, samples: list[bytes]) -> bytes:
    """Return a sample in which some pieces are other bytes, or any bytes."""
    data = draw(st.sampled_from([*samples, b""]))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 8)))
        piece = draw(st.sampled_from(WORDS) | st.binary(max_size=8))
        data = data[:start] + piece + data[end:]
    return data


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.data())
def test_a_parser_keeps_its_promise(name: str, data: st.DataObject) -> None:
    """No input leads to another error, and none is taken for what it is not."""
    check, samples = PARSERS[name]
    check(data.draw(damaged([each.encode() for each in samples])))
