"""The pages: events, one event, chains and their verification."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from sqlalchemy.exc import DBAPIError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from sigra.errors import SigraError
from sigra.store import SqlAuditSink, verify
from sigra.store.errors import InvalidQueryError, reason_of
from sigra.store.reading import EventFilter, event_filter
from sigra.store.report import WHEN_BROKEN, age_text
from sigra.store.stored import who
from sigra.web import words
from sigra.web.guard import Guard
from sigra.web.plot import HEIGHT, OUTCOMES, WIDTH, draw, step_of
from sigra.web.reading import activity, find_event, list_chains

PAGE = 50
CHAINS = 100
_SPAN = timedelta(days=30)
_EARLIEST = datetime(1000, 1, 1, tzinfo=timezone.utc)
"""The earliest begin of a plot, so that no bar begins before the calendar does."""

_FIELDS = ("organization", "without", "actor", "action", "outcome", "since", "until")
_templates = Environment(
    loader=PackageLoader("sigra.web"),
    autoescape=select_autoescape(default=True),
    undefined=StrictUndefined,
)
_templates.filters.update(
    plain=words.plain, who=who, moment=words.moment, indented=words.indented, age=age_text
)


def make_app(
    sink: SqlAuditSink,
    *,
    token: str,
    checkpoints: Sequence[Any] = (),
    public_keys: Sequence[Any] = (),
) -> ASGIApp:
    """Return the ASGI application: read-only pages on ``sink`` for whoever has ``token``.

    ``checkpoints`` and ``public_keys`` are what ``sigra.store.verify`` takes. Raises ``ValueError``
    for a blank token, which anybody could guess.
    """
    if not token.strip():
        raise ValueError("the token is blank: make one with secrets.token_urlsafe(24)")
    pages = _Pages(sink, partial(verify, sink, checkpoints=checkpoints, public_keys=public_keys))
    static = StaticFiles(directory=Path(__file__).parent / "static")
    app = Starlette(
        routes=[
            Route("/", pages.events),
            Route("/event/{event_id:path}", pages.event),
            Route("/chains", pages.chains),
            Route("/verify", pages.verification),
            Mount("/static", static),
        ],
        exception_handlers={SigraError: _problem, DBAPIError: _problem, OSError: _problem},
    )
    return Guard(app, token)  # outermost: Starlette itself answers when a page fails


class _Pages:
    """One method for each page. The store is read in threads, so that requests do not wait."""

    def __init__(self, sink: SqlAuditSink, check: Callable[..., Any]) -> None:
        self._sink, self._check = sink, check

    async def events(self, request: Request) -> Response:
        given = {name: request.query_params.get(name, "") for name in _FIELDS}
        try:
            which = _filter(given)
            cursor = request.query_params.get("cursor")
            page = await run_in_threadpool(self._sink.query, which, cursor, PAGE)
        except InvalidQueryError as error:
            return _render("events.html", 400, given=given, problem=str(error), outcomes=OUTCOMES)
        kept = {name: value for name, value in given.items() if value}
        older = urlencode({**kept, "cursor": page.cursor}) if page.cursor else None
        return _render(
            "events.html",
            given=given,
            problem=None,
            outcomes=OUTCOMES,
            events=page.events,
            older=older,
            newest=urlencode(kept) if cursor else None,
            plot=await run_in_threadpool(self._plot, which),
            size=(WIDTH, HEIGHT),
        )

    def _plot(self, which: EventFilter) -> Any:
        last = max(which.until or datetime.now(timezone.utc), _EARLIEST)
        first = max(which.since or last - _SPAN, _EARLIEST)
        shown = replace(which, since=first, until=last)
        counts = activity(self._sink.database, shown, step_of(first, last))
        return draw(counts, first, last)

    async def event(self, request: Request) -> Response:
        event_id = request.path_params["event_id"]
        kept = await run_in_threadpool(find_event, self._sink.database, event_id)
        if kept is None:
            return _render("missing.html", 404, event_id=event_id)
        return _render("event.html", kept=kept, event=kept.event)

    async def chains(self, request: Request) -> Response:
        after = request.query_params.get("after", "0")
        number = int(after) if after.isdecimal() and len(after) < 19 else 0
        found = await run_in_threadpool(list_chains, self._sink.database, number, CHAINS + 1)
        following = found[CHAINS - 1][0] if len(found) > CHAINS else None
        return _render("chains.html", chains=[c for _, c in found[:CHAINS]], following=following)

    async def verification(self, request: Request) -> Response:
        given = request.query_params
        which = _tenancy(given.get("organization", ""), given.get("without", ""))
        report = await run_in_threadpool(self._check, **which)
        return _render(
            "verification.html",
            report=report,
            when_broken=WHEN_BROKEN,
            everything="all_organizations" in which,
            organization_id=which.get("organization_id"),
        )


async def _problem(_: Request, error: Exception) -> Response:
    """Say why a page cannot be shown, and what to do where that is known."""
    told = [reason_of(error), *getattr(error, "__notes__", ())]
    return _render("problem.html", 500, problem=told)


def _tenancy(organization: str, without: str) -> dict[str, Any]:
    """Return which organization is asked for; a blank one means all, and the page says so."""
    if without:
        return {"organization_id": None}
    known = bool(organization.strip())  # no id is blank
    return {"organization_id": organization} if known else {"all_organizations": True}


def _filter(given: dict[str, str]) -> EventFilter:
    outcome: Any = given["outcome"] or None
    return event_filter(
        **_tenancy(given["organization"], given["without"]),
        actor_id=given["actor"] if given["actor"].strip() else None,
        action=given["action"].strip() or None,
        since=_moment("since", given["since"].strip()),
        until=_moment("until", given["until"].strip()),
        outcome=outcome,
    )


def _moment(name: str, text: str) -> datetime | None:
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidQueryError(name, "it must be a date and time, as 2026-11-25T14:00") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=timezone.utc)


def _render(template: str, status: int = 200, /, **values: Any) -> HTMLResponse:
    return HTMLResponse(_templates.get_template(template).render(values), status)
