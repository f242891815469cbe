"""``sigra run`` closes the sinks that its worker's module has configured."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sigra import AuditEvent, config, configure, log_safe
from sigra.audit import count
from sigra.cli.run import order
from sigra.cli.run.closing import ClosingSinks, closing_sinks
from sigra.cli.run.run import Run
from sigra.cli.run.stop import Stop
from sigra.cli.run.summary import Report
from sigra.store import Batching, SqlAuditSink

PATIENCE = 120.0
Start = Callable[..., "subprocess.Popen[bytes]"]

JOBS = """
import time
from sigra import configure, log_safe, tenant_worker

class Holding:
    def __init__(self):
        self.held = []
    def write(self, event, record):
        self.held.append(event.target_id)
    def close(self):
        with open("closed", "a") as file:
            file.write("".join(f"{target}\\n" for target in self.held))

class Broken(Holding):
    def close(self):
        raise OSError(28, "No space left on device")

class Stuck(Holding):
    def close(self):
        super().close()
        time.sleep(120)

@tenant_worker
def note(scope, n: int):
    time.sleep(0.01)
    log_safe("number.note", scope, target_id=n)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that makes a folder of a module with these sinks."""

    def make(sinks: str) -> Path:
        (tmp_path / "cli_sinks.py").write_text(f"{JOBS}\nconfigure(sinks=[{sinks}])\n")
        return tmp_path

    return make


def test_sinks_of_the_module_are_closed(
    start: Start, folder: Callable[[str], Path], number_file: Callable[[int], str]
) -> None:
    """What a sink holds until it is closed is kept, and a second mention closes it no second time."""
    place = folder("sink := Holding(), sink")
    process = start("run", "cli_sinks:note", "--args", number_file(5), folder=place)
    process.communicate(timeout=PATIENCE)
    told = sorted((place / "closed").read_text().split())
    assert (0, sorted("0123401234")) == (process.returncode, told)


def test_a_sink_that_cannot_be_closed_is_told(
    start: Start, folder: Callable[[str], Path], number_file: Callable[[int], str]
) -> None:
    """It makes the status 1, and the others are closed all the same."""
    place = folder("Broken(), Holding()")
    process = start("run", "cli_sinks:note", "--args", number_file(3), folder=place)
    _, err = process.communicate(timeout=PATIENCE)
    assert (1, "0\n1\n2\n") == (process.returncode, (place / "closed").read_text())
    said = "Not closed: cli_sinks.Broken raised OSError (ENOSPC): No space left on device\n"
    assert said in err.decode()


def test_sinks_are_closed_after_ctrl_c(
    start: Start, folder: Callable[[str], Path], number_file: Callable[[int], str]
) -> None:
    """The tail that a sink holds is not lost to a signal."""
    place = folder("Holding()")
    words = ("run", "cli_sinks:note", "--backend", "thread", "--in-flight", "4")
    process = start(*words, "--args", number_file(5000), folder=place)
    out = process.stdout.readline()  # type: ignore[union-attr]
    process.send_signal(signal.SIGINT)
    out += process.communicate(timeout=PATIENCE)[0]
    told = (place / "closed").read_text().split()
    assert (130, out.count(b"\n")) == (process.returncode, len(told))


def test_sigterm_amid_a_close_leaves_the_summary(
    start: Start, folder: Callable[[str], Path], number_file: Callable[[int], str]
) -> None:
    """As after Ctrl-C: what became of the jobs, and of the sink that did not close, is told."""
    place = folder("Stuck()")
    process = start("run", "cli_sinks:note", "--args", number_file(3), folder=place)
    while process.poll() is None and not (place / "closed").exists():
        time.sleep(0.01)
    process.terminate()
    _, err = process.communicate(timeout=PATIENCE)
    said = "Not closed: cli_sinks.Stuck: no time was left\n"
    assert (143, True) == (process.returncode, said in err.decode())


def test_sinks_are_closed_if_the_command_cannot_begin(
    start: Start, folder: Callable[[str], Path]
) -> None:
    """The module may have logged events as it was imported."""
    place = folder("Broken(), Holding()")
    words = ("run", "cli_sinks:note", "--args", "absent", "--backend", "thread")
    process = start(*words, folder=place)
    _, err = process.communicate(timeout=PATIENCE)
    assert (2, True) == (process.returncode, (place / "closed").exists())
    assert err.startswith(
        b"Not closed: cli_sinks.Broken raised OSError (ENOSPC): No space left on device\n"
    )


class Slow:
    """A sink whose write lasts until it is let go on."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.seen = list[str]()

    def write(self, event: AuditEvent, record: Any) -> None:
        self.begun.set()
        assert self.go_on.wait(PATIENCE)
        self.seen.append(event.action)

    def close(self) -> None:
        self.seen.append("closed")


