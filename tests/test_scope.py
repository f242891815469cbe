"""The scope: ids alone, sealed, and of no use as authority."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from sigra import AuditOnlyScopeError, AuditScope, Identity, tenant_args

UUID_ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")


def build(**ids: Any) -> AuditScope:
    return AuditScope.build(**{"actor_id": "7", "organization_id": "42", **ids})


def test_a_scope_has_exactly_three_members() -> None:
    """Actor, organization and impersonator are all that a scope holds."""
    scope = build(impersonating_from="1")
    assert (Identity("7"), Identity("42"), Identity("1")) == (
        scope.user,
        scope.active_organization,
        scope.impersonating_from,
    )


def test_an_absent_id_gives_a_member_of_none() -> None:
    """With both ids None there is still a scope, whose members are None."""
    scope = build(actor_id=None, organization_id=None)
    assert (None, None, None) == (scope.user, scope.active_organization, scope.impersonating_from)


@pytest.mark.parametrize(
    ("given", "text"), [("7", "7"), (7, "7"), (-1, "-1"), (UUID_ID, str(UUID_ID))]
)
def test_an_id_is_kept_as_text(given: Any, text: str) -> None:
    """A str, int or UUID becomes a string, as it travels."""
    assert Identity(text) == build(actor_id=given).user


@pytest.mark.parametrize("given", ["", " ", "\t\n"])
def test_a_blank_id_is_refused(given: str) -> None:
    """A blank string is no id."""
    with pytest.raises(ValueError, match="blank"):
        build(organization_id=given)


@pytest.mark.parametrize("given", [True, 1.0, b"7", [], object(), 2**1024])
def test_an_id_of_another_type_is_refused(given: Any) -> None:
    """A bool, float or any other object is no id, nor is an int beyond 1,024 bits."""
    with pytest.raises(TypeError, match="actor_id"):
        build(actor_id=given)


@pytest.mark.parametrize("given", ["7", 7])
def test_an_identity_keeps_its_id_as_text(given: Any) -> None:
    """One that is made by hand equals that of a scope."""
    assert build().user == Identity(given)


@pytest.mark.parametrize("given", [None, True, "", " ", b"7", object()])
def test_an_identity_has_an_id(given: Any) -> None:
    """What is no id is refused where it is passed, and so is None."""
    with pytest.raises((TypeError, ValueError), match="id"):
        Identity(given)


@pytest.mark.parametrize("name", ["user", "active_organization", "impersonating_from", "role"])
def test_a_scope_cannot_be_changed(name: str) -> None:
    """Setting an attribute, known or not, raises AttributeError."""
    with pytest.raises(AttributeError):
        setattr(build(), name, None)


def test_a_scope_s_member_cannot_be_deleted() -> None:
    """Deleting a member raises AttributeError."""
    with pytest.raises(AttributeError):
        del build().user  # type: ignore[misc]


def test_an_identity_cannot_be_changed() -> None:
    """The id of an identity stays what it is."""
    with pytest.raises(AttributeError):
        Identity("7").id = "8"  # type: ignore[misc]


@pytest.mark.parametrize("cls", [AuditScope, Identity])
@pytest.mark.parametrize("module", ["accounts", "users.models", AuditScope.__module__])
def test_nothing_can_be_derived(cls: Any, module: str) -> None:
    """The classes are final at run time too."""
    with pytest.raises(TypeError, match="final"):
        type("Other", (cls,), {"__module__": module})


@pytest.mark.parametrize("bases", [(AuditScope, AuditScope.__mro__[1]), AuditScope.__mro__[1:2]])
def test_nothing_can_be_derived_beside_them(bases: Any) -> None:
    """Nor is the class that seals them a way to a class that a scope could be made one of."""
    with pytest.raises(TypeError, match="final"):
        type("Other", bases, {"__slots__": (), "is_admin": True})


def test_the_constructor_points_to_build() -> None:
    """AuditScope() says how a scope is built."""
    with pytest.raises(TypeError, match=r"AuditScope\.build"):
        AuditScope()


@pytest.mark.parametrize("name", ["request", "session", "roles", "has_perm", "is_superuser"])
def test_reading_authority_raises(name: str) -> None:
    """Any public attribute beyond the three raises and is named."""
    with pytest.raises(AuditOnlyScopeError) as caught:
        getattr(build(), name)
    assert name == caught.value.attribute
    assert "only ids (user, active_organization, impersonating_from)" in str(caught.value)


def test_an_identity_has_no_authority_either() -> None:
    """A member gives its id and nothing else."""
    with pytest.raises(AuditOnlyScopeError):
        _ = build().user.is_staff  # type: ignore[union-attr]


def test_probing_protocols_works() -> None:
    """Names that begin with an underscore raise AttributeError, so hasattr answers."""
    assert not hasattr(build(), "_repr_html_")


def test_hasattr_of_a_public_name_raises() -> None:
    """A host cannot even probe a worker's scope for a role without being told."""
    with pytest.raises(AuditOnlyScopeError):
        hasattr(build(), "is_admin")


