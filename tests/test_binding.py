"""Binding: which functions can be workers, and how a job's args reach them."""

from __future__ import annotations

import functools
import itertools
import sys
from typing import TYPE_CHECKING, Annotated, Any, Optional

import pydantic
import pytest

from sigra import AuditScope, InvalidArgsError, JobInfo, tenant_worker, worker
from sigra.binding import bind

if TYPE_CHECKING:
    from sigra import AuditScope as OnlyTyped

TENANT = {"organization_id": "42", "actor_id": "7"}
numbers = itertools.count()
SCOPE = AuditScope.build(actor_id="7", organization_id="42")


def refusal(function: Any, args: dict[str, Any]) -> InvalidArgsError:
    with pytest.raises(InvalidArgsError) as caught:
        bind(function, tenant=True).check(args)
    return caught.value


def run(function: Any, **args: Any) -> Any:
    """Bind and call a function as a job would."""
    return tenant_worker(name=f"binding.{next(numbers)}")(function).new({**TENANT, **args}).result()


def test_the_first_parameter_receives_the_scope() -> None:
    """Whatever its name, the first positional parameter is given the scope."""
    assert SCOPE == run(lambda who: who)


def test_args_receives_the_whole_mapping() -> None:
    """A parameter named args receives every item, the tenant keys among them."""
    assert {**TENANT, "n": 1} == run(lambda scope, args: args, n=1)


def test_args_is_read_only() -> None:
    """A body that changes its args gets TypeError, on any backend."""

    def body(scope: AuditScope, args: dict[str, Any]) -> None:
        args["n"] = 2

    with pytest.raises(TypeError, match="read-only"):
        run(body, n=1)


def test_job_receives_the_job_info() -> None:
    """A parameter named job receives the JobInfo of the attempt."""

    def body(scope: AuditScope, job: JobInfo) -> int:
        return job.attempt

    assert 1 == run(body)


def test_every_other_parameter_is_bound_by_name() -> None:
    """Parameters are found by their names, keyword-only ones too."""
    assert ("a", "b") == run(lambda scope, first, *, second: (first, second), second="b", first="a")


def test_a_default_stands_in_for_an_absent_arg() -> None:
    """A parameter with a default needs no arg."""
    assert 9 == run(lambda scope, n=9: n)


def test_a_decorator_below_decides_what_an_absent_arg_becomes() -> None:
    """It is called as in a plain call: without the arg, and not with the default it shows."""

    def body(scope: AuditScope, limit: int = 10) -> Any:
        return limit

    @functools.wraps(body)
    def with_a_default_of_its_own(scope: AuditScope, **given: int) -> Any:
        return body(scope, **{"limit": 500, **given})

    assert 500 == with_a_default_of_its_own(SCOPE) == run(with_a_default_of_its_own)


@pytest.mark.parametrize("default", [None, pydantic.Field(default_factory=int)])
def test_what_pydantic_does_not_check_in_a_call_it_does_not_check_in_a_job(default: Any) -> None:
    """validate_call leaves a default as it is, of whatever type, and makes one that has to be."""

    @pydantic.validate_call(config={"arbitrary_types_allowed": True})
    def body(scope: AuditScope, n: int = default) -> Any:
        return n

    assert body(SCOPE) == run(body)


def test_the_first_arg_that_is_missing_is_named_in_the_order_of_the_signature() -> None:
    """As Python itself names it."""

    def body(scope: AuditScope, invoice_id: str, amount: int) -> None: ...

    assert "$.invoice_id" == refusal(body, TENANT).path


def test_an_arg_of_none_is_not_absent() -> None:
    """None is a value, which a default does not replace."""
    assert None is run(lambda scope, n=9: n, n=None)


def test_rest_takes_what_is_left_without_the_tenant_keys() -> None:
    """The double-star parameter gets every unbound key except the tenant's."""
    taken = run(lambda scope, n, **rest: rest, n=1, m=2, impersonating_from="1")
    assert {"m": 2} == taken


def test_a_tenant_key_can_be_a_parameter() -> None:
    """A parameter named after a tenant key is bound like any other."""
    assert "42" == run(lambda scope, organization_id: organization_id)


def test_args_job_and_rest_go_together() -> None:
    """One function can take the mapping, the job, named args and the rest."""

    def body(scope: AuditScope, args: Any, job: JobInfo, n: int, **rest: int) -> Any:
        return args["m"], job.attempt, n, rest

    assert (2, 1, 1, {"m": 2}) == run(body, n=1, m=2)


