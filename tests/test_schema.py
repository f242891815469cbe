"""What each kind of record type takes of an event, tried with the real libraries."""

from __future__ import annotations

import dataclasses
import functools
import sys
from typing import Annotated, Any, Generic, NamedTuple, NewType, TypedDict, TypeVar, Union

import pytest
import wrapt

from sigra import AuditEvent
from sigra.audit.event import EVENT_FIELDS
from sigra.schema import _known, build_record, schema_fields

try:  # SQLAlchemy resolves annotations by the names of the module
    from sqlalchemy import orm
except ImportError:
    orm = None  # type: ignore[assignment]

T = TypeVar("T")
EVENT = AuditEvent(action="invoice.close", target_id="9", metadata={"lines": 2}, attempt=1)


def same(*names: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, name) for name in names)


def test_the_names_are_the_fields_of_an_event_in_its_order() -> None:
    """EVENT_FIELDS and AuditEvent name the same fields in the same order."""
    assert EVENT_FIELDS == tuple(field.name for field in dataclasses.fields(AuditEvent))


def test_the_events_own_type_takes_every_field() -> None:
    """AuditEvent is itself an audit schema."""
    assert same(*EVENT_FIELDS) == schema_fields(AuditEvent)


def test_the_events_own_type_is_not_built_again() -> None:
    """Where the schema is AuditEvent, the record is the event."""
    assert build_record(AuditEvent, EVENT) is EVENT


@dataclasses.dataclass
class Entry:
    action: str
    attempt: int | None
    note: str = ""
    target_id: str | None = dataclasses.field(default="kept", init=False)


def test_a_dataclass_takes_its_init_fields() -> None:
    """Of a dataclass, the fields that its __init__ takes count, and no others."""
    assert same("action", "attempt") == schema_fields(Entry)
    assert Entry("invoice.close", 1) == build_record(Entry, EVENT)


def test_a_frozen_dataclass_works() -> None:
    """A frozen slotted dataclass is a record type like any other."""

    @dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
    class Frozen:
        action: str
        metadata: dict[str, Any]

    assert Frozen(action="invoice.close", metadata={"lines": 2}) == build_record(Frozen, EVENT)


def test_attrs_takes_aliases() -> None:
    """Of an attrs class, a field goes in by its alias, private names included."""
    attrs = pytest.importorskip("attrs")

    @attrs.define
    class Entry:
        _action: str
        target_id: str | None = attrs.field(alias="target")
        attempt: int = attrs.field(init=False, default=0)

    assert (("action", "action"), ("target_id", "target")) == schema_fields(Entry)
    assert Entry("invoice.close", target="9") == build_record(Entry, EVENT)


def test_pydantic_takes_its_fields() -> None:
    """A pydantic model takes the fields that it declares, and ignores no error of its own."""
    pydantic = pytest.importorskip("pydantic")

    class Entry(pydantic.BaseModel):
        action: str
        metadata: dict[str, int]

    assert Entry(action="invoice.close", metadata={"lines": 2}) == build_record(Entry, EVENT)


def test_pydantic_takes_aliases() -> None:
    """A pydantic field with an alias goes in by that alias."""
    pydantic = pytest.importorskip("pydantic")

    class Entry(pydantic.BaseModel):
        action: str = pydantic.Field(alias="eventAction")
        target_id: str = pydantic.Field(validation_alias=pydantic.AliasChoices("target", "t"))

    assert (("action", "eventAction"), ("target_id", "target")) == schema_fields(Entry)
    assert "9" == build_record(Entry, EVENT).target_id


