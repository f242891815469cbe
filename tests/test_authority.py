"""The fence: no worker's scope gets into a host's authorization function."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from functools import partial
from types import CellType, MappingProxyType, SimpleNamespace
from typing import Any

import attrs
import pydantic
import pytest
from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from sigra import AuditOnlyScopeError, AuditScope, Identity, authority, request_scope_only

SCOPE = AuditScope.build(actor_id="7", organization_id="42")


@request_scope_only
def authorize(subject: Any = None, *more: Any, **named: Any) -> str:
    """Say yes."""
    return "yes"


@request_scope_only
async def authorize_later(subject: Any) -> str:
    """Say yes."""
    return "yes"


@dataclasses.dataclass
class Data:
    inner: Any


@dataclasses.dataclass(slots=True)
class Slotted:
    inner: Any


@attrs.define
class Attrs:
    inner: Any


class Model(pydantic.BaseModel):
    inner: Any


class Open(pydantic.BaseModel, extra="allow"):
    _private: Any = pydantic.PrivateAttr(None)


def private(inner: Any) -> Any:
    model = Open()
    model._private = inner
    return model


class Plain:
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def method(self) -> None: ...


def closure(inner: Any) -> Any:
    return lambda: inner


def default(inner: Any) -> Any:
    return lambda scope=inner: scope


def keyword_default(inner: Any) -> Any:
    return lambda *, scope=inner: scope


def started(inner: Any) -> Any:
    def generator() -> Any:
        held = inner
        yield held

    made = generator()
    next(made)
    return made


def caused(inner: Any) -> Any:
    error = ValueError("x")
    error.__cause__ = ValueError(inner)
    return error


def referred(inner: Any) -> Any:
    held = Plain(inner)
    HELD.append(held)
    return weakref.ref(held)


class Pause:
    def __await__(self) -> Any:
        yield


def paused(inner: Any) -> Any:
    async def body(_: Any) -> None:
        await Pause()

    made = body(inner)
    made.send(None)
    return made


async def yielding(inner: Any) -> Any:
    yield inner


def done(inner: Any) -> Any:
    async def make() -> Any:
        future = asyncio.get_running_loop().create_future()
        future.set_result(inner)
        return future

    return asyncio.run(make())


class Mute(list[Any]):
    """A list that says that it is empty, as some lazy ones do until they are asked."""

    def __iter__(self) -> Any:
        return iter(())


class Last(dict[Any, Any]):
    """A dict of lists that shows of each the last, as those of query strings do."""

    def values(self) -> Any:
        return [held[-1] for held in super().values()]


HELD: list[Any] = []

WRAPPERS = [
    lambda inner: inner,
    lambda inner: [inner],
    lambda inner: (inner,),
    lambda inner: {inner},
    lambda inner: frozenset({inner}),
    lambda inner: deque([inner]),
    lambda inner: {inner: 1},
    lambda inner: {"scope": inner},
    lambda inner: MappingProxyType({"scope": inner}),
    lambda inner: SimpleNamespace(scope=inner),
    lambda inner: Model(inner=inner),
    lambda inner: Open(surplus=inner),
    private,
    lambda inner: Plain(inner).method,
    lambda inner: partial(print, inner),
    lambda inner: {"scope": inner}.get,
    lambda inner: [inner].__len__,
    Data,
    Slotted,
    Attrs,
    Plain,
    closure,
    default,
    keyword_default,
    started,
    ValueError,
    caused,
    referred,
    lambda inner: {"scope": inner}.values(),
    paused,
    yielding,
    done,
    CellType,
    lambda inner: Mute([inner]),
    lambda inner: Last(scope=[inner, "7"]),
    lambda inner: type("Holder", (), {"scope": inner})(),
    lambda inner: type("Heir", (type("Holder", (), {"scope": inner}),), {})(),
]


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_scope_is_found_in_any_container(wrap: Any) -> None:
    """A scope inside what is passed is refused as the scope itself is."""
    with pytest.raises(AuditOnlyScopeError):
        authorize(wrap(SCOPE))


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_the_same_containers_pass_without_a_scope(wrap: Any) -> None:
    """What holds no scope goes through."""
    assert "yes" == authorize(wrap("7"))


@pytest.mark.parametrize("place", ["first", "star", "keyword"])
def test_every_argument_is_searched(place: str) -> None:
    """Positional, surplus and keyword arguments are all looked at."""
    calls = {
        "first": lambda: authorize(SCOPE),
        "star": lambda: authorize(1, 2, SCOPE),
        "keyword": lambda: authorize(actor=SCOPE),
    }
    with pytest.raises(AuditOnlyScopeError):
        calls[place]()


@pytest.mark.parametrize(
    "wrap",
    [lambda inner: [inner], Data, Slotted, Attrs, Plain, lambda inner: Model(inner=inner),
     lambda inner: Open(surplus=inner), private],
)  # fmt: skip
def test_a_scope_at_depth_eight_is_found(wrap: Any) -> None:
    """Eight levels of nesting hide nothing, an attribute of whatever kind being one."""
    value: Any = SCOPE
    for _ in range(8):
        value = wrap(value)
    with pytest.raises(AuditOnlyScopeError):
        authorize(value)


def test_what_lies_deeper_is_not_searched() -> None:
    """A call costs no more than eight levels do, as the guide says."""
    value: Any = SCOPE
    for _ in range(9):
        value = [value]
    assert "yes" == authorize(value)


def test_a_cycle_ends() -> None:
    """An argument that contains itself is searched once."""
    cycle: list[Any] = []
    cycle.append(cycle)
    assert "yes" == authorize(cycle)


def test_what_is_shared_is_searched_once() -> None:
    """Lists of ten times the same list, eight deep, do not take ten to the eighth steps."""
    read: list[str] = []

    class Read(Mapping[str, int]):
        def __getitem__(self, key: str) -> int:
            return 1

        def __iter__(self) -> Iterator[str]:
            read.append("once")
            return iter(("n",))

        def __len__(self) -> int:
            return 1

    authorize([Read()])
    once = read.copy()
    read.clear()
    authorize([shared := Read(), [shared, shared]], shared)
    assert once == read


def test_the_search_calls_nothing_that_it_finds() -> None:
    """A function in an argument is opened, and not run."""
    ran: list[str] = []
    authorize({"on_error": lambda: ran.append("on_error")}, partial(ran.append, "later"))
    assert [] == ran


def test_an_object_whose_attributes_raise_is_no_way_around() -> None:
    """A property that raises does not break the search."""

    class Shy:
        @property
        def __dict__(self) -> Any:  # type: ignore[override]
            raise RuntimeError

    with pytest.raises(AuditOnlyScopeError):
        authorize([Shy(), SCOPE])


def test_an_async_function_is_fenced_too() -> None:
    """A coroutine function refuses when it is awaited, before its body runs."""
    with pytest.raises(AuditOnlyScopeError):
        asyncio.run(authorize_later([SCOPE]))


def test_a_private_slot_is_searched() -> None:
    """A slot is read under the name that the class has for it, mangled as it may be."""

    class Holder:
        __slots__ = ("__scope",)

        def __init__(self) -> None:
            self.__scope = SCOPE

    with pytest.raises(AuditOnlyScopeError):
        authorize(Holder())


class Base(DeclarativeBase):
    """The user's mapped classes, of which each knows all the others."""


