"""The settings of test_django's consumer: ``django-admin db_worker --settings django_app``."""

from __future__ import annotations

from urllib.parse import urlsplit

import consumer_side


def database(where):
    """Return Django's settings of a database: a PostgreSQL URL, or an SQLite file."""
    if "//" not in where:
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": f"{where}/db.sqlite3",
            "OPTIONS": {"timeout": 20},
        }
    parts = urlsplit(where)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path[1:],
        "HOST": parts.hostname,
        "PORT": parts.port or 5432,
        "USER": parts.username or "",
        "PASSWORD": parts.password or "",
    }


DATABASES = {"default": database(consumer_side.URL)}
INSTALLED_APPS = ["django_tasks_db"]
USE_TZ = True
TASKS = {
    "default": {
        "BACKEND": "django_tasks_db.DatabaseBackend",
        "QUEUES": ["default", "other"],
        "OPTIONS": {"sigra_rescue_after": 6},
    },
    "patient": {
        "BACKEND": "django_tasks_db.DatabaseBackend",
        "QUEUES": ["default", "other"],
        "OPTIONS": {"sigra_rescue_after": 3600},
    },
    "any": {"BACKEND": "django_tasks_db.DatabaseBackend", "QUEUES": []},
    "here": {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend"},
}
