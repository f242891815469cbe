"""Errors of the store: as those of the core, with facts that survive a pickle."""

from __future__ import annotations

import copy
import pickle

import pytest
from sqlalchemy.exc import DBAPIError, InternalError, ProgrammingError

from sigra.errors import SigraError
from sigra.store import errors
from sigra.store.access import naming_altered
from sigra.store.failure import is_of_the_data

CASES = [
    errors.InvalidQueryError("limit", "it must be an int"),
    errors.AuditBacklogError(10_000, 5.0),
    errors.AuditLostError(3),
    errors.AuditNotKeptError("01a2", taken=True),
    errors.AsyncConnectionError("AsyncConnection"),
    errors.AutocommitError(),
    errors.AuditSinkClosedError(),
    errors.AuditTablesError("are of no version"),
    errors.AuditTablesMissingError("are not all there"),
    errors.AuditChainError("org:acme", "took the row and did not keep it"),
    errors.AuditChainError.odd(b"\xff", 7),
    errors.CheckpointOrderError("checkpoints.jsonl"),
]


def test_every_error_of_the_store_is_tried_here() -> None:
    """No class escapes these tests."""
    named = {value for value in vars(errors).values() if isinstance(value, type)}
    assert named - {SigraError} == {type(case) for case in CASES}


@pytest.mark.parametrize("error", CASES, ids=lambda error: type(error).__name__)
def test_it_is_the_same_in_another_process(error: SigraError) -> None:
    """Type, text and facts survive a pickle and a copy."""
    kept = (type(error), str(error), error.args, vars(error))
    for protocol in (0, 2, pickle.HIGHEST_PROTOCOL):
        revived = pickle.loads(pickle.dumps(error, protocol))
        assert kept == (type(revived), str(revived), revived.args, vars(revived))
    for copied in (copy.copy(error), copy.deepcopy(error)):
        assert kept == (type(copied), str(copied), copied.args, vars(copied))


class OfPsycopg2(Exception):
    """An error as psycopg2 raises it, which has PostgreSQL's code under a name of its own."""

    def __init__(self, pgcode: str) -> None:
        super().__init__("as PostgreSQL says it")
        self.pgcode = pgcode


@pytest.mark.parametrize(
    ("kind", "code", "refused", "altered"),
    [
        (InternalError, "P0001", True, False),
        (ProgrammingError, "42P01", False, True),
        (ProgrammingError, errors.DENIED, False, False),
    ],
)
def test_psycopg2s_errors_are_told_apart_by_postgresqls_codes(
    kind: type[DBAPIError], code: str, refused: bool, altered: bool
) -> None:
    """A trigger's no keeps no batch from the store, and a table that is gone loses no event."""
    error = kind("INSERT", {}, OfPsycopg2(code))
    assert is_of_the_data(error) == refused
    with (
        pytest.raises(errors.AuditTablesError if altered else kind) as caught,
        naming_altered(),
    ):
        raise error
    assert code == errors.code_of(caught.value.__cause__ or caught.value)