class Account(Base):
    __tablename__ = "account"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("account.id"))
    owned: Mapped[list["Account"]] = relationship()
    scope = None


def test_a_mapped_object_does_not_lead_to_all_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """What SQLAlchemy keeps beside it, to the last column of all, is no authorization's matter."""
    looked_at: list[Any] = []
    items = authority._items
    monkeypatch.setattr(
        authority, "_items", lambda value: (looked_at.append(value), items(value))[1]
    )
    account = Account(id=1)
    account.owned.append(Account(id=2))
    assert "yes" == authorize(account)
    assert len(looked_at) < 20


def test_a_scope_on_a_mapped_object_is_found() -> None:
    """As an attribute of it, or of one that it is related to."""
    account, other = Account(id=1), Account(id=2)
    account.owned.append(other)
    other.scope = SCOPE
    for given in (account, other):
        with pytest.raises(AuditOnlyScopeError):
            authorize(given)


def test_what_cannot_be_looked_at_here_is_the_function_s_matter() -> None:
    """A lazy user that only a thread with a database could load is not loaded by the fence."""

    class Lazy:
        @property
        def __class__(self) -> Any:
            raise RuntimeError("no database on an event loop")

        @__class__.setter
        def __class__(self, _: Any) -> None:
            """Stand for what cannot be set."""

    assert "yes" == asyncio.run(authorize_later(Lazy()))


