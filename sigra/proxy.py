"""The worker object: the function itself, and the ways to enqueue it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, Unpack

import wrapt

from sigra.enqueue import Enqueuer

if TYPE_CHECKING:
    from sigra.definition import Definition
    from sigra.job import Job
    from sigra.options import Options

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)

_WAYS = ("new", "anew", "new_many", "anew_many")
"""How a worker's jobs are enqueued."""

for _way in _WAYS:  # Python's own errors of a wrong call shall name the class that users know
    getattr(Enqueuer, _way).__qualname__ = f"Worker.{_way}"

if TYPE_CHECKING:
    Args = Mapping[str, Any]

    class _Proxy(Generic[P, R_co]):
        """What type checkers and editors see: the function's own call, and what a worker adds.

        Not in ``Worker`` itself: annotations there would hide the function's own.
        """

        __name__: str
        __qualname__: str
        __wrapped__: Callable[P, R_co]
        definition: Definition

        def __init__(self, function: Callable[P, R_co]) -> None: ...
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

        def new(self, args: Mapping[str, Any], /, **options: Unpack[Options]) -> Job:
            """Validate, freeze and enqueue one job; return it as accepted by its backend."""
            ...

        async def anew(self, args: Mapping[str, Any], /, **options: Unpack[Options]) -> Job:
            """Do the same as ``new`` without blocking the running event loop."""
            ...

        def new_many(self, args: Iterable[Args], /, **options: Unpack[Options]) -> list[Job]:
            """Validate every item, then enqueue all in one batch; none if one is bad."""
            ...

        async def anew_many(self, args: Iterable[Args], /, **options: Unpack[Options]) -> list[Job]:
            """Do the same as ``new_many`` without blocking the running event loop."""
            ...

else:

    class _Proxy(wrapt.CallableObjectProxy):
        """wrapt's proxy, whose own C ``__call__`` makes the plain call cheap."""

        # Slots: without them wrapt would set these on the function. Besides, mock.patch only puts
        # back what a delattr() really removes.
        __slots__ = ("definition", *_WAYS)

        __class_getitem__ = classmethod(lambda cls, _: cls)


class Worker(_Proxy[P, R_co]):
    """A function that can be enqueued. Calling it calls the function and nothing else.

    ``new``, ``anew``, ``new_many`` and ``anew_many`` enqueue jobs of it. ``definition``
    holds its name and settings. It pickles and copies by name.
    """

    def __init__(self, definition: Definition) -> None:
        super().__init__(definition.function)
        enqueuer, self.definition = Enqueuer(definition), definition
        # Bound once, here: each look-up through a proxy's class would cost more.
        for way in _WAYS:
            setattr(self, way, getattr(enqueuer, way))

    @property
    def name(self) -> str:
        """Return the name that queues show and consumers look up."""
        return self.definition.name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.definition.name}>"

    __str__ = __repr__
    __format__ = object.__format__  # by __str__; wrapt's would show the function

    def __dir__(self) -> list[str]:
        return sorted({*dir(self.__wrapped__), *dir(type(self))})

    def __reduce__(self, protocol: Any = None) -> Any:
        # A worker pickles as a function does, by its name in its module. If another object has that
        # name, or if it was made in a function, it pickles by its definition, which the catalog
        # finds by the worker's name.
        held = getattr(self.__wrapped__, "__globals__", {}).get(name := self.__qualname__, self)
        return name if held is self and "<" not in name else (type(self), (self.definition,))

    __reduce_ex__ = __reduce__

    def __deepcopy__(self, memo: Any = None) -> Worker[P, R_co]:
        return self

    __copy__ = __deepcopy__


class TenantWorker(Worker[P, R_co]):
    """A worker whose jobs run, and are audited, for an organization and an actor."""


# Before Python 3.14 a class whose annotations are read, as help() does, has a dict of its own from
# then on. It would hide those of the function, which wrapt's C class finds by this.
_found: Any = vars(wrapt.CallableObjectProxy.__mro__[1]).get("__annotations__")
for _kind in (_Proxy, Worker, TenantWorker) if _found and not hasattr(type, "__annotate__") else ():
    _kind.__annotations__ = _found
