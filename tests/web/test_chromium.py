"""The page in a real browser: no script runs, and it fits a desk and a phone."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from sigra import AuditEvent, configure, log_safe
from sigra.store import SqlAuditSink
from sigra.store.reading import event_filter
from sigra.web import make_app

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SIZES = {"desktop": (1280, 960), "phone": (390, 844)}


@pytest.fixture(scope="module", autouse=True)
def _chromium() -> None:
    if CHROMIUM is None:
        reason = "no chromium is installed (Debian: apt-get install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="module")
def address(url: str, sink: SqlAuditSink) -> Iterator[str]:
    """Serve the store by the command, and return the address that it prints."""
    command = [sys.executable, "-m", "sigra", "audit", "serve", "--store", url, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()
        assert 143 == process.wait(60)


def browse(folder: Path, address: str, *options: str) -> str:
    """Open an address in a browser of its own, and return what it printed."""
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=5000"]
    done = subprocess.run(
        [*command, *options, address], capture_output=True, text=True, check=True, timeout=300
    )
    return done.stdout


def with_token(address: str, path: str) -> str:
    base, _, token = address.partition("/?")
    return f"{base}{path}{'&' if '?' in path else '?'}{token}"


def test_no_hostile_text_becomes_a_script(tmp_path: Path, address: str, sink: SqlAuditSink) -> None:
    """The title stays the page's own, and no element was smuggled in."""
    events = sink.query(
        event_filter(all_organizations=True, action="hostile.text"), None, 50
    ).events
    paths = ["/?action=hostile.text", f"/event/{events[0].event_id}", "/chains"]
    for path in paths:
        dom = browse(tmp_path, with_token(address, path), "--dump-dom")
        assert "Sigra audit" in dom
        assert re.search(r"<title>[^<]*owned", dom) is None
        assert re.search(r"<(script|img|iframe)\b", dom) is None


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("path", ["/", "/?action=user.impersonate", "/chains"])
def test_the_page_is_drawn(tmp_path: Path, address: str, size: str, path: str) -> None:
    """A picture of the size that was asked for, which is not empty."""
    width, height = SIZES[size]
    picture = tmp_path / "page.png"
    options = (f"--window-size={width},{height}", f"--screenshot={picture}")
    browse(tmp_path, with_token(address, path), *options)
    data = picture.read_bytes()
    assert (width, height) == (int.from_bytes(data[16:20]), int.from_bytes(data[20:24]))
    assert len(data) > 8_000


LONG = "x" * 600
MEASURE = """<script>document.title = [...document.querySelectorAll("th")].map(
th => Math.round(th.getBoundingClientRect().width)).join(" ")
+ ";" + document.documentElement.scrollWidth</script></body>"""


async def fetch(sink: SqlAuditSink, *paths: str) -> list[str]:
    transport = httpx.ASGITransport(make_app(sink, token="t"))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        await client.get("/?token=t")
        return [(await client.get(path)).text for path in paths]


@pytest.mark.parametrize("width", [720, 1280])
@pytest.mark.parametrize("path", ["/", "/chains"])
def test_a_long_text_leaves_room_for_what_stands_beside_it(
    tmp_path: Path, path: str, width: int
) -> None:
    """No column is so narrow that its words are torn to letters, nor the page too wide.

    As the page runs no script, a copy that has its style within is measured.
    """
    sink = SqlAuditSink(f"sqlite:///{tmp_path / 'audit.db'}")
    with configure(sinks=[sink], audit_schema=AuditEvent):
        log_safe("invoice.close", None, organization_id=LONG, target_type=LONG)
    page, style = asyncio.run(fetch(sink, path, "/static/style.css"))
    sink.close()
    page = re.sub("<link[^>]*>", lambda _: f"<style>{style}</style>", page)
    copy = tmp_path / "copy.html"
    copy.write_text(page.replace("</body>", MEASURE), "utf-8")
    dom = browse(tmp_path, copy.as_uri(), f"--window-size={width},900", "--dump-dom")
    found = re.search(r"<title>([\d ]+);(\d+)</title>", dom)
    assert found is not None
    assert min(map(int, found[1].split())) > 75
    assert int(found[2]) <= width
