"""Keys: the same for both ends of a pair, and different whenever anything else differs."""

from __future__ import annotations

import hmac
from hashlib import sha256

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from secretflow.security.aggregation.secagg.keys import Purpose, pair_keys, session_id, unwrap, wrap

# The two key pairs of RFC 7748, section 6.1, and the secret the RFC says they share.
ALICE = X25519PrivateKey.from_private_bytes(
    bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
)
BOB = X25519PrivateKey.from_private_bytes(
    bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
)
ALICE_PUBLIC = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
BOB_PUBLIC = bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
SHARED = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
PUBLIC_KEYS = {"alice": ALICE_PUBLIC, "bob": BOB_PUBLIC}


def pair_key(
    purpose: Purpose, private_key: X25519PrivateKey, party: str, peer: str, public_keys: dict[str, bytes]
) -> bytes:
    session = session_id(public_keys)
    return pair_keys([purpose], private_key, party, peer, public_keys[peer], session)[purpose]


def hkdf_sha256_of_one_block(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """RFC 5869 with HMAC from the standard library; 32 bytes are one block of SHA-256."""
    extracted = hmac.digest(salt, secret, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def with_length(part: bytes) -> bytes:
    return len(part).to_bytes(4, "big") + part


@pytest.mark.parametrize(
    ("purpose", "label"),
    [
        (Purpose.PAD, b"secretflow-prune pairwise pad v1"),
        (Purpose.WRAP, b"secretflow-prune group key wrap v1"),
    ],
)
def test_a_pair_key_is_hkdf_of_the_shared_secret_with_session_purpose_and_names(
    purpose: Purpose, label: bytes
) -> None:
    session = sha256(
        with_length(b"alice") + with_length(ALICE_PUBLIC) + with_length(b"bob") + with_length(BOB_PUBLIC)
    ).digest()
    info = with_length(label) + with_length(b"alice") + with_length(b"bob")
    expected = hkdf_sha256_of_one_block(SHARED, session, info)
    assert session_id(PUBLIC_KEYS) == session
    assert pair_key(purpose, ALICE, "alice", "bob", PUBLIC_KEYS) == expected
    assert pair_key(purpose, BOB, "bob", "alice", PUBLIC_KEYS) == expected


def test_a_session_does_not_depend_on_the_order_of_the_parties() -> None:
    assert session_id(PUBLIC_KEYS) == session_id(dict(reversed(PUBLIC_KEYS.items())))


def test_another_purpose_session_or_name_gives_another_key() -> None:
    carol = X25519PrivateKey.generate().public_key().public_bytes_raw()
    keys = [
        pair_key(Purpose.PAD, ALICE, "alice", "bob", PUBLIC_KEYS),
        pair_key(Purpose.WRAP, ALICE, "alice", "bob", PUBLIC_KEYS),
        pair_key(Purpose.PAD, ALICE, "alice", "bob", {**PUBLIC_KEYS, "carol": carol}),
        pair_key(Purpose.PAD, ALICE, "alice", "robert", {"alice": ALICE_PUBLIC, "robert": BOB_PUBLIC}),
    ]
    assert len(set(keys)) == len(keys)


def test_the_names_alone_tell_keys_of_one_session_apart() -> None:
    session = {"alice": ALICE_PUBLIC, "bob": BOB_PUBLIC, "robert": BOB_PUBLIC}
    assert pair_key(Purpose.PAD, ALICE, "alice", "bob", session) != pair_key(
        Purpose.PAD, ALICE, "alice", "robert", session
    )


def test_names_that_read_the_same_when_joined_give_different_keys_and_sessions() -> None:
    session = {"ab": ALICE_PUBLIC, "a": ALICE_PUBLIC, "c": BOB_PUBLIC, "bc": BOB_PUBLIC}
    assert pair_key(Purpose.PAD, ALICE, "ab", "c", session) != pair_key(
        Purpose.PAD, ALICE, "a", "bc", session
    )
    assert session_id({"ab": b"c"}) != session_id({"a": b"bc"})


def test_a_public_key_of_low_order_is_refused() -> None:
    with pytest.raises(ValueError):
        pair_key(Purpose.PAD, ALICE, "alice", "bob", {**PUBLIC_KEYS, "bob": bytes(32)})


def test_a_wrapped_key_comes_back_with_the_right_key_only() -> None:
    key, other = bytes(range(32)), bytes(range(1, 33))
    wrapped = wrap(other, key)
    assert key not in wrapped
    assert unwrap(other, wrapped) == key
    with pytest.raises(InvalidTag):
        unwrap(key, wrapped)
    with pytest.raises(InvalidTag):
        unwrap(other, bytes([wrapped[0] ^ 1]) + wrapped[1:])
