"""Carry an envelope through PostgreSQL's jsonb without loss."""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Mapping
from contextlib import suppress
from decimal import Decimal
from functools import partial
from typing import Any

from sigra.backends.envelope import MARK
from sigra.backends.native_error import carried
from sigra.json import dumps

_UNSAFE = re.compile(rb"\\u0000|[\[:,]-?\d[\d.]*e\+?\d|[\[:,]-0\.0")
_HINTS = (b"\\u0000", b"-0.0", b"e+", *(b"e%d" % digit for digit in range(1, 10)))
"""Every unsafe text has one of these in it, and looking for them is ten times as fast."""


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
    """Undo ``fit``; leave what is no JSON to ``unpack``, which refuses it for good.

    Where the application has psycopg read a float as a Decimal, it is a float again.
    """
    if MARK not in payload:
        return dict(payload)
    decimals, args = list[Decimal](), payload.get("args")
    with suppress(TypeError, ValueError, RecursionError):
        if isinstance(args, str):
            payload = {**payload, "args": json.loads(args)}
        text = json.dumps(payload, default=partial(_as_float, decimals))
        if decimals:
            payload = json.loads(text)
    return dict(payload)


def _as_float(found: list[Decimal], value: Any) -> float:
    if not isinstance(value, Decimal):
        raise TypeError
    found.append(value)
    return float(value)


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
