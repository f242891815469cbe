"""Send to a Celery app's broker on connections of our own: it confirms in time or is given up.

By itself py-amqp writes a message to its socket and does not ask whether RabbitMQ has it, and
kombu waits for ever for a Redis that takes connections and gives no answer.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar
from weakref import WeakKeyDictionary

from sigra.backends.external import native
from sigra.backends.producing import check_on_rabbitmq
from sigra.job import Job

T = TypeVar("T")

_celery = native("celery", "celery")
_pools = native("kombu.pools", "celery")
_quorum = native("celery.utils.quorum_queues", "celery")
_ConnectionPool = native("kombu.connection", "celery").ConnectionPool

RETRY_POLICY = {"max_retries": 2, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.2}
"""How often a broker that is down is tried."""

SURELY = {"mandatory": True, "retry_policy": RETRY_POLICY}
"""How each job is sent. Without ``mandatory``, RabbitMQ also confirms a job that no queue takes, as
when somebody has deleted a queue to which this process sent before."""

_TIMEOUT = 10.0
"""Seconds after which a broker that gives no answer is down, for each try."""

_OPTIONS = {
    "amqp": {"confirm_publish": True, "read_timeout": _TIMEOUT, "write_timeout": _TIMEOUT},
    "redis": {"socket_timeout": _TIMEOUT},
}


def own_app(app: Any) -> Any:
    """Return the application's app, which may be given by a proxy; by default Celery's current."""
    app = _celery.current_app if app is None else app
    return getattr(app, "_get_current_object", lambda: app)()


class Own(Generic[T]):
    """Make something of an app once in each process; a forked process leaves its parent's open."""

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make, self._made = make, WeakKeyDictionary[Any, dict[int, T]]()

    def __call__(self, app: Any) -> T:
        """Return this process's own."""
        each, process = self._made.setdefault(app, {}), os.getpid()
        return each.get(process) or each.setdefault(process, self._make(app))


class _OwnPool(_ConnectionPool):  # type: ignore[misc, valid-type]
    close_after_fork = False  # or a child would end connections by which its parent sends


class Lent:
    """Have a producer that returns once the broker has the message; ``with`` gives it back.

    It is taken at its first use: an eager job, which sends nothing, holds none while it runs. A
    task class of the application's may send later, as once its transaction is committed. By then
    another thread may have that producer: each such message takes one anew.
    """

    _own: Any = None
    _lends = False

    def __init__(self, app: Any) -> None:
        self._app = app

    def __enter__(self) -> Self:
        self._lends = True
        return self

    def __exit__(self, *error: object) -> None:
        own, self._own, self._lends = self._own, None, False
        if own is not None:
            own.__exit__(*error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._taken(), name)

    def _taken(self) -> Any:
        if self._own is None and self._lends:
            pool, timeout = _pool_of(self._app), self._app.conf.broker_pool_acquire_timeout
            self._own = pool.acquire(block=True, timeout=timeout).__enter__()
        return self._own

    @property
    def connection(self) -> Any:
        """The producer's; afterwards the one of which the pool's are copies, never open itself."""
        own = self._taken()
        return own.connection if own else _pool_of(self._app).connections.connection

    def publish(self, *args: Any, **options: Any) -> Any:
        """Publish by the producer that is lent, or by another."""
        if own := self._taken():
            return own.publish(*args, **options)
        with Lent(self._app) as another:
            return another.publish(*args, **options)


def connection_of(app: Any) -> Any:
    """Return a connection, not yet open, whose broker confirms what it takes or is given up."""
    connection = app.connection_for_write()
    options = _OPTIONS.get(connection.transport.driver_type, {})
    connection.transport_options = {**options, **connection.transport_options}
    return connection


def _new_pool(app: Any) -> Any:
    connections, limit = connection_of(app), app.conf.broker_pool_limit
    return _pools.ProducerPool(connections=_OwnPool(connections, limit), limit=limit)


_pool_of = Own(_new_pool)


def queue_of(job: Job, conf: Any) -> dict[str, str]:
    """Return the option by which Celery sends a job to its queue; none if it names no queue."""
    if job.options.queue is None:
        return {}
    if on_rabbitmq(conf):
        check_on_rabbitmq(job)
    return {"queue": job.options.queue}


def countdown(app: Any, seconds: float) -> float | None:
    """Return the seconds after which Celery is to have a job run; None for at once.

    At least one with quorum queues, where RabbitMQ itself holds the job: Celery refuses less.
    """
    short = 0 < seconds < 1 and on_rabbitmq(app.conf)
    return 1.0 if short and _quorum.detect_quorum_queues(app, "amqp")[0] else seconds or None


def on_rabbitmq(conf: Any) -> bool:
    """Tell whether the broker is RabbitMQ, which keeps each message until it is acknowledged.

    On Redis, kombu first takes a message off its queue and only then notes that it holds it.
    """
    urls = conf.broker_read_url or ()
    each = urls.split(";") if isinstance(urls, str) else urls
    return bool(each) and {url.partition("://")[0] for url in each} <= {"amqp", "amqps", "pyamqp"}
