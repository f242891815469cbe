"""Choose the lane of a run by the backend that the command names or the module configures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sigra.backend import Backend
from sigra.backends.asyncio import AsyncioBackend
from sigra.backends.sync import SyncBackend
from sigra.backends.thread import ThreadBackend
from sigra.cli.run.durable import FileLane, is_embedded
from sigra.cli.run.lane import Lane, LoopLane, SyncLane
from sigra.cli.target import MisuseError, check_options, configured_backend, named_backend

if TYPE_CHECKING:
    from sigra.definition import Definition


def open_lane(
    definition: Definition,
    name: str | None,
    workers: int | None,
    in_flight: int,
    *,
    resume: bool = False,
) -> Lane:
    """Find or make the backend that the command names, and the lane that leads to it.

    The in-process ones are made afresh, with ``workers`` threads, or jobs at a time.
    ``resume``: run only what an earlier run has left. Raises ``MisuseError``.
    """
    inner = _made_here(name, workers, in_flight) or configured_backend(definition, name)
    if inner is None:
        assert name is not None  # with no name, the configuration always has an answer
        inner = named_backend(name)
    embedded = is_embedded(inner)
    if workers is not None and not embedded and name not in ("thread", "asyncio"):
        raise MisuseError(
            f"--workers has no effect on backend {inner.name!r}: it is for thread, asyncio and "
            "huey on a file"
        )
    if resume and not embedded:
        raise MisuseError(
            f"--args FILE is missing: backend {inner.name!r} keeps no jobs of an earlier run"
        )
    check_options(definition, inner)
    if embedded:
        return FileLane(definition, inner, workers or 1, resume=resume)
    if isinstance(inner, SyncBackend):
        return SyncLane(definition, inner)
    if isinstance(inner, AsyncioBackend):
        return LoopLane(definition, inner)
    return Lane(definition, inner)


def _made_here(name: str | None, workers: int | None, in_flight: int) -> Backend | None:
    if name == "sync":
        return SyncBackend()
    if name == "thread":
        # No more than ``in_flight`` jobs are unfinished at a time, so that nobody waits for room.
        return ThreadBackend(workers, in_flight, enqueue_timeout=None)
    if name == "asyncio":
        return AsyncioBackend() if workers is None else AsyncioBackend(concurrency=workers)
    return None
