"""Carry Sigra's jobs in a table of MariaDB; ``python -m sigra_mariadb MODULE`` runs them.

``MARIADB`` in the environment names the database: ``mysql://user:password@host:port/name``.
"""

import asyncio
import importlib
import json
import os
import signal
import sys
import time
from urllib.parse import urlsplit

import pymysql

from sigra.backends.envelope import pack
from sigra.backends.external import consume
from sigra.backends.producing import raise_not_sent

TABLE = """CREATE TABLE IF NOT EXISTS sigra_job (
    id BIGINT AUTO_INCREMENT PRIMARY KEY, worker TEXT NOT NULL, payload LONGTEXT NOT NULL,
    due DOUBLE NOT NULL DEFAULT 0, deliveries INT NOT NULL DEFAULT 0, error TEXT)"""
INSERT = "INSERT INTO sigra_job (worker, payload, due) VALUES (%s, %s, %s)"
# The lock of a running job belongs to its consumer's connection: it ends with the process.
LOCK = "CONCAT(DATABASE(), '.sigra_job.', id)"
CLAIM = f"""SELECT id, worker, payload, deliveries FROM sigra_job
    WHERE due <= %s AND error IS NULL AND IS_FREE_LOCK({LOCK})
    ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"""
BEGIN = f"UPDATE sigra_job SET deliveries = deliveries + GET_LOCK({LOCK}, 0) WHERE id = %s"
AGAIN = "UPDATE sigra_job SET payload = %s, due = %s, deliveries = 0 WHERE id = %s"


def connect(url=None):
    """Connect to the database of the URL, by default that of the environment."""
    url = urlsplit(url or os.environ["MARIADB"])
    return pymysql.connect(
        host=url.hostname,
        port=url.port or 3306,
        user=url.username,
        password=url.password or "",
        database=url.path.strip("/"),
        connect_timeout=5,
        init_command="SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    )


class MariaDBBackend:
    """Insert jobs into the table; ``conn``: a PyMySQL connection, whose transaction they join."""

    name = "mariadb"
    capabilities = frozenset({"delay", "run_at", "max_attempts", "backoff", "conn", "native"})

    def __init__(self, url=None):
        self.url = url

    def enqueue(self, jobs):
        conn = jobs[0].options.conn
        try:
            if conn is not None:
                self._insert(conn, jobs)
                return
            with connect(self.url) as own:
                self._insert(own, jobs)
                own.commit()
        except Exception as error:
            raise_not_sent(self.name, error, jobs)

    async def aenqueue(self, jobs):
        await asyncio.to_thread(self.enqueue, jobs)

    def _insert(self, conn, jobs):
        with conn.cursor() as cursor:
            for job in jobs:
                due = job.options.due(time.time())
                cursor.execute(INSERT, (job.worker, json.dumps(pack(job)), due))
                job.accept(native_id=str(cursor.lastrowid))


def run_one(conn):
    """Run the next job that is due; return whether there was one."""
    with conn.cursor() as cursor:
        cursor.execute(CLAIM, (time.time(),))
        found = cursor.fetchone()
        if found:
            cursor.execute(BEGIN, (found[0],))
        conn.commit()
        if found:
            settle(cursor, *found)
            cursor.execute("DO RELEASE_ALL_LOCKS()")
            conn.commit()
    return bool(found)


def settle(cursor, id, worker, payload, deliveries):
    """Run a job and put what came of it into the table."""
    payload, name = json.loads(payload), MariaDBBackend.name
    consumed = consume(payload, worker, name, native_id=str(id), deliveries=deliveries)
    verdict = consumed.verdict
    if verdict.state in ("retryable", "scheduled"):
        again = json.dumps(consumed.following()), time.time() + verdict.delay, id
        cursor.execute(AGAIN, again)
    elif verdict.state == "completed":
        cursor.execute("DELETE FROM sigra_job WHERE id = %s", (id,))
    else:  # cancelled or discarded: kept as a dead job
        cursor.execute("UPDATE sigra_job SET error = %s WHERE id = %s", (str(verdict.error), id))


def main():
    """Run jobs until SIGTERM, which lets the running one finish."""
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    sys.path.insert(0, os.getcwd())
    importlib.import_module(sys.argv[1])
    with connect() as conn:
        conn.cursor().execute(TABLE)
        print("waiting for jobs", flush=True)
        while not stopped:
            if not run_one(conn):
                time.sleep(0.1)


if __name__ == "__main__":
    main()
