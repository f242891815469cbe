"""Carry Sigra's jobs in a table of MariaDB; ``sigra-mariadb MODULE`` runs them.

``MARIADB`` in the environment names the option file that says how to connect.
"""

import asyncio
import json
import os
import signal
import sys
import time
from contextlib import nullcontext

import pymysql

from sigra.backends.envelope import pack
from sigra.backends.external import consume
from sigra.backends.producing import raise_not_sent

TABLE = """CREATE TABLE IF NOT EXISTS sigra_job (
    id BIGINT AUTO_INCREMENT PRIMARY KEY, worker TEXT NOT NULL, payload LONGTEXT NOT NULL,
    due DOUBLE NOT NULL, deliveries INT NOT NULL DEFAULT 0, error TEXT)"""
INSERT = "INSERT INTO sigra_job (worker, payload, due) VALUES (%s, %s, %s)"
# The lock of a running job belongs to its consumer's connection: it ends with the process.
LOCK = "CONCAT(DATABASE(), '.sigra_job.', id)"
CLAIM = f"""SELECT id, worker, payload, deliveries FROM sigra_job
    WHERE due <= %s AND error IS NULL AND IS_FREE_LOCK({LOCK})
    ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"""
BEGIN = f"UPDATE sigra_job SET deliveries = deliveries + GET_LOCK({LOCK}, 0) WHERE id = %s"
AGAIN = "UPDATE sigra_job SET payload = %s, due = %s, deliveries = 0 WHERE id = %s"


def connect():
    return pymysql.connect(read_default_file=os.environ["MARIADB"])


class MariaDBBackend:
    """Insert jobs into the table; ``conn``: a PyMySQL connection, whose transaction they join."""

    name = "mariadb"
    capabilities = frozenset({"delay", "run_at", "max_attempts", "backoff", "conn", "native"})

    def enqueue(self, jobs):
        given = jobs[0].options.conn
        try:
            with nullcontext(given) if given else connect() as conn, conn.cursor() as cursor:
                for job in jobs:
                    due = job.options.due(time.time())
                    cursor.execute(INSERT, (job.worker, json.dumps(pack(job)), due))
                    job.accept(native_id=str(cursor.lastrowid))
                if given is None:
                    conn.commit()
        except Exception as error:
            raise_not_sent(self.name, error)

    async def aenqueue(self, jobs):
        await asyncio.to_thread(self.enqueue, jobs)


def settle(cursor, id, worker, payload, begun):
    """Run a job and put what came of it into the table."""
    consumed = consume(json.loads(payload), worker, "mariadb", native_id=str(id), deliveries=begun)
    verdict = consumed.verdict
    if verdict.state == "completed":
        cursor.execute("DELETE FROM sigra_job WHERE id = %s", (id,))
    elif verdict.state in ("cancelled", "discarded"):  # kept as a dead job
        cursor.execute("UPDATE sigra_job SET error = %s WHERE id = %s", (str(verdict.error), id))
    else:
        following = json.dumps(consumed.following())
        cursor.execute(AGAIN, (following, time.time() + verdict.delay, id))


def main():
    """Run jobs until SIGTERM, which lets the running one finish."""
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    __import__(sys.argv[1])
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(TABLE)
        print("waiting for jobs", flush=True)
        while not stopped:
            cursor.execute(CLAIM, (time.time(),))
            if job := cursor.fetchone():
                cursor.execute(BEGIN, (job[0],))
                conn.commit()
                settle(cursor, *job)
                cursor.execute("DO RELEASE_ALL_LOCKS()")
            conn.commit()
            time.sleep(0 if job else 0.1)
