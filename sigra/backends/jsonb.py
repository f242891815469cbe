"""Carry an envelope through PostgreSQL's jsonb without loss."""

from __future__ import annotations

import json
import math
import re
import traceback
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from sigra.backends.envelope import MARK
from sigra.backends.producing import carried
from sigra.json import dumps, get_referents

_UNSAFE = re.compile(rb"\\u0000|[\[:,]-?\d[\d.]*e\+?\d|[\[:,]-0\.0")
_HINTS = (b"\\u0000", b"-0.0", b"e+", *(b"e%d" % digit for digit in range(1, 10)))
"""Every unsafe text has one of these in it, and looking for them is ten times as fast."""

_READABLE, _DEEPEST = 640, 256
"""How many digits of an int Python always reads, and how many levels its recursion limit allows."""


def fit(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Write the args as one text if jsonb would refuse (NUL) or change them (1e+16, -0.0)."""
    args = payload.get("args")
    if MARK not in payload or not isinstance(args, Mapping):
        return dict(payload)
    text = dumps(args)
    for hint in _HINTS:
        if hint in text and _UNSAFE.search(text):
            return {**payload, "args": text.decode()}
    return dict(payload)


def unfit(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Undo ``fit``; leave what is no JSON to ``unpack``, which refuses it for good."""
    args = payload.get("args")
    if MARK in payload and isinstance(args, str):
        with suppress(ValueError, RecursionError):
            return {**payload, "args": json.loads(args)}
    return dict(payload)


def read(data: bytes | str) -> Any:
    """Read a row's args, whatever they are, where an error would end each consumer that fetches it.

    An int beyond Python's limit of digits is infinite. In place of what is no object, or is nested
    so deep that the queue itself could not log it, there is one that ``unpack`` refuses too.
    """
    with suppress(RecursionError):
        args = json.loads(data, parse_int=_read_int)
        if isinstance(args, dict) and (len(data) < _DEEPEST or not _is_deep(args)):
            return args
    return {"no object, or too deep": math.inf}


def _read_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= _READABLE else float(digits)


def _is_deep(args: Any) -> bool:
    near = [args]
    return all(near := get_referents(*near) for _ in range(_DEEPEST))


def writable(error: BaseException) -> Exception:
    """Return an error that a queue can raise and store: ``error``, or a RuntimeError of its text.

    jsonb refuses NUL and lone surrogates; an error that is no ``Exception``, or whose ``str()``
    fails, would end a consumer.
    """
    text = "".join(traceback.format_exception(error))
    safe = carried(text)
    if isinstance(error, Exception) and safe == text and _has_text(error):
        return error
    return RuntimeError(safe)


def _has_text(error: Exception) -> bool:
    try:
        str(error)
    except Exception:
        return False
    return True