def test_values_are_bound_as_they_are() -> None:
    """Annotations coerce nothing: a str for an int parameter stays a str."""

    def body(scope: AuditScope, n: int) -> Any:
        return n

    assert "9" == run(body, n="9")


def test_a_worker_without_tenant_gets_no_scope() -> None:
    """A tenant-agnostic function's first parameter is an arg like the others."""
    job = worker(name="binding.plain")(lambda n: n).new({"n": 3})
    assert 3 == job.result()


def test_a_parameter_named_scope_of_a_plain_worker_is_an_arg() -> None:
    """Only tenant workers reserve a parameter for the scope."""
    assert "all" == worker(name="binding.scope")(lambda scope: scope).new({"scope": "all"}).result()


def test_a_missing_arg_names_its_path() -> None:
    """A parameter without a value is refused at $.name."""
    assert "$.invoice_id" == refusal(lambda scope, invoice_id: None, dict(TENANT)).path


def test_an_unknown_key_names_its_path() -> None:
    """A key that no parameter takes is refused, for it would be lost."""
    assert "$.extra" == refusal(lambda scope: None, {**TENANT, "extra": 1}).path


def test_a_key_named_as_the_scope_parameter_is_refused() -> None:
    """No arg can pass for the scope."""
    assert "$.scope" == refusal(lambda scope, **rest: None, {**TENANT, "scope": 1}).path
    assert "$.scope" == refusal(lambda scope, /, **rest: None, {**TENANT, "scope": 1}).path


@pytest.mark.parametrize("name", ["args", "job"])
def test_a_key_named_as_an_injected_parameter_is_refused(name: str) -> None:
    """No arg can pass for what Sigra itself passes."""
    assert f"$.{name}" == refusal(lambda scope, args, job: None, {**TENANT, name: 1}).path


def test_a_key_named_args_is_free_where_nothing_is_injected() -> None:
    """Names are reserved only by functions that have such a parameter."""
    assert {"args": 1, "job": 2} == run(lambda scope, **rest: rest, args=1, job=2)


def test_a_key_that_is_no_name_is_not_repeated_in_the_text() -> None:
    """An odd key may hold anything, a secret too, so only its place is said."""
    assert "hunter 2" not in str(refusal(lambda scope: None, {**TENANT, "hunter 2": 1}))


def test_a_decorated_function_is_bound_by_the_signature_it_shows() -> None:
    """A decorator below that keeps the signature with functools.wraps is seen through."""

    def twice(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs) * 2

        return wrapper

    @twice
    def body(scope: AuditScope, n: int) -> int:
        return n

    assert 8 == run(body, n=4)


def test_a_decorator_is_called_with_the_scope_by_position_and_all_else_by_keyword() -> None:
    """So one that looks for a task's first arg by its place has to look by its name."""

    def body(scope: AuditScope, job: JobInfo, n: int) -> None: ...

    @functools.wraps(body)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return args, sorted(kwargs)

    assert ((SCOPE,), ["job", "n"]) == run(wrapper, n=4)


class Handler:
    def __call__(self, scope: AuditScope) -> None: ...


class TakesScope:
    def __init__(self, scope: AuditScope) -> None: ...


def no_parameter() -> None: ...
def only_rest(**rest: Any) -> None: ...
def only_keyword(*, scope: Any) -> None: ...
def takes_self(self: Any) -> None: ...
def takes_cls(cls: Any) -> None: ...
def takes_args(args: Any) -> None: ...
def takes_organization(organization_id: Any) -> None: ...
def takes_job(job: Any) -> None: ...
def positional_after(scope: Any, n: Any, /) -> None: ...
def star(scope: Any, *items: Any) -> None: ...
def generator(scope: Any) -> Any:
    yield


async def async_generator(scope: Any) -> Any:
    yield


def annotated_int(scope: int) -> None: ...
def annotated_object(scope: object) -> None: ...
def second_self(scope: Any, self: Any) -> None: ...


@pytest.mark.parametrize(
    "function",
    [
        no_parameter,
        only_rest,
        only_keyword,
        takes_self,
        takes_cls,
        takes_args,
        takes_job,
        takes_organization,
        positional_after,
        star,
        generator,
        async_generator,
        annotated_int,
        annotated_object,
        second_self,
        Handler,
        Handler(),
        TakesScope,
        42,
        max,
    ],
)
def test_an_unusable_function_is_refused_at_decoration(function: Any) -> None:
    """What cannot be a worker raises TypeError where it is decorated."""
    with pytest.raises(TypeError):
        tenant_worker(function)


