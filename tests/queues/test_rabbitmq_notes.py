"""Notes of begun jobs on RabbitMQ: found however many jobs begin, run and end beside them."""

from __future__ import annotations

import shutil
import subprocess
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from zlib import crc32

import pytest
from servers import need

pika = need("pika", "dramatiq")

from sigra.backends.dramatiq_notes import InQueues  # noqa: E402
from sigra.backends.rabbitmq_notes import SLOTS  # noqa: E402


@contextmanager
def channel_to(url: str) -> Iterator[Any]:
    with pika.BlockingConnection(pika.URLParameters(url.rstrip("/"))) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        yield channel


@pytest.fixture
def channel(rabbitmq: str) -> Iterator[Any]:
    with channel_to(rabbitmq) as channel:
        yield channel


@pytest.fixture
def notes(rabbitmq: str) -> Iterator[Any]:
    notes = InQueues(f"sigra-{uuid.uuid4().hex[:10]}")
    yield notes
    with channel_to(rabbitmq) as channel:
        for slot in range(SLOTS):
            channel.queue_delete(f"{notes.queue}.begun.{slot}")


@pytest.fixture
def quorum(rabbitmq: str) -> Iterator[str]:
    """Return the URL of a virtual host whose queues are quorum queues by default."""
    name = f"sigra-{uuid.uuid4().hex[:10]}"
    control = shutil.which("rabbitmqctl")
    if control is None or _fails(control, "add_vhost", name, "--default-queue-type", "quorum"):
        # RabbitMQ itself is there; over its own protocol it makes no virtual host.
        pytest.skip("no rabbitmqctl here can make a virtual host")
    try:
        user = urlsplit(rabbitmq).username or "guest"
        assert not _fails(control, "set_permissions", "-p", name, user, ".*", ".*", ".*")
        yield urlunsplit(urlsplit(rabbitmq)._replace(path=f"/{name}"))
    finally:
        assert not _fails(control, "delete_vhost", name)


def _fails(*command: str) -> bool:
    return bool(subprocess.run(command, capture_output=True).returncode)


def in_one_slot(count: int) -> list[str]:
    """Return the ids of jobs whose notes are in the same queue."""
    found: list[str] = []
    while len(found) < count:
        id = str(uuid.uuid4())
        if crc32(id.encode()) % SLOTS == 0:
            found.append(id)
    return found


def test_a_job_has_one_note_however_often_it_was_begun(channel, notes):
    """It counts all begins, and one end takes it away."""
    assert [notes.begin(channel, "a", 0, again) for again in (False, True, True)] == [0, 1, 2]
    notes.end(channel, "a", 3)
    assert notes.begin(channel, "a", 0, again=True) == 0


def test_a_note_that_another_just_reads_past_goes_when_celery_kills_its_job(channel, notes):
    """Whoever takes it away then does not know how often the job was begun."""
    looks = []

    def get(*of):
        looks.append(of)
        return notes.get(*of) if len(looks) > 1 else None  # as of a queue that has no note

    notes.begin(channel, "a", 0, again=False)
    replace(notes, get=get).end(channel, "a", None)
    assert notes.begin(channel, "a", 0, again=True) == 0


def test_jobs_that_end_at_once_leave_no_note(rabbitmq, channel, notes):
    """They read past each other's notes, and wait out of step for their own."""
    ids = in_one_slot(24)
    together = threading.Barrier(len(ids))

    def run(id):
        with channel_to(rabbitmq) as own:
            for _ in range(5):
                notes.begin(own, id, 0, again=False)
                together.wait(60)
                notes.end(own, id, 1)

    with ThreadPoolExecutor(len(ids)) as pool:
        list(pool.map(run, ids))
    assert [id for id in ids if notes.begin(channel, id, 0, again=True)] == []


def test_a_note_that_is_read_past_often_stays_where_queues_are_quorum_ones(quorum):
    """RabbitMQ drops from such a queue what was put back a few times."""
    notes = InQueues("sigra")
    long, *short = in_one_slot(31)
    with channel_to(quorum) as channel:
        notes.begin(channel, long, 0, again=False)
        for id in short:
            notes.begin(channel, id, 0, again=False)
            notes.end(channel, id, 1)
        assert notes.begin(channel, long, 0, again=True) == 1
