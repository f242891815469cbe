"""Run jobs from a file that outlives the command: what one run leaves, the next one finishes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from sigra.cli.run.follow import Entry, FollowingBackend
from sigra.cli.run.lane import Lane
from sigra.cli.show import counted
from sigra.cli.target import MisuseError, from_here
from sigra.context import running

if TYPE_CHECKING:
    from sigra.definition import Definition
    from sigra.job import Job

_STATES = {"complete": "completed", "error": "discarded", "canceled": "cancelled"}
"""What huey's signals say of a task, in our words."""


class FileBackend(FollowingBackend):
    """Count what becomes of the jobs in a file, whichever run put them there.

    ``counts["left"]``: how many an earlier run had left.
    """

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.follows = True
        self._storage = inner.huey.storage
        self.counts["left"] = self.counts["enqueued"] = self.unfinished
        inner.huey.signal(*_STATES)(self._on_end)

    @property
    def unfinished(self) -> int:
        """Return how many jobs wait, are scheduled or run."""
        count: int = self._storage.unfinished()
        return count

    def unfinished_lines(self) -> list[int]:
        """Return an empty list: the file does not keep the lines of its jobs."""
        return []

    def settle(self, *, all_of_them: bool = False) -> int:
        """Return how many jobs are left; the file knows."""
        del all_of_them
        return self.unfinished

    def _note(self, jobs: Sequence[Job]) -> list[Entry]:
        if running.get() is not None:
            with self._lock:
                self.counts["child"] += len(jobs)
        return []

    def _on_end(self, signal: str, task: Any, *_: Any) -> None:
        with self._lock:
            self.counts[_STATES[signal]] += 1
            self.counts["retried"] += task.kwargs.get("failures", 0)
            self.counts["snoozed"] += task.kwargs.get("snoozes", 0)


class FileLane(Lane):
    """Put every line's job into the file in one transaction, then run what is in the file.

    A run that is killed while it reads leaves nothing, and one that is killed later
    leaves all that was not done. Raises ``MisuseError`` where another process runs the
    file's jobs, and for new jobs where an earlier run has left some.
    """

    def __init__(self, definition: Definition, inner: Any, workers: int, *, resume: bool) -> None:
        storage = inner.huey.storage
        self.file = from_here(storage.filename)
        try:
            storage.claim()
        except Exception as error:
            raise MisuseError(str(error)) from None
        super().__init__(definition, inner)
        left = self.backend.counts["left"]
        if left and not resume:
            raise MisuseError(
                f"{self.file} holds {counted(left, 'job')} that an earlier run did not finish: "
                "run the command without --args to finish them, or set SIGRA_HUEY_FILE to another "
                "file"
            )
        self._consumer = inner.huey.create_consumer(
            workers=workers, periodic=False, initial_delay=0.01, max_delay=0.1
        )
        self._started = False
        self._reading = ExitStack()
        self._reading.enter_context(storage.transaction())

    def _follow(self, inner: Any) -> FollowingBackend:
        return FileBackend(inner)

    def all_read(self) -> None:
        """Commit the jobs that were read, and let huey's consumer run in this process."""
        self._reading.close()
        # Not by its start(), which would handle signals, as the command does itself.
        for thread in self._threads():
            thread.start()
        self._started = True

    def keep_below(self, limit: int, hurried: Callable[[], bool]) -> None:
        """Wait only once all lines were read: before that, no job runs."""
        if self._started:
            super().keep_below(limit, hurried)

    def close(self, timeout: float | None) -> None:
        """Stop taking jobs, and give the running ones ``timeout`` seconds."""
        self._consumer.stop_flag.set()
        deadline = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads():
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))

    def _threads(self) -> list[Any]:
        consumer = self._consumer
        return [consumer.scheduler, *(thread for _, thread in consumer.worker_threads)]


def is_embedded(backend: Any) -> bool:
    """Tell a backend whose jobs are in a file that this process can run."""
    return bool(getattr(backend, "embedded", False))
