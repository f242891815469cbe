"""The page shows what the store holds, escapes everything, and answers nobody else."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from servers import holding, own_database
from sqlalchemy import Engine, make_url
from sqlalchemy.event import listen, remove

from sigra import AuditEvent, configure
from sigra.audit import log
from sigra.store import SqlAuditSink
from sigra.store.reading import event_filter
from sigra.web import make_app
from sigra.web.guard import Guard, cookie_of
from sigra.web.plot import draw
from sigra.web.reading import activity

pytestmark = pytest.mark.servers

TOKEN = "a-token-for-the-tests"
NAME, COOKIE = cookie_of(TOKEN)


@pytest.fixture(scope="module")
def base(sink: SqlAuditSink) -> Iterator[str]:
    """Serve the page in a thread, and return its address."""
    config = uvicorn.Config(make_app(sink, token=TOKEN), "127.0.0.1", 0, log_level="warning")
    server, bound = uvicorn.Server(config), config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    bound.close()


@pytest.fixture
def stranger(base: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=base, trust_env=False, timeout=60) as client:
        yield client


@pytest.fixture
def client(stranger: httpx.Client) -> httpx.Client:
    """Come with the token, once."""
    assert 303 == stranger.get("/", params={"token": TOKEN}).status_code
    return stranger


def rows(text: str) -> list[list[str]]:
    """Return the texts of the cells of a page's table."""
    body = text.partition("<tbody>")[2].partition("</tbody>")[0]
    cells = [re.findall(r"<td.*?>(.*?)</td>", row, re.DOTALL) for row in body.split("</tr>")[:-1]]
    return [[unescape(re.sub(r"<[^>]*>", "", cell)).strip() for cell in row] for row in cells]


@pytest.mark.parametrize("path", ["/", "/chains", "/verify", "/event/x", "/static/style.css"])
@pytest.mark.parametrize("cookie", [None, "", "wrong", TOKEN, COOKIE[:-1], COOKIE + "x", "%C3%BF"])
def test_without_the_token_nothing_is_shown(
    stranger: httpx.Client, path: str, cookie: str | None
) -> None:
    """Neither page nor style, and no hint at what there is."""
    cookies = {} if cookie is None else {"cookie": f"{NAME}={cookie}"}
    answer = stranger.get(path, headers=cookies)
    assert 401 == answer.status_code
    assert "invoice" not in answer.text


def test_the_token_becomes_a_cookie_and_leaves_the_address(
    stranger: httpx.Client, base: str
) -> None:
    """No script, no other site and no history has it."""
    answer = stranger.get("/", params={"token": TOKEN, "actor": "ann"})
    assert (303, f"{base}/?actor=ann") == (
        answer.status_code,
        answer.headers["location"],
    )
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


@pytest.mark.parametrize("blank", ["", " "])
def test_a_page_with_a_blank_token_is_none(sink: SqlAuditSink, blank: str) -> None:
    """An unset variable of the environment does not let everybody in."""
    with pytest.raises(ValueError, match="blank"):
        make_app(sink, token=blank)


def test_another_port_of_the_machine_is_not_sent_the_token(client: httpx.Client) -> None:
    """It is sent the cookie, of which no address can be made that opens the page."""
    sent = client.build_request("GET", "http://127.0.0.1:1/").headers["cookie"]
    assert TOKEN not in sent
    with httpx.Client(base_url=client.base_url, trust_env=False, timeout=60) as other:
        assert 401 == other.get("/", params={"token": sent.partition("=")[2]}).status_code


def test_two_pages_of_one_machine_do_not_log_each_other_out(sink: SqlAuditSink) -> None:
    """A browser sends one cookie jar to all ports of a machine."""
    transports = {
        f"http://127.0.0.1:{port}": httpx.ASGITransport(make_app(sink, token=f"{TOKEN}-{port}"))
        for port in (1, 2)
    }

    async def look() -> list[int]:
        async with httpx.AsyncClient(mounts=transports) as browser:
            for port in (1, 2):
                await browser.get(f"http://127.0.0.1:{port}/?token={TOKEN}-{port}")
            return [(await browser.get(f"{base}/chains")).status_code for base in transports]

    assert [200, 200] == asyncio.run(look())


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8765",
        "127.0.0.1.evil.example",
        "127.0.0.1:80@evil.example",
        "127.0.0.1:80@evil.example:80",
        "127.0.0.1:80:80",
        "user@127.0.0.1",
        "::1",
        "",
    ],
)
def test_another_name_for_this_machine_is_refused(client: httpx.Client, host: str) -> None:
    """A stranger's page cannot make its own name point here."""
    assert 421 == client.get("/", headers={"host": host}).status_code