def test_the_refusal_of_a_class_method_says_what_it_is_and_what_to_do() -> None:
    """Of a decorator below it that makes no function, the kind is named, and the cure."""

    def with_class(cls: Any, scope: AuditScope) -> None: ...

    text = r"not the classmethod .*with_class; make a method a @staticmethod"
    with pytest.raises(TypeError, match=text):
        tenant_worker(classmethod(with_class))


class Unheld:
    """A stand-in for a function that has no room for a weak reference, as Celery's shared_task."""

    __slots__ = ("__qualname__",)

    def __init__(self) -> None:
        self.__qualname__ = "unheld"

    def __call__(self, scope: AuditScope) -> None: ...


@pytest.mark.parametrize("given", ["a name", functools.partial(print), Unheld()])
def test_the_refusal_of_what_is_no_function_says_what_to_decorate(given: Any) -> None:
    """A name or a queue belongs in a keyword, and a partial or a callable object in a def."""
    with pytest.raises(TypeError, match="decorate a def, and pass settings by keyword"):
        tenant_worker(given)


class Theirs:
    class AuditScope: ...


def scope_alone(scope: AuditScope) -> None: ...
def scope_second(invoice_id: Any, scope: AuditScope) -> None: ...
def scope_by_name(scope: Any, *, other: AuditScope | None) -> None: ...
def scope_supplied(scope: Any, acting: AuditScope | None = None) -> None: ...
def scope_of_another(scope: Any, granted: Theirs.AuditScope) -> None: ...


@pytest.mark.parametrize(("decorate", "function"), [
    (worker, scope_alone), (tenant_worker, scope_second), (tenant_worker, scope_by_name),
])  # fmt: skip
def test_a_scope_that_nobody_would_pass_is_refused_at_decoration(
    decorate: Any, function: Any
) -> None:
    """``.new()`` would ask for it among the args, where none can be."""
    with pytest.raises(
        TypeError, match=f"{function.__name__} .*: put the scope first, and use @te"
    ):
        decorate(name="binding.no-scope")(function)


def test_what_only_looks_like_a_scope_is_an_arg() -> None:
    """As what a decorator supplies, and a type of the same name of somebody else's."""
    assert bind(scope_supplied, tenant=True).required == ()
    assert bind(scope_of_another, tenant=True).required == ("granted",)


class NotYet:
    """A text that cannot be shown while modules are imported, as a lazy translation of Django."""

    def __repr__(self) -> str:
        raise RuntimeError


def test_what_stands_beside_an_annotated_type_is_not_shown() -> None:
    """Whatever it is: the scope is sought in the type alone."""
    names: dict[str, Any] = {
        "Annotated": Annotated, "AuditScope": AuditScope, "NotYet": NotYet
    }  # fmt: skip
    source = "def of_{0}(scope, amount: Annotated[{0}, NotYet()]): ..."
    for kind in ("int", "AuditScope"):
        exec(compile(source.format(kind), "<annotated>", "exec", dont_inherit=True), names)
    assert bind(names["of_int"], tenant=True).required == ("amount",)
    with pytest.raises(TypeError, match="put the scope first"):
        bind(names["of_AuditScope"], tenant=True)


def test_the_refusal_says_where_the_function_is() -> None:
    """The TypeError names the function and its file."""
    with pytest.raises(TypeError, match=r"takes_self \(.*test_binding\.py:\d+\)"):
        tenant_worker(takes_self)


def exact(scope: AuditScope) -> None: ...
def anything(scope: Any) -> None: ...
def bare(scope) -> None: ...  # type: ignore[no-untyped-def]
def union(scope: AuditScope | None) -> None: ...
def optional(scope: Optional[AuditScope]) -> None: ...  # noqa: UP045
def annotated(scope: Annotated[AuditScope, "why"]) -> None: ...
def type_checking_only(scope: OnlyTyped) -> None: ...
def quoted(scope: "AuditScope") -> None: ...  # noqa: UP037
def positional_scope(scope: AuditScope, /, n: int = 0) -> None: ...


@pytest.mark.parametrize(
    "function", [exact, anything, bare, union, optional, annotated, quoted, positional_scope]
)
def test_the_scope_may_be_annotated_with_what_it_is(function: Any) -> None:
    """AuditScope, Any, a union with it or nothing are right for the first parameter."""
    assert () == bind(function, tenant=True).required