@pytest.mark.parametrize("by_name", [False, True])
def test_pydantic_declares_by_alias(by_name: bool) -> None:
    """A pydantic field whose alias, or one of whose aliases, is a field of an event takes it."""
    pydantic = pytest.importorskip("pydantic")

    class Entry(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(populate_by_name=by_name)
        actorId: str | None = pydantic.Field(default=None, alias="actor_id")
        what: str = pydantic.Field(validation_alias=pydantic.AliasChoices("what_for", "action"))

    event = AuditEvent(action="invoice.close", actor_id="7")
    record = build_record(Entry, event)
    assert ("7", "invoice.close") == (record.actorId, record.what)


def test_a_field_s_own_name_wins_over_another_s_alias() -> None:
    """Where two pydantic fields might be meant, it is the one that has the name."""
    pydantic = pytest.importorskip("pydantic")

    class Entry(pydantic.BaseModel):
        action: str = pydantic.Field(alias="verb")
        note: str = pydantic.Field(default="", validation_alias="action")

    assert (("action", "verb"),) == schema_fields(Entry)


@pytest.mark.parametrize("setting", ["populate_by_name", "validate_by_name"])
def test_pydantic_takes_names_where_it_may(setting: str) -> None:
    """A pydantic model that is populated by name takes the names in spite of aliases."""
    pydantic = pytest.importorskip("pydantic")
    if setting not in pydantic.ConfigDict.__annotations__:
        pytest.skip("pydantic has it from 2.11 on")

    class Entry(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(**{setting: True})
        action: str = pydantic.Field(alias="eventAction")

    assert same("action") == schema_fields(Entry)
    assert "invoice.close" == build_record(Entry, EVENT).action


def test_a_pydantic_dataclass_works() -> None:
    """A dataclass of pydantic's own takes its fields as a model does."""
    pydantic = pytest.importorskip("pydantic")

    @pydantic.dataclasses.dataclass
    class Entry:
        action: str
        attempt: int

    assert Entry("invoice.close", 1) == build_record(Entry, EVENT)


def test_msgspec_takes_its_fields() -> None:
    """A msgspec struct takes the fields that it declares, whatever they are called in JSON."""
    msgspec = pytest.importorskip("msgspec")

    class Entry(msgspec.Struct, rename="camel"):
        action: str
        target_id: str | None = None

    assert same("action", "target_id") == schema_fields(Entry)
    assert Entry("invoice.close", "9") == build_record(Entry, EVENT)


def declarative() -> Any:
    orm = pytest.importorskip("sqlalchemy.orm")

    class Model(orm.DeclarativeBase):
        pass

    return Model


def test_a_declarative_model_takes_its_columns() -> None:
    """A mapped class takes the attributes of its columns, ``metadata_`` for the metadata."""
    model = declarative()
    import sqlalchemy as sa

    class Entry(model):
        __tablename__ = "entries"
        id = sa.Column(sa.Integer, primary_key=True)
        action = sa.Column(sa.String)
        who = sa.Column("actor_id", sa.String)
        metadata_ = sa.Column("metadata", sa.JSON)

    assert (("action", "action"), ("metadata", "metadata_")) == schema_fields(Entry)
    assert {"lines": 2} == build_record(Entry, EVENT).metadata_


def test_a_declarative_model_is_read_before_its_relations_resolve() -> None:
    """Checking a mapped class asks for no other class, which may not be defined yet."""
    model = declarative()
    import sqlalchemy as sa

    class Entry(model):
        __tablename__ = "entries"
        id = sa.Column(sa.Integer, primary_key=True)
        job_id = sa.Column(sa.ForeignKey("jobs.id"))
        job = orm.relationship("JobRow")

    assert same("job_id") == schema_fields(Entry)


def test_a_declarative_dataclass_takes_what_its_init_takes() -> None:
    """A mapped class with an __init__ of its own takes what that takes."""
    pytest.importorskip("sqlalchemy.orm")

    class Model(orm.MappedAsDataclass, orm.DeclarativeBase):
        pass

    class Entry(Model):
        __tablename__ = "entries"
        id: orm.Mapped[int] = orm.mapped_column(primary_key=True, init=False)
        action: orm.Mapped[str]
        job_id: orm.Mapped[str] = orm.mapped_column(init=False, default=None)

    assert same("action") == schema_fields(Entry)


def test_a_django_model_takes_its_concrete_fields() -> None:
    """A Django model takes its fields, a foreign key by the column of its id too."""
    django = pytest.importorskip("django")
    from django.conf import settings

    if not settings.configured:
        settings.configure(INSTALLED_APPS=[], DATABASES={})
        django.setup()
    from django.db import models

    class Organization(models.Model):
        class Meta:
            app_label = "audited"

    class Entry(models.Model):
        action = models.CharField(max_length=200)
        organization = models.ForeignKey(Organization, on_delete=models.CASCADE)
        metadata = models.JSONField()

        class Meta:
            app_label = "audited"

    assert same("action", "organization_id", "metadata") == schema_fields(Entry)
    assert {"lines": 2} == build_record(Entry, EVENT).metadata


def test_a_meta_that_is_not_django_s_says_nothing() -> None:
    """Other libraries keep something under that name too: the class's call is read then."""

    class Entry:
        _meta = object()

        def __init__(self, action: str) -> None:
            self.action = action

    assert "invoice.close" == build_record(Entry, EVENT).action


def test_a_named_tuple_takes_its_fields() -> None:
    """A NamedTuple is a record type."""

    class Entry(NamedTuple):
        action: str
        attempt: int | None

    assert Entry("invoice.close", 1) == build_record(Entry, EVENT)


def test_a_typed_dict_takes_its_keys() -> None:
    """A TypedDict takes the keys that it declares, inherited ones included."""

    class Named(TypedDict):
        action: str

    class Entry(Named, total=False):
        attempt: int

    assert {"action": "invoice.close", "attempt": 1} == build_record(Entry, EVENT)


class Row(Generic[T]):
    def __init__(self, action: str) -> None:
        self.action = action


def test_a_generic_type_with_its_parameters_takes_what_the_type_itself_takes() -> None:
    """``Row[int]`` takes the fields of ``Row``; what takes none, such as ``list[int]``, is refused."""
    assert same("action") == schema_fields(Row[int])
    with pytest.raises(TypeError, match="audit_schema list declares none"):
        schema_fields(list[int])


@pytest.mark.parametrize("record", [Row, Row[int]])
def test_an_annotated_type_takes_what_the_type_itself_takes(record: Any) -> None:
    """``Annotated[Row, ...]`` makes a ``Row``."""
    annotated: Any = Annotated[record, "kept for a year"]
    assert "invoice.close" == build_record(annotated, EVENT).action


@pytest.mark.parametrize("notes", [(), ("kept for a year",)])
@pytest.mark.parametrize("schema", [Any, Union[Row, int], Row | int])  # noqa: UP007 - | is another
def test_what_makes_no_record_though_it_looks_callable_is_refused(schema: Any, notes: Any) -> None:
    """At decoration, not at the first event."""
    with pytest.raises(TypeError, match="must be a record type or a plain function"):
        schema_fields(Annotated[schema, *notes] if notes else schema)


def test_a_new_type_is_refused() -> None:
    """It is a function of one parameter for type checkers, and makes no record."""
    Entry = NewType("Entry", Row)  # type: ignore[type-arg]
    with pytest.raises(TypeError, match="NewType declares none"):
        schema_fields(Entry)


UNQUOTED = """
class Request(TypedDict):
    action: Invoice
@dataclass
class Record:
    action: Invoice
class Entry:
    def __init__(self, action: Invoice): ...
"""


@pytest.mark.skipif(sys.version_info < (3, 14), reason="before 3.14 such a name is quoted")
@pytest.mark.parametrize("name", ["Request", "Record", "Entry"])
def test_an_annotation_need_not_exist_at_run_time(name: str) -> None:
    """From Python 3.14 on a name that only type checkers import stands without quotes."""
    namespace: dict[str, Any] = {"TypedDict": TypedDict, "dataclass": dataclasses.dataclass}
    exec(compile(UNQUOTED, "<3.14>", "exec", dont_inherit=True), namespace)
    assert same("action") == schema_fields(namespace[name])


def test_dict_takes_everything() -> None:
    """``dict`` makes a dict of all fields."""
    assert set(EVENT_FIELDS) == set(build_record(dict, EVENT))


def test_what_a_decorator_of_wrapt_s_wraps_counts_as_it_is() -> None:
    """Its parameters are taken, and an async function is refused."""

    @wrapt.decorator
    def unchanged(function: Any, _: Any, args: Any, kwargs: Any) -> Any:
        return function(*args, **kwargs)

    @unchanged
    def record(action: str) -> str:
        return action

    @unchanged
    async def arecord(action: str) -> str:
        return action

    assert EVENT.action == build_record(record, EVENT)
    assert same("action", "attempt") == schema_fields(unchanged(Entry))
    with pytest.raises(TypeError, match="async"):
        schema_fields(arecord)


def test_an_instance_of_a_class_made_by_functools_wraps_is_called_itself() -> None:
    """Such a class has what it wraps too, of which its instances say nothing."""

    @functools.wraps(Row, updated=())
    class Wrapping:
        def __call__(self, action: str, attempt: int) -> tuple[str, int]:
            return action, attempt

    assert (EVENT.action, 1) == build_record(Wrapping(), EVENT)


def test_a_function_takes_its_parameters() -> None:
    """A function takes the fields among its keyword parameters."""

    def record(action: str, *, attempt: int, extra: int = 0) -> tuple[str, int, int]:
        return action, attempt, extra

    assert ("invoice.close", 1, 0) == build_record(record, EVENT)


def test_a_function_of_any_keyword_takes_everything() -> None:
    """A function with ``**fields`` takes every field."""

    def record(**fields: Any) -> dict[str, Any]:
        return fields

    assert set(EVENT_FIELDS) == set(build_record(record, EVENT))


def test_a_partial_takes_what_is_left() -> None:
    """A partial function is read as what it still takes."""

    def record(action: str, attempt: int, note: str) -> tuple[str, int, str]:
        return action, attempt, note

    assert ("invoice.close", 1, "x") == build_record(functools.partial(record, note="x"), EVENT)


def test_an_object_with_call_works() -> None:
    """An object is a record type if a call of it takes fields."""

    class Maker:
        def __call__(self, action: str) -> str:
            return action.upper()

    assert "INVOICE.CLOSE" == build_record(Maker(), EVENT)


def test_a_bound_method_works() -> None:
    """A method of an object is a record type if it takes fields."""

    class Store:
        def record(self, action: str) -> str:
            return action

    assert "invoice.close" == build_record(Store().record, EVENT)


class Empty:
    pass


@dataclasses.dataclass
class Foreign:
    name: str
    value: int


def positional(action: str, /) -> None: ...


@pytest.mark.parametrize("schema", [Empty, Foreign, positional, lambda: None, object, int])
def test_a_type_that_takes_no_field_is_refused(schema: Any) -> None:
    """A record type with none of the fields raises TypeError and names them all."""
    with pytest.raises(TypeError, match="event_id, action, outcome"):
        schema_fields(schema)


@pytest.mark.parametrize("schema", [None, 1, "AuditEvent", {"action": str}, object()])
def test_what_cannot_be_called_is_refused(schema: Any) -> None:
    """What is no type or function raises TypeError and names a good one."""
    with pytest.raises(TypeError, match=r"sigra\.AuditEvent"):
        schema_fields(schema)


class Unanswering:
    """A record maker that has no attribute for whoever asks, and says so in a way of its own."""

    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)

    def __call__(self, action: str) -> str:
        return action


class Later:
    """A record maker that has to be awaited."""

    async def __call__(self, action: str) -> str:
        return action


def test_an_async_function_is_refused() -> None:
    """Nothing would await it, and sinks would be handed a coroutine for a record."""

    async def record(action: str) -> str:
        return action

    for schema in (record, Later()):
        with pytest.raises(TypeError, match="a plain function, not an async one"):
            schema_fields(schema)


def test_a_record_maker_is_not_asked_for_attributes() -> None:
    """What its own ``__getattr__`` raises keeps no record from being made."""
    assert EVENT.action == build_record(Unanswering(), EVENT)


def test_metadata_wins_over_its_stand_in() -> None:
    """Where a type declares both metadata and metadata_, the first is filled."""

    @dataclasses.dataclass
    class Entry:
        metadata: dict[str, Any]
        metadata_: str = "own"

    assert Entry({"lines": 2}) == build_record(Entry, EVENT)


def test_no_code_of_a_metaclass_is_asked() -> None:
    """A metaclass that answers for every name does not pass for another kind of model."""

    class Eager(type):
        def __getattr__(cls, name: str) -> Any:
            if name in ("__mapper__", "__attrs_attrs__", "__pydantic_fields__", "_meta"):
                return name
            raise AttributeError(name)

        def __hash__(cls) -> int:
            raise RuntimeError("hash")

    class Entry(metaclass=Eager):
        def __init__(self, action: str) -> None:
            self.action = action

    assert "invoice.close" == build_record(Entry, EVENT).action


def test_many_schemas_do_not_pile_up() -> None:
    """What is known of schemas is bounded, and a forgotten one is found out again."""
    makers = [lambda action, n=n: (n, action) for n in range(600)]
    assert [(n, "invoice.close") for n in range(600)] == [build_record(m, EVENT) for m in makers]
    assert (0, "invoice.close") == build_record(makers[0], EVENT)
    assert len(_known) < len(makers)
