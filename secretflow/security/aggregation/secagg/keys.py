"""Key agreement: AES-256 keys for each pair of parties, bound to the session and to both names.

X25519 (RFC 7748) and HKDF-SHA256 (RFC 5869). The session is the hash of everybody's public key and name,
so two parties derive the same key only if they saw the same public keys of all parties.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
_NONCE = bytes(12)  # a wrapping key wraps one message, ever


class Purpose(Enum):
    """What a pair's key is for; keys for different purposes tell nothing about each other."""

    PAD = b"secretflow-prune pairwise pad v1"
    WRAP = b"secretflow-prune group key wrap v1"
    CONFIRM = b"secretflow-prune key confirmation v1"
    SURVIVORS = b"secretflow-prune agreement on survivors v1"


def session_id(public_keys: Mapping[str, bytes], settings: str = "") -> bytes:
    """Names a key agreement by all it rests on.

    Args:
        public_keys: raw X25519 public key (32 bytes) of each party, by name.
        settings: of the aggregation, which all parties must share.

    Returns:
        32 bytes, the same for everybody who saw the same keys, in whatever order.
    """
    parts = [part for name in sorted(public_keys) for part in (name.encode(), public_keys[name])]
    return sha256(_length_prefixed([*parts, settings.encode()] if settings else parts)).digest()


def pair_keys(
    purposes: Iterable[Purpose],
    private_key: X25519PrivateKey,
    party: str,
    peer: str,
    public_key: bytes,
    session: bytes,
) -> dict[Purpose, bytes]:
    """Derives keys that only ``party`` and ``peer`` have.

    Args:
        purposes: what the keys are for.
        private_key: the private key of ``party``.
        party: own name.
        peer: the other party's name; the two names may be exchanged with the same result.
        public_key: raw public key of ``peer``.
        session: of :func:`session_id`.

    Returns:
        ``KEY_BYTES`` bytes for each purpose.

    Raises:
        ValueError: the peer's public key is malformed or of low order.
    """
    shared = private_key.exchange(X25519PublicKey.from_public_bytes(public_key))
    names = [name.encode() for name in sorted((party, peer))]
    return {
        purpose: HKDF(
            algorithm=SHA256(),
            length=KEY_BYTES,
            salt=session,
            info=_length_prefixed([purpose.value, *names]),
        ).derive(shared)
        for purpose in purposes
    }


def layout_key(group_key: bytes) -> bytes:
    """The key under which the parties name their layouts when they hide them from the server."""
    return HKDF(
        algorithm=SHA256(), length=KEY_BYTES, salt=None, info=b"secretflow-prune layout name v1"
    ).derive(group_key)


def wrap(wrapping_key: bytes, key: bytes) -> bytes:
    """Encrypts a key for a peer with AES-256-GCM; a wrapping key must be used only once."""
    return AESGCM(wrapping_key).encrypt(_NONCE, key, None)


def unwrap(wrapping_key: bytes, wrapped: bytes) -> bytes:
    """Decrypts a key that a peer has wrapped.

    Raises:
        cryptography.exceptions.InvalidTag: the message was not made with this wrapping key.
    """
    return AESGCM(wrapping_key).decrypt(_NONCE, wrapped, None)


def _length_prefixed(parts: Iterable[bytes]) -> bytes:
    # A length before each part: ("ab", "c") and ("a", "bc") must not give the same key.
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
