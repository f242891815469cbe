"""EmailDelivery sends one email by ids, through a real SMTP server."""

from __future__ import annotations

import smtplib
import warnings
from collections.abc import Iterator
from email.message import EmailMessage
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from servers import own_port

from sigra import Cancel, InvalidArgsError, SyncBackend, configure
from sigra.testing import perform_job
from sigra.workers import EmailDelivery, EmailSettings, NotConfiguredError, set_up, settings
from sigra.workers.email_delivery import backoff

with warnings.catch_warnings():
    # On Python 3.15: aiosmtpd 1.4.6 imports typing.ByteString.
    warnings.simplefilter("ignore", DeprecationWarning)
    from aiosmtpd.controller import Controller
    from aiosmtpd.smtp import Envelope

pytestmark = pytest.mark.servers

ANN = SimpleNamespace(id="7", email="ann@example.org")


class Inbox:
    """What the server took; ``refusing``: it answers 451 so often first."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.refusing = 0

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:
        if self.refusing:
            self.refusing -= 1
            return "451 try again later"
        self.envelopes.append(envelope)
        return "250 OK"


def confirm(user: Any, **ids: str) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "app@example.org", user.email, "Confirm"
    message.set_content(f"confirm with {ids}")
    return message


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[SyncBackend]:
    monkeypatch.setattr(settings, "_settings", settings._settings)
    with configure(backend=(backend := SyncBackend())):
        yield backend


@pytest.fixture
def inbox(backend: SyncBackend) -> Iterator[Inbox]:
    inbox = Inbox()
    with own_port() as place:
        port = place.getsockname()[1]
        server = Controller(inbox, hostname="127.0.0.1", port=port, ready_timeout=60)
        server.start()

        def mailer(message: EmailMessage) -> None:
            with smtplib.SMTP("127.0.0.1", port, timeout=60) as smtp:
                smtp.send_message(message)

        set_up(email=EmailSettings({"7": ANN}.get, {"confirm": confirm}, mailer))
        yield inbox
        server.stop()


def test_the_email_arrives(inbox: Inbox) -> None:
    """Type and ids are enough: the builder makes the text, the mailer sends it."""
    EmailDelivery.new({"type": "confirm", "user_id": 7, "token_id": 9}).result()
    (envelope,) = inbox.envelopes
    assert ["ann@example.org"] == envelope.rcpt_tos
    assert b"confirm with {'token_id': '9'}" in (envelope.content or b"")


@pytest.mark.parametrize("key", ["body", "subject", "html", "to"])
def test_a_job_cannot_carry_the_text(key: str, inbox: Inbox) -> None:
    """What the email says never lies in a queue."""
    with pytest.raises(InvalidArgsError) as caught:
        EmailDelivery.new({"type": "confirm", "user_id": 7, key: "secret"})
    assert f"$.{key}" == caught.value.path


def test_an_unknown_type_or_user_is_cancelled(inbox: Inbox) -> None:
    """No retry would find them."""
    unknown = perform_job(EmailDelivery, {"type": "spam", "user_id": 7})
    nobody = perform_job(EmailDelivery, {"type": "confirm", "user_id": 8})
    assert Cancel("no builder for emails of its type") == unknown
    assert Cancel("no user with its user_id") == nobody
    assert [] == inbox.envelopes


def test_a_server_that_refuses_is_tried_three_times(inbox: Inbox, backend: SyncBackend) -> None:
    """The third attempt gets through; a fourth there is not."""
    inbox.refusing = 2
    job = EmailDelivery.new({"type": "confirm", "user_id": 7})
    assert "retryable" == job.state
    backend.drain(until=3600)
    assert ("completed", 1) == (job.state, len(inbox.envelopes))

    inbox.refusing = 4
    lost = EmailDelivery.new({"type": "confirm", "user_id": 7})
    backend.drain(until=3600)
    assert ("discarded", 1) == (lost.state, inbox.refusing)
    with pytest.raises(smtplib.SMTPDataError):
        lost.result()


@pytest.mark.parametrize(("attempt", "least", "most"), [(1, 16, 46), (2, 31, 91)])
def test_the_wait_grows_with_the_fourth_power(attempt: int, least: int, most: int) -> None:
    """attempt^4 + 15 seconds, and up to 30 more for each attempt."""
    waits = [backoff(attempt) for _ in range(500)]
    assert least <= min(waits) < max(waits) <= most
    assert max(waits) - min(waits) > 20 * attempt


def test_without_settings_the_job_says_what_to_set(backend: SyncBackend) -> None:
    """Nobody is written to by guessing."""
    with pytest.raises(NotConfiguredError, match=r"set_up\(email=EmailSettings\(...\)\)"):
        perform_job(EmailDelivery, {"type": "confirm", "user_id": 7})


@pytest.mark.parametrize(
    "args",
    [
        {"type": ["confirm"], "user_id": "7"},
        {"type": None, "user_id": "7"},
        {"type": "confirm", "user_id": None},
        {"type": "confirm", "user_id": ["7"]},
        {"type": "confirm", "user_id": True},
        {"type": "confirm", "user_id": ""},
    ],
)
def test_what_is_no_type_or_id_is_cancelled(args: dict[str, Any], inbox: Inbox) -> None:
    """It is not tried three times, and no user is looked for by it."""
    set_up(email=EmailSettings(lambda _: ANN, {"confirm": confirm}, print))
    assert isinstance(perform_job(EmailDelivery, args), Cancel)


async def no_mail(*_: Any, **__: Any) -> None:
    raise AssertionError("never awaited, and so never run")


class NoMail:
    __call__ = no_mail


class Later:
    def __await__(self) -> Any:
        raise AssertionError("never awaited, and so never run")


@pytest.mark.parametrize("kind", [no_mail, partial(no_mail), NoMail()])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_asynchronous_function_is_refused(place: int, kind: Any, backend: SyncBackend) -> None:
    """Called and never awaited it would send nothing, and the job would look done."""
    given: list[Any] = [{"7": ANN}.get, {"confirm": confirm}, print]
    given[place] = {"confirm": kind} if place == 1 else kind
    with pytest.raises(TypeError, match="asynchronous"):
        EmailSettings(*given)


@pytest.mark.parametrize(
    ("place", "given", "reason"),
    [
        (0, 3, "must be functions, not int"),
        (1, {"confirm": None}, "must be functions, not NoneType"),
        (1, [], "builders must be a mapping of types to functions, not list"),
        (2, "smtp://", "must be functions, not str"),
    ],
)
def test_what_is_no_function_is_refused(place: int, given: Any, reason: str) -> None:
    """Where it is set up, and not in a consumer's first job."""
    settings: list[Any] = [{"7": ANN}.get, {"confirm": confirm}, print]
    settings[place] = given
    with pytest.raises(TypeError, match=reason):
        EmailSettings(*settings)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_returns_an_awaitable_fails_the_job(place: int, backend: SyncBackend) -> None:
    """Also where nobody could tell by its looks that it is asynchronous."""
    given: list[Any] = [{"7": ANN}.get, {"confirm": confirm}, print]
    given[place] = {"confirm": lambda _: Later()} if place == 1 else lambda _: Later()
    set_up(email=EmailSettings(*given))
    with pytest.raises(TypeError, match="asynchronous"):
        perform_job(EmailDelivery, {"type": "confirm", "user_id": "7"})
