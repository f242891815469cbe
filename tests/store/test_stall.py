"""What a batching sink says while its database takes nothing."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from events import event
from sqlalchemy import create_engine, text

from sigra import AuditEvent, configure, log_safe
from sigra.audit import EventFilter
from sigra.store import Batching, SqlAuditSink, stall
from sigra.store.errors import AuditLostError

EVERYONE = EventFilter(all_organizations=True)
WAITS = "1 audit event waits: sigra.store.sink.SqlAuditSink raised "
AGAIN = "audit events are written again by sigra.store.sink.SqlAuditSink"


def _wait_for(found: Callable[[], object]) -> None:
    for _ in range(1_200):
        if found():
            return
        threading.Event().wait(0.05)
    pytest.fail("it did not happen in a minute")


def _said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(each.levelname, each.getMessage()) for each in caplog.records
            if each.name == "sigra.audit"]  # fmt: skip


@contextmanager
def _away(url: str) -> Iterator[None]:
    """Have a database whose writes fail, and not by the fault of an event."""
    engine = create_engine(url)
    for name, other in (("sigra_audit_entries", "elsewhere"), ("elsewhere", "sigra_audit_entries")):
        with engine.begin() as connection:
            connection.execute(text(f"ALTER TABLE {name} RENAME TO {other}"))
        if other == "elsewhere":
            yield
    engine.dispose()


def _open(open_sink: Any, url: str, **options: Any) -> SqlAuditSink:
    sink: SqlAuditSink = open_sink(url, batch=Batching(seconds=0.05, **options))
    sink.prepare()
    return sink


def test_events_that_wait_are_told_and_that_they_are_written_again(
    url: str, open_sink: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """By types alone, outside of any job."""
    sink = _open(open_sink, url)
    with _away(url):
        sink.write(event(1, actor_id="secret-7f3a"))
        _wait_for(lambda: _said(caplog))
        ((level, line),) = _said(caplog)
        assert (level, line.startswith(WAITS)) == ("ERROR", True)
        assert not {"secret-7f3a", "elsewhere", "INSERT"} & set(line.split())
        assert line.count(" ") == WAITS.count(" ") + 1, line
    _wait_for(lambda: len(_said(caplog)) == 2)
    assert _said(caplog)[1] == ("WARNING", AGAIN)
    assert sink.count(EVERYONE) == 1


def test_what_goes_on_is_told_once_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so is a database that comes and goes."""
    now = [5.0]
    monkeypatch.setattr(stall, "monotonic", lambda: now[0])
    said = stall.Stall(SqlAuditSink)
    counts = []
    for moment, of in [(5, "goes"), (6, "goes"), (64, "goes"), (65, "goes"), (66, "ends"),
                       (67, "goes"), (68, "ends"), (69, "ends"), (125, "goes")]:  # fmt: skip
        now[0] = float(moment)
        said.goes_on(1, OSError()) if of == "goes" else said.ends()
        counts.append(len(_said(caplog)))
    assert counts == [1, 1, 1, 2, 3, 3, 3, 3, 4]


def test_an_event_logged_about_events_that_wait_keeps_nobody_from_writing_them(
    url: str, open_sink: Any
) -> None:
    """A handler of logging does so: in a full queue it would wait for its own thread."""
    sink = _open(open_sink, url, size=1, queue=1, timeout=600)
    results: list[Any] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            results.append(log_safe("logger.error", None))

    handler = Handler()
    logging.getLogger("sigra.audit").addHandler(handler)
    try:
        with configure(sinks=[sink], audit_schema=AuditEvent):
            with _away(url):
                sink.write(event(1))
                _wait_for(lambda: results)
            _wait_for(lambda: sink.count(EVERYONE))
    finally:
        logging.getLogger("sigra.audit").removeHandler(handler)
    assert "AuditBacklogError" in str(results[0].reason)


def test_a_filter_that_raises_does_not_end_the_writing(url: str, open_sink: Any) -> None:
    """It raises in the thread that writes, which nobody starts again."""
    sink = _open(open_sink, url)
    asked: list[Any] = []

    def refuse(record: logging.LogRecord) -> bool:
        asked.append(record)
        raise ValueError(record)

    logging.getLogger("sigra.audit").addFilter(refuse)
    try:
        with _away(url):
            sink.write(event(1))
            _wait_for(lambda: asked)
        _wait_for(lambda: sink.count(EVERYONE))
    finally:
        logging.getLogger("sigra.audit").removeFilter(refuse)


def test_what_is_lost_is_not_said_to_be_written(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """A close that cannot write what waits ends no stall."""
    sink = SqlAuditSink(url, batch=Batching(seconds=0.05))
    sink.prepare()
    with _away(url):
        sink.write(event(1))
        _wait_for(lambda: _said(caplog))
        with pytest.raises(AuditLostError):
            sink.close()
    assert sink._batch is not None
    assert sink._batch._thread is not None
    sink._batch._thread.join(60)
    assert AGAIN not in [line for _, line in _said(caplog)]


def test_a_close_that_writes_what_waited_says_so(
    url: str, open_sink: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Who read that they wait reads how that ended."""
    sink = open_sink(url, batch=Batching(size=1, seconds=3_600))
    sink.prepare()
    with _away(url):
        sink.write(event(1))
        _wait_for(lambda: _said(caplog))
    sink.close()
    assert [line for _, line in _said(caplog)][1:] == [AGAIN]
