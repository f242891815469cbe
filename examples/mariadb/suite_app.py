"""What the test's consumer loads: the workers of the conformance suite."""

from sigra.testing.contract_workers import record_events

record_events()
