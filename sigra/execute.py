"""One attempt of one job: admit, build the scope, run, conclude.

``conclude`` turns the outcome into a verdict, a log line and an audit event.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextvars import Context, copy_context
from types import CoroutineType
from typing import Any

from sigra.binding import IMPERSONATOR_KEY, TENANT_KEYS, text_ids
from sigra.conclude import conclude, conclude_error, log_attempt
from sigra.context import Attempt, running
from sigra.errors import MissingArgError, SigraError
from sigra.job import Job
from sigra.scope import AuditScope, scope_from_ids
from sigra.verdict import Verdict


def fetch_arg(args: Mapping[str, Any], key: str) -> Any:
    """Return ``args[key]``; raise ``MissingArgError`` if the key is absent.

    For a body that takes ``args``, whose keys nobody has checked.
    """
    if key not in iter(args):  # not "in args": a mapping may have a __contains__ of its own
        attempt = running.get()
        raise MissingArgError(key, attempt.job.definition.name if attempt is not None else None)
    return args[key]


def admit(attempt: Attempt) -> Verdict | None:
    """Check a job that may have bypassed ``.new()``; return its verdict if it cannot run.

    Such a job fails for good: a retry cannot supply a missing key, nor make the args fit a
    function that a deploy has changed.
    """
    definition, args = attempt.job.definition, attempt.job.args
    context = copy_context()
    context.run(running.set, attempt)
    try:
        if definition.tenant:
            for key in TENANT_KEYS:
                context.run(fetch_arg, args, key)
            text_ids(args, definition.name)
        definition.binding.check(args, definition.name)
    except SigraError as error:
        log_attempt(attempt, context, logging.ERROR, "was refused and ends here", error)
        return Verdict("discarded", error=error)
    return None


def execute(attempt: Attempt, run: Callable[..., Any] | None = None) -> Verdict:
    """Run one attempt to its end in this thread; never raise what the function raised.

    ``run(coroutine, context)`` runs a coroutine to its end and returns its value; by default
    ``run_coroutine`` does.
    """
    context = copy_context()
    context.run(running.set, attempt)
    try:
        job, definition = attempt.job, attempt.job.definition
        if definition.tenant:
            attempt.scope = _build_scope(job)
        value = context.run(definition.binding.invoke, attempt.scope, job.args, attempt)
        if type(value) is CoroutineType or (definition.is_async and isinstance(value, Coroutine)):
            value = (run or run_coroutine)(value, context)
    except BaseException as error:
        return conclude_error(attempt, error, context)
    return conclude(attempt, value, context)


async def aexecute(attempt: Attempt) -> Verdict:
    """Run one attempt to its end on this event loop.

    A cancellation of the surrounding task is passed on to the body and then raised
    again; anything else that the body raises becomes the verdict.
    """
    context = copy_context()
    context.run(running.set, attempt)
    try:
        job, definition = attempt.job, attempt.job.definition
        if definition.tenant:
            attempt.scope = _build_scope(job)
        value = context.run(definition.binding.invoke, attempt.scope, job.args, attempt)
        if type(value) is CoroutineType or (definition.is_async and isinstance(value, Coroutine)):
            coroutine = value
            task = asyncio.get_running_loop().create_task(contain(coroutine), context=context)
            try:
                value, raised = await task
            finally:
                # A task that is cancelled before its first step never starts the coroutine.
                coroutine.close()
            if raised:
                raise raised.pop()
    except BaseException as error:
        if _is_cancellation(error):
            conclude_error(attempt, error, context)
            raise
        return conclude_error(attempt, error, context)
    return conclude(attempt, value, context)


def _build_scope(job: Job) -> AuditScope:
    """Build the scope from the ids alone, never by a database read."""
    args = job.args
    try:
        actor, organization = args["actor_id"], args["organization_id"]
    except KeyError as error:
        raise MissingArgError(error.args[0], job.worker) from None
    if type(actor) is type(organization) is str and args.get(IMPERSONATOR_KEY) is None:
        return scope_from_ids(actor, organization, None)
    # .new() makes ids text; those of a hand-built job may still be numbers.
    ids = text_ids(args, job.worker)
    return scope_from_ids(ids["actor_id"], ids["organization_id"], ids.get(IMPERSONATOR_KEY))


def in_event_loop() -> bool:
    """Tell whether an event loop runs in this thread."""
    return asyncio._get_running_loop() is not None


def run_coroutine(coroutine: Coroutine[Any, Any, Any], context: Context, make: Any = None) -> Any:
    """Run a coroutine to its end in this thread, on a new event loop, which ``make()`` returns."""
    if in_event_loop():
        coroutine.close()
        raise RuntimeError(
            "the function returned a coroutine inside a running event loop, where it cannot be "
            "run to its end: make it an async def and use 'await worker.anew(...)'"
        )
    # Without a factory the runner would unset the event loop that was set for this thread.
    with asyncio.Runner(loop_factory=make or asyncio.new_event_loop) as runner:
        value, raised = runner.run(contain(coroutine), context=context)
    if raised:
        raise raised.pop()
    return value


async def contain(coroutine: Coroutine[Any, Any, Any]) -> tuple[Any, list[BaseException]]:
    """Return what the body returned and a list with what it raised, if anything.

    It is not raised here, because a SystemExit that leaves a task stops the loop. The caller pops
    it from the list as it raises it: a name for it would tie error and frame into a cycle, which
    keeps all that the body had in hand until the garbage is collected.
    """
    try:
        return await coroutine, []
    except BaseException as error:
        if _is_cancellation(error):
            raise
        return None, [error]


def _is_cancellation(error: BaseException) -> bool:
    """Tell whether this task is being cancelled, or discarded after its loop was closed.

    The type alone does not tell: a body may raise ``CancelledError`` itself.
    """
    task = asyncio.current_task() if in_event_loop() else None
    return task is None or (task.cancelling() > 0 and isinstance(error, asyncio.CancelledError))
