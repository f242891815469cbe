"""Carry Sigra's jobs in a table of MariaDB; ``sigra-mariadb MODULE`` runs them.

``MARIADB`` in the environment names the option file that says how to connect.
"""

import asyncio
import json
import os
import signal
import sys
from contextlib import nullcontext
from time import sleep, time

import pymysql

from sigra.backends.envelope import pack
from sigra.backends.external import consume
from sigra.backends.producing import able_to, error_text, sending

# error: of the last attempt. A job that ended for good stays in the table, and is never due.
TABLE = """CREATE TABLE IF NOT EXISTS sigra_job (id SERIAL, worker TEXT NOT NULL,
    payload LONGTEXT NOT NULL, due DOUBLE, deliveries INT NOT NULL DEFAULT 0, error TEXT)"""
INSERT = "INSERT INTO sigra_job (worker, payload, due) VALUES (%s, %s, %s)"
# The lock of a running job belongs to its consumer's connection: it ends with the process.
LOCK = "CONCAT(DATABASE(), '.sigra_job.', id)"
CLAIM = f"""SELECT id, worker, payload, deliveries FROM sigra_job
    WHERE due <= %s AND IS_FREE_LOCK({LOCK}) ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"""
BEGIN = f"UPDATE sigra_job SET deliveries = deliveries + GET_LOCK({LOCK}, 0) WHERE id = %s"
SETTLE = "UPDATE sigra_job SET payload = %s, due = %s, error = %s, deliveries = 0 WHERE id = %s"


def connect():
    return pymysql.connect(read_default_file=os.environ["MARIADB"])


class MariaDBBackend:
    """Insert jobs into the table; ``conn``: a PyMySQL connection, whose transaction they join."""

    name = "mariadb"
    capabilities = able_to("conn", "at_least_once")

    def enqueue(self, jobs):
        given = jobs[0].options.conn
        with sending(self.name), nullcontext(given) if given else connect() as conn:
            cursor = conn.cursor()
            for job in jobs:
                cursor.execute(INSERT, (job.worker, json.dumps(pack(job)), job.options.due(time())))
                job.accept(native_id=str(cursor.lastrowid))
            if given is None:
                conn.commit()

    async def aenqueue(self, jobs):
        await asyncio.to_thread(self.enqueue, jobs)


def settle(cursor, id, worker, payload, begun):
    """Run a job and put what came of it into the table."""
    consumed = consume(json.loads(payload), worker, "mariadb", native_id=str(id), deliveries=begun)
    verdict = consumed.verdict
    if verdict.state == "completed":
        cursor.execute("DELETE FROM sigra_job WHERE id = %s", (id,))
    else:
        due = time() + verdict.delay if verdict.state in ("retryable", "scheduled") else None
        error = None if verdict.error is None else error_text(verdict.error)[:10_000]
        cursor.execute(SETTLE, (json.dumps(consumed.following()), due, error, id))


def main():
    """Run jobs until SIGTERM, which lets the running one finish."""
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    __import__(sys.argv[1])
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(TABLE)
        print("waiting for jobs", flush=True)
        while not stopped:
            cursor.execute(CLAIM, (time(),))
            if job := cursor.fetchone():
                cursor.execute(BEGIN, job[:1])
                conn.commit()
                settle(cursor, *job)
                cursor.execute("DO RELEASE_ALL_LOCKS()")
            conn.commit()
            sleep(0 if job else 0.1)
