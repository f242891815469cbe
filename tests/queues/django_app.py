"""The settings of test_django's consumer, ``django-admin db_worker``, and its application."""

from __future__ import annotations

import json
import os
import time

from django.apps import AppConfig

DATABASES = json.loads(os.environ["SIGRA_TEST_DJANGO"])
DATABASE_ROUTERS = ["django_app.Router"]
INSTALLED_APPS = ["django_tasks_db", "django_app.App"]
USE_TZ = True
TASKS = {
    "default": {
        "BACKEND": "django_tasks_db.DatabaseBackend",
        "QUEUES": ["default", "other"],
        "OPTIONS": {"sigra_rescue_after": 4},
    },
    "here": {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend"},
}


class Router:
    """Put everything into the one database that is being tested."""

    def db_for_read(self, model, **_):
        return os.environ["SIGRA_TEST_DATABASE"]

    db_for_write = db_for_read


class App(AppConfig):
    name = "django_app"

    def ready(self):
        from sigra import AuditEvent, log_safe, tenant_worker
        from sigra.testing import contract_workers

        if os.environ.get("SIGRA_CONSUMER"):
            contract_workers.record_events()

        def slow(scope, n):
            log_safe("test.begun", scope, target_id=n)
            time.sleep(0.02)
            log_safe("test.ended", scope, target_id=n)

        slow.__qualname__ = "slow"
        self.slow = tenant_worker(name="sigra.tests.django.slow", audit_schema=AuditEvent)(slow)
