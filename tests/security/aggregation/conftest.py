"""What the tests of the secure aggregation share: parties in this process, and bare clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from scipy.stats import chi2

import secretflow as sf
import secretflow.distributed as sfd
from secretflow.device import PYUObject, global_state
from secretflow.distributed.primitive import DISTRIBUTION_MODE
from secretflow.security.aggregation import SecureAggregator, SecurePruneAggregator
from secretflow.security.aggregation.secagg.keyring import agree_all
from secretflow.security.aggregation.secagg.ratchet import Ratchet
from secretflow.security.aggregation.secagg.ring import Ring
from secretflow.security.aggregation.secagg.rules import Rules
from tests.security.aggregation.stepwise import Stepwise

NAMES = ["alice", "bob", "carol", "davy", "erin", "frank", "grace", "heidi"]


class Consortium:
    """Eight parties and a server whose work is done in this process."""

    def __init__(self) -> None:
        self.parties = [sf.PYU(name) for name in NAMES]
        self.server = sf.PYU("server")

    def held(self, values: Sequence[Any]) -> list[PYUObject]:
        """Each value as an object on a party's device, from the first party on."""
        return [
            party((lambda v: lambda: v)(value))() for party, value in zip(self.parties, values, strict=False)
        ]

    def aggregator(self, parties: int, fxp_bits: int | None = None, **options: Any) -> SecurePruneAggregator:
        return SecurePruneAggregator(self.server, self.parties[:parties], fxp_bits, **options)


@pytest.fixture
def consortium() -> Iterator[Consortium]:
    mode, parties = sfd.get_distribution_mode(), global_state.parties()
    global_state.set_parties([*NAMES, "server"])
    sfd.set_distribution_mode(DISTRIBUTION_MODE.DEBUG)
    yield Consortium()
    sfd.set_distribution_mode(mode)
    global_state.set_parties(parties)


@pytest.fixture(scope="module")
def upstreams() -> dict[str, SecureAggregator]:
    """Upstream's aggregators, made once: its key agreement takes a second."""
    return {}


@pytest.fixture
def both(
    consortium: Any, upstreams: dict[str, SecureAggregator], request: pytest.FixtureRequest
) -> tuple[SecurePruneAggregator, SecureAggregator]:
    """Our aggregator and upstream's, of the same three parties.

    After an error the generators of upstream's parties are out of step and its sums are noise, so it has one
    aggregator for mistakes and one for numbers.
    """
    use = "mistakes" if "refuse" in request.node.name or "mistake" in request.node.name else "numbers"
    if use not in upstreams:
        upstreams[use] = SecureAggregator(consortium.server, consortium.parties[:3])
    # Upstream averages the same data under one weighting after another.
    return consortium.aggregator(3, fixed_contributors=False), upstreams[use]


@pytest.fixture
def make_clients() -> Callable[..., list[Stepwise]]:
    """Makes clients that have agreed on keys, without devices: what one machine of the protocol runs.

    ``seed`` fixes the private keys, so that two rounds of the same inputs can be compared bit for bit.
    """

    def make(
        parties: int, *, at_least: int = 2, ring_bits: int = 32, seed: int | None = None, blind: bool = False
    ) -> list[Stepwise]:
        names = NAMES[:parties]
        rules = Rules(Ring.make(ring_bits, None, parties), at_least, server_blind=blind)
        clients = [Stepwise(name, names, rules) for name in names]
        if seed is not None:
            for client, name in zip(clients, names, strict=True):
                raw = sha256(f"{seed} {name}".encode()).digest()
                client.keys._private_key = X25519PrivateKey.from_private_bytes(raw)
        agree_all([client.keys for client in clients])
        if seed is not None:
            for client in clients:
                client.keys._group = Ratchet(sha256(f"{seed}".encode()).digest())
        return clients

    return make


@pytest.fixture
def looks_uniform() -> Callable[[Sequence[np.ndarray]], bool]:
    """Pearson's chi-squared over the values of all bytes, and over each byte of an element by itself.

    Each of the at most nine statistics rejects uniform bytes with probability 1e-12, so a test that asks
    a hundred times is wrong by chance less than once in 10^9 runs.
    """
    threshold = chi2.isf(1e-12, 255)  # about 450; its mean is 255

    def statistic(values: np.ndarray) -> float:
        counts = np.bincount(values.ravel(), minlength=256)
        expected = values.size / 256
        return float(((counts - expected) ** 2 / expected).sum())

    def decide(body: Sequence[np.ndarray]) -> bool:
        verdicts = []
        for part in body:
            if part.size <= 1:  # the check at the end of a message
                continue
            columns = part.view(np.uint8).reshape(part.size, part.itemsize)
            assert len(columns) >= 256 * 20, "too few bytes for the chi-squared distribution to hold"
            verdicts += [statistic(columns), *(statistic(columns[:, k]) for k in range(part.itemsize))]
        assert verdicts, "nothing to judge"
        return max(verdicts) < threshold

    return decide
