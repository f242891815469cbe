"""What is known of a worker once and for all, as its decorator found it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sigra.backend import Backend
    from sigra.binding import Binding
    from sigra.options import JobOptions


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Definition:
    """A worker's name, function and settings: fixed at decoration, shared by its jobs.

    ``tenant``: the tenant keys are required and a scope is injected. ``schema``: the
    audit record type, or None. ``action``: the lifecycle event's name, or None.
    ``defaults``: the decorator's options. ``backend``: the decorator's choice, or None.
    """

    name: str
    function: Callable[..., Any]
    tenant: bool
    binding: Binding
    schema: Any
    action: str | None
    defaults: JobOptions
    backend: Backend | None
    is_async: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_async", inspect.iscoroutinefunction(self.function))
