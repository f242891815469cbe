"""Ids: unique, ordered, and the same for the same attempt."""

from __future__ import annotations

import itertools
import os
import random
import uuid

import pytest
from amounts import MANY

from sigra.audit.compose import event_id
from sigra.ids import uuid7, uuid7_parts, uuid7_text

JOB = "01890a5d-ac96-774b-bcce-b302099a8057"
Told = tuple[str | None, str | None, str, str, str | None, str | None]
TOLD: Told = ("42", "7", "a.b", "success", None, "9")
IDS = 100_000 if MANY else 10_000


def test_many_ids_are_distinct() -> None:
    """No id is given twice."""
    assert len({uuid7() for _ in range(IDS)}) == IDS


def test_an_id_is_a_version_7_uuid_of_its_time() -> None:
    """The text is what RFC 9562 says: milliseconds, version, variant."""
    ns = 1_645_557_742_000_999_999
    parsed = uuid.UUID(uuid7_text((ns, 2**62 - 1)))
    assert parsed.variant == uuid.RFC_4122
    assert (7, ns // 1_000_000) == (parsed.version, parsed.int >> 80)


def test_ids_sort_by_time_below_the_millisecond() -> None:
    """A later id sorts after an earlier one, whatever their random bits are."""
    step = 250_000
    start = 1_700_000_000_000_000_000
    texts = [uuid7_text((start + i * step, (7919 * i) % 2**62)) for i in range(5_000)]
    assert sorted(texts) == texts


def test_ids_of_one_process_come_in_order_of_their_capture() -> None:
    """The milliseconds of ids never go back while the clock does not."""
    parts = [uuid7_parts() for _ in range(2_000)]
    times = [int(uuid7_text(part).replace("-", "")[:12], 16) for part in parts]
    assert sorted(times) == times


def test_seeding_the_global_generator_repeats_no_id() -> None:
    """A user's random.seed() has no say in ids."""
    state = random.getstate()
    try:
        random.seed(1)
        first = uuid7_parts()[1]
        random.seed(1)
        assert first != uuid7_parts()[1]
    finally:
        random.setstate(state)


def test_making_an_id_leaves_the_global_generator_alone() -> None:
    """A seeded test of the user's sees the same numbers with Sigra in between."""
    state = random.getstate()
    uuid7()
    assert state == random.getstate()


@pytest.mark.programs
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_a_forked_child_makes_ids_of_its_own() -> None:
    """Parent and child never draw the same random bits."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - runs in the child, which reports through the pipe
        os.write(write, ",".join(str(uuid7_parts()[1]) for _ in range(50)).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        theirs = set(map(int, pipe.read().split(",")))
    os.waitpid(child, 0)
    assert not theirs & {uuid7_parts()[1] for _ in range(50)}


def test_an_event_id_is_a_function_of_its_inputs() -> None:
    """A redelivered attempt yields the same ids again."""
    assert event_id(JOB, 1, 0, 3, *TOLD) == event_id(JOB, 1, 0, 3, *TOLD)


def test_an_event_id_stays_what_it_was_in_earlier_releases() -> None:
    """A store that drops duplicates still does after an upgrade."""
    assert "01890a5d-ac96-8e58-8ccf-df56ca18e01b" == event_id(JOB, 1, 0, 0, *TOLD)
    assert "d284be0e-af98-8f4a-917f-fba3101d96b8" == event_id("17", 1, 0, 1, *TOLD)
    assert "01890a5d-ac96-87c1-8ece-b862f75830f8" == event_id(
        JOB, 1, 0, 0, None, None, "a.b", "error", "u", "\xfc"
    )


@pytest.mark.parametrize(
    "other",
    [
        (JOB[:-1] + "8", 1, 0, 0),
        (JOB, 2, 0, 0),
        (JOB, 1, 1, 0),
        (JOB, 1, 0, 1),
        (JOB, 0, 1, 0),
        (JOB, 11, 0, 0),
        (JOB, 1, 10, 0),
        (f"0:{JOB}", 1, 0, 0),
    ],
)
def test_each_input_changes_the_event_id(other: tuple[str, int, int, int]) -> None:
    """Job, attempt, snoozes and ordinal are told apart, also where they run together."""
    assert event_id(*other, *TOLD) != event_id(JOB, 1, 0, 0, *TOLD)


TOLD_OTHERWISE: list[Told] = [
    ("43", "7", "a.b", "success", None, "9"),
    (None, "7", "a.b", "success", None, "9"),
    ("None", "7", "a.b", "success", None, "9"),
    ("", "7", "a.b", "success", None, "9"),
    ("42", "8", "a.b", "success", None, "9"),
    ("42", None, "a.b", "success", None, "9"),
    ("42", "None", "a.b", "success", None, "9"),
    ("7", "42", "a.b", "success", None, "9"),
    ("42':'7", None, "a.b", "success", None, "9"),
    ("42", "7", "a.c", "success", None, "9"),
    ("42", "7", "a.b", "failure", None, "9"),
    ("42", "7", "a.b", "success", "None", "9"),
    ("42", "7", "a.b", "success", "9", None),
    ("42", "7", "a.b", "success", None, "9:0"),
]


def test_what_an_event_says_changes_its_id() -> None:
    """No event passes for another: not one organization's for another's, nor for one without."""
    told = [TOLD, *TOLD_OTHERWISE]
    assert len(told) == len({event_id(JOB, 1, 0, 0, *each) for each in told})


def test_job_ids_that_no_utf8_can_carry_give_different_ids() -> None:
    """Whatever another queue calls its jobs, their events are told apart."""
    assert 3 == len({event_id(job_id, 1, 0, 0, *TOLD) for job_id in ("\ud800", "\udfff", "?")})


def test_events_of_a_timed_job_lie_together() -> None:
    """The time of a UUIDv7 leads the ids of its events."""
    parsed = uuid.UUID(event_id(JOB, 1, 0, 0, *TOLD))
    assert (8, uuid.RFC_4122) == (parsed.version, parsed.variant)
    assert JOB[:13] == str(parsed)[:13]


@pytest.mark.parametrize(
    "job_id", ["", "17", JOB.upper(), str(uuid.UUID(int=4)), "\ud800", JOB + "\n"]
)
def test_any_job_id_gives_a_valid_event_id(job_id: str) -> None:
    """The ids of other queues, whatever they look like, serve as well."""
    text = event_id(job_id, 1, 0, 0, *TOLD)
    assert str(uuid.UUID(text)) == text
    assert uuid.UUID(text).version == 8


def test_many_event_ids_are_distinct() -> None:
    """Hashing loses no event."""
    numbers = itertools.product(range(10), range(10), range(IDS // 100))
    ids = {event_id(JOB, *each, *TOLD) for each in numbers}
    assert len(ids) == IDS
