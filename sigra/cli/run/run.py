"""Run a worker over lines of args: read, enqueue, follow, set aside."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from sigra.audit.stats import audit_stats
from sigra.cli.failures import FailureLog
from sigra.cli.output import PIPE_STATUS
from sigra.cli.run.lane import Lane
from sigra.cli.run.reader import BadLineError, Line, LineReader, UnreadableError, parse
from sigra.cli.run.rejects import RejectFile
from sigra.cli.run.stop import GRACE, Stop
from sigra.cli.run.summary import Report
from sigra.cli.show import Bar
from sigra.errors import (
    EnqueueError,
    InvalidArgsError,
    InvalidOptionError,
    MissingTenantKeysError,
)


class Run:
    """One run of a worker over a file; at most ``in_flight`` jobs are unfinished at a time.

    ``stop`` ends it early. Nothing is kept of a job that has ended.
    """

    def __init__(
        self,
        lane: Lane,
        reader: LineReader,
        rejects: Path,
        bar: Bar,
        in_flight: int,
        stop: Stop,
    ) -> None:
        self.lane, self.reader, self.bar, self.stop = lane, reader, bar, stop
        self.log = FailureLog(bar.say)
        self._rejects = RejectFile(rejects)
        self._in_flight = in_flight
        self._lines = self._bad = self._last = 0
        self._at_end = self._announced = False
        self._announcing = threading.Lock()
        self._audited = audit_stats()
        self._began = time.perf_counter()  # the other stands still for 16 ms on Windows
        stop.announce = self._announce

    def perform(self) -> None:
        """Run every line, and wait until every job has ended."""
        with self.stop, self.log.attached(), self.bar:
            self._feed()
            self.lane.all_read()
            self._finish()
            self._rejects.close()

    def lose_stdout(self) -> None:
        """Stop because nobody reads the audit events any more."""
        self.log.muted = True
        self.stop.ask("nobody reads standard output any more", PIPE_STATUS, hurried=True)

    def report(self, target: str, source: str) -> Report:
        """Return the facts so far, under the names that the user gave."""
        backend, audited, stop = self.lane.backend, audit_stats(), self.stop
        return Report(
            target=target,
            source=source,
            backend=backend.name,
            followed=backend.follows,
            lines=self._lines,
            bad=self._bad,
            rejects=self._rejects.made,
            counts=backend.counts,
            emitted=audited.emitted - self._audited.emitted,
            failed=audited.failed - self._audited.failed,
            seconds=time.perf_counter() - self._began,
            kinds=self.log.kinds.copy(),  # jobs that still run add to it
            unfinished=backend.unfinished,
            unfinished_lines=backend.unfinished_lines(),
            kept_in=self.lane.file,
            next_line=None if self._at_end else self._last + 1,
            stopped=None if stop.reason is None else (stop.reason, stop.status),
        )

    def _feed(self) -> None:
        try:
            while (line := self.stop.reading(self.reader.read)) is not None:
                if not line.blank:
                    self._take(line)
                self._keep_below(self._in_flight)
                self.bar.move(*self._progress())
        except UnreadableError as error:
            self.stop.ask(f"the args cannot be read any further: {error}", 1)
        self._at_end = not self.stop.asked

    def _take(self, line: Line) -> None:
        before, self._last = self._last, line.number
        self.lane.backend.line = line.number
        try:
            self.lane.new(parse(line, self.reader.limit))
        except BadLineError as error:
            self._set_aside(line, error.reason)
        except InvalidArgsError as error:
            self._set_aside(line, f"{error.path}: {error.reason}")
        except MissingTenantKeysError as error:
            self._set_aside(line, f"lacks {' and '.join(error.missing)}; null is allowed")
        except (EnqueueError, InvalidOptionError) as error:
            self._last = before
            self.stop.ask(str(error), 1)
            return
        self._lines += 1

    def _set_aside(self, line: Line, reason: str) -> None:
        self._bad += 1
        self.bar.say(f"line {line.number}: {reason}")
        try:
            self._rejects.set_aside(line, self.reader)
        except OSError as error:
            # Going on would lose each further bad line.
            self.stop.ask(f"cannot write {self._rejects.path}: {error.strerror}", 1)

    def _keep_below(self, limit: int) -> None:
        self.lane.keep_below(limit, self._is_hurried)
        if self.lane.stuck is not None:
            self.stop.ask(self.lane.stuck, 1)

    def _finish(self) -> None:
        self._keep_below(1)
        if self.stop.hurried:
            self._announce()
        self.lane.close(GRACE if self.stop.hurried else None)

    def _announce(self) -> None:
        """Say once that the command is about to end."""
        with self._announcing:
            if not self._announced and self.stop.status != PIPE_STATUS:
                self.bar.say(
                    f"Stopping ({self.stop.reason}): no more lines are read, and jobs have "
                    f"{GRACE:.0f} seconds to finish. Ctrl-C ends at once."
                )
            self._announced = True

    def _is_hurried(self) -> bool:
        self.bar.move(*self._progress())  # this is called repeatedly while it waits for jobs
        return self.stop.hurried

    def _progress(self) -> tuple[float, int]:
        """Return how many bytes are done with, and how many jobs."""
        backend = self.lane.backend
        taken = backend.counts["enqueued"]
        done = max(0, taken - backend.unfinished)
        return self.reader.position * (done / taken if taken else 1.0), done
