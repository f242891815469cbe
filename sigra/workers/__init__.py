"""The workers that come with Sigra, none of them a tenant's, and the fan-out to all tenants.

A consumer imports this package, as it imports its own workers.
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
