"""The two decorators that turn a function into a worker."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack, overload

from sigra import catalog
from sigra.binding import Invoke, bind
from sigra.definition import Definition
from sigra.errors import InvalidOptionError
from sigra.json import is_unicode
from sigra.options import check_capabilities, parse_options
from sigra.outcome import Failure
from sigra.proxy import TenantWorker, Worker
from sigra.registry import resolve_backend
from sigra.schema import check_schema

if TYPE_CHECKING:
    from sigra.backend import Backend
    from sigra.options import DefaultOptions

    class Settings(DefaultOptions, total=False):
        """What both decorators take: the worker's settings and the default options of its jobs."""

        audit_schema: Any
        action: str | None
        audit_required: bool
        name: str | None
        backend: str | Backend | None


P = ParamSpec("P")
R = TypeVar("R")


@overload
def tenant_worker(function: Callable[P, R], /) -> TenantWorker[P, R]: ...
@overload
def tenant_worker(
    **settings: Unpack[Settings],
) -> Callable[[Callable[P, R]], TenantWorker[P, R]]: ...
def tenant_worker(
    function: Callable[..., Any] | None = None, /, *, audit_schema: Any = None,
    action: str | None = None, audit_required: bool = False, name: str | None = None,
    backend: str | Backend | None = None, **default_options: Any,
) -> Any:  # fmt: skip
    """Make a worker whose jobs run for an organization and an actor.

    The first parameter receives the ``AuditScope``, ``args`` the whole read-only mapping,
    ``job`` the ``JobInfo``, and any other parameter the arg of its name.

    ``audit_schema``: the audit record type. ``action``: log one audit event of this name for
    each finished attempt. ``audit_required``: if no sink can write, the body does not run and
    the attempt fails. ``name``: what queues show; by default ``module.qualname``.
    ``backend``: a name or an instance; wins over the configured ones. ``default_options``:
    options of ``.new()``.

    Raises ``TypeError`` for a function that cannot be a worker or an ``audit_required`` that is
    no bool, ``ValueError`` for a bad action or name, ``UnknownBackendError``,
    ``MissingExtraError``, ``InvalidOptionError`` and ``DuplicateWorkerError``.
    """

    def decorate(function: Any) -> TenantWorker[..., Any]:
        return TenantWorker(_define(
            function, name, audit_schema, action, audit_required, backend, default_options,
            tenant=True,
        ))  # fmt: skip

    return decorate if function is None else decorate(function)


@overload
def worker(function: Callable[P, R], /) -> Worker[P, R]: ...
@overload
def worker(**settings: Unpack[Settings]) -> Callable[[Callable[P, R]], Worker[P, R]]: ...
def worker(
    function: Callable[..., Any] | None = None, /, *, audit_schema: Any = None,
    action: str | None = None, audit_required: bool = False, name: str | None = None,
    backend: str | Backend | None = None, **default_options: Any,
) -> Any:  # fmt: skip
    """Make a tenant-agnostic worker: no key is required and no scope is injected.

    For jobs that emit no tenant-relevant audits, such as clean-ups. Otherwise as
    ``tenant_worker``.
    """

    def decorate(function: Any) -> Worker[..., Any]:
        return Worker(_define(
            function, name, audit_schema, action, audit_required, backend, default_options
        ))  # fmt: skip

    return decorate if function is None else decorate(function)


def _define(
    function: Any, name: str | None, audit_schema: Any, action: str | None, audit_required: bool,
    backend: str | Backend | None, default_options: dict[str, Any], *, tenant: bool = False,
) -> Definition:  # fmt: skip
    function = function.__func__ if isinstance(function, staticmethod) else function
    binding = bind(function, tenant=tenant)
    if name is not None and not (isinstance(name, str) and name.strip() and is_unicode(name)):
        raise ValueError(f"name must be a str, not blank and without lone surrogates, not {name!r}")
    check_schema(audit_schema)
    if action is not None:
        from sigra.audit.action import check_action

        action = check_action(action)
    if not isinstance(audit_required, bool):
        raise TypeError(f"audit_required must be a bool, not {type(audit_required).__qualname__}")
    if audit_required:
        binding = replace(binding, invoke=_audited(binding.invoke))
    # As a plain str: a member of an enumeration would be shown by its own name.
    name = catalog.worker_name(function) if name is None else str.__str__(name)
    if "cross_tenant" in default_options:
        raise InvalidOptionError("cross_tenant", "cannot be a default: pass it to .new()", name)
    defaults = parse_options(default_options, worker=name)
    if (chosen := None if backend is None else resolve_backend(backend)) is not None:
        check_capabilities(defaults, chosen, name)
    definition = Definition(
        name=name, function=function, is_async=inspect.iscoroutinefunction(function),
        tenant=tenant, binding=binding, schema=audit_schema, action=action, defaults=defaults,
        backend=chosen, origin=catalog.origin_of(function),
    )  # fmt: skip
    catalog.register(definition)
    return definition


def _audited(invoke: Invoke) -> Invoke:
    """Wrap the call: the body runs only if a sink has taken the event that the attempt begins."""
    from sigra.audit.emit import log_begin

    def audited(scope: Any, args: Mapping[str, Any], attempt: Any) -> Any:
        return Failure(missing) if (missing := log_begin(attempt)) else invoke(scope, args, attempt)

    return audited
