"""The worker object: still the plain function, and more."""

from __future__ import annotations

import ast
import asyncio
import copy
import inspect
import pickle
import pydoc
import typing
from typing import Any
from unittest.mock import patch

import pytest

from sigra import (
    AuditEvent,
    AuditScope,
    TenantWorker,
    ThreadBackend,
    Worker,
    proxy,
    tenant_worker,
    worker,
)

SCOPE = AuditScope.build(actor_id="7", organization_id="42")
TENANT = {"organization_id": "42", "actor_id": "7"}


def original(scope: AuditScope, invoice_id: int, notify: bool = False) -> str:
    """Close an invoice."""
    return f"{invoice_id} {notify}"


def plain_function() -> str:
    """Answer."""
    return "borrowed"


@tenant_worker
def close(scope: AuditScope, invoice_id: int, notify: bool = False) -> str:
    """Close an invoice."""
    return f"{invoice_id} {notify}"


@tenant_worker(audit_schema=AuditEvent)
async def close_later(scope: AuditScope, invoice_id: int) -> int:
    """Close it later."""
    return invoice_id


@worker()
def sweep(days: int = 30) -> int:
    """Sweep."""
    return days


class Billing:
    @staticmethod
    @tenant_worker
    def under(scope: AuditScope, n: int) -> int:
        """Under staticmethod."""
        return n

    @tenant_worker
    @staticmethod
    def over(scope: AuditScope, n: int) -> int:
        """Over staticmethod."""
        return n


WORKERS = [close, close_later, sweep, Billing.under, Billing.over]


def test_a_call_calls_the_function() -> None:
    """Calling the worker is calling the function: no validation, no dispatch."""
    assert "9 False" == close(SCOPE, invoice_id=9)


def test_a_call_takes_anything_that_the_function_takes() -> None:
    """A plain call checks neither scope nor JSON."""
    assert "{1} x" == close(None, {1}, "x")  # type: ignore[arg-type]


def test_a_call_returns_the_very_object() -> None:
    """What the function returns comes back unchanged."""
    thing = object()
    assert thing is worker(name="worker.same")(lambda x: x)(thing)


def test_a_call_raises_what_the_function_raises() -> None:
    """A plain call hides no exception."""
    with pytest.raises(ZeroDivisionError):
        worker(name="worker.raises")(lambda: 1 / 0)()


def test_the_signature_is_kept() -> None:
    """inspect.signature sees the original."""
    assert inspect.signature(original) == inspect.signature(close)


def test_the_annotations_are_kept() -> None:
    """typing.get_type_hints sees the original."""
    assert typing.get_type_hints(original) == typing.get_type_hints(close)


@pytest.mark.parametrize("kind", TenantWorker.__mro__[:3])
def test_the_annotations_stay_when_those_of_the_class_are_read(kind: type) -> None:
    """help(sigra) reads them: before Python 3.14 the class has a dict of its own from then on."""
    pydoc.render_doc(kind)
    inspect.getmembers(kind)
    assert {} == inspect.get_annotations(kind) == typing.get_type_hints(kind)
    assert typing.get_type_hints(original) == typing.get_type_hints(close) != {}
    assert inspect.get_annotations(original) == inspect.get_annotations(close)


@pytest.mark.parametrize("name", ["__doc__", "__module__", "__annotations__", "__defaults__"])
def test_attributes_are_the_function_s(name: str) -> None:
    """Docstring, module, annotations and defaults are those of the function."""
    assert getattr(original, name) == getattr(close, name)


def test_name_and_qualname_are_the_function_s() -> None:
    """The worker is called what the function is called."""
    assert ("close", "close", "Billing.under") == (
        close.__name__,
        close.__qualname__,
        Billing.under.__qualname__,
    )


def test_an_attribute_set_on_the_function_is_seen() -> None:
    """The worker hands on what other decorators left."""

    def marked() -> None: ...

    marked.mark = 1  # type: ignore[attr-defined]
    assert 1 == worker(marked).mark  # type: ignore[attr-defined]


def test_an_async_worker_is_a_coroutine_function() -> None:
    """inspect and asyncio both say so."""
    assert (True, False) == (
        inspect.iscoroutinefunction(close_later),
        inspect.iscoroutinefunction(close),
    )


def test_an_async_worker_s_call_is_awaited() -> None:
    """The plain call of an async worker gives a coroutine."""
    assert 9 == asyncio.run(close_later(SCOPE, invoice_id=9))


def test_inspect_finds_the_source() -> None:
    """getsource shows the function as it is written."""
    assert "def close(scope" in inspect.getsource(close.__wrapped__)


def test_help_shows_the_function() -> None:
    """help() shows the docstring."""
    assert "Close an invoice." in pydoc.plain(pydoc.render_doc(close))


def test_unwrap_gives_the_function() -> None:
    """inspect.unwrap reaches the original."""
    assert close.definition.function is inspect.unwrap(close)


