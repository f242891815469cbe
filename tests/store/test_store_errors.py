"""Errors of the store: as those of the core, with facts that survive a pickle."""

from __future__ import annotations

import copy
import pickle

import pytest

from sigra.errors import SigraError
from sigra.store import errors

CASES = [
    errors.InvalidQueryError("limit", "it must be an int"),
    errors.AuditBacklogError(10_000, 5.0),
    errors.AuditLostError(3),
    errors.AuditNotKeptError("01a2", taken=True),
    errors.AsyncConnectionError("AsyncConnection"),
    errors.AutocommitError(),
    errors.AuditSinkClosedError(),
    errors.AuditTablesError("are of no version"),
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
