"""What tests against real queues share: see consumer.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sigra.testing.harness import Journal

# So that test files say ``from consumer import Consumer``, as consumers find their app module.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Journal:
    """Return one journal for a module, since its consumer is started once."""
    return Journal(tmp_path_factory.mktemp("journal"))
