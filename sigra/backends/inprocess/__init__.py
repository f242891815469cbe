"""What the backends of this process share: tickets, the agenda of what is due, and pools."""

from __future__ import annotations

from sigra.backend import Capability

CAPABILITIES: frozenset[Capability] = frozenset(
    {"queue", "priority", "delay", "run_at", "max_attempts", "backoff", "unique", "result"}
)
"""Every option but ``conn``, and what became of each job."""
