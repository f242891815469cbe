"""Jobs go to Django's tasks, in the web process and in the consumer alike."""

from django.apps import AppConfig

from sigra import AuditEvent, configure


class InvoicesConfig(AppConfig):
    name = "invoices"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from sigra.backends.django import DjangoBackend

        configure(backend=DjangoBackend(), audit_schema=AuditEvent)
