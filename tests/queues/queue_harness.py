"""One queue under test: its server by way of a proxy, its consumer, and what feeds it."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import psycopg
from consumer import Consumer
from proxy import Proxy

from sigra import configure, tenant_worker
from sigra.backend import Backend


def told_at_start(program: str, *imports: str) -> bool:
    """Run a program that starts a consumer; tell whether it warned that it knows no worker."""
    first = "import logging; logging.basicConfig()"
    lines = [first, *(f"import {module}" for module in imports), textwrap.dedent(program)]
    command = [sys.executable, "-c", "\n".join(lines)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return "WARNING:sigra.job:this consumer knows no worker: " in ran.stderr


class Hung(BaseException):
    """No ``Exception``, which a driver might take for its server's."""


@contextmanager
def not_hanging(seconds: int = 60) -> Iterator[None]:
    """Break off, in the main thread, what never comes to an end."""

    def break_off(*_: object) -> None:
        raise Hung(f"still waiting after {seconds} s")

    before = signal.signal(signal.SIGALRM, break_off)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class QueueHarness:
    """What a queue's test file fills in; its consumer is started by the queue's own command.

    ``command``, ``ready`` and ``forgot``: see ``Consumer``; in ``command``, ``{queue}`` and ``{url}``
    stand for this run's own, and ``{name}`` for the consumer's. ``alone``: the words that have it
    serve one queue alone, ``{queue}``. ``outlives_its_server``: False for a consumer that may end
    when its server is gone, and needs a supervisor.
    """

    command: ClassVar[Sequence[str]]
    alone: ClassVar[Sequence[str]] = ()
    ready: ClassVar[str]
    forgot: ClassVar[str] = ""
    patience = 120.0  # of a busy machine: who does not need it does not wait
    concurrency = 2
    outlives_its_server = True
    backend: Backend

    def __init__(self, server: str, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.proxy = Proxy(server) if "//" in server else None
        self.url = self.proxy.url if self.proxy else server
        self.queue = f"sigra-{uuid.uuid4().hex[:10]}"
        self.notes = folder / "notes"
        self.notes.touch()
        self.consumer = self.another("consumer")

    def another(self, name: str, *words: str, queue: str = "", **env: str) -> Consumer:
        """Make one more consumer, to be started; ``words`` end its command.

        ``queue``: what stands for ``{queue}``, if that is not this run's own.
        """
        (self.folder / name).mkdir()
        own = {"SIGRA_TEST_CONSUMER": "1", "SIGRA_TEST_NOTES": str(self.notes), **self.env()}
        facts = {"queue": queue or self.queue, "url": self.url, "name": name}
        command = [word.format(**facts) for word in (*self.command, *words)]
        return Consumer(command, self.ready, self.folder / name, own | env, self.forgot)

    @property
    def other_queue(self) -> str:
        return f"{self.queue}-other"

    def another_of(self, queue: str) -> Consumer:
        """Make a consumer of this queue alone."""
        return self.another(self.new_name(), *self.alone, queue=queue)

    def new_name(self) -> str:
        """Return a name for one more consumer."""
        return f"other-{time.monotonic_ns()}"

    @contextmanager
    def serving(self, queue: str) -> Iterator[None]:
        consumer = self.another_of(queue)
        try:
            consumer.start()
            yield
            consumer.stop()
        finally:
            consumer.kill()

    def env(self) -> dict[str, str]:
        """Return what the consumer's app module reads of its environment."""
        return {"SIGRA_TEST_URL": self.url, "SIGRA_TEST_QUEUE": self.queue}

    @property
    def alive(self) -> bool:
        return self.consumer.alive

    def start(self) -> None:
        self.consumer.start()

    def stop(self) -> None:
        self.consumer.stop()

    def kill(self) -> None:
        self.consumer.kill()

    def advance(self) -> None:
        time.sleep(0.02)

    def logged(self, pattern: str) -> str | None:
        """Return the consumer's log from where the pattern is first found, with what follows."""
        found = re.search(pattern, self.consumer.output)
        return found and self.consumer.output[found.start() :][:4000]

    def send(self, name: str, payload: Mapping[str, Any]) -> str:
        raise NotImplementedError

    def failed(self, native_id: str) -> str | None:
        raise NotImplementedError

    def kept(self, native_id: str) -> bool:
        raise NotImplementedError

    def send_note(self, text: str) -> None:
        """Send the application's own task, whose body is ``consumer_side.note``."""
        raise NotImplementedError

    def name_of(self, native_id: str) -> str | None:
        """Return the name under which the queue's own tools show the job."""
        raise NotImplementedError

    def settled(self, native_id: str) -> bool:  # noqa: ARG002
        """Tell whether the queue knows that the job has ended, where it keeps such jobs."""
        return True

    def remove(self) -> None:
        """Remove what the run left on the server, and close this process's connections."""


class OwnPoolHarness(QueueHarness):
    """What a queue's harness has beside it whose producers have connections of our own.

    ``table``: the one with the jobs.
    """

    table: ClassVar[str]

    def query(self, query: str, *args: Any) -> list[Any]:
        """Return the rows of a statement, as dicts."""
        with psycopg.connect(self.server, row_factory=psycopg.rows.dict_row) as conn:
            cursor = conn.execute(query, args)
            return cursor.fetchall() if cursor.description else []

    def rows(self, where: str = "true", *args: Any) -> list[Any]:
        """Return those of the jobs for which the condition holds."""
        return self.query(f"SELECT * FROM {self.table} WHERE {where} ORDER BY id", *args)

    @contextmanager
    def stalled(self, what: str) -> Iterator[None]:
        """Have the whole server, or the table alone, give no answer meanwhile."""
        if what == "server":
            with self.proxy.held():
                yield
        else:
            with psycopg.connect(self.server) as conn:
                conn.execute(f"LOCK TABLE {self.table}")
                yield


CUT = "PERFORM pg_terminate_backend(pg_backend_pid()), pg_sleep(9)"


@contextmanager
def failing(server: str, updates: str, times: int, how: str = "RAISE 'not now'") -> Iterator[None]:
    """Have a PostgreSQL refuse the first so many of these updates (``OF args ON jobs WHEN ...``).

    ``how``: ``CUT`` breaks the connection.
    """
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute("CREATE SEQUENCE failing")
        conn.execute(f"""CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF nextval('failing') <= {times} THEN {how}; END IF; RETURN NEW; END $$""")
        of_on, _, when = updates.partition(" WHEN ")
        condition = f"WHEN ({when})" if when else ""
        conn.execute(f"""CREATE TRIGGER failing BEFORE UPDATE {of_on}
            FOR EACH ROW {condition} EXECUTE FUNCTION fail()""")
        try:
            yield
        finally:
            conn.execute("DROP FUNCTION fail CASCADE")
            conn.execute("DROP SEQUENCE failing")


@contextmanager
def cut_at_commit(server: str, table: str) -> Iterator[None]:
    """Have a PostgreSQL break each connection that commits new rows of a table."""
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(f"""CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN {CUT}; END $$""")
        conn.execute(f"""CREATE CONSTRAINT TRIGGER cutting AFTER INSERT ON {table}
            INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION cut()""")
        try:
            yield
        finally:
            conn.execute("DROP FUNCTION cut CASCADE")


def is_let_go(make: Callable[[], Any]) -> bool:
    """Tell whether what is made is gone once nobody refers to it."""
    made = weakref.ref(make())
    collect()
    return made() is None


def collect() -> None:
    """Let go what nobody refers to; a finalizer may put off what it refers to until the next."""
    for _ in range(3):
        gc.collect()


def threads_of(pool: str) -> list[threading.Thread]:
    """Return the threads of psycopg's pool of this name; the harness has some of its own."""
    return [each for each in threading.enumerate() if each.name.startswith(f"{pool}-")]


def keeps_what_a_failed_job_had(backend: Backend) -> bool:
    """Run a job that fails, here; tell whether its values are kept until garbage is collected."""
    in_hand: list[weakref.ref[Any]] = []

    @tenant_worker(name=f"queues.in_hand.{backend.name}")
    def fails(scope: Any) -> None:
        data = {1}
        in_hand.append(weakref.ref(data))
        raise LookupError

    collect()
    gc.disable()
    logging.disable()  # pytest keeps the records, and these the errors
    try:
        with configure(backend=backend):
            fails.new({"organization_id": "1", "actor_id": "2"})
        return in_hand.pop()() is not None
    finally:
        logging.disable(logging.NOTSET)
        gc.enable()


def as_jsonpickle(value: Any) -> Any:
    """Return what jsonpickle makes of a tree of JSON, in which it keeps the tuples."""
    match value:
        case dict():
            return {key: as_jsonpickle(each) for key, each in value.items()}
        case tuple():
            return {"py/tuple": [*map(as_jsonpickle, value)]}
        case list():
            return [*map(as_jsonpickle, value)]
    return value


def occupy_the_only_thread(free: threading.Event) -> None:
    """Leave the running loop one thread, which is free once that is set, or after a minute."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    loop.run_in_executor(None, free.wait, 60)


def transact(server: str, worker: Any, args: Mapping[str, Any], commit: bool, awaited: bool) -> Any:
    """Enqueue a job by a connection of psycopg's, with ``.anew()`` by an async one."""

    async def produce() -> Any:
        async with await psycopg.AsyncConnection.connect(server) as conn:
            job = await worker.anew(args, conn=conn)
            await (conn.commit() if commit else conn.rollback())
            return job

    if awaited:
        return asyncio.run(produce())
    with psycopg.connect(server) as conn:
        job = worker.new(args, conn=conn)
        conn.commit() if commit else conn.rollback()
        return job
