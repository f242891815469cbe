"""The backend passes the suite that Sigra ships, in a consumer process, on a real MariaDB."""

import asyncio
import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from sigra.testing import ConsumerContract
from sigra.testing.harness import Journal

SERVER = os.environ.get("SIGRA_MARIADB", "mysql://root@127.0.0.1:3306/")
pymysql = pytest.importorskip("pymysql", reason="examples/mariadb is not installed here")

from sigra_mariadb import INSERT, TABLE, MariaDBBackend, connect  # noqa: E402


class Harness:
    patience, concurrency = 120.0, 1

    def __init__(self, log):
        self.log = log
        self.backend = MariaDBBackend()
        self.consumer = None
        self.sql(TABLE)

    def sql(self, query, *args):
        """Run a query of the test's own; return its id, or the rows."""
        with connect() as conn, conn.cursor() as cursor:
            cursor.execute(query, args)
            conn.commit()
            return cursor.lastrowid or cursor.fetchall()

    @property
    def output(self):
        return self.log.read_text()

    def advance(self):
        time.sleep(0.02)

    def send(self, name, payload):
        return str(self.sql(INSERT, name, json.dumps(payload), 0))

    @property
    def alive(self):
        return self.consumer.poll() is None

    def start(self):
        with self.log.open("wb") as log:
            self.consumer = subprocess.Popen(
                [Path(sys.executable).with_name("sigra-mariadb"), "suite_app"],
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        while b"waiting for jobs" not in self.log.read_bytes():
            assert self.alive
            time.sleep(0.05)

    def stop(self):
        self.consumer.terminate()
        assert self.consumer.wait(120) == 0

    def kill(self):
        self.consumer.kill()
        self.consumer.wait()

    def failed(self, native_id):
        rows = self.sql("SELECT error FROM sigra_job WHERE due IS NULL AND id = %s", native_id)
        return rows[0][0] if rows else None

    def kept(self, native_id):
        return bool(self.sql("SELECT 1 FROM sigra_job WHERE id = %s", native_id))

    def transact(self, worker, args, *, commit, awaited):
        with connect() as conn:
            new = worker.anew if awaited else worker.new
            job = new(args, conn=conn)
            job = asyncio.run(job) if awaited else job
            if commit:
                conn.commit()
        return job


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """Make a database of this run's own, and drop it."""
    name, url = f"sigra_{uuid.uuid4().hex[:12]}", urlsplit(SERVER)
    options = {"host": url.hostname, "port": url.port or 3306, "user": url.username}
    options["password"] = url.password or ""
    try:
        server = pymysql.connect(**options)
    except pymysql.OperationalError as error:
        pytest.skip(f"no MariaDB at {SERVER} ({error}); set SIGRA_MARIADB to one")
    file = tmp_path_factory.mktemp("database") / "my.cnf"
    lines = [f"{option} = {value}" for option, value in {**options, "database": name}.items()]
    file.write_text("\n".join(["[client]", *lines]))
    os.environ["MARIADB"] = str(file)
    with server, server.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
        yield
        cursor.execute(f"DROP DATABASE {name}")
    del os.environ["MARIADB"]


@pytest.fixture(scope="module")
def journal(tmp_path_factory):
    return Journal(tmp_path_factory.mktemp("journal"))


@pytest.fixture(scope="module")
def started(database, journal, tmp_path_factory):
    harness = Harness(tmp_path_factory.mktemp("consumer") / "log")
    harness.start()
    yield harness
    harness.kill()


@pytest.fixture
def harness(started):
    if not started.alive:
        started.start()
    return started


class TestMariaDB(ConsumerContract):
    pass


def test_it_is_found_by_name():
    from sigra.registry import resolve_backend

    assert type(resolve_backend("mariadb")) is MariaDBBackend