def test_no_event_comes_after_the_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that has begun is waited for, and one of a thread that goes on is refused."""
    monkeypatch.setattr("sigra.cli.run.closing._PATIENCE", PATIENCE)
    sink = Slow()
    with configure(sinks=[sink], audit_schema=AuditEvent):
        sinks = ClosingSinks()
        writing = threading.Thread(target=log_safe, args=("number.first", None))
        writing.start()
        assert sink.begun.wait(PATIENCE)
        threading.Timer(0.05, sink.go_on.set).start()
        sinks.close()
        writing.join()
        late = log_safe("number.second", None)
    assert ["number.first", "closed"] == sink.seen
    said = f"{__name__}.Slow raised sigra.store.errors.AuditSinkClosedError"
    assert ("failed", said) == (late.status, late.reason)


def test_a_store_is_read_until_it_is_closed(tmp_path: Path) -> None:
    """Jobs that read events find the store as they do in any other process."""
    sink = SqlAuditSink(f"sqlite:///{tmp_path}/audit.db")
    with configure(sinks=[sink], audit_schema=AuditEvent), closing_sinks() as sinks:
        log_safe("number.note", None)
        assert 1 == count(all_organizations=True)
        sinks.close()


def test_what_a_store_has_queued_is_written(tmp_path: Path) -> None:
    """A batching store has in its database, once it is closed, all that it took."""
    url = f"sqlite:///{tmp_path}/audit.db"
    sink = SqlAuditSink(url, batch=Batching(seconds=3600))
    with configure(sinks=[sink], audit_schema=AuditEvent), closing_sinks() as sinks:
        log_safe("number.note", None)
        sinks.close()
    with configure(sinks=[reader := SqlAuditSink(url)]):
        assert 1 == count(all_organizations=True)
    reader.close()


def test_a_second_run_in_one_process_writes_to_the_sinks_again() -> None:
    """Those of the first one are closed, and a sink may go on after that."""
    sink = Slow()
    sink.go_on.set()
    with configure(sinks=[sink], audit_schema=AuditEvent):
        ClosingSinks().close()
        with closing_sinks():
            assert "emitted" == log_safe("number.second", None).status


def test_a_flush_after_the_close_is_none(tmp_path: Path) -> None:
    """The close has written what was held: a job that ends later is not told of events that wait."""
    sink = SqlAuditSink(f"sqlite:///{tmp_path}/audit.db", batch=Batching(seconds=3600))
    with configure(sinks=[sink]), closing_sinks() as sinks:
        (gate,) = config.current.sinks
        sinks.close()
        assert gate.flush() is None  # type: ignore[attr-defined]


class _Stuck(Slow):
    def close(self) -> None:
        assert self.go_on.wait(PATIENCE)


class _Pressed(Slow):
    def close(self) -> None:
        raise KeyboardInterrupt


def _run_that_is_over(reports: list[Report], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(order, "show_report", lambda report, _: reports.append(report))
    backend = SimpleNamespace(
        name="sync", follows=True, counts={}, unfinished=0, unfinished_lines=list
    )
    return Run(
        SimpleNamespace(backend=backend, file=None),  # type: ignore[arg-type]
        SimpleNamespace(), Path("rejects"), SimpleNamespace(say=print), 1, Stop(bool),  # type: ignore[arg-type]
    )  # fmt: skip


ORDER = order.Order("m:w", "-", None, None, None, None, 1)


def test_ctrl_c_amid_a_close_leaves_the_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who gives up on a sink that does not close is told what became of the jobs, and of it."""
    reports = list[Report]()
    run = _run_that_is_over(reports, monkeypatch)
    with configure(sinks=[_Pressed()]), pytest.raises(KeyboardInterrupt):
        order._end(ORDER, run, ClosingSinks())
    assert [(f"{__name__}._Pressed: no time was left",)] == [each.unclosed for each in reports]


def test_a_close_that_never_ends_does_not_hold_up_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-C the command sums up and ends in time, and names the sink."""

    def end_at_once(status: int) -> None:
        ends.append((status, reports[0].unclosed))
        sink.go_on.set()

    sink, reports, ends = _Stuck(), list[Report](), list[Any]()
    monkeypatch.setattr(order, "GRACE", 0.01)
    monkeypatch.setattr(order, "end_at_once", end_at_once)
    run = _run_that_is_over(reports, monkeypatch)
    run.stop.ask("Ctrl-C", 130, hurried=True)
    with configure(sinks=[sink]):
        order._end(ORDER, run, ClosingSinks())
    assert [(130, (f"{__name__}._Stuck: no time was left",))] == ends
