"""Write a job as versioned JSON, to travel through a queue, and read it back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from time import time_ns
from typing import Any

from sigra import config
from sigra.definition import Definition
from sigra.errors import EnvelopeError, InvalidOptionError, brief
from sigra.job import Job
from sigra.json import freeze
from sigra.options import LONGEST_DELAY, JobOptions

VERSION = 2
"""The version that this release writes. It also reads version 1, which counted attempts instead of
failures, and no deliveries: so both releases can run side by side during a deploy."""

MARK = "sigra"
"""The key that tells an envelope from the plain args of a hand-built job."""

_NO_LIMIT = 1 << 40
_LONGEST_ID = 256
_NO_ID = f"not printable text of 1 to {_LONGEST_ID} characters"
_NO_KEYS = "it is signed by the key '{}', and this consumer has no keys: configure(signing=...)"
_NO_FUNCTION = "a queue cannot carry a function: give seconds, or give it to the decorator"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A job as a consumer received it, with the counters that travelled along.

    ``failures``: failed attempts so far. ``snoozes``: snoozes so far. ``deliveries``: earlier
    deliveries of this run, none of which came to an end. ``lost``: such deliveries of earlier
    runs. ``unsigned``: it came unsigned to a consumer that has keys. Its next runs stay
    unsigned, because nobody vouches for it.
    """

    job: Job
    failures: int = 0
    snoozes: int = 0
    deliveries: int = 0
    unsigned: bool = False
    lost: int = 0


def pack(
    job: Job,
    failures: int = 0,
    snoozes: int = 0,
    deliveries: int = 0,
    *,
    lost: int = 0,
    unsigned: bool = False,
) -> dict[str, Any]:
    """Return the job as a dict of JSON values, with its counters.

    Raises ``InvalidOptionError`` for a ``backoff`` that is a function of the call's own.
    """
    options = job.options
    if callable(options.backoff) and options.backoff is not job.definition.defaults.backoff:
        raise InvalidOptionError("backoff", _NO_FUNCTION, job.worker)
    payload = {
        MARK: VERSION,
        "id": job.id,
        "worker": job.worker,
        "args": job.args,
        "queue": options.queue,
        "priority": options.priority,
        "max_attempts": options.max_attempts,
        "backoff": None if callable(options.backoff) else options.backoff,
        "enqueued_at": job.stamp[0],
        "failures": failures,
        "snoozes": snoozes,
        "lost": lost,
        "deliveries": deliveries,
    }
    signing = config.current.signing
    return payload if signing is None or unsigned else signing.seal(payload)


def add_delivery(payload: dict[str, Any]) -> None:
    """Count one more delivery in an envelope; ``unpack`` refuses a count that is no int."""
    deliveries = payload.get("deliveries", 0)
    if type(deliveries) is int:
        payload["deliveries"] = deliveries + 1


def unpack(
    payload: Mapping[str, Any], definition: Definition, backend: str, native_id: str | None = None
) -> Delivery:
    """Read an envelope, or the plain args of a hand-built job.

    Raises ``EnvelopeError`` for a version or a form that this release does not read; if its
    ``version`` is above ``VERSION``, a newer release wrote it, and its consumers can read it.
    Raises ``InvalidArgsError`` for args that are not strict JSON. If signing is configured, the
    signature is verified before anything else is read, and a signed job is never taken for a
    hand-built one, whatever stands beside the signature.
    """
    if not isinstance(payload, Mapping):
        raise EnvelopeError(f"it must be a JSON object, not {type(payload).__qualname__}")
    signing = config.current.signing
    unsigned = signing is not None and signing.accept_unsigned and "signed" not in payload
    if signing is not None and not unsigned:
        payload = signing.open(payload, definition.name, time_ns())
    elif MARK in payload and "signed" in payload:
        raise EnvelopeError(_NO_KEYS.format(brief(payload.get("key"))))
    elif type(payload.get(MARK)) is not int or not isinstance(payload.get("args"), Mapping):
        if native_id is not None and not _is_id(native_id):
            raise EnvelopeError(f"the queue's id for it is {_NO_ID}")
        args = freeze(dict(payload), _NO_LIMIT)
        job = Job(definition, args, definition.defaults, backend, given_id=native_id)
        return Delivery(job, unsigned=unsigned)
    version = payload[MARK]
    if version not in (VERSION - 1, VERSION):
        if version.bit_length() > 63:
            raise EnvelopeError("no release has its version")
        cure = "Update this consumer to the producer's release; the job stays in its queue."
        if version < VERSION:
            cure = "It was written by an older one, or by none: enqueue it again with .new()."
        reads = f"this release reads {VERSION - 1} and {VERSION}"
        raise EnvelopeError(f"version {version}; {reads}. {cure}", version)
    try:
        return _read(payload, definition, backend, unsigned)
    except (KeyError, TypeError) as error:
        raise EnvelopeError(f"a field is missing or ill-typed ({error})", version) from error


def _read(
    payload: Mapping[str, Any], definition: Definition, backend: str, unsigned: bool
) -> Delivery:
    backoff = payload["backoff"]
    options = JobOptions(
        queue=None if payload["queue"] is None else _text(payload, "queue"),
        priority=_whole(payload, "priority"),
        max_attempts=_count(payload, "max_attempts"),
        # A function cannot travel: the consumer's own definition has it.
        backoff=definition.defaults.backoff if backoff is None else _seconds(backoff),
    )
    failures = _failures(payload, options.max_attempts)
    job = Job(
        definition,
        freeze({**payload["args"]}, _NO_LIMIT),
        options,
        backend,
        stamp=(_count(payload, "enqueued_at"), 0),  # the second number only serves to make an id
        given_id=_id(payload),
    )
    deliveries, lost = (
        _count(payload, name) if name in payload else 0 for name in ("deliveries", "lost")
    )
    return Delivery(job, failures, _count(payload, "snoozes"), deliveries, unsigned, lost)


def _failures(payload: Mapping[str, Any], max_attempts: int) -> int:
    older = payload[MARK] == 1
    failures = max(0, _count(payload, "attempt") - 1) if older else _count(payload, "failures")
    if failures >= max_attempts:
        raise TypeError(f"{failures} failures leave no attempt of max_attempts={max_attempts}")
    return failures


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise TypeError("backoff must be seconds")
    if value == math.inf:
        raise TypeError("backoff must be finite")
    return float(min(value, LONGEST_DELAY))


def _id(payload: Mapping[str, Any]) -> str:
    if not _is_id(payload["id"]):
        raise TypeError(f"id is {_NO_ID}")
    return str(payload["id"])


def _is_id(value: Any) -> bool:
    """Tell whether a value may be a job's id in logs, events and stores."""
    return (
        type(value) is str
        and len(value) <= _LONGEST_ID
        and value.isprintable()
        and bool(value.strip())
    )


def _text(payload: Mapping[str, Any], name: str) -> str:
    value = payload[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a text")
    return value


def _whole(payload: Mapping[str, Any], name: str) -> int:
    value = payload[name]
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number")
    if value.bit_length() > 63:
        raise TypeError(f"{name} must fit 64 bits")
    return value


def _count(payload: Mapping[str, Any], name: str) -> int:
    value = _whole(payload, name)
    if value < 0:
        raise TypeError(f"{name} must not be negative")
    return value
