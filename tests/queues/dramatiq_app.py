"""The consumer of test_dramatiq: ``dramatiq dramatiq_app``."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from pathlib import Path

import consumer_side
import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker

from sigra import AuditEvent, Snooze, log_safe, tenant_worker
from sigra.backends.dramatiq import DramatiqBackend
from sigra.testing.contract_workers import record


@tenant_worker(name="dramatiq_app.limited")
def limited(scope, args):
    """Take longer than Dramatiq allows it."""
    record(scope, args)
    while True:
        time.sleep(0.02)


@tenant_worker(name="dramatiq_app.awaits")
async def awaits(scope, args):
    """Await longer than Dramatiq allows it."""
    record(scope, args)
    await asyncio.sleep(3600)


@tenant_worker(name="dramatiq_app.fails", max_attempts=2, backoff=0)
def fails(scope, args):
    """Fail within the time that Dramatiq allows it."""
    record(scope, args)
    time.sleep(0.7)
    raise OSError("the disk is busy")


@tenant_worker(name="dramatiq_app.goes_on", max_attempts=2, backoff=0, audit_schema=AuditEvent)
def goes_on(scope, job):
    """Take three runs: snooze, then fail, then end well."""
    log_safe("dramatiq.run", scope)
    if job.snoozes == 0:
        return Snooze(1)
    if job.attempt == 1:
        raise OSError("the disk is busy")
    return None


def make_broker(url, queue):
    """Make the broker that the test and its consumer share."""
    if url.startswith("redis"):
        # By default what a dead consumer held is looked for by one command in a thousand.
        # And a server that stalls for more than 5 seconds counts as gone.
        broker = RedisBroker(
            url=f"{url}?socket_timeout=60",
            namespace=queue,
            heartbeat_timeout=6000,
            maintenance_chance=1_000_000,
        )
    else:
        broker = RabbitmqBroker(url=url.rstrip("/"), confirm_delivery=True)
    broker.declare_queue(f"{queue}-other")
    return broker


@tenant_worker(name="dramatiq_app.kills_as_it_is_due")
def kills_as_it_is_due(scope, args, until):
    """Run, once the first consumer that held it until it was due has been killed."""
    record(scope, args)


class DiesAtDelayed(dramatiq.Middleware):
    """Kill the consumer, once there is a file, as it puts that worker's job into its queue."""

    def before_enqueue(self, broker, message, delay):
        until = Path(message.kwargs.get("args", {}).get("until", "."))
        if message.actor_name == kills_as_it_is_due.name and not delay and not until.exists():
            until.with_name("held").touch()
            while not until.exists():
                time.sleep(0.02)
            os.killpg(0, signal.SIGKILL)


class AfterBoot(dramatiq.Middleware, logging.Handler):
    """Let no job run, and kill its consumer, that Dramatiq's main process has not heard of yet.

    That would wait for it for half a minute, or for ever if it died as it said so.
    """

    def __init__(self):
        super().__init__()
        self._booted = threading.Event()

    def emit(self, record):
        if "Worker process is ready" in record.getMessage():
            self._booted.set()

    def before_process_message(self, broker, message):
        self._booted.wait()


if consumer_side.URL:
    broker = make_broker(consumer_side.URL, consumer_side.QUEUE)
    dramatiq.set_broker(broker)
    broker.add_middleware(after_boot := AfterBoot())
    logging.getLogger().addHandler(after_boot)  # behind the one that writes
    broker.add_middleware(DiesAtDelayed())
    backend = DramatiqBackend(broker, queue=consumer_side.QUEUE)
    for each, limit in ((limited, 2000), (awaits, 2000), (fails, 8000)):
        broker.get_actor(each.name).options["time_limit"] = limit
    note = dramatiq.actor(
        consumer_side.note, actor_name="native.note", queue_name=consumer_side.QUEUE
    )