def with_scope(annotation: Any) -> Any:
    """Return a function as a module without ``from __future__ import annotations`` has it."""

    def job(scope: Any) -> None: ...

    job.__annotations__["scope"] = annotation
    return job


@pytest.mark.parametrize(
    "annotation",
    [AuditScope, Any, AuditScope | None, Optional[AuditScope], Annotated[AuditScope, "why"]],  # noqa: UP045
)
def test_the_annotation_may_be_the_type_itself(annotation: Any) -> None:
    """It need not be text."""
    assert () == bind(with_scope(annotation), tenant=True).required


@pytest.mark.parametrize(
    "annotation", [int, object, int | None, Annotated[int, "why"], "int", "Unknown", "AuditScopes"]
)
def test_another_annotation_is_refused_as_what_it_is(annotation: Any) -> None:
    """A type, a text, and a name that is not known at run time and does not say AuditScope."""
    with pytest.raises(TypeError, match="is annotated .* but it receives a sigra.AuditScope"):
        bind(with_scope(annotation), tenant=True)


def test_a_second_parameter_self_is_refused_as_a_method_s() -> None:
    """The error says what to make of a method."""
    with pytest.raises(TypeError, match="takes 'self'; make a method a @staticmethod"):
        bind(second_self, tenant=True)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.12 has brought the statement")
def test_a_type_statement_may_name_the_scope() -> None:
    """An alias is what it stands for, whether it is right or wrong."""
    namespace: dict[str, Any] = {"AuditScope": AuditScope}
    source = """
type Scope = AuditScope | None
type Number = int
type Again = Scope
type Theirs = AuditScope | OnlyTypeCheckersImportIt
def right(scope: Scope): ...
def quoted(scope: "Scope"): ...
def again(scope: Again): ...
def theirs(scope: Theirs): ...
def quoted_theirs(scope: "Theirs"): ...
def wrong(scope: Number): ...
"""
    exec(compile(source, "<3.12>", "exec", dont_inherit=True), namespace)
    for name in ("right", "quoted", "again", "theirs", "quoted_theirs"):
        assert () == bind(namespace[name], tenant=True).required
    with pytest.raises(TypeError, match="is annotated '?Number"):
        bind(namespace["wrong"], tenant=True)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="before 3.14 such a name is quoted")
def test_an_annotation_need_not_exist_at_run_time() -> None:
    """From Python 3.14 on a name that only type checkers import stands without quotes."""
    namespace: dict[str, Any] = {"AuditScope": AuditScope}
    source = "def f(scope: AuditScope | Request, n: Invoice, **rest: Other) -> Answer: ..."
    exec(compile(source, "<3.14>", "exec", dont_inherit=True), namespace)
    assert ("n",) == bind(namespace["f"], tenant=True).required


def test_a_name_that_only_type_checkers_import_is_judged_by_what_is_written() -> None:
    """An annotation imported under TYPE_CHECKING is accepted where it says AuditScope."""
    namespace: dict[str, Any] = {}
    exec("def f(scope: 'sigra.AuditScope | None'): ...", namespace)
    assert () == bind(namespace["f"], tenant=True).required


@pytest.mark.parametrize(
    "written",
    [
        "list[AuditScope | Unseen]",
        "type[unseen.AuditScope]",
        "Request[Any, Any]",
        "Request[dict[str, Any], Any] | None",
        "Optional[Request[Any]]",
        "Callable[[AuditScope], Unseen]",
    ],
)
def test_what_a_type_holds_is_not_what_it_is(written: str) -> None:
    """Such an annotation is refused where it only names AuditScope or Any inside another type."""
    with pytest.raises(TypeError, match="but it receives a sigra.AuditScope"):
        bind(with_scope(written), tenant=True)


@pytest.mark.parametrize(
    "written",
    [
        "Request[Any] | AuditScope",
        "Request[dict[str, int]] | unseen.AuditScope",
        "unseen.Optional[unseen.AuditScope]",
        "unseen.Union[Request[int], AuditScope]",
        "unseen.Annotated[AuditScope, Why[str]]",
        "Optional[unseen.Union[AuditScope, Request[Any]]]",
    ],
)
def test_a_union_may_have_a_type_with_arguments(written: str) -> None:
    """The scope is found beside it."""
    assert () == bind(with_scope(written), tenant=True).required
