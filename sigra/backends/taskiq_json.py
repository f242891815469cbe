"""Refuse parts of taskiq that pickle: on Redis, schedule sources and result backends by default."""

from __future__ import annotations

from typing import Any

from sigra.backends.producing import require_json


def refuse_pickle(part: Any) -> None:
    """Raise ``ValueError``, which names the cure, for a broker or a store that pickles."""
    serializer = getattr(part, "_serializer", None) or getattr(part, "serializer", None)
    if serializer is None:
        return
    kind = type(part).__name__
    cure = f"make it {kind}(..., serializer=JSONSerializer())"
    if hasattr(part, "with_serializer"):
        cure = "set broker.with_serializer(JSONSerializer())"
    require_json(serializer.dumpb([1]), f"this {kind}", cure)
