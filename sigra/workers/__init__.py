"""The workers that come along, for jobs of no tenant, and the fan-out to all of them.

A consumer imports this package to know the three workers, as it imports its own.
"""

from sigra.workers.audit_cleanup import AuditCleanup
from sigra.workers.email_delivery import EmailDelivery
from sigra.workers.fan_out import afor_each_organization, for_each_organization
from sigra.workers.settings import EmailSettings, NotConfiguredError, TokenTable, set_up
from sigra.workers.token_cleanup import TokenCleanup

__all__ = [
    "AuditCleanup",
    "EmailDelivery",
    "EmailSettings",
    "NotConfiguredError",
    "TokenCleanup",
    "TokenTable",
    "afor_each_organization",
    "for_each_organization",
    "set_up",
]
