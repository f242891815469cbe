"""One job for each organization: what a scheduler calls at every tick."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from sigra.binding import TENANT_KEYS
from sigra.enqueue import Enqueuer
from sigra.errors import EnqueueError, InvalidArgsError, SigraError
from sigra.job import Job
from sigra.proxy import TenantWorker
from sigra.scope import id_text

if TYPE_CHECKING:
    from sigra.backend import Backend

CHUNK = 500
"""How many jobs go to the backend in one batch."""

Progress = Callable[[int, int], object]
"""Called after each batch with how many jobs were sent, and how many there are in all."""


def for_each_organization(
    worker: TenantWorker[..., Any],
    organizations: Iterable[Any],
    args: Mapping[str, Any] | None = None,
    /,
    *,
    tick: str | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> list[Job]:
    """Enqueue one job of the worker for each organization, with the system as its actor.

    ``organizations``: ids (str, int, UUID) or objects with an ``id``; each counts once.
    ``args``: what all jobs carry besides the tenant keys. ``tick`` names this round; by
    default it is the current minute in UTC. Where the backend has ``unique``, tick and
    organization make each job's key: a round that is repeated while its jobs are unfinished
    adds none. ``options``: as for ``.new()``.

    All jobs are validated before any is sent; they are sent in batches of 500. Raises what
    ``.new_many`` raises; an ``EnqueueError`` says how many were sent before it.
    """
    jobs, backend = _prepare(worker, organizations, args, tick, options)
    for start in range(0, len(jobs), CHUNK):
        batch = jobs[start : start + CHUNK]
        try:
            backend.enqueue(batch)
        except EnqueueError as error:
            raise _incomplete(error, start, len(jobs)) from error
        if progress is not None:
            progress(start + len(batch), len(jobs))
    return jobs


async def afor_each_organization(
    worker: TenantWorker[..., Any],
    organizations: Iterable[Any],
    args: Mapping[str, Any] | None = None,
    /,
    *,
    tick: str | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> list[Job]:
    """Do the same without blocking the running event loop."""
    jobs, backend = _prepare(worker, organizations, args, tick, options)
    for start in range(0, len(jobs), CHUNK):
        batch = jobs[start : start + CHUNK]
        try:
            await backend.aenqueue(batch)
        except EnqueueError as error:
            raise _incomplete(error, start, len(jobs)) from error
        if progress is not None:
            progress(start + len(batch), len(jobs))
        await asyncio.sleep(0)
    return jobs


def _prepare(
    worker: TenantWorker[..., Any],
    organizations: Iterable[Any],
    args: Mapping[str, Any] | None,
    tick: str | None,
    options: dict[str, Any],
) -> tuple[list[Job], Backend]:
    if not issubclass(type(worker), TenantWorker):
        name = getattr(worker, "name", repr(worker))
        raise TypeError(f"{name} is not a tenant worker: its jobs have no organization")
    definition = worker.definition
    for key in TENANT_KEYS:
        if key in (args or {}):
            raise InvalidArgsError(f"$.{key}", "the fan-out sets it for each job", definition.name)
    enqueuer, jobs = Enqueuer(definition), list[Job]()
    _, backend, _ = enqueuer.choose(dict(options))
    keyed = "unique" in backend.capabilities and "unique" not in options
    tick = tick or datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%MZ")
    # Without a space, so that no two pairs of round and organization make the same key.
    round_ = f"{tick}".replace("%", "%25").replace(" ", "%20")
    if isinstance(organizations, (str, bytes)):
        raise TypeError("pass a list of organizations, not a str")
    places: dict[str, int] = {}
    for index, organization in enumerate(organizations):
        places.setdefault(_id(index, organization), index)
    for id, index in places.items():
        item = {**(args or {}), "organization_id": id, "actor_id": None}
        own = {**options, "unique": f"{round_} {id}"} if keyed else dict(options)
        try:
            job, backend = enqueuer.prepare(item, own)
        except SigraError as error:
            raise error.at(index) from None
        jobs.append(job)
    return jobs, backend


def _id(index: int, organization: Any) -> str:
    text = id_text(organization) or id_text(getattr(organization, "id", None))
    if text is None:
        kind = type(organization).__qualname__
        raise TypeError(
            f"organizations, item {index}: {kind} is not an id and has none; an id is a str "
            "that is not blank, an int or a UUID"
        )
    return text


def _incomplete(error: EnqueueError, sent: int, total: int) -> EnqueueError:
    reason = f"{error.reason} ({sent} of {total} jobs were sent before)"
    return EnqueueError(error.backend, reason, error.unsure)
