"""Run the tests in forks of the process that collected them: ``pytest --forks 4``.

What the tests import is loaded once and each test is collected once, so that a process more
costs next to nothing, and waits for a clock or a program while others work. A fork takes some
more tests of one module or class whenever it is done with some, and one alone of those that are
marked with ``waits``; three of these come in turn with some others, so that there is always a fork
that works, and what waits long has begun in good time. It tells the first process what came of
each, which shows, counts and remembers it as if it had run it itself.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import traceback
from collections.abc import Iterator
from itertools import chain, groupby, pairwise, zip_longest
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

import pytest

Groups = list[list[int]]
"""The tests of each module or class, or some of them, by their places among all."""

_MOST = 24
"""How many tests a fork takes at a time: where many wait for a clock, forks share them."""

Said = tuple[list[Any], list[dict[str, Any]]]
"""The reports of a test as data, and the warnings that it gave."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Ask how many forks there shall be."""
    parser.addoption("--forks", type=int, metavar="N", help="run the tests in N forks")


def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run the tests in forks, where that is asked for and all were collected."""
    option = session.config.option
    if not option.forks or option.collectonly or session.testsfailed:
        return None
    run(session, option.forks)
    return True


class Trouble(Exception):
    """What broke outside of any test in a fork."""


class Fork:
    """A process that runs tests, and which one it is at."""

    def __init__(
        self, session: pytest.Session, groups: Groups, claims: int, earlier: list[Fork]
    ) -> None:
        self.told, tell = Pipe(duplex=False)
        self.at: pytest.Item | None = None
        self.pid = os.fork()
        if self.pid == 0:
            for fork in (*earlier, self):
                fork.told.close()  # whom nobody hears is to be told so
            _be_a_fork(session, _claimed(groups, claims), tell)
        tell.close()

    def end(self) -> int:
        """Wait until it has ended, and return its status."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def run(session: pytest.Session, number: int) -> None:
    """Run all collected tests in so many forks."""
    groups = _in_turn(session.items)
    session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]  # theirs too
    claims = _queue(len(groups))
    gc.collect()
    gc.freeze()  # what is held here, no fork has to look through at its end
    forks: list[Fork] = []
    for _ in range(number):
        forks.append(Fork(session, groups, claims, forks))
    try:
        finished = _listen(session, {fork.told: fork for fork in forks})
    except BaseException:
        for fork in forks:
            os.kill(fork.pid, signal.SIGTERM)  # which ends them as Ctrl-C does
        raise
    finally:
        os.close(claims)
        for fork in forks:
            fork.told.close()  # none of them waits until it is heard
        ends = [(fork.end(), fork.at) for fork in forks]
    if finished < len(session.items) or any(status for status, _ in ends):
        raise Trouble(f"{finished} tests ran; how each fork ended, and with which test: {ends}")


def _in_turn(items: list[pytest.Item]) -> Groups:
    """Return the tests in the order and the groups in which forks take them."""
    groups: tuple[Groups, Groups] = ([], [])  # those that wait, and the others
    for parent, places in groupby(range(len(items)), lambda place: items[place].parent):
        some = list(places)
        wait = parent is not None and parent.get_closest_marker("waits") is not None
        size = 1 if wait else _MOST
        groups[not wait].extend(some[at : at + size] for at in range(0, len(some), size))
    waiting, others = groups
    in_turn = zip_longest(waiting[::3], waiting[1::3], waiting[2::3], others)
    return [group for group in chain.from_iterable(in_turn) if group]


def _queue(count: int) -> int:
    """Return a pipe with the numbers below a count: who reads two bytes has one to himself."""
    reading, writing = os.pipe()
    with open(writing, "wb") as full:
        full.writelines(number.to_bytes(2) for number in range(count))
    return reading


def _claimed(groups: Groups, claims: int) -> Iterator[list[int]]:
    while number := os.read(claims, 2):
        yield groups[int.from_bytes(number)]


class AnyTest:
    """What stands for the next test where none is claimed yet: all that is the session's stays."""

    def __init__(self, session: pytest.Session) -> None:
        self.session = session

    def listchain(self) -> list[Any]:
        return [self.session]


def _be_a_fork(session: pytest.Session, groups: Iterator[list[int]], tell: Connection) -> None:
    """Run tests, and end this process."""
    status = 1
    try:
        with contextlib.suppress(BrokenPipeError):  # the first process is gone
            try:
                _run_here(session, groups, tell)
                session.config._ensure_unconfigure()  # which looks for what was raised in vain
                status = 0
            except BaseException:
                tell.send(traceback.format_exc())
    finally:
        os._exit(status)


def _run_here(session: pytest.Session, groups: Iterator[list[int]], tell: Connection) -> None:
    os.setpgid(0, 0)  # so that the first process alone hears Ctrl-C, and says so once
    # Of one name pytest tries twenty numbers, and other forks may take each of them first.
    folders = session.config._tmp_path_factory  # type: ignore[attr-defined]
    folders._basetemp = folders.mktemp(f"fork-{os.getpid()}", numbered=False)
    manager = session.config.pluginmanager
    manager.unregister(name="terminalreporter")
    capture = manager.getplugin("capturemanager")
    capture.stop_global_capturing()  # its files are shared with the other forks
    capture.start_global_capturing()
    capture.suspend_global_capture()
    manager.register(reporter := Reporter(session.config))
    try:
        for group in groups:
            tell.send((reporter.take(), group[0]))
            for place, following in pairwise([*group, None]):
                item = session.items[place]
                after = AnyTest(session) if following is None else session.items[following]
                session.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
                tell.send((reporter.take(), following))
                if session.shouldfail or session.shouldstop:
                    return
    finally:
        session._setupstate.teardown_exact(None)


class Reporter:
    """Gather what is reported of a test: each part's report, and warnings."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.said: Said = ([], [])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        write = self.config.hook.pytest_report_to_serializable
        self.said[0].append(write(config=self.config, report=report))

    def pytest_warning_recorded(
        self, warning_message: Any, when: str, nodeid: str, location: object
    ) -> None:
        warning_message.source = None  # such as a socket, which cannot be sent
        self.said[1].append(
            {
                "warning_message": warning_message,
                "when": when,
                "nodeid": nodeid,
                "location": location,
            }
        )

    def take(self) -> Said:
        """Return what was gathered, and begin anew."""
        said, self.said = self.said, ([], [])
        return said


def _listen(session: pytest.Session, forks: dict[Any, Fork]) -> int:
    """Report what the forks tell, until each has ended; return how many tests finished."""
    finished = 0
    while forks:
        for ready in wait(list(forks)):
            fork = forks[ready]
            try:
                message = fork.told.recv()
            except EOFError:
                del forks[ready]
                continue
            if isinstance(message, str):
                raise Trouble(message)
            said, place = message
            if fork.at is not None:
                _report(session, fork.at, said)
                finished += 1
            fork.at = None if place is None else session.items[place]
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)
    return finished


def _report(session: pytest.Session, item: pytest.Item, said: Said) -> None:
    hook, config = session.config.hook, session.config
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for data in said[0]:
        report = hook.pytest_report_from_serializable(config=config, data=data)
        hook.pytest_runtest_logreport(report=report)
    for warning in said[1]:
        hook.pytest_warning_recorded.call_historic(kwargs=warning)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
