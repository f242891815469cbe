"""What the command line asks for, and how a run is set up for it."""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from click import ClickException

from sigra import config
from sigra.audit.event import AuditEvent
from sigra.cli.output import EventStream, claimed_stdout, muted_structlog
from sigra.cli.run.choose import open_lane
from sigra.cli.run.closing import ClosingSinks, closing_sinks
from sigra.cli.run.lane import Lane
from sigra.cli.run.reader import LineReader
from sigra.cli.run.rejects import default_rejects
from sigra.cli.run.run import Run
from sigra.cli.run.stop import GRACE, Stop, end_at_once
from sigra.cli.run.summary import Report, show_report
from sigra.cli.show import Bar, stderr_console
from sigra.cli.target import MisuseError, load_worker
from sigra.store.lines import JSONLinesSink

_LONGEST_ESCAPE = 6
"""How much longer than its compact form a line of JSON may be: ``\\u0061`` for ``a``."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the command line asks for; None where it leaves the choice to the command.

    ``source`` is a path, or "-" for standard input; without it, what an earlier run has
    left is to be run.
    """

    target: str
    source: str | None
    backend: str | None
    audit_log: Path | None
    rejects: Path | None
    workers: int | None
    in_flight: int

    @property
    def path(self) -> str:
        """Return the file to read, which is empty where there is none."""
        return os.devnull if self.source is None else self.source


def carry_out(order: Order) -> int:
    """Carry out an order and return the exit status; raise ``MisuseError`` if that cannot work.

    If jobs still run when their time is up, the process ends here.
    """
    _check_files(order)
    with ExitStack() as stack:
        sink, stream = stack.enter_context(_events(order.audit_log))
        definition = load_worker(order.target)
        sinks = stack.enter_context(closing_sinks())
        lane = open_lane(
            definition, order.backend, order.workers, order.in_flight, resume=order.source is None
        )
        source = stack.enter_context(_opened(order.path))
        run = _prepare(order, lane, source, sinks)
        if stream is not None:
            stream.on_closed = run.lose_stdout
            stream.on_failed = lambda why: run.bar.say(f"standard output cannot be written: {why}")
            if run.bar.drawn and stream.is_terminal:
                stream.show = run.bar.say
        stack.enter_context(_settings(lane, sink))
        run.perform()
        report = _end(order, run, sinks)
        if run.stop.hurried:
            end_at_once(report.status)
        return report.status


def _prepare(order: Order, lane: Lane, source: BinaryIO, sinks: ClosingSinks) -> Run:
    def abandon() -> None:
        # Called in another thread, because jobs hold up the main one.
        bar.stop()
        _end(order, run, sinks)

    bar = Bar(stderr_console(), _size(source), "jobs")
    reader = LineReader(source, _LONGEST_ESCAPE * config.current.max_args_bytes)
    named = "stdin" if order.path == "-" else Path(order.path).name
    rejects = order.rejects or default_rejects(named)
    run = Run(lane, reader, rejects, bar, order.in_flight, Stop(abandon))
    return run


def _end(order: Order, run: Run, sinks: ClosingSinks) -> Report:
    """Close the module's sinks and sum up; in a hurry, end the process if that takes too long."""

    def show() -> Report:
        report = replace(run.report(order.target, order.path), unclosed=sinks.unclosed)
        show_report(report, stderr_console())
        return report

    def give_up() -> None:
        try:
            show()
        finally:
            end_at_once(run.stop.status)

    late = threading.Timer(GRACE, give_up)
    late.daemon = True
    if run.stop.hurried:
        late.start()
    try:
        sinks.close()
    finally:  # after Ctrl-C too: if a close does not end, the user is told what became of the jobs
        late.cancel()
        report = show()
    return report


def _check_files(order: Order) -> None:
    """Refuse, before anything runs, files that would overwrite one another."""
    if order.rejects is not None and _exists(order.rejects):
        raise MisuseError(
            f"--rejects {order.rejects} exists and is not overwritten: move it, or name another"
        )
    if order.rejects is not None and not os.path.isdir(order.rejects.parent):
        raise MisuseError(f"--rejects {order.rejects}: there is no such folder")
    if order.audit_log is None and _is_read(order, 1):
        raise MisuseError(
            f"--args {order.path} is standard output too: every event would be read as a line "
            "again; write the events to another file"
        )
    if order.audit_log is not None:
        # By their paths too: neither may be there yet.
        named = (path for path in (order.source, order.rejects) if path not in (None, "-"))
        paths = {Path(path).resolve() for path in named}
        if order.audit_log.resolve() in paths or _is_read(order, order.audit_log):
            raise MisuseError(
                f"--audit-log {order.audit_log} is also read or written as another file"
            )


def _is_read(order: Order, written: Path | int) -> bool:
    """Tell whether what is read is the very file, by whatever name, that events are appended to."""
    if order.source is None:
        return False
    try:
        read, log = os.stat(0 if order.source == "-" else order.source), os.stat(written)
    except OSError:
        return False
    # What is written to a terminal or a socket is not read back.
    is_read_again = stat.S_ISREG(read.st_mode) or stat.S_ISFIFO(read.st_mode)
    # On Windows all pipes have the number 0, so that any two look alike.
    return is_read_again and read.st_ino != 0 and os.path.samestat(read, log)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that no file can have
        return False


@contextmanager
def _events(path: Path | None) -> Iterator[tuple[JSONLinesSink, EventStream | None]]:
    """Yield the sink for audit events, and the stream behind it where that is stdout."""
    with ExitStack() as stack:
        stream = None
        try:
            if path is None:
                stream = EventStream(stack.enter_context(claimed_stdout()))
                sink = JSONLinesSink(stream)  # type: ignore[arg-type]
            else:
                sink = JSONLinesSink(path)
                with suppress(OSError):  # it is closed, and nothing can get into it
                    stack.enter_context(claimed_stdout())
        except OSError as error:
            where = "standard output" if path is None else f"--audit-log {path}"
            raise MisuseError(f"{where} cannot be written: {error.strerror}") from None
        stack.callback(_close, sink, path)
        yield sink, stream


def _close(sink: JSONLinesSink, path: Path | None) -> None:
    try:
        sink.close()
    except OSError as error:  # each event that it did not take was counted as failed
        raise ClickException(f"--audit-log {path} cannot be written: {error.strerror}") from None


@contextmanager
def _opened(source: str) -> Iterator[BinaryIO]:
    if source == "-":
        if sys.stdin is None:
            raise MisuseError("--args - cannot be read: standard input is closed")
        with suppress(OSError, AttributeError):  # Windows may have no such thing
            os.set_blocking(sys.stdin.fileno(), True)  # else it ends where it is slow
        yield sys.stdin.buffer
        return
    try:
        file = Path(source).open("rb", buffering=256 * 1024)  # noqa: SIM115
    except OSError as error:
        raise MisuseError(f"--args {source} cannot be read: {error.strerror}") from None
    with file:
        yield file


def _size(source: BinaryIO) -> int | None:
    """Return how many bytes there are to read; None if that is not known."""
    try:
        facts = os.fstat(source.fileno())
    except OSError:
        return None
    return facts.st_size if stat.S_ISREG(facts.st_mode) else None


@contextmanager
def _settings(lane: Lane, sink: Any) -> Iterator[None]:
    """Send jobs and events of the run where the command line says, and nowhere else."""
    settings = config.current
    schema = settings.audit_schema or AuditEvent
    sinks = [*settings.sinks, sink]
    with (
        config.configure(backend=lane.backend, sinks=sinks, audit_schema=schema),
        muted_structlog(),
    ):
        yield
