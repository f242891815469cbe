"""Signing what must not be forged, with Ed25519."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

PublicKeys = Mapping[str, Ed25519PublicKey]
"""Keys by their ids."""


class Signer:
    """Sign with a private key; ``key_id`` names the key by its public half.

    ``purpose`` is signed too, so that a text signed for one purpose does not pass for another.
    """

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        if not isinstance(private_key, Ed25519PrivateKey):
            raise TypeError(f"the key must be an Ed25519 key, not {type(private_key).__qualname__}")
        self._private_key = private_key
        self.public_key = private_key.public_key()
        self.key_id = key_id(self.public_key)

    @classmethod
    def from_pem(cls, pem: bytes, password: bytes | None = None) -> Signer:
        """Read a private key in PEM, as ``openssl genpkey -algorithm ed25519`` writes it."""
        key: Any = load_pem_private_key(pem, password)
        return cls(key)

    def sign(self, purpose: str, body: str) -> bytes:
        """Return the signature of a text."""
        return self._private_key.sign(_signed(purpose, body))


def check_signer(signer: object) -> None:
    """Raise ``TypeError`` for what is neither a ``Signer`` nor None."""
    if not (signer is None or isinstance(signer, Signer)):
        kind = type(signer).__qualname__
        raise TypeError(f"signer must be a Signer, as Signer.from_pem(pem), not {kind}")


def key_id(key: Ed25519PublicKey) -> str:
    """Return a key's name: the first 16 hexadecimal digits of the SHA-256 of its bytes."""
    if not isinstance(key, Ed25519PublicKey):
        raise TypeError(f"a public key must be an Ed25519 key, not {type(key).__qualname__}")
    return sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


def by_id(keys: Iterable[Ed25519PublicKey]) -> PublicKeys:
    """Return public keys by their ids."""
    return {key_id(key): key for key in keys}


def is_signed(
    keys: PublicKeys, signer: str | None, signature: bytes | None, purpose: str, body: str
) -> bool:
    """Tell whether the key named ``signer``, if it is one of these, signed the text for this."""
    key = keys.get(signer) if isinstance(signer, str) else None
    if key is None or not isinstance(signature, bytes):
        return False
    try:
        key.verify(signature, _signed(purpose, body))
    except (InvalidSignature, UnicodeEncodeError):
        return False
    return True


def _signed(purpose: str, body: str) -> bytes:
    return f"sigra-audit-{purpose}/1\n{body}".encode()
