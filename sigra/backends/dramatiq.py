"""Carry jobs by Dramatiq: each worker is an actor of its name on the user's own broker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from sigra.backends.dramatiq_delayed import hold_surely
from sigra.backends.dramatiq_run import CurrentMessage, Named, WarnAtStart, run
from sigra.backends.dramatiq_send import millis, queue_of, surely_send
from sigra.backends.envelope import pack
from sigra.backends.external import native
from sigra.backends.producing import SAMPLE, able_to, require_json, seconds_until, sending
from sigra.backends.registering import expect, register_with
from sigra.definition import Definition
from sigra.job import Job

_dramatiq = native("dramatiq", "dramatiq")


class DramatiqBackend:
    """Send jobs through a Dramatiq broker, Redis or RabbitMQ; ``dramatiq app`` runs them.

    ``broker``: your own, whose middleware and other actors stay as they are; by default
    Dramatiq's global one. ``queue``: the queue of jobs that name none. A consumer listens to
    the queues that its app declares, with ``broker.declare_queue(name)`` or as a worker's
    default. Raises ``ValueError`` if messages are pickled.
    """

    name = "dramatiq"
    capabilities = able_to("queue", "at_least_once")

    def __init__(self, broker: Any = None, *, queue: str = "default") -> None:
        self._encoder: Any = None
        self._refuse_pickle()
        self.broker = _dramatiq.get_broker() if broker is None else broker
        expect(self.broker, "middleware", "DramatiqBackend takes a Dramatiq broker")
        self.queue = queue
        for own in (CurrentMessage, WarnAtStart):
            if not any(isinstance(known, own) for known in self.broker.middleware):
                self.broker.add_middleware(own())
        hold_surely(self.broker)
        surely_send(self.broker)
        register_with(self.broker, self._register)

    def enqueue(self, jobs: Sequence[Job]) -> None:
        """Send the jobs one by one; an error says how many of a batch were sent."""
        with sending(self.name, jobs):
            self._refuse_pickle()
            for job in jobs:
                queue = queue_of(self.broker, job)
                message = _dramatiq.Message(queue, job.worker, (), pack(job), {}, job.id)
                self.broker.enqueue(message, delay=millis(seconds_until(job.options)))
                job.accept(native_id=job.id)

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        """Do the same in a thread: Dramatiq itself only blocks."""
        await asyncio.to_thread(self.enqueue, jobs)

    def _refuse_pickle(self) -> None:
        """Raise ``ValueError`` if Dramatiq's global encoder, which may change, writes no JSON."""
        encoder = _dramatiq.get_encoder()
        if encoder is not self._encoder:
            cure = "dramatiq.set_encoder(dramatiq.JSONEncoder())"
            require_json(encoder.encode(SAMPLE), "Dramatiq's encoder", cure)
            self._encoder = encoder

    def _register(self, definition: Definition) -> None:
        name, known = definition.name, self.broker.actors.get(definition.name)
        if known is not None and known.fn.__module__ == __name__:
            return  # defined anew, or a second backend: the actor looks its worker up when it runs

        def body(*args: Any, **payload: Any) -> None:
            run(self.broker, name, args, payload)

        own = {"queue_name": definition.defaults.queue or self.queue, "actor_class": Named}
        actor = _dramatiq.actor(body, actor_name=name, broker=self.broker, **own)
        # Dramatiq's own retries, also if they are added later, must not repeat what has failed.
        actor.options["throws"] = BaseException
