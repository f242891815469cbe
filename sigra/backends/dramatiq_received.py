"""Have a Dramatiq consumer outlive messages that Dramatiq itself would not have written.

On Redis one that cannot be read ended the thread of its queue, and what that had fetched stayed
with the consumer. And one that names another queue than it is in, or whose options are no object,
ended the thread that was to run it: as many as there are threads, and the consumer ran nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable
from typing import Any

from sigra.backends.external import native
from sigra.errors import brief

_dramatiq = native("dramatiq", "dramatiq")
_errors = native("dramatiq.errors", "dramatiq")

_log = logging.getLogger("sigra.job")

_KINDS = {"actor_name": str, "message_id": Hashable, "kwargs": dict, "options": dict}
_LEFT_OUT = {"eta": (int, float), "throws": (type, tuple)}
"""Options that end a thread, of Dramatiq before 2.0 or as the job fails, unless of these types."""

_UNREADABLE = "it cannot be read"


class Received:
    """A consumer of Dramatiq's, of one queue, that passes on only what can be run or refused.

    What it does not pass on is a dead letter.
    """

    def __init__(self, broker: Any, queue: str, own: Any) -> None:
        self._broker, self._queue, self._own = broker, queue, own
        self._on_redis = hasattr(broker, "broker_id")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def __iter__(self) -> Received:
        return self

    def __next__(self) -> Any:
        """Return the next message, or None where there is none now."""
        try:
            message = next(self._own)
        except (_errors.DecodeError, TypeError):
            if not self._on_redis:  # there it is a dead letter already, and this is another fault
                raise
            self._refuse(None, _UNREADABLE)
            return None
        if message is None:
            return None
        if fault := _fault(message, self._on_redis):
            self._refuse(message, fault)
            return None
        for option, kinds in _LEFT_OUT.items():
            if option in message.options and not isinstance(message.options[option], kinds):
                del message.options[option]
        if message.queue_name != self._queue:
            # Dramatiq acknowledges by the name, and sends the next run there.
            what = "job %s names another queue than %s, in which it was: it is taken as of this one"
            _log.warning(what, brief(message.message_id), self._queue)
            message._message = message.copy(queue_name=self._queue)
        return message

    def _refuse(self, message: Any, fault: str) -> None:
        what = (
            "a message of queue %s was refused and is a dead letter: %s. Dramatiq would not have "
            "written it: send jobs with .new(), and others with its own send()"
        )
        _log.error(what, self._queue, fault)
        if not self._on_redis:
            self._own.nack(message)
            return
        try:
            for id in self._refusable():
                self._broker.do_nack(self._queue, id)
        except native("redis", "dramatiq").RedisError as error:
            raise _errors.ConnectionClosed(error) from None
        if message is not None:  # else as many are fetched less from now on
            self._own.queued_message_ids.discard(message.message_id)

    def _refusable(self) -> list[Any]:
        """Return the ids under which Redis has such messages that this process fetched."""
        space, client = self._broker.namespace, self._broker.client
        ids = list(client.smembers(f"{space}:__acks__.{self._broker.broker_id}.{self._queue}"))
        found = client.hmget(f"{space}:{self._queue}.msgs", ids) if ids else ()
        return [id for id, data in zip(ids, found, strict=True) if data and _fault_in(data)]


def _fault_in(data: bytes) -> str:
    try:
        return _fault(_dramatiq.Message.decode(data), on_redis=True)
    except _errors.DecodeError:
        return _UNREADABLE


def _fault(message: Any, on_redis: bool) -> str:
    """Say what in a message would end the thread that has it; "" for nothing."""
    for name, kind in _KINDS.items():
        if not isinstance(getattr(message, name), kind):
            return f"its {name} is no {kind.__name__}"
    if "self" in message.kwargs:
        return "its kwargs have the key 'self'"
    known_as = message.options.get("redis_message_id")
    if on_redis and not (isinstance(known_as, str) and known_as.isascii()):
        return "its options have no redis_message_id, by which it could be acknowledged"
    priority = None if on_redis else message.options.get("broker_priority")
    if priority is not None and (not isinstance(priority, int) or not 0 <= priority <= 255):
        return "its broker_priority is no whole number from 0 to 255"
    return ""
