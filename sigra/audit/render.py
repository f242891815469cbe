"""The processor that Sigra ships: the last of a structlog chain, and all that one needs."""

from __future__ import annotations

from typing import Any

from sigra.audit.line import line_of


class JSONRenderer:
    """Render an event to one line of strict JSON, in one step.

    For structlog's ``processors``, as the last or the only one. The line has
    ``event``, ``level`` (where no other processor has set it) and the rest as it came.
    With ``text=False``, the default, the answer is bytes, as ``BytesLogger`` takes
    them; with ``text=True`` it is a str, for ``PrintLogger``, ``WriteLogger`` and the
    standard library. Any event may pass through it, not only those of ``log_safe``.
    """

    __slots__ = ("text",)

    def __init__(self, *, text: bool = False) -> None:
        self.text = text

    def __call__(self, _: Any, name: str, event_dict: Any) -> str | bytes:
        """Render one event, as structlog calls a processor."""
        if "level" not in event_dict:
            event_dict["level"] = name
        line = line_of(event_dict)
        return line.decode() if self.text else line

    def __repr__(self) -> str:
        return f"JSONRenderer(text={self.text})"
