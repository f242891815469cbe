"""Lines of a file of any size, and the args that each of them holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

_BOM = b"\xef\xbb\xbf"
_CHUNK = 256 * 1024


class BadLineError(Exception):
    """Report why a line holds no args. Attribute: ``reason``, which never shows a value."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UnreadableError(Exception):
    """Report why lines cannot be read to their end."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line as it stands in the file, its line feed included.

    ``number`` counts from 1. ``whole`` is False where the line is longer than the
    reader's limit: ``data`` is then its beginning, and ``LineReader.rest`` gives the
    remainder.
    """

    number: int
    data: bytes
    whole: bool = True

    @property
    def blank(self) -> bool:
        """Return whether there is nothing on the line but white space."""
        return self.whole and not _text_bytes(self).strip()


class LineReader:
    """Read a binary stream line by line, holding ``limit`` bytes of it at most.

    ``position`` is the number of bytes read, ``number`` that of the last line. Each read raises
    ``UnreadableError`` where the stream breaks off.
    """

    def __init__(self, stream: BinaryIO, limit: int) -> None:
        self._stream = stream
        self.limit = limit
        self.position = 0
        self.number = 0
        self._inside = False

    def read(self) -> Line | None:
        """Return the next line, or None at the end; what was left of a long one is skipped."""
        for _ in self.rest():
            pass
        data = self._readline(self.limit + 1)
        if not data:
            return None
        self.number += 1
        self._inside = len(data) > self.limit and not data.endswith(b"\n")
        return Line(self.number, data, whole=not self._inside)

    def rest(self) -> Iterator[bytes]:
        """Yield what is left of a line that is not whole, in chunks."""
        while self._inside:
            chunk = self._readline(_CHUNK)
            self._inside = bool(chunk) and not chunk.endswith(b"\n")
            if chunk:
                yield chunk

    def _readline(self, limit: int) -> bytes:
        try:
            data = self._stream.readline(limit)
        except OSError as error:
            raise UnreadableError(error.strerror) from None
        self.position += len(data)
        return data


def parse(line: Line, limit: int) -> dict[str, Any]:
    """Return the JSON object that a line holds; raise ``BadLineError`` for anything else.

    A byte order mark at the start of the file is passed over. What a worker's args
    may hold beyond that is checked by its ``.new()``.
    """
    if not line.whole:
        raise BadLineError(f"longer than the {limit:,} bytes that a line may have")
    try:
        value = _decode(_text_bytes(line).rstrip(b"\r\n").decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadLineError(f"not UTF-8 (from byte {error.start + 1} of the line on)") from None
    except json.JSONDecodeError as error:
        raise BadLineError(f"not JSON: {error.msg} (column {error.colno})") from None
    except RecursionError:
        raise BadLineError("nested too deeply") from None
    except ValueError:
        raise BadLineError("holds an integer that is too long") from None
    if type(value) is not dict:
        raise BadLineError(f"a JSON {_KINDS[type(value)]}, not an object of args")
    return value


_KINDS = {
    list: "array",
    str: "string",
    int: "number",
    float: "number",
    bool: "boolean",
    type(None): "null",
}


def _text_bytes(line: Line) -> bytes:
    return line.data.removeprefix(_BOM) if line.number == 1 else line.data


def _refuse_constant(name: str) -> NoReturn:
    raise BadLineError(f"not strict JSON: {name} is not a JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Python would keep the last of two equal keys silently, and so perhaps another tenant.
    found = dict(pairs)
    if len(found) < len(pairs):
        raise BadLineError("ambiguous: an object has the same key twice")
    return found


_decode = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_unique).decode
