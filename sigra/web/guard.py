"""Who may see the pages: a client that asks this machine by its own name and has the token."""

from __future__ import annotations

import hmac
import re
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PORT = re.compile(r":[0-9]*\Z")
"""All that a Host header may have besides the host (RFC 9110, 7.2): no user's name before it."""

LOCAL = ("127.0.0.1", "localhost", "[::1]")
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; style-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Guard:
    """Answer only reads, by who has the token, of this machine under one of the names in ``hosts``.

    The token comes once, in the address (``?token=``); then a cookie made of it takes its place,
    which no script and no other site can use. A browser sends the cookie to every port of this
    machine, but the token cannot be computed from it. Another name that points to this machine,
    as a hostile page may use, is refused.
    """

    def __init__(self, app: ASGIApp, token: str, hosts: Collection[str] = LOCAL) -> None:
        self._app, self._token = app, token
        self._hosts = frozenset(map(str.lower, hosts))
        self._name, self._cookie = cookie_of(token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        answer = self._refuse(scope) or self._app
        await answer(scope, receive, send_guarded)

    def _refuse(self, scope: Scope) -> Response | None:
        given_hosts = Headers(scope=scope).getlist("host")
        names = [_PORT.sub("", host).lower() for host in given_hosts]
        if len(names) != 1 or names[0] not in self._hosts:
            return PlainTextResponse("this page is not served under that name\n", 421)
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("this page is read-only\n", 405, {"allow": "GET, HEAD"})
        request = Request(scope)
        given = request.query_params.get("token")
        if given is not None:
            if not _same(given, self._token):
                return _unknown()
            answer = RedirectResponse(request.url.remove_query_params("token"), 303)
            answer.set_cookie(self._name, self._cookie, httponly=True, samesite="strict")
            return answer
        return None if _same(request.cookies.get(self._name, ""), self._cookie) else _unknown()


def cookie_of(token: str) -> tuple[str, str]:
    """Return the name and the value of the cookie of the page that has this token."""
    name, value = (
        hmac.digest(token.encode(), f"sigra audit page: {part}".encode(), "sha256").hex()
        for part in ("name", "value")
    )
    return f"sigra_audit_{name[:16]}", value


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), wanted.encode())


def _unknown() -> Response:
    return PlainTextResponse(
        "open the address that 'sigra audit serve' printed: it carries the token\n", 401
    )