@pytest.mark.parametrize("made", WORKERS, ids=lambda made: made.__qualname__)
def test_a_worker_pickles_by_name(made: Any) -> None:
    """A round trip gives the same object, as it does for a function."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert made is pickle.loads(pickle.dumps(made, protocol)), protocol


def test_a_worker_that_its_module_does_not_hold_pickles_by_its_own_name() -> None:
    """One of a factory, of a lambda or of another module's function travels as any other."""

    def made(name: str) -> Any:
        @worker(name=name)
        def answer() -> str:
            return name

        return answer

    first, second = made("pickled.first"), made("pickled.second")
    unnamed: Any = worker(name="pickled.unnamed")(lambda: "unnamed")
    borrowed: Any = worker(name="pickled.borrowed")(plain_function)
    for each in (first, second, unnamed, borrowed):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            back = pickle.loads(pickle.dumps(each, protocol))
            assert (each, type(each), each.name) == (back, type(back), back.name)
            assert each() == back.new({}).result(60)
        assert each.__reduce__() == each.__reduce_ex__(4)


def test_a_way_to_enqueue_pickles_whatever_it_was_used_for() -> None:
    """A pool of processes, or a scheduler that keeps its jobs, takes worker.new at any time."""
    backend = ThreadBackend(max_workers=1)

    @worker(backend=backend)
    def ping() -> str:
        return "pong"

    assert "pong" == ping.new({}).result(60)
    assert "pong" == pickle.loads(pickle.dumps(ping.new))({}).result(60)
    assert [] == backend.close(60)


@pytest.mark.parametrize("made", WORKERS, ids=lambda made: made.__qualname__)
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_worker_copies_by_name(made: Any, copied: Any) -> None:
    """A copy is the worker itself, as it is for a function."""
    assert made is copied(made)


def test_a_worker_deep_copies_inside_other_data() -> None:
    """A structure that holds a worker can be copied."""
    assert close is copy.deepcopy({"handlers": [close]})["handlers"][0]


@pytest.mark.parametrize("made", [Billing.under, Billing.over, Billing().under, Billing().over])
def test_a_static_method_is_a_worker_either_way(made: Any) -> None:
    """Under or over @staticmethod, on the class or an instance, it is the function."""
    assert (3, 3) == (made(SCOPE, 3), made.new({**TENANT, "n": 3}).result())


def test_with_or_without_parentheses() -> None:
    """Both forms give a worker."""
    assert (Worker, TenantWorker) == (type(sweep), type(close))


def test_a_tenant_worker_is_a_worker() -> None:
    """What takes a Worker takes a TenantWorker."""
    assert isinstance(close, Worker)


def test_a_plain_worker_is_no_tenant_worker() -> None:
    """The two kinds can be told apart."""
    assert not isinstance(sweep, TenantWorker)


def test_a_worker_is_callable() -> None:
    """callable() says so."""
    assert callable(close)


@pytest.mark.parametrize("name", ["new", "anew", "new_many", "anew_many", "name", "__doc__"])
def test_a_prompt_offers_what_a_worker_has(name: str) -> None:
    """dir() lists the ways to enqueue beside what the function has."""
    assert name in dir(close)


@pytest.mark.parametrize("name", ["new", "anew", "new_many", "anew_many"])
def test_what_a_test_patches_is_put_back(name: str) -> None:
    """unittest.mock deletes its stand-in, and finds out whether the real one is there again."""
    real = getattr(close, name)
    with patch.object(close, name) as stand_in:
        assert stand_in is getattr(close, name)
    assert real == getattr(close, name)


@pytest.mark.parametrize("name", ["new", "anew", "new_many", "anew_many"])
def test_a_call_that_python_refuses_is_told_by_a_public_name(name: str) -> None:
    """TypeError says Worker, as does the warning of a coroutine that nobody awaited."""
    with pytest.raises(TypeError, match=rf"^Worker\.{name}\(\) missing 1 .* 'args'$"):
        getattr(close, name)()


def test_the_repr_names_the_worker() -> None:
    """A log line that shows a worker says which."""
    assert f"<TenantWorker {__name__}.close>" == repr(close)


def test_a_text_names_the_worker() -> None:
    """In an f-string, as by str() and %s, a worker shows its own name, not the function's address."""
    assert [repr(close)] * 3 == [f"{close}", str(close), "%s" % close]  # noqa: UP031


def test_a_worker_can_be_a_key() -> None:
    """Workers hash and compare by identity, as functions do."""
    assert "x" == {close: "x", sweep: "y"}[close]


@pytest.mark.parametrize("name", ["new", "anew", "new_many", "anew_many"])
def test_every_way_to_enqueue_is_documented(name: str) -> None:
    """help() of each method says what it does."""
    assert inspect.getdoc(getattr(close, name))


@pytest.mark.parametrize("name", ["new", "anew", "new_many", "anew_many"])
def test_an_editor_shows_what_help_says_of_a_way_to_enqueue(name: str) -> None:
    """It reads the source, where a class that is there for type checkers alone has each way."""
    tree = ast.walk(ast.parse(inspect.getsource(proxy)))
    ways = (ast.FunctionDef, ast.AsyncFunctionDef)
    (way,) = (node for node in tree if isinstance(node, ways) and node.name == name)
    assert ast.get_docstring(way) == (inspect.getdoc(getattr(close, name)) or "").splitlines()[0]


@pytest.mark.parametrize("made", [Worker, TenantWorker, tenant_worker, worker])
def test_the_public_names_are_documented(made: Any) -> None:
    """Each public object has a docstring of its own."""
    assert inspect.getdoc(made)


def test_a_schema_without_any_field_is_refused_at_decoration() -> None:
    """A record type that would keep nothing of an event raises TypeError."""

    class Other:
        def __init__(self, colour: str) -> None: ...

    with pytest.raises(TypeError):
        tenant_worker(audit_schema=Other)(lambda scope: None)
