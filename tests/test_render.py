"""The processor that Sigra ships: one event, one line of strict JSON."""

from __future__ import annotations

import dataclasses
import enum
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import structlog

from sigra import AuditEvent, AuditScope, configure
from sigra.audit import JSONRenderer, log_safe
from sigra.audit.line import line_of

SCOPE = AuditScope.build(actor_id=7, organization_id=42)


def strict(line: str | bytes) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(line, parse_constant=refuse)


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    with configure(audit_schema=AuditEvent, sinks=[]):
        yield
    structlog.reset_defaults()


def logged(*processors: Any, **keywords: Any) -> list[dict[str, Any]]:
    """Log one event through processors into a stream of bytes; return its lines."""
    stream = io.BytesIO()
    structlog.configure(
        processors=[*processors, JSONRenderer()],
        logger_factory=structlog.BytesLoggerFactory(stream),
    )
    assert "emitted" == log_safe("invoice.close", SCOPE, **keywords).status
    return [strict(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_line_with_every_field() -> None:
    """The line of an event has its name, its level and all of its fields."""
    (line,) = logged(target_id=9, metadata={"lines": [1, {"x": None}]}, outcome="error")
    assert {"event", "level", *AuditEvent.__dataclass_fields__} - {"action"} == set(line)
    assert ("invoice.close", "error", "9") == (line["event"], line["level"], line["target_id"])
    assert {"lines": [1, {"x": None}]} == line["metadata"]
    assert datetime.fromisoformat(line["occurred_at"]).utcoffset() is not None


def test_alone_or_after_others_it_renders_the_same() -> None:
    """The one-step way and the way through a chain give the same line."""
    moment = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=timezone.utc)
    (alone,) = logged(occurred_at=moment, metadata={"deep": {"é": ["\u2028"]}})
    (after,) = logged(
        lambda *call: call[2], occurred_at=moment, metadata={"deep": {"é": ["\u2028"]}}
    )
    del alone["event_id"], after["event_id"]
    assert alone == after


def test_an_event_of_others_is_rendered_and_not_redacted() -> None:
    """What an application logs past log_safe is its own, also where a value is no JSON."""
    event = {"event": "hi", "odd": "\ud800", "token": "t0p", "Bearer abcdefgh": ["Bearer abcdefgh"]}
    line = strict(JSONRenderer()(None, "info", dict(event)))
    assert {**event, "odd": "\ufffd", "level": "info"} == line


def test_what_others_add_is_kept() -> None:
    """A level or key that a processor before it has set stays in the line."""

    def add(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:
        return {**event, "level": "notice", "request_id": "r1"}

    (line,) = logged(add)
    assert ("notice", "r1") == (line["level"], line["request_id"])


def test_it_renders_text_for_loggers_of_text(capsys: pytest.CaptureFixture[str]) -> None:
    """With text=True it gives str, as PrintLogger takes it."""
    structlog.configure(
        processors=[JSONRenderer(text=True)], logger_factory=structlog.PrintLoggerFactory()
    )
    log_safe("a.b", SCOPE)
    assert "a.b" == strict(capsys.readouterr().out)["event"]


def test_other_events_pass_through_it() -> None:
    """An application's own events are rendered as well, with the level."""
    stream = io.BytesIO()
    structlog.configure(
        processors=[JSONRenderer()], logger_factory=structlog.BytesLoggerFactory(stream)
    )
    structlog.get_logger().warning("hello", answer=42)
    assert {"event": "hello", "answer": 42, "level": "warning"} == strict(stream.getvalue())


def test_another_s_large_event_is_rendered_whole() -> None:
    """It is not cut to what an event of ours may hold."""
    fields = {"event": "e", "lines": ["x" * 300] * 2_000}
    assert fields == json.loads(JSONRenderer()(None, "info", fields))


def test_what_another_s_event_holds_many_times_is_cut() -> None:
    """Lists that double would make a line of a terabyte."""
    value: Any = ["x"]
    for _ in range(40):
        value = [value, value]
    assert len(JSONRenderer()(None, "info", {"event": "e", "value": value})) < 100_000


def test_a_cycle_in_another_s_event_is_cut() -> None:
    """Through a tuple, too, for which orjson would end the process."""
    event = JSONRenderer()(None, "info", {"event": "hello", "answer": [HIDDEN], "sure": True})
    expected = {"event": "hello", "answer": [[["<cycle>"]]], "sure": True, "level": "info"}
    assert expected == strict(event)


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int


class Raising:
    def __repr__(self) -> str:
        raise RuntimeError("repr")

    __str__ = __repr__


CYCLE: list[Any] = []
CYCLE.append(CYCLE)
HIDDEN: list[Any] = []
HIDDEN.append((HIDDEN,))


@pytest.mark.parametrize(
    ("value", "rendered"),
    [
        (float("nan"), (None, "NaN")),
        (float("-inf"), (None, "-Infinity")),
        ("\ud800", ("\ufffd",)),
        (2**70, ("<int 71 bits>", 2**70)),
        ({1: 2}, ({"1": 2},)),
        ({(): 2}, ({"<builtins.tuple>": 2},)),
        ((1, 2), ([1, 2],)),
        (Decimal("1.50"), ("1.50",)),
        (UUID(int=1), (str(UUID(int=1)),)),
        (Colour.RED, ("red",)),
        (Point(1), ("<tests.test_render.Point>",)),
        (Raising(), ("<tests.test_render.Raising>",)),
        (CYCLE, (["<cycle>"], [["<cycle>"]])),
        (datetime(2026, 1, 1, tzinfo=timezone.utc), ("2026-01-01T00:00:00+00:00",)),
        (b"ok", ("ok",)),
        (b"\xff", ("<bytes 1>",)),
        ({"x"}, (["x"],)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_anything_becomes_strict_json(value: Any, rendered: tuple[Any, ...]) -> None:
    """Whatever stands in an event, its line is strict JSON."""
    assert strict(line_of({"value": value, "event": "x"}))["value"] in rendered


SIGNS = [
    "\n", "\r", "\x00", "\x1b", "\x7f", "\x85", "\x9b", "\u00ad", "\u061c", "\u200b", "\u200e",
    "\u202e", "\u2028", "\u2029", "\u2060", "\u2066", "\u2069", "\ufeff", "\u034f", "\u115f",
    "\u17b4", "\u180b", "\u3164", "\ufe0f", "\uffa0", "\ufff9", "\U000e0041", "\U000e0100",
]  # fmt: skip


@pytest.mark.parametrize("sign", SIGNS, ids=ascii)
def test_no_sign_can_end_or_turn_a_line(sign: str) -> None:
    """Control, bidirectional, zero-width and line-separating signs are escaped, keys included."""
    line = line_of({f"k{sign}": f"é{sign}"})
    assert sign not in line.decode()
    assert {f"k{sign}": f"é{sign}"} == strict(line)


def test_other_text_stays_readable() -> None:
    """Letters of any script and emoji stand as they are."""
    assert '{"a":"Grüße, 世界 🎉"}' == line_of({"a": "Grüße, 世界 🎉"}).decode()


@pytest.mark.programs
def test_without_orjson_the_lines_are_the_same() -> None:
    """Without the extra the standard library's json renders the same line."""
    program = (
        "import sys; sys.modules['orjson'] = None\n"
        "from datetime import datetime, timezone\n"
        "from sigra.audit.line import line_of\n"
        "fields = {'x': [1, 'é\\u2028\\x7f', 1.5], 'n': float('nan'), 's': {1},\n"
        "    'at': datetime(2026, 1, 2, tzinfo=timezone.utc)}\n"
        "sys.stdout.buffer.write(line_of(fields))\n"
    )
    without = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert (
        '{"x":[1,"é\\u2028\\u007f",1.5],"n":"NaN","s":[1],"at":"2026-01-02T00:00:00+00:00"}'
    ) == without.stdout.decode()


@pytest.mark.programs
def test_the_package_imports_neither_structlog_nor_hashlib() -> None:
    """``import sigra.audit`` loads neither structlog nor hashlib until something is logged."""
    program = (
        "import sys, sigra.audit\n"
        "assert not {'structlog', 'hashlib', 'orjson'} & set(sys.modules)\n"
        "sigra.audit.AuditEvent, sigra.audit.Sink, sigra.audit.audit_stats\n"
        "assert not {'structlog', 'hashlib'} & set(sys.modules)\n"
        "sigra.audit.log_safe\n"
        "assert 'structlog' in sys.modules\n"
    )
    # Measuring coverage would import hashlib on its own account.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    subprocess.run([sys.executable, "-c", program], check=True, env=env)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    """The lazy package answers as any other."""
    import sigra.audit

    with pytest.raises(AttributeError, match="colour"):
        sigra.audit.colour  # noqa: B018
