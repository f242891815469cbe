"""The worker object: the function itself, and the ways to enqueue it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec, TypeVar, cast

import wrapt

from sigra import catalog
from sigra.enqueue import Enqueuer

if TYPE_CHECKING:
    from sigra.definition import Definition
    from sigra.job import Job

P = ParamSpec("P")
R = TypeVar("R")

if TYPE_CHECKING:

    class _Callable(Generic[P, R]):
        """What type checkers see of the wrapped function."""

        __name__: str
        __qualname__: str
        __wrapped__: Callable[P, R]

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

else:

    class _Callable(wrapt.CallableObjectProxy):
        """wrapt's proxy as it is: its own C ``__call__`` makes the plain call cheap."""

        def __class_getitem__(cls, item):
            return cls


class Worker(_Callable[P, R]):
    """A function that can be enqueued. Calling it calls the function and nothing else.

    ``definition`` holds its name and settings. It pickles and copies by name.
    """

    if TYPE_CHECKING:
        definition: Definition

        def new(self, args: Mapping[str, Any], /, **options: Any) -> Job:
            """Validate, freeze and enqueue one job.

            Raises ``InvalidArgsError``, ``MissingTenantKeysError``,
            ``InvalidOptionError``, ``CrossTenantError`` or ``EnqueueError``, and then
            nothing was enqueued. What the function raises is never raised here.
            """
            ...

        async def anew(self, args: Mapping[str, Any], /, **options: Any) -> Job:
            """Do the same as ``new`` without blocking the running event loop."""
            ...

        def new_many(
            self, args: Iterable[Mapping[str, Any]], /, **options: Any
        ) -> list[Job]:
            """Validate every item, then enqueue all in one batch; none if one is bad.

            The error's ``index`` says which item.
            """
            ...

        async def anew_many(
            self, args: Iterable[Mapping[str, Any]], /, **options: Any
        ) -> list[Job]:
            """Do the same as ``new_many`` without blocking the running event loop."""
            ...

    else:
        # Declared here, so that the instance attributes below belong to the proxy.
        definition = new = anew = new_many = anew_many = None

        def __init__(self, definition):
            super().__init__(definition.function)
            self.definition = definition
            enqueuer = Enqueuer(definition)
            # Bound once: reading an attribute of a proxy's class costs more.
            self.new = enqueuer.new
            self.anew = enqueuer.anew
            self.new_many = enqueuer.new_many
            self.anew_many = enqueuer.anew_many

    @property
    def name(self) -> str:
        """Return the name that queues show and consumers look up."""
        return self.definition.name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.definition.name}>"

    def __reduce__(self) -> str:
        return self.__qualname__

    def __reduce_ex__(self, protocol: Any) -> str:
        return self.__qualname__

    def __copy__(self) -> Worker[P, R]:
        return self

    def __deepcopy__(self, memo: Any) -> Worker[P, R]:
        return self


class TenantWorker(Worker[P, R]):
    """A worker whose jobs run for an organization and an actor, and are audited so."""