@pytest.mark.parametrize("host", ["127.0.0.1:", "LocalHost:1", "[::1]", "[::1]:8765"])
def test_this_machine_s_own_names_are_served(client: httpx.Client, host: str) -> None:
    """With any port or none: a tunnel has another than the page."""
    assert 200 == client.get("/", headers={"host": host}).status_code


def test_a_name_of_ones_own_is_served_however_it_is_written() -> None:
    """Hosts are compared without regard to case: a browser sends them in lower case."""
    given = [(b"host", b"audit.example"), (b"cookie", "=".join(cookie_of(TOKEN)).encode())]
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": given}
    served = list[Any]()

    async def page(*_: Any) -> None:
        served.append(scope)

    asyncio.run(Guard(page, TOKEN, ["Audit.Example"])(scope, page, page))
    assert [scope] == served


def test_two_names_at_once_are_refused() -> None:
    """What stands before the page may go by the other one."""
    both = [(b"host", b"127.0.0.1"), (b"host", b"evil.example")]
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": both}
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def page(*_: Any) -> None:
        raise AssertionError("it was served")

    asyncio.run(Guard(page, TOKEN)(scope, page, send))
    assert 421 == sent[0]["status"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_the_page_is_read_only(client: httpx.Client, method: str) -> None:
    """There is no request that changes anything."""
    assert 405 == client.request(method, "/").status_code


def test_nothing_from_elsewhere_is_allowed(client: httpx.Client) -> None:
    """No script at all, and styles from here alone."""
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'self'")
    assert ("no-store", "nosniff") == (
        answer.headers["cache-control"],
        answer.headers["x-content-type-options"],
    )
    assert "<script" not in answer.text
    assert "http://" not in answer.text


def test_the_newest_events_come_first_and_older_ones_by_pages(
    client: httpx.Client, sink: SqlAuditSink
) -> None:
    """Every event is on one page, and on one only."""
    expected = [event.event_id for event in sink.stream(event_filter(all_organizations=True))]
    seen: list[str] = []
    address: str | None = "/"
    while address is not None:
        text = client.get(address).text
        seen += re.findall(r'href="/event/([^"]+)"', text)
        older = re.search(r'rel="next" href="([^"]+)"', text)
        address = unescape(older[1]) if older else None
    assert expected == seen


@pytest.mark.parametrize(
    ("filters", "number"),
    [
        ({"organization": "acme", "outcome": "failure"}, 8),
        ({"without": "1"}, 40),
        ({"actor": "user-1", "organization": "globex"}, 6),
        ({"action": "user.impersonate"}, 1),
        ({"organization": "nobody"}, 0),
        ({"until": "2001-01-01T00:00"}, 0),
        ({"since": "2001-01-01T00:00", "action": "hostile.text"}, 9),
    ],
)
def test_filters_narrow(client: httpx.Client, filters: dict[str, str], number: int) -> None:
    """By organization, actor, action, outcome and time."""
    found = [row for row in rows(client.get("/", params=filters).text) if len(row) == 6]
    assert number == len(found)


@pytest.mark.parametrize(
    ("filters", "problem"),
    [
        ({"since": "yesterday"}, "it must be a date and time"),
        ({"outcome": "maybe"}, "it must be 'success', 'failure' or 'error'"),
        ({"cursor": "<script>"}, "cursor"),
    ],
)
def test_a_bad_filter_is_explained(
    client: httpx.Client, filters: dict[str, str], problem: str
) -> None:
    """The form stays as it was filled in, and says what is wrong."""
    answer = client.get("/", params=filters)
    assert 400 == answer.status_code
    assert problem in unescape(answer.text)
    assert "<script>" not in answer.text


async def front_page(sink: SqlAuditSink) -> str:
    transport = httpx.ASGITransport(make_app(sink, token=TOKEN))
    async with httpx.AsyncClient(transport=transport, follow_redirects=True) as browser:
        return (await browser.get(f"http://127.0.0.1/?token={TOKEN}")).text


def test_impersonation_is_shown_plainly(client: httpx.Client) -> None:
    """Ann acted, as Bob; a system job has no person."""
    (row,) = rows(client.get("/", params={"action": "user.impersonate"}).text)
    assert "ann as bob" == row[2]
    assert "system" == rows(client.get("/", params={"without": "1"}).text)[0][2]


def test_no_id_passes_for_an_impersonation(tmp_path: Path) -> None:
    """Whoever is called "ann as bob" is not shown in the way of Ann who acted as Bob."""
    sink = SqlAuditSink(f"sqlite:///{tmp_path / 'audit.db'}")
    with configure(sinks=[sink], audit_schema=AuditEvent):
        log("invoice.close", None, actor_id="ann as bob", organization_id="acme")
    text = asyncio.run(front_page(sink))
    sink.close()
    assert "<bdi>ann as bob</bdi>" in text
    assert 'class="as"' not in text


def test_one_event_is_shown_in_full(client: httpx.Client, sink: SqlAuditSink) -> None:
    """Every field, and its place in the chain."""
    which = event_filter(organization_id="acme", outcome="failure")
    event = sink.query(which, None, 1).events[0]
    text = unescape(client.get(f"/event/{event.event_id}").text)
    for name in ("event_id", "actor_id", "target_id", "organization_id"):
        assert str(getattr(event, name)) in text
    assert '"price": 1.5' in text
    assert "in the chain of its organization" in text


def test_an_event_that_is_not_there_is_said_so(client: httpx.Client) -> None:
    """With the id, escaped, whatever is in it."""
    for given in ("<script>", "a/b<script>"):
        answer = client.get(f"/event/{given}")
        assert (404, True) == (answer.status_code, "No event has the id" in answer.text)
        assert "<script>" not in answer.text


def test_hostile_text_is_only_text(client: httpx.Client, sink: SqlAuditSink, hostile: str) -> None:
    """In every field, on every page and in the form: no element, no hidden character."""
    (event,) = sink.query(event_filter(organization_id=hostile), None, 50).events
    for address, params in (
        ("/", {"organization": hostile, "actor": hostile}),
        (f"/event/{event.event_id}", {}),
        ("/verify", {"organization": hostile}),
        ("/chains", {}),
    ):
        answer = client.get(address, params=params)
        assert 200 == answer.status_code
        shown = re.sub(r'value="[^"]*"', "", answer.text)
        for sign in ("<script>", "<img", "<iframe", "\u202e", "\x1b", "\u2028", "jinja"):
            assert sign not in shown
        for sign in "\u3164\u034f\ufe0f\U000e0100":
            assert sign not in shown


def test_chains_are_listed_and_verified(client: httpx.Client) -> None:
    """Each organization has one; the verdict says what it is worth."""
    lines = rows(client.get("/chains").text)
    assert 3 + 9 == len(lines)
    assert {"acme", "globex", "none"} <= {line[0] for line in lines}
    text = unescape(client.get("/verify", params={"organization": "acme"}).text)
    assert 'badge intact">intact' in text
    assert "41 in 1 chain<" in text
    assert "none: whoever can change the whole database can hide it" in text
    assert "empty" in client.get("/verify", params={"organization": "nobody"}).text


def test_chains_are_listed_by_pages(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every organization is on one page, and on one only."""
    expected, seen = rows(client.get("/chains").text), list[list[str]]()
    monkeypatch.setattr("sigra.web.app.CHAINS", 4)
    address, pages = "/chains", 0
    while address:
        pages += 1
        text = client.get(address).text
        seen += rows(text)
        more = re.search(r'rel="next" href="([^"]+)"', text)
        address = unescape(more[1]) if more and pages < 9 else ""
    assert (expected, 3) == (seen, pages)


def test_a_chain_is_listed_with_the_hash_of_its_last_entry(
    client: httpx.Client, sink: SqlAuditSink
) -> None:
    """The whole of it: a hash begins with the entry's sequence, which stands beside it."""
    listed = next(line for line in rows(client.get("/chains").text) if line[0] == "globex")
    events = sink.query(event_filter(organization_id="globex"), None, 50).events
    pages = [client.get(f"/event/{each.event_id}").text for each in events]
    (last,) = [page for page in pages if f">{listed[1]} in the chain" in page]
    assert 64 == len(listed[2])
    assert listed[2] in last


def test_the_plot_counts_what_the_filter_shows(client: httpx.Client) -> None:
    """Its bars add up to the number of events."""
    text = client.get("/", params={"organization": "globex"}).text
    titles = re.findall(r"<title>.*?: (\d+) (\w+)</title>", text)
    assert 40 == sum(int(number) for number, _ in titles)
    assert {"success", "failure", "error"} == {outcome for _, outcome in titles}


def test_an_event_of_the_future_flattens_no_bar(tmp_path: Path) -> None:
    """The plot counts what lies between its ends, and an hour that is to come does not."""
    sink = SqlAuditSink(f"sqlite:///{tmp_path / 'audit.db'}")
    with configure(sinks=[sink], audit_schema=AuditEvent):
        now = datetime.now(timezone.utc)
        for days in (400, 400, -1):
            log("invoice.close", None, occurred_at=now + timedelta(days=days))
    text = asyncio.run(front_page(sink))
    sink.close()
    assert "1 event, at most 1 a bar" in text
    assert all(float(x) < 720 for x in re.findall(r' x="([\d.]+)"', text))


@pytest.mark.parametrize(
    ("hours", "each"), [(1, "one minute"), (3, "5 minutes"), (48, "one hour"), (99, "4 hours")]
)
def test_the_plot_says_how_long_a_bar_is(hours: int, each: str) -> None:
    """In words that fit one and several."""
    first = datetime(2026, 11, 25, tzinfo=timezone.utc)
    assert each == draw({}, first, first + timedelta(hours=hours)).each


@pytest.mark.parametrize(
    "path",
    [
        "/?since=0001-01-01",
        "/?until=0001-01-05T00:00",
        "/?since=0001-01-01&until=9999-12-31T23:59",
        "/?since=9999-12-31T23:59",
        "/?since=2026-12-01&until=2026-01-01",
        "/?since=2026-11-26T12:00:00&until=2026-11-26T11:59:30",
        "/verify?organization=%20",
        "/event/%00",
        "/chains?after=x",
        "/chains?after=99999999999999999999",
        "/?cursor=WyJcdTAwMDAiLCAxLCAxXQ",
    ],
)
def test_odd_requests_are_answered(client: httpx.Client, path: str) -> None:
    """The ends of the calendar, blanks and characters that no database holds break no page."""
    assert client.get(path).status_code in (200, 400, 404)


def look(folder: Path, change: str, *paths: str) -> list[httpx.Response]:
    """Make a store of two events, change it, and ask for pages; ``{id}`` is the first event's."""
    sink = SqlAuditSink(f"sqlite:///{folder}/audit.db")
    with configure(sinks=[sink], audit_schema=AuditEvent):
        first = log("invoice.close", None, organization_id="acme", actor_id="ann").event
        log("invoice.close", None, organization_id="acme", actor_id="ann")
    with closing(sqlite3.connect(folder / "audit.db")) as connection, connection:
        connection.execute(change)
    assert first is not None
    answers = pages(sink, *(path.format(id=first.event_id) for path in paths))
    sink.close()
    return answers


def pages(sink: SqlAuditSink, *paths: str) -> list[httpx.Response]:
    """Ask for pages of a store as it is."""
    transport = httpx.ASGITransport(make_app(sink, token=TOKEN))
    base, cookies = "http://127.0.0.1", {NAME: COOKIE}

    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=transport, base_url=base, cookies=cookies) as inside:
            return [await inside.get(path) for path in paths]

    return asyncio.run(ask())


NO_TEXT = "CAST(x'3cff1b' AS TEXT)"


@pytest.mark.parametrize("value", ["x'00ff'", NO_TEXT, "'z'"])
@pytest.mark.parametrize("column", ["occurred_at", "action", "outcome", "worker", "payload"])
def test_a_row_that_somebody_made_unreadable_hides_no_other(
    tmp_path: Path, column: str, value: str
) -> None:
    """The pages of a store that was tampered with show what there is, and of what it is not all."""
    change = f"UPDATE sigra_audit_entries SET {column} = {value} WHERE sequence = 1"
    listed, shown, verified = look(tmp_path, change, "/", "/event/{id}", "/verify")
    assert [200] * 3 == [each.status_code for each in (listed, shown, verified)]
    assert 2 == len(rows(listed.text))
    well_formed = value == "'z'" and column not in ("occurred_at", "payload")
    assert well_formed is ("&#34;unreadable&#34;: true" not in shown.text)
    assert {"ann", "unreadable" if column == "payload" else "ann"} == {
        row[2] for row in rows(listed.text)
    }
    assert "When verify says broken" in verified.text
    assert "\x1b" not in listed.text + shown.text


@pytest.mark.parametrize("column", ["tag", "head", "sequence"])
@pytest.mark.parametrize("value", ["x'00ff'", NO_TEXT])
def test_a_chain_that_somebody_made_unreadable_breaks_no_page(
    tmp_path: Path, column: str, value: str
) -> None:
    """It is in the list of chains, and its events on their pages."""
    change = f"UPDATE sigra_audit_chains SET {column} = {value}"
    paths = ("/", "/event/{id}", "/chains", "/verify", "/verify?organization=acme")
    answers = look(tmp_path, change, *paths)
    assert [200] * 5 == [each.status_code for each in answers]
    assert [2, 1] == [len(rows(answers[0].text)), len(rows(answers[2].text))]
    assert "broken" in answers[3].text


def test_a_page_that_fails_says_why_and_is_guarded_as_every_other(tmp_path: Path) -> None:
    """Where the store cannot be read, what is answered is kept by nobody either."""
    (answer,) = look(tmp_path, "DROP TABLE sigra_audit_entries", "/")
    assert (500, "no-store") == (answer.status_code, answer.headers.get("cache-control"))
    assert "one was altered" in answer.text


@pytest.mark.parametrize(
    ("form", "why"),
    [
        ("sqlite:///{}", "somebody removed the file"),
        ("postgresql+asyncpg://postgres@127.0.0.1:1/none", "Connect call failed"),
    ],
)
def test_a_page_says_in_words_that_its_store_is_gone(tmp_path: Path, form: str, why: str) -> None:
    """What the system says of a file, or a driver of a server that is down, is on the page."""
    path = tmp_path / "audit.db"
    sink = SqlAuditSink(form.format(path))
    if sink.database.file:
        sink.prepare()
        path.rename(tmp_path / "moved.db")
    (answer,) = pages(sink, "/")
    assert (500, "no-store") == (answer.status_code, answer.headers.get("cache-control"))
    assert why in answer.text
    sink.close()


def test_a_page_says_what_to_do_where_somebody_keeps_the_tables_locked(
    postgres_server: str,
) -> None:
    """As the commands do, and after as long."""
    with own_database(postgres_server) as server:
        url = make_url(server).set(drivername="postgresql+psycopg")
        patient = url.update_query_dict({"options": "-clock_timeout=200"})
        sink = SqlAuditSink(patient.render_as_string(hide_password=False))
        sink.prepare()
        everything = "LOCK TABLE sigra_audit_chains, sigra_audit_entries"
        with holding(url.render_as_string(hide_password=False), everything):
            (answer,) = pages(sink, "/")
        sink.close()
    assert (500, True) == (answer.status_code, "pg_blocking_pids()" in answer.text)


def test_organizations_that_differ_by_a_blank_have_pages_of_their_own(tmp_path: Path) -> None:
    """Only what is nothing but blanks asks for all."""
    paths = ("/?organization=acme", "/?organization=+acme", "/?organization=+", "/?actor=ann+")
    answers = look(tmp_path, "SELECT 1", *paths)
    found = [[row for row in rows(each.text) if len(row) == 6] for each in answers]
    assert [2, 0, 2, 0] == list(map(len, found))


@pytest.mark.parametrize(("days", "plan"), [(30, "SCAN"), (2, "SEARCH")])
def test_most_of_a_store_is_plotted_without_an_index(tmp_path: Path, days: int, plan: str) -> None:
    """By the index of times SQLite looks each row up, which takes many times as long."""
    sink = SqlAuditSink(f"sqlite:///{tmp_path / 'audit.db'}")
    now = datetime.now(timezone.utc)
    with configure(sinks=[sink], audit_schema=AuditEvent):
        for age in range(20):
            log("a.b", None, organization_id=f"o{age % 3}", occurred_at=now - timedelta(days=age))
    asked: list[tuple[str, Any]] = []

    def note(_: object, __: object, statement: str, given: Any, *___: object) -> None:
        asked.append((statement, given))

    listen(Engine, "before_cursor_execute", note)
    try:
        which = event_filter(all_organizations=True, since=now - timedelta(days=days), until=now)
        counts = activity(sink.database, which, timedelta(days=1))
    finally:
        remove(Engine, "before_cursor_execute", note)
    assert sum(counts.values()) == min(days, 19)
    statement, given = asked[-1]
    with closing(sqlite3.connect(tmp_path / "audit.db")) as connection:
        steps = connection.execute(f"EXPLAIN QUERY PLAN {statement}", given).fetchall()
    assert steps[0][3].startswith(f"{plan} sigra_audit_entries")
    sink.close()
