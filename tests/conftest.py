"""Devices of the tests: in this process (quick, synchronous) or on one Ray started for the session."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import hypothesis
import pytest
import torch

import secretflow as sf
import secretflow.distributed as sfd
from secretflow.device import global_state
from secretflow.distributed.primitive import DISTRIBUTION_MODE
from secretflow.security.aggregation.secagg.transport.local import LocalTransport

PARTIES = ["alice", "bob", "carol", "davy"]


def _devices() -> SimpleNamespace:
    return SimpleNamespace(**{party: sf.PYU(party) for party in PARTIES})


# How long an example takes says something of the machine, nothing of the code.
hypothesis.settings.register_profile("without a clock", deadline=None)
hypothesis.settings.load_profile("without a clock")

# Threads that wait for each other make small nets slower, and very slow on a busy machine.
torch.set_num_threads(1)


@pytest.fixture
def devices() -> Iterator[SimpleNamespace]:
    """PYUs ``alice`` to ``davy`` whose work is done in this process, at once."""
    before = sfd.get_distribution_mode()
    global_state.set_parties(PARTIES)
    sfd.set_distribution_mode(DISTRIBUTION_MODE.DEBUG)
    yield _devices()
    sfd.set_distribution_mode(before)


@pytest.fixture(scope="session")
def _ray() -> Iterator[None]:
    sf.init(PARTIES, address="local", log_to_driver=False)
    yield
    sfd.set_distribution_mode(DISTRIBUTION_MODE.SIMULATION)
    sf.shutdown()


@pytest.fixture
def ray_devices(_ray: None) -> Iterator[SimpleNamespace]:
    """The same PYUs, each with worker processes of its own; one Ray serves the whole session."""
    before = sfd.get_distribution_mode()
    sfd.set_distribution_mode(DISTRIBUTION_MODE.SIMULATION)
    yield _devices()
    sfd.set_distribution_mode(before)


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many messages of each party went without the driver, each time they did."""
    counts: list[int] = []
    run = LocalTransport.run

    def counted(self: LocalTransport, begin: Any, exchanges: int, rounds: int = 0) -> Any:
        counts.append(exchanges)
        return run(self, begin, exchanges, rounds)

    monkeypatch.setattr(LocalTransport, "run", counted)
    return counts
