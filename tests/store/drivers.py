"""The databases of the tests, by any driver."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import create_async_engine

by_every_driver = pytest.mark.parametrize("driver", [
    "sqlite", "sqlite+aiosqlite",
    pytest.param("postgresql+psycopg", marks=pytest.mark.servers),
    pytest.param("postgresql+psycopg_async", marks=pytest.mark.servers),
    pytest.param("postgresql+asyncpg", marks=pytest.mark.servers),
])  # fmt: skip
by_an_asynchronous_driver = pytest.mark.parametrize(
    "driver",
    ["sqlite+aiosqlite", pytest.param("postgresql+asyncpg", marks=pytest.mark.servers)],
)


def driven_by(driver: str, url: str) -> Any:
    """Return what opens a database by another driver: a URL, or an engine of asyncpg's."""
    found = make_url(url).set(drivername=driver)
    if not driver.endswith("asyncpg"):
        return found
    # It takes no options of libpq's.
    schema = str(found.query["options"]).partition("search_path=")[2].split()[0]
    settings = {"server_settings": {"search_path": schema}}
    return create_async_engine(found.set(query={}), connect_args=settings)
