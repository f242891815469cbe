"""Run a job in Oban's consumer, and tell Oban what came of it."""

from __future__ import annotations

import math
from contextlib import suppress
from functools import cache
from typing import Any

from sigra import catalog
from sigra.backends.envelope import MARK
from sigra.backends.external import Consumed, aconsume, native
from sigra.backends.jsonb import unfit, writable
from sigra.backends.native_word import warn_of_native_word
from sigra.backends.oban_notes import begin_notes, rescues_of
from sigra.definition import Definition

_oban = native("oban", "oban")
_workers = native("oban.worker", "oban")
_testing = native("oban.testing", "oban")

_INSTEAD = {_oban.Snooze: "sigra.Snooze(seconds)", _oban.Cancel: "sigra.Cancel(reason)"}

_SNOOZES = "sigra_snoozes"
_LONGEST = 2**31 - 1
"""The most seconds that fit the column; a greater number would stop Oban's acknowledgements."""


class Run:
    """Run one job of ours: Oban makes one of these for each, and asks it when to run that again."""

    def __init__(self) -> None:
        self._delay = 0

    async def process(self, job: Any) -> Any:
        """Run the job, and return or raise what tells Oban what came of it."""
        rescued = rescues_of(job)
        consumed = await aconsume(
            unfit(job.args),
            job.worker,
            "oban",
            native_id=str(job.id),
            # None where Oban counts nothing: a job from elsewhere has counts in its envelope.
            failures=job.attempt - 1 - rescued or None,
            snoozes=job.meta.get(_SNOOZES),
            lost=rescued or None,
            **begin_notes(job),
        )
        return self._settle(job, consumed)

    def _settle(self, job: Any, consumed: Consumed) -> Any:
        verdict, delivery = consumed.verdict, consumed.delivery
        match verdict.state:
            case "scheduled":
                meta = {_SNOOZES: delivery.snoozes + 1} if delivery is not None else None
                return _oban.Snooze(_seconds(verdict.delay), meta)
            case "cancelled":
                return _oban.Cancel(str(verdict.error))
            case "discarded":
                job.max_attempts = job.attempt  # not in the database: so Oban sees none left
        if verdict.error is not None and _testing._get_mode() != "inline":  # it would reach .new()
            self._delay = _seconds(verdict.delay)
            raise writable(verdict.error)
        warn_of_native_word(consumed, _INSTEAD)
        return None

    def backoff(self, _: Any) -> int:
        """Return the seconds until the next attempt, which the verdict said."""
        return self._delay


@cache
def register_all() -> None:
    """Register every worker known now and every later one; once, for all backends."""
    catalog.subscribe(_register)


def _register(definition: Definition) -> None:
    """Register a worker by its name; ``ValueError`` if Oban has one of its own of that name."""
    known = _workers._registry.setdefault(definition.name, Run)
    if known is not Run:
        raise ValueError(
            f"Oban itself has a worker named {definition.name!r}; give ours another name="
        )


def stand_in(_: str, metadata: dict[str, Any]) -> None:
    """Have a job wait if its worker is not imported; Oban itself would count a failure."""
    job = metadata["job"]
    if MARK in job.args and job.worker not in _workers._registry:
        with suppress(Exception):  # as Oban does; if that fails, the job waits
            _workers.resolve_worker(job.worker)
        _workers._registry.setdefault(job.worker, Run)


def _seconds(delay: float) -> int:
    return min(math.ceil(delay), _LONGEST)
