"""Ids of jobs, and of events outside jobs: captured cheaply, written as text when first read."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from random import Random
from time import time_ns

# An instance of our own: a user's random.seed() would otherwise make ids repeat.
_source = Random(os.urandom(32))
random_bits = _source.getrandbits
_is_uuid7 = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
).fullmatch


in_child = getattr(os, "register_at_fork", dict)  # where nothing forks, this does nothing
# A forked child has the parent's state, and would go on to make the parent's ids.
in_child(after_in_child=lambda: _source.seed(os.urandom(32)))


def uuid7_parts() -> tuple[int, int]:
    """Capture what a UUIDv7 is made of: nanoseconds since 1970 and 62 random bits.

    ``uuid7_text`` writes it out; until then an id costs two calls.
    """
    return time_ns(), random_bits(62)


def uuid7_text(parts: tuple[int, int]) -> str:
    """Write the parts as the text of an RFC 9562 UUID, version 7.

    The 12 bits after the millisecond are the fraction of it (method 3 of section
    6.2), so ids of one process sort by time below the millisecond too.
    """
    ns, bits = parts
    ms, rest = divmod(ns, 1_000_000)
    fraction = (rest << 12) // 1_000_000
    text = f"{ms << 80 | 0x7000 << 64 | fraction << 64 | 1 << 63 | bits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def uuid7() -> str:
    """Return a fresh UUIDv7 as text."""
    return uuid7_text(uuid7_parts())


@lru_cache(maxsize=256)
def time_of(job_id: str) -> str | None:
    """Return the time with which a UUIDv7 begins, as its text; None for any other id.

    It is kept, because each event of a job asks for it.
    """
    return job_id[:13] if _is_uuid7(job_id) else None
