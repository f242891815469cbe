"""Laws of presence and of arrival, for any args at all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigra import (
    AuditScope,
    InvalidArgsError,
    MissingTenantKeysError,
    tenant_args,
    tenant_worker,
)
from sigra.testing import json_args, tenant_args_strategy

KEYS = ("organization_id", "actor_id")


@tenant_worker
def echo(scope: AuditScope, args: dict[str, Any]) -> Any:
    return scope, args


def spare(args: dict[str, Any]) -> dict[str, Any]:
    """Drop the keys that the function's own parameters reserve."""
    return {key: value for key, value in args.items() if key not in ("scope", "args", "job")}


@given(tenant_args_strategy(json_args()), st.sets(st.sampled_from(KEYS), min_size=1))
def test_absent_keys_are_named_exactly(args: dict[str, Any], absent: set[str]) -> None:
    """Any mapping that lacks a tenant key raises, and names the missing ones and no other."""
    with pytest.raises(MissingTenantKeysError) as caught:
        echo.new({key: value for key, value in args.items() if key not in absent})
    assert tuple(key for key in KEYS if key in absent) == caught.value.missing


@given(tenant_args_strategy(json_args()))
def test_any_json_arrives_as_a_round_trip_gives_it(args: dict[str, Any]) -> None:
    """What the body gets is what json.loads(json.dumps(args)) gives."""
    _, arrived = echo.new(spare(args)).result()
    assert json.dumps(json.loads(json.dumps(spare(args)))) == json.dumps(arrived)


@given(tenant_args_strategy(json_args()))
def test_args_of_a_job_can_be_enqueued_again(args: dict[str, Any]) -> None:
    """Freezing twice changes nothing."""
    once = echo.new(spare(args)).args
    assert once == echo.new(once).args


@given(tenant_args_strategy())
def test_a_child_has_its_parent_s_scope(args: dict[str, Any]) -> None:
    """tenant_args of a job's scope rebuilds the same scope."""
    scope, _ = echo.new(args).result()
    child, _ = echo.new(tenant_args(scope)).result()
    assert scope == child


@given(tenant_args_strategy())
def test_the_scope_holds_the_ids_that_were_passed(args: dict[str, Any]) -> None:
    """No id is dropped, swapped or made up."""
    scope, _ = echo.new(args).result()
    members = (scope.active_organization, scope.user, scope.impersonating_from)
    assert tuple(args.get(key) for key in (*KEYS, "impersonating_from")) == tuple(
        member and member.id for member in members
    )


@given(
    tenant_args_strategy(json_args()),
    st.sampled_from((*KEYS, "impersonating_from")),
    st.text(" \t\n\r\x0b\x0c\u2003", max_size=4) | st.booleans() | st.floats() | st.binary(),
)
def test_what_is_no_id_is_never_let_through(args: dict[str, Any], key: str, value: Any) -> None:
    """Blank text, bools, floats and bytes are refused at the key's path."""
    with pytest.raises(InvalidArgsError) as caught:
        echo.new({**args, key: value})
    assert f"$.{key}" == caught.value.path


class Impostor(str):
    """Text that says it is ``organization_id``."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("organization_id")


@pytest.mark.parametrize("honest_before", [False, True])
def test_a_key_is_present_by_its_text_alone(honest_before: bool) -> None:
    """A key that equals a tenant key without being it is refused, after honest jobs too."""
    if honest_before:
        echo.new({"organization_id": "1", "actor_id": "2"})
    with pytest.raises(InvalidArgsError):
        echo.new({Impostor("x"): "1", "actor_id": "2"})
