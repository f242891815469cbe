"""What is fixed about a worker when it is decorated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sigra.catalog import Origin, find

if TYPE_CHECKING:
    from sigra.backend import Backend
    from sigra.binding import Binding
    from sigra.options import JobOptions


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Definition:
    """A worker's name, function and settings: fixed at decoration, shared by its jobs.

    ``is_async``: the function is an ``async def``. ``tenant``: the tenant keys are
    required and a scope is injected. ``schema``: the audit record type, or None.
    ``action``: the lifecycle event's name, or None. ``defaults``: the decorator's
    options. ``backend``: the decorator's choice, or None. ``origin``: which execution of
    which module defined the function. It pickles and copies by name and module.
    """

    name: str
    function: Callable[..., Any]
    is_async: bool
    tenant: bool
    binding: Binding
    schema: Any
    action: str | None
    defaults: JobOptions
    backend: Backend | None
    origin: Origin

    def __reduce__(self) -> tuple[Any, ...]:
        return find, (self.name, self.function.__module__)
