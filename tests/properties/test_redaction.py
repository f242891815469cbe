"""No planted secret leaves the process, by whatever key, depth or channel it tries."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from sigra import AuditEvent, AuditScope, configure
from sigra.audit import JSONLinesSink, JSONRenderer, log_safe
from sigra.audit.redact import REDACTED, SECRET, _value, holds_secret, key_verdict
from sigra.audit.sanitize import sanitize
from sigra.audit.words import ALLOWED, BENIGN, DESCRIBING, JOINED, METRIC, WHOLE

SCOPE = AuditScope.build(actor_id=7, organization_id=42)
CANARY = "canary-7f3a"

# Names of two words and more, to be written in every style.
NAMES = """
user password|session token|api key|client secret|access token|private key|card number|
database password|auth cookie|one time code|two factor secret|mfa code|signing key|
connection string|webhook secret|recovery code|security code|id token|refresh token|master key
""".replace("\n", "").split("|")

STYLES: dict[str, Callable[[list[str]], str]] = {
    "snake": "_".join,
    "kebab": "-".join,
    "dotted": ".".join,
    "spaced": " ".join,
    "constant": lambda words: "_".join(words).upper(),
    "camel": lambda words: words[0] + "".join(word.title() for word in words[1:]),
    "pascal": lambda words: "".join(word.title() for word in words),
    "header": lambda words: "X-" + "-".join(word.title() for word in words),
    "bracket": lambda words: words[0] + "".join(f"[{word}]" for word in words[1:]),
    "wide": lambda words: "_".join(words).translate({n: n + 0xFEE0 for n in range(97, 123)}),
    "zero width": lambda words: "\u200b".join("_".join(words)),
}

names = st.builds(
    lambda name, style, before, after: STYLES[style](
        [*([before] if before else []), *name.split(), *([after] if after else [])]
    ),
    st.sampled_from(NAMES),
    st.sampled_from(sorted(STYLES)),
    st.sampled_from(["", "old", "new", "stripe", "prod"]),
    st.sampled_from(["", "value", "current", "raw"]),
)
harmless = st.sampled_from(["lines", "note", "invoice", "items", "total"])


@st.composite
def planted(draw: st.DrawFn) -> tuple[dict[str, Any], str]:
    """Draw metadata with one canary under the name of a secret, some levels down."""
    key = draw(names)
    canary = draw(
        st.sampled_from([CANARY, [CANARY], {"x": CANARY}, (1, CANARY), CANARY.encode(), {CANARY}])
    )
    value: Any = {draw(harmless): 1, key: canary}
    for _ in range(draw(st.integers(0, 5))):
        value = draw(st.sampled_from([lambda v: {"in": v}, lambda v: [v], lambda v: (0, v)]))(value)
    return {"outer": value, "note": "kept"}, key


@pytest.fixture(autouse=True)
def _reset() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@given(names)
def test_a_secrets_name_is_known_in_every_style(name: str) -> None:
    """The same words are a secret's name in snake, kebab, camel and every other style."""
    assert SECRET == key_verdict(name)


@given(planted())
def test_no_canary_reaches_any_channel(case: tuple[dict[str, Any], str]) -> None:
    """A secret stands in no log line, sink, record, result or failure."""
    metadata, _ = case
    stream, sunk = io.BytesIO(), io.BytesIO()
    records: list[dict[str, Any]] = []
    structlog.configure(
        processors=[JSONRenderer()], logger_factory=structlog.BytesLoggerFactory(stream)
    )

    def record(**fields: Any) -> None:
        records.append(fields)

    with configure(audit_schema=record, sinks=[JSONLinesSink(sunk)]):
        result = log_safe("a.b", SCOPE, metadata=metadata)
    told = f"{stream.getvalue()!r} {sunk.getvalue()!r} {records} {result}"
    assert CANARY not in told
    assert "kept" in told
    assert 1 == len(result.redacted)


@given(planted())
def test_the_path_leads_to_what_was_redacted(case: tuple[dict[str, Any], str]) -> None:
    """Each reported path begins at the root and one path is reported for each redaction."""
    plain, paths = sanitize(case[0])
    assert json.dumps(plain).count(REDACTED) == len(paths)
    assert all(path.startswith("$") for path in paths)


@pytest.mark.parametrize("channel", ["processor", "sink", "schema"])
def test_a_failure_tells_no_canary(channel: str, caplog: pytest.LogCaptureFixture) -> None:
    """What is told of an exception is its type: never its text, nor what was logged."""

    def broken(*_: Any, **__: Any) -> Any:
        raise ValueError(CANARY)

    class Sink:
        write = close = staticmethod(broken)

    structlog.configure(
        processors=[broken] if channel == "processor" else [lambda *_: ""],
        logger_factory=structlog.ReturnLoggerFactory(),
    )
    sinks = [Sink()] if channel == "sink" else []
    schema = broken if channel == "schema" else AuditEvent
    with caplog.at_level(logging.DEBUG), configure(audit_schema=schema, sinks=sinks):
        result = log_safe("a.b", SCOPE, target_id=f"Bearer {CANARY}", metadata={"pin": CANARY})
    assert "failed" == result.status
    assert CANARY not in f"{caplog.text} {result}"


@given(
    st.dictionaries(
        harmless, st.one_of(st.none(), st.booleans(), st.integers(-99, 99), st.just("x"))
    )
)
def test_harmless_metadata_is_unchanged(metadata: dict[str, Any]) -> None:
    """Plain JSON without secrets is kept as it is."""
    assert (metadata, []) == sanitize(metadata)[:2]


nested = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.text(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=15,
)


@given(st.dictionaries(st.text(max_size=12), nested, max_size=5))
def test_sanitizing_twice_changes_nothing_more(metadata: dict[str, Any]) -> None:
    """What was sanitised once comes out of a second time as it went in."""
    once = sanitize(metadata)[0]
    assert once == sanitize(once)[0]


def test_every_listed_word_is_a_secrets_name() -> None:
    """Each word on the lists marks a secret, alone, among others and in capitals."""
    for word in sorted(WHOLE | JOINED):
        numbered = word if word[-1].isdigit() else f"{word}2"
        for key in (word, f"x_{word}", f"{word}_x", word.upper(), f"X-{word.title()}", numbered):
            assert SECRET == key_verdict(key), key


def test_every_allowed_name_is_no_secrets_name() -> None:
    """Each allowed name passes, and so does each benign pair."""
    assert [] == [name for name in sorted(ALLOWED) if key_verdict(name)]
    pairs = sorted(pair.replace(":", "_") for pair in BENIGN)
    assert [] == [pair for pair in pairs if key_verdict(pair) == SECRET]


def test_the_lists_do_not_contradict_each_other() -> None:
    """No word is at once that of a secret and one that tells of a secret."""
    assert not (WHOLE | JOINED) & (DESCRIBING | METRIC)


@pytest.mark.parametrize("form", _value.__self__.pattern.split("\n    | "))
@given(st.data())
def test_no_text_that_the_pattern_finds_is_spared_the_search(
    form: str, data: st.DataObject
) -> None:
    """What makes most searches short passes over no token, key or URL with a password."""
    assert holds_secret(data.draw(st.from_regex(re.compile(form, re.VERBOSE))))
