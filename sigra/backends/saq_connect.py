"""Connect a SAQ queue once, in one loop: that of the first sender, for all who send meanwhile.

SAQ itself connects anew for each sender that comes before the first connect has ended: in other
loops too, which then share its connections, and on PostgreSQL without the tables that the first
makes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

from sigra.backends.loop import Together, answered, own_loop
from sigra.errors import InvalidOptionError
from sigra.execute import in_event_loop
from sigra.job import Job


def queue_of(queues: Mapping[str, Any], job: Job) -> Any:
    """Return the queue that a job is sent to, by default the first."""
    name = job.options.queue or next(iter(queues))
    if name not in queues:
        reason = f"no queue {name!r}; SaqBackend was given {', '.join(queues)}"
        raise InvalidOptionError("queue", reason, job.worker)
    return queues[name]


class Connection:
    """The connection of a queue, made when it is awaited, unless the application has done that.

    ``timeout``: seconds after which a server that does not answer is down.
    """

    def __init__(self, queue: Any, timeout: float) -> None:
        self._queue, self._timeout = queue, timeout
        if hasattr(queue, "pool"):
            _replace_together(queue.pool)
        _forget_its_loop(queue)
        self._lock, self._together = threading.Lock(), Together()
        self._first: asyncio.AbstractEventLoop | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop that the queue is connected in, or is to be: by default the running one.

        Outside of event loops that is one of our own.
        """
        with self._lock:
            first = self._queue._loop or self._first
            if first is None or (self._queue._loop is None and not first.is_running()):
                first = asyncio.get_running_loop() if in_event_loop() else own_loop()
                self._first = first
            return first

    async def __call__(self) -> None:
        """Return once the queue is connected."""
        connected = getattr(self._queue, "_connected", self._queue._loop is not None)
        await self._together(None if connected else self._connect)

    async def _connect(self) -> None:
        await answered(self._queue.connect(), self._timeout)


def _forget_its_loop(queue: Any) -> None:
    """Have a queue that was disconnected be connected in the loop of who sends next.

    So it is after a test whose ``lifespan`` disconnects it. SAQ keeps the loop, which has ended.
    """
    disconnect = queue.disconnect
    if disconnect.__module__ == __name__:
        return

    async def disconnect_and_forget() -> None:
        await disconnect()
        queue._loop = None

    queue.disconnect = disconnect_and_forget


def _replace_together(pool: Any) -> None:
    """Have psycopg's pool replace all its connections once it finds one that has broken.

    It would wait for longer and longer before it looks at each of the others, and for longer than
    the timeout in all, though the server is back.
    """
    check = getattr(pool, "_check", None)  # it came with psycopg_pool 3.2
    if check is None or not hasattr(pool, "drain") or getattr(check, "__module__", "") == __name__:
        return

    async def look(connection: Any) -> None:
        try:
            await check(connection)
        except Exception:
            await pool.drain()
            raise

    pool._check = look
