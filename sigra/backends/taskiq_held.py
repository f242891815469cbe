"""Keep what a consumer holds of a Redis stream from being taken for lost while it lives."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from sigra.backends.external import native


class Held:
    """The messages of a stream that this process holds; taskiq acknowledges each when it ended.

    A message whose acknowledgement nobody can call any more is no longer held, nor is one that
    the server sent and that never arrived here: both come again, as lost ones do.
    """

    def __init__(self, broker: Any) -> None:
        self._broker, self._own = broker, broker._ack_generator  # the one place that has the id
        self._held = WeakKeyDictionary[Any, tuple[Any, Any]]()
        broker._ack_generator = self._note

    def _note(self, id: Any, queue_name: Any) -> Any:
        ack = self._own(id=id, queue_name=queue_name)
        self._held[ack] = queue_name, id
        return ack

    async def refresh(self) -> None:
        """Tell Redis that the messages are held still; those that ended meanwhile stay ended."""
        streams: dict[Any, list[Any]] = {}
        for stream, id in list(self._held.values()):
            streams.setdefault(stream, []).append(id)
        of = self._broker
        redis = native("redis.asyncio", "taskiq").Redis(connection_pool=of.connection_pool)
        for stream, ids in streams.items():
            group, consumer = of.consumer_group_name, of.consumer_name
            await redis.xclaim(stream, group, consumer, 0, ids, justid=True)