class Unloaded(Mapping[str, Any]):
    """Its items are in a store that is down."""

    def __iter__(self) -> Any:
        raise ConnectionError

    def __getitem__(self, key: str) -> Any:
        raise ConnectionError

    def __len__(self) -> int:
        raise ConnectionError


class Disguised:
    @property
    def __class__(self) -> Any:
        raise ConnectionError

    @__class__.setter
    def __class__(self, _: Any) -> None:
        """Stand for what cannot be set."""


class Silent:
    def __getattribute__(self, name: str) -> Any:
        raise ConnectionError


Nowhere = type("Nowhere", (), {"__module__": None})


class Holder:
    pass


def test_a_scope_behind_a_weak_proxy_is_found() -> None:
    """The proxy stands for an object that has it."""
    holder: Any = Holder()
    holder.scope = SCOPE
    with pytest.raises(AuditOnlyScopeError):
        authorize(weakref.proxy(holder))


@pytest.mark.parametrize("kind", [Unloaded, Disguised, Silent, Nowhere])
def test_what_cannot_be_read_hides_nothing_of_the_rest(kind: Any) -> None:
    """A scope that such an object has as an attribute is found."""
    given = kind()
    object.__setattr__(given, "scope", SCOPE)
    with pytest.raises(AuditOnlyScopeError):
        authorize(given)


def test_static_and_class_methods_are_fenced_from_above_too() -> None:
    """Put over @staticmethod or @classmethod, the fence lets the right argument through only."""

    class Host:
        @request_scope_only
        @staticmethod
        def static(scope: object) -> str:
            return "yes"

        @request_scope_only
        @classmethod
        async def of_class(cls, scope: object) -> str:
            return "yes"

    assert ["yes", "yes"] == [Host().static(7), asyncio.run(Host.of_class(7))]
    with pytest.raises(AuditOnlyScopeError):
        Host.static(SCOPE)
    with pytest.raises(AuditOnlyScopeError):
        asyncio.run(Host().of_class(SCOPE))


def test_what_is_no_function_cannot_be_fenced() -> None:
    """A mistaken use is told at once, by the type of what was decorated."""
    with pytest.raises(TypeError, match="is for functions, not str"):
        request_scope_only("authorize")  # type: ignore[arg-type]


def test_an_async_function_stays_one() -> None:
    """The guarded function is a coroutine function where the host's was."""
    assert inspect.iscoroutinefunction(authorize_later)


def test_an_async_function_gives_its_answer() -> None:
    """A right argument reaches the host's coroutine."""
    assert "yes" == asyncio.run(authorize_later({"user": 7}))


def test_name_and_docstring_are_kept() -> None:
    """The guarded function looks like the host's, be that async or not."""
    assert ("authorize", "Say yes.") == (authorize.__name__, authorize.__doc__)
    assert ("authorize_later", "Say yes.") == (authorize_later.__name__, authorize_later.__doc__)


def test_the_error_names_the_function() -> None:
    """The text says which function was given the scope, and what to do."""
    with pytest.raises(AuditOnlyScopeError, match=r"authorize\(\).*Authorize before \.new\(\)"):
        authorize(SCOPE)


def test_an_identity_alone_is_only_an_id() -> None:
    """An id taken out of a scope is plain data, which a host may look up."""
    assert "yes" == authorize(Identity("7"))


def test_a_class_argument_is_not_searched() -> None:
    """A class or module is not walked into: it is no request's data."""
    assert "yes" == authorize(AuditScope, pytest)
