"""The producer's side of queues: what they are told."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from sigra import InvalidOptionError
from sigra.backends.producing import due_at
from sigra.options import parse_options

LAST = datetime.max.replace(tzinfo=timezone(timedelta(hours=-14)))


@pytest.mark.parametrize(("option", "value"), [("delay", 1e15), ("run_at", LAST)])
def test_a_job_that_no_date_can_be_given_is_refused_by_its_option(option: str, value: Any) -> None:
    """Whoever waits for a year beyond 9999 is told so as for any other bad option."""
    with pytest.raises(InvalidOptionError) as raised:
        due_at(parse_options({option: value}))
    assert option == raised.value.option
