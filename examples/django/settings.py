"""What a project's settings need for jobs: a database, django-tasks-db, and ``TASKS``."""

import os
from pathlib import Path
from urllib.parse import urlsplit

_file = {"ENGINE": "django.db.backends.sqlite3", "NAME": Path(__file__).parent / "db.sqlite3"}
_url = urlsplit(os.environ.get("DATABASE", ""))
_server = {
    "ENGINE": "django.db.backends.postgresql",
    "NAME": _url.path[1:],
    "HOST": _url.hostname,
    "PORT": _url.port or 5432,
    "USER": _url.username or "",
    "PASSWORD": _url.password or "",
}

DATABASES = {"default": _server if _url.scheme else _file}
INSTALLED_APPS = ["django_tasks_db", "invoices"]
USE_TZ, TIME_ZONE = True, "UTC"
SECRET_KEY = "an example's"
TASKS = {
    "default": {
        "BACKEND": "django_tasks_db.DatabaseBackend",
        "OPTIONS": {"sigra_rescue_after": 300},  # more seconds than the longest job takes
    }
}