def test_a_scope_has_no_dict() -> None:
    """A slotted value has no room for more."""
    assert not hasattr(build(), "__dict__")


def test_scopes_are_equal_by_value() -> None:
    """The same ids, however they were given, make equal scopes."""
    assert build(actor_id=7) == build(actor_id="7")


@pytest.mark.parametrize("other", [build(actor_id="8"), build(impersonating_from="1"), None, "7"])
def test_a_scope_differs_from_another(other: Any) -> None:
    """One other id, or another type, makes a difference."""
    assert build() != other


def test_equal_scopes_hash_alike() -> None:
    """Scopes can be the keys of a dict."""
    assert 1 == len({build(), build(actor_id=7)})


def test_swapped_ids_are_another_scope() -> None:
    """Actor and organization do not pass for each other."""
    assert build(actor_id="1", organization_id="2") != build(actor_id="2", organization_id="1")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_scope_pickles(protocol: int) -> None:
    """A scope survives every pickle protocol."""
    scope = build(impersonating_from="1")
    assert scope == pickle.loads(pickle.dumps(scope, protocol))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_scope_copies(copied: Any) -> None:
    """A copy equals the original."""
    assert build() == copied(build())


def test_a_scope_matches_by_position() -> None:
    """Structural pattern matching sees the three members."""
    match build():
        case AuditScope(Identity(actor), Identity(organization), None):
            assert ("7", "42") == (actor, organization)


def test_a_scope_shows_its_ids() -> None:
    """The repr shows all three members."""
    assert (
        "AuditScope(user=Identity(id='7'), active_organization=Identity(id='42'), "
        "impersonating_from=None)"
    ) == repr(build())


def test_tenant_args_of_a_scope_are_those_of_its_job() -> None:
    """A child job gets the keys of its parent."""
    assert {"organization_id": "42", "actor_id": "7"} == tenant_args(build())


def test_tenant_args_carry_the_impersonator() -> None:
    """The impersonator travels where there is one."""
    assert "1" == tenant_args(build(impersonating_from="1"))["impersonating_from"]


def test_tenant_args_read_a_host_s_object() -> None:
    """A request scope of the host's own classes, with ids of any type, gives the keys."""
    host = SimpleNamespace(
        user=SimpleNamespace(id=7), active_organization=SimpleNamespace(id=UUID_ID)
    )
    assert {"organization_id": str(UUID_ID), "actor_id": "7"} == tenant_args(host)


def test_tenant_args_read_a_mapping() -> None:
    """A mapping of mappings gives the keys too."""
    host = {"user": None, "active_organization": {"id": 42}, "impersonating_from": {"id": 1}}
    assert {
        "organization_id": "42",
        "actor_id": None,
        "impersonating_from": "1",
    } == tenant_args(host)


@pytest.mark.parametrize("absent", ["user", "active_organization"])
def test_tenant_args_refuse_an_absent_member(absent: str) -> None:
    """Absent is not None: a scope without the member is refused by name."""
    host: dict[str, Any] = {"user": None, "active_organization": None}
    del host[absent]
    with pytest.raises(TypeError, match=f"has no '{absent}', and absent is not None"):
        tenant_args(host)


def test_tenant_args_refuse_a_member_without_id() -> None:
    """A user object that has no id is refused, not taken for nobody."""
    with pytest.raises(TypeError, match="'id'"):
        tenant_args({"user": object(), "active_organization": None})


def test_tenant_args_refuse_a_blank_id_as_one() -> None:
    """In a member's place it is a blank id too, and no object without one."""
    with pytest.raises(ValueError, match=r"user\.id is blank"):
        tenant_args({"user": "", "active_organization": "42"})


def test_tenant_args_of_an_unsaved_user_are_none() -> None:
    """An id of None inside a member, as an unsaved model has, is None."""
    assert None is tenant_args({"user": {"id": None}, "active_organization": None})["actor_id"]


@pytest.mark.parametrize("other", ["6", "8"])
def test_identities_differ_by_their_id(other: str) -> None:
    """An identity equals no other, whichever sorts first."""
    assert Identity("7") != Identity(other)


@pytest.mark.parametrize("given", [2**64 - 1, 2**64, -(2**127), 2**1024 - 1])
def test_an_id_is_text_and_so_may_be_beyond_64_bits(given: int) -> None:
    """A number that no column of 64 bits holds, as a UUID's own, is an id too."""
    assert Identity(str(given)) == build(actor_id=given).user


class EqualToAll:
    """What a query expression is: equal to whatever it is compared with."""

    id = 7

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


def test_a_member_that_equals_everything_is_not_absent() -> None:
    """A host's own idea of equality does not make its user disappear."""
    host = {"user": EqualToAll(), "active_organization": None}
    assert "7" == tenant_args(host)["actor_id"]


def test_an_id_that_equals_everything_is_refused_by_its_type() -> None:
    """An id that is no id is told apart from one that is absent."""
    host = {"user": {"id": EqualToAll()}, "active_organization": None}
    with pytest.raises(TypeError, match=r"user\.id: an id must be"):
        tenant_args(host)
