"""Have a procrastinate consumer know the workers, and keep the jobs of those that it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from sigra.backends.direct import refuse_direct
from sigra.backends.none_known import warn_at_start
from sigra.backends.procrastinate_middleware import watch_consumers
from sigra.backends.procrastinate_read import fetch_any
from sigra.backends.procrastinate_run import Strategy, is_ours, run
from sigra.backends.producing import SAMPLE, require_json


def add(app: Any, name: str, entered: Callable[[Any], object]) -> None:
    """Have a task run a worker's jobs; ``entered`` is called with the loop that each comes to."""

    async def body(context: Any = None, /, **payload: Any) -> None:
        job = context and context.job
        refuse_direct(name, job.id if job and job.task_name == name else None)
        entered(asyncio.get_running_loop())
        await run(context, payload)

    app.task(name=name, pass_context=True, retry=Strategy())(body)


def refuse_jsonpickle(connector: Any) -> None:
    """Raise ``ValueError``, which names the cure, if a connector's own ``json_dumps`` pickles."""
    dumps = getattr(connector, "_json_dumps", None) or getattr(connector, "json_dumps", None)
    if dumps is not None:
        kind, cure = type(connector).__name__, "leave json_dumps= and json_loads= out"
        require_json(dumps(SAMPLE), f"this {kind}", cure)


def watch_start(app: Any, entered: Callable[[Any], object]) -> None:
    """Have a consumer of the app warn if it starts without a worker, and watch what it does.

    ``entered``: as ``add`` takes it, for the jobs of workers that it knows only later.
    """

    def add_unknown(name: str) -> None:
        if name not in app.tasks:  # procrastinate would fail the job
            add(app, name, entered)

    fetch_any(app, add_unknown)
    watch_consumers(is_ours)
    cure = "import the workers' modules in the app's, or name them to App(import_paths=[...])"
    load = getattr(app, "perform_import_paths", int)
    warn_at_start(app, "run_worker_async", "jobs of one wait", cure, load)
