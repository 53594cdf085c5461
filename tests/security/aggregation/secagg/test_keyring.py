"""Key agreement: who is not who he says, or means other keys or settings, gets nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import secretflow as sf
from secretflow.security.aggregation.secagg import identity as identity_module
from secretflow.security.aggregation.secagg.errors import AggregationError
from secretflow.security.aggregation.secagg.identity import Identities, set_identities
from secretflow.security.aggregation.secagg.keyring import Confirmation, KeyRing, agree_all

NAMES = ["alice", "bob", "carol"]


@pytest.fixture
def identities(tmp_path: Path) -> dict[str, Identities]:
    """Of each party what it knows: everybody's public identity and its own file."""
    keys = {name: Ed25519PrivateKey.generate() for name in [*NAMES, "mallory"]}
    pinned = {name: keys[name].public_key().public_bytes_raw().hex() for name in NAMES}
    for name, key in keys.items():
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (tmp_path / f"{name}.pem").write_bytes(pem)
    return {name: Identities(pinned, tmp_path / f"{name}.pem") for name in keys}


def rings(identities: dict[str, Identities] | None, settings: Sequence[str] = ("",) * 3) -> list[KeyRing]:
    return [
        KeyRing(name, NAMES, how, identities and identities[name])
        for name, how in zip(NAMES, settings, strict=True)
    ]


class ManInTheMiddle:
    """Sits between Alice and the others: gives each side keys of its own in the other's name."""

    def __init__(self, ring: Callable[[str], KeyRing]) -> None:
        self.as_bob_and_carol = {name: ring(name) for name in ("bob", "carol")}
        self.as_alice = ring("alice")

    def attack(self, honest: list[KeyRing]) -> list[tuple[KeyRing, list[Confirmation]]]:
        """What each honest party is told by the others."""
        alice, bob, carol = honest
        for_alice = [alice.public_key(), *(r.public_key() for r in self.as_bob_and_carol.values())]
        for_others = [self.as_alice.public_key(), bob.public_key(), carol.public_key()]
        to_alice = [alice.agree(*for_alice), *(r.agree(*for_alice) for r in self.as_bob_and_carol.values())]
        to_others = [self.as_alice.agree(*for_others), bob.agree(*for_others), carol.agree(*for_others)]
        return [(alice, to_alice), (bob, to_others), (carol, to_others)]


def test_the_man_in_the_middle_is_refused_by_all_parties_before_the_first_pad(
    identities: dict[str, Identities],
) -> None:
    """He is an insider: he has an identity, though not theirs."""
    mallory = Identities(identities["alice"].pinned, identities["mallory"].own_file)
    honest = rings(identities)
    for ring, told in ManInTheMiddle(lambda name: KeyRing(name, NAMES, "", mallory)).attack(honest):
        with pytest.raises(AggregationError, match="not signed by its identity"):
            ring.confirm(*told)
        with pytest.raises(AggregationError, match="has not agreed on keys"):
            ring.pads(1)


def test_without_identities_he_gets_through_and_the_fingerprints_tell() -> None:
    """What is not claimed: with nothing pinned only people can notice him."""
    honest = rings(None)
    for ring, told in ManInTheMiddle(lambda name: KeyRing(name, NAMES)).attack(honest):
        ring.confirm(*told)
    assert honest[0].fingerprint() != honest[1].fingerprint() == honest[2].fingerprint()


def test_a_signature_of_an_earlier_session_is_worth_nothing(identities: dict[str, Identities]) -> None:
    first, second = rings(identities), rings(identities)
    keys = [ring.public_key() for ring in first]
    old = [ring.agree(*keys) for ring in first]
    keys = [ring.public_key() for ring in second]
    new = [ring.agree(*keys) for ring in second]
    replayed = {**new[1], "signature": old[1]["signature"]}
    with pytest.raises(AggregationError, match="keys that came for bob are not signed"):
        second[0].confirm(new[0], replayed, new[2])


def test_parties_of_other_settings_do_not_agree() -> None:
    ones = rings(None, ["min_contributors=3", "min_contributors=3", "min_contributors=2"])
    with pytest.raises(AggregationError, match=r"do not have the same keys.*different settings"):
        agree_all(ones)


def test_keys_are_agreed_on_once_and_the_private_key_is_forgotten(identities: dict[str, Identities]) -> None:
    ones = rings(identities)
    private = [ring._private_key.private_bytes_raw() for ring in ones if ring._private_key]
    agree_all(ones)
    assert len(private) == 3 and all(ring._private_key is None for ring in ones)
    with pytest.raises(AggregationError, match="has agreed on keys already"):
        ones[0].agree(b"", b"", b"")
    with pytest.raises(AggregationError, match="nothing to confirm"):
        ones[0].confirm()


def test_all_parties_log_the_same_fingerprint(caplog: pytest.LogCaptureFixture) -> None:
    ones = rings(None)
    with caplog.at_level(logging.INFO):
        agree_all(ones)
    said = {record.getMessage().rpartition(" ")[2] for record in caplog.records}
    assert said == {ones[0].fingerprint()} and len(caplog.records) == 3


def test_an_identity_that_cannot_be_read_is_named_and_not_shown(identities: dict[str, Identities]) -> None:
    file = identities["alice"].own_file
    file.write_text("-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n")
    ones = rings(identities)
    with pytest.raises(AggregationError, match=r"alice.pem must be a readable Ed25519") as caught:
        agree_all(ones)
    assert "secret" not in str(caught.value)


def test_a_party_whose_identity_is_not_pinned_is_refused(identities: dict[str, Identities]) -> None:
    pinned = {name: key for name, key in identities["alice"].pinned.items() if name != "carol"}
    ones = rings({name: Identities(pinned, one.own_file) for name, one in identities.items()})
    with pytest.raises(AggregationError, match="identity of carol must be pinned"):
        agree_all(ones)


def test_an_aggregator_takes_the_identities_of_its_process(
    consortium: Any, identities: dict[str, Identities], monkeypatch: pytest.MonkeyPatch
) -> None:
    """This process plays all parties and has the file of one, so the others' signatures are refused."""
    monkeypatch.setattr(identity_module, "_here", None)
    data = consortium.held([np.ones(2)] * 3)
    assert consortium.aggregator(3).average_at_parties(data)
    set_identities(identities["alice"])
    with pytest.raises(AggregationError, match="not signed by its identity"):
        sf.reveal(consortium.aggregator(3).average_at_parties(data))


def test_low_order_keys_are_refused() -> None:
    ones = rings(None)
    keys = [ones[0].public_key(), bytes(32), X25519PrivateKey.generate().public_key().public_bytes_raw()]
    with pytest.raises(ValueError):
        ones[0].agree(*keys)
