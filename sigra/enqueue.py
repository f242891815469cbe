"""From args to an accepted job: validate, choose a backend, refuse other tenants, hand over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from sigra import config
from sigra.binding import IMPERSONATOR_KEY, TENANT_KEYS, text_ids
from sigra.context import running
from sigra.errors import (
    CrossTenantError,
    InvalidArgsError,
    InvalidOptionError,
    MissingTenantKeysError,
    SigraError,
)
from sigra.frozen import FrozenDict
from sigra.job import Job
from sigra.json import freeze
from sigra.options import JobOptions, check_capabilities, parse_options

if TYPE_CHECKING:
    from sigra.backend import Backend
    from sigra.definition import Definition

_SHAPES = 64
"""How many sets of keys a worker remembers as valid."""


class Enqueuer:
    """Enqueue jobs of one worker. What depends on the worker alone is worked out once."""

    __slots__ = ("_chosen", "_definition", "_shapes")

    def __init__(self, definition: Definition) -> None:
        self._definition = definition
        # Sets of keys that were valid before, each with its keys joined to one text: only the keys
        # decide whether one is missing and whether the args bind.
        self._shapes: dict[tuple[str, ...], str] = {}
        # The token of the settings last seen, and the backend chosen by them. None stands for their
        # default, which is not to be kept alive here. A pair, so that no thread sees half of it.
        self._chosen: tuple[object, Any] = None, None

    def __reduce__(self) -> tuple[Any, ...]:
        return Enqueuer, (self._definition,)  # what it remembers is good in this process alone

    def new(self, args: Mapping[str, Any], /, **options: Any) -> Job:
        """Validate, freeze and enqueue one job; return it as accepted by its backend.

        ``args``: a mapping with str keys and strict JSON values. ``options``: queue,
        priority, delay, run_at, max_attempts, backoff, unique, conn, cross_tenant.
        Raises ``InvalidArgsError``, ``MissingTenantKeysError``, ``InvalidOptionError``,
        ``CrossTenantError`` or ``EnqueueError``; nothing was enqueued then, unless the
        ``EnqueueError`` names the job in ``unsure``. What the function itself raises is never
        raised here.
        """
        job, backend = self.prepare(args, options)
        backend.enqueue((job,))
        return job

    async def anew(self, args: Mapping[str, Any], /, **options: Any) -> Job:
        """Do the same as ``new`` without blocking the running event loop."""
        job, backend = self.prepare(args, options)
        await backend.aenqueue((job,))
        return job

    def new_many(self, args: Iterable[Mapping[str, Any]], /, **options: Any) -> list[Job]:
        """Validate every item, then enqueue all in one batch; none if one is bad.

        Raises what ``new`` raises; the error's ``index`` says which item it is about.
        """
        jobs, backend = self._prepare_all(args, options)
        if jobs:
            backend.enqueue(jobs)
        return jobs

    async def anew_many(self, args: Iterable[Mapping[str, Any]], /, **options: Any) -> list[Job]:
        """Do the same as ``new_many`` without blocking the running event loop."""
        jobs, backend = self._prepare_all(args, options)
        if jobs:
            await backend.aenqueue(jobs)
        return jobs

    def prepare(self, args: Mapping[str, Any], options: dict[str, Any]) -> tuple[Job, Backend]:
        """Validate args and make their job, but do not send it; return it and its backend."""
        frozen = self.validate(args)
        chosen, backend, crossing = self.choose(options)
        if not crossing and running.get() is not None:
            self._refuse_other_tenant(frozen)
        return Job(self._definition, frozen, chosen, backend.name), backend

    def _prepare_all(
        self, items: Iterable[Mapping[str, Any]], options: dict[str, Any]
    ) -> tuple[list[Job], Backend]:
        """Do the same with many items; validate all of them first."""
        valid = _check_each(self.validate, items)
        chosen, backend, crossing = self.choose(options)
        if not crossing and running.get() is not None:
            _check_each(self._refuse_other_tenant, valid)
        return [Job(self._definition, frozen, chosen, backend.name) for frozen in valid], backend

    def validate(self, args: Mapping[str, Any]) -> FrozenDict:
        """Check keys, ids, strict JSON and binding, in this order; return a read-only copy."""
        definition = self._definition
        plain = args if type(args) is dict else _plain(definition, args)
        shape = tuple(plain)
        keys = self._shapes.get(shape)
        if keys is None:
            _check_keys(definition, plain)
        if definition.tenant:
            # Most ids are text already, or None. Any other is made text, or refused.
            actor, home = plain["actor_id"], plain["organization_id"]
            actor_fits = actor is None or (type(actor) is str and actor.strip())
            home_fits = home is None or (type(home) is str and home.strip())
            if not actor_fits or not home_fits or IMPERSONATOR_KEY in plain:
                plain = {**plain, **text_ids(plain, definition.name)}
        try:
            frozen = freeze(plain, config.current.max_args_bytes, keys or "")
            if keys is None:
                definition.binding.check(frozen)
                if len(self._shapes) < _SHAPES:
                    self._shapes[shape] = "".join(shape)
        except InvalidArgsError as error:
            raise InvalidArgsError(error.path, error.reason, definition.name) from None
        return frozen

    def choose(self, given: dict[str, Any]) -> tuple[JobOptions, Any, bool]:
        """Lay the call's options over the decorator's, and choose the backend.

        Raises ``InvalidOptionError`` for an option that is wrong or that the backend does not
        honour. Returns the options, the backend, and whether the job may cross to another
        organization.
        """
        definition, settings, (known, backend) = self._definition, config.current, self._chosen
        if not given and known is settings.token:
            return definition.defaults, settings.backend if backend is None else backend, False
        crossing = given.pop("cross_tenant", False)
        if not isinstance(crossing, bool):
            reason = f"must be a bool, not {type(crossing).__qualname__}"
            raise InvalidOptionError("cross_tenant", reason, definition.name)
        chosen = parse_options(given, definition.defaults, definition.name)
        backend = settings.choose(definition.backend, chosen.queue)
        check_capabilities(chosen, backend, definition.name)
        if chosen is definition.defaults:
            self._chosen = settings.token, None if backend is settings.backend else backend
        return chosen, backend, crossing

    def _refuse_other_tenant(self, args: FrozenDict) -> None:
        """Refuse a job for another organization than the one whose job runs here."""
        if (attempt := running.get()) is None or not (self._definition.tenant and attempt.scope):
            return
        home, asked = attempt.scope.active_organization, args["organization_id"]
        if home is not None and asked != home.id:
            raise CrossTenantError(self._definition.name, attempt.job.worker, home.id, asked)


def _check_each(check: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Return ``check(item)`` for each item; an error is given the item's index, from 0."""
    answers = []
    for index, item in enumerate(items):
        try:
            answers.append(check(item))
        except SigraError as error:
            raise error.at(index) from None
    return answers


def _plain(definition: Definition, args: Any) -> dict[str, Any]:
    """Return a mapping as a plain dict; of a subclass of dict, no method of its own runs."""
    if isinstance(args, dict):
        return dict(dict.items(args))
    reason = f"args must be a mapping with str keys, not {type(args).__qualname__}"
    if isinstance(args, Mapping):
        try:
            return {key: args[key] for key in args}
        except Exception as error:
            reason = f"reading the mapping raised {type(error).__qualname__}"
    raise InvalidArgsError("$", reason, definition.name)


def _check_keys(definition: Definition, args: dict[str, Any]) -> None:
    for key in args:
        if not isinstance(key, str):
            reason = f"args must be a mapping with str keys; one key is {type(key).__qualname__}"
            raise InvalidArgsError("$", reason, definition.name)
    if definition.tenant and (missing := tuple(key for key in TENANT_KEYS if key not in args)):
        raise MissingTenantKeysError(definition.name, missing)
