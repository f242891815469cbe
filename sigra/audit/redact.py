"""Which keys and which strings are secrets: the rule alone, applied in sanitize.py."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import accumulate

from sigra.audit import words as w

REDACTED = "[REDACTED]"

HARMLESS, MEASURE, FLAG, SECRET = 0, 1, 2, 3
"""What a key says of its value. HARMLESS: no secret. MEASURE: a secret, unless it is a number or a
bool. FLAG: a secret, unless it is a bool. SECRET: a secret."""

MAX_KEY = 256
_LONGEST_RUN = 4
_DIGITS = "0123456789"
# Shorter words are not sought across a boundary: "to_tp_x" holds no "otp".
_OPENINGS = ("apikey", "passwd", "privatekey", "secretkey")
_JOINED = w.JOINED | {f"{word}s" for word in w.JOINED}
_RUNS = _JOINED | frozenset(word for word in w.WHOLE if len(word) >= 6)

_separator = re.compile(r"[\W_]+")
# "2fa" is the one word on the lists that begins with a digit: user2FA is "user" and "2fa".
_camel = re.compile(
    r"(?<=[a-z0-9])(?=[A-Z])(?<!2(?=F[Aa]))|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[a-z])(?=2[Ff][Aa])"
)


@lru_cache(maxsize=4096)
def key_verdict(key: str) -> int:
    """Say what the value under a key is: ``HARMLESS``, ``MEASURE``, ``FLAG`` or ``SECRET``.

    The key is split into words at separators and changes of case. Its value is a secret
    if a word, or neighbouring words joined, are on the lists of ``words.py``, or if the
    key is too long to be a name at all.
    """
    name = visible(key)
    if len(name) > MAX_KEY:  # NFKC makes up to 18 characters of one
        return SECRET
    lowered = [word for word in _separator.split(name.lower()) if word]
    words = [word for word in _separator.split(_camel.sub("_", name).lower()) if word]
    # PaSsWoRd is one of the words too, though it is split at its changes of case.
    if words != lowered and not w.WHOLE.isdisjoint(lowered):
        return SECRET
    return _judge(words)


def is_secret(key: str, kind: type) -> bool:
    """Tell whether a value of a type is a secret under a key."""
    # By identity: a dict or a comparison would run what a foreign metaclass defines.
    passes = FLAG if kind is bool else MEASURE if kind is int or kind is float else HARMLESS
    return (key_verdict(key) if len(key) <= MAX_KEY else SECRET) > passes


def visible(key: str) -> str:
    """Return a key as it is judged: in NFKC, without invisible characters."""
    shown = [sign for sign in key if sign.isascii() or unicodedata.category(sign) != "Cf"]
    return unicodedata.normalize("NFKC", "".join(shown))


def _judge(words: list[str]) -> int:
    """Return the verdict on a key by its words."""
    if "_".join(words) in w.ALLOWED or (words and words[-1] in w.DESCRIBING):
        return HARMLESS
    marking = [word for word in _without_benign(words) if _marks(word)]
    if not marking and not _runs_together(words):
        return HARMLESS
    # The other words are looked at too: "tax_id_token_count" still names a tax id.
    rest = [word for word in words if word not in w.MEASURED]
    if {*marking} <= w.MEASURED and w.METRIC & {*words} and not _runs_together(rest):
        return MEASURE
    return SECRET if w.FLAGS.isdisjoint(words) else FLAG


def _marks(word: str) -> bool:
    """Tell whether a word by itself marks a secret."""
    word = word if word in w.WHOLE else word.rstrip(_DIGITS)
    return word in w.WHOLE or (word.endswith(w.STEMS) and word not in w.PASSAGES)


def _listed(word: str, names: frozenset[str]) -> bool:
    return word in names or word.rstrip(_DIGITS) in names


def _runs_together(words: list[str]) -> bool:
    """Tell whether neighbouring words, joined, mark a secret: ``api`` and ``key``."""
    for start, word in enumerate(words):
        _, *longer = accumulate(words[start : start + _LONGEST_RUN])
        joined = _listed(word, _JOINED) or word.startswith(_OPENINGS)
        if joined or any(_listed(run, _RUNS) for run in longer):
            return True
    return False


def _without_benign(words: list[str]) -> list[str]:
    """Leave out pairs of words that together mean something else: ``primary`` and ``key``."""
    left: list[str] = []
    for word in words:
        if left and f"{left[-1]}:{word}" in w.BENIGN:
            left.pop()
        else:
            left.append(word)
    return left


_value = re.compile(
    r"""
      (?<![\w-]) eyJ [\w-]{6,} \. [\w-]{6,}            # a JWT
    | -----BEGIN\ [A-Z0-9 ]{1,64}-----                  # PEM
    | :// [^\s/:]{0,256} : [^\s/@]+ @                  # user and password in a URL
    | (?<![A-Za-z0-9]) (?:AKIA|ASIA) [A-Z0-9]{12,}      # an AWS key id
    | (?<![A-Za-z0-9]) gh[a-z]_ [A-Za-z0-9_]{10,}       # GitHub
    | (?<![A-Za-z0-9]) github_pat_ \w{10,}
    | (?<![A-Za-z0-9]) xox[a-z]- [\w-]{6,}              # Slack
    | (?<![A-Za-z0-9]) [sr]k_(?:live|test)_ \w{6,}      # Stripe
    | (?<![A-Za-z0-9]) Bearer [\s:]{1,8} [\w.~+/=-]{4,}
    | (?<![A-Za-z0-9]) [Bb][Ee][Aa][Rr][Ee][Rr] \s{1,8} [\w.~+/=-]{16,}
    """,
    re.VERBOSE,
).search
_SHORTEST = 11
_parts = ("://", "github_pat_", "eyJ", "-----BEGIN", "AKIA", "ASIA", "xox", "k_live_", "k_test_")


def holds_secret(text: str) -> bool:
    """Tell whether a string holds a token, a private key or a URL with a password."""
    if len(text) < _SHORTEST:
        # Too short for all but a password in a URL.
        return "://" in text and _value(text) is not None
    # A search for plain parts comes first: it costs a tenth of the pattern, and most have none.
    if text.isalnum():
        return ("AKIA" in text or "ASIA" in text) and _value(text) is not None
    for part in _parts:
        if part in text:
            return _value(text) is not None
    likely = ("_" in text and "gh" in text) or "bearer" in text.lower()
    return likely and _value(text) is not None
