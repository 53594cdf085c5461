"""A user's own training module: the example, then the aggregator by itself, then a wait to be looked at."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np

from experiments import production
from secretflow.device import PYU, reveal
from secretflow.party.training import Run
from secretflow.security.aggregation import SecurePruneAggregator
from secretflow.security.aggregation.secagg.identity import identities_here

_SECONDS = 240


def train(run: Run) -> None:
    """Trains, adds up, and then waits until the file of the option ``until`` is there."""
    production.train(run)
    (run.out / "sums.json").write_text(json.dumps(add_up(run)))
    (run.out / "fingerprints.json").write_text(json.dumps(fingerprints(run)))
    end = time.monotonic() + _SECONDS
    while not Path(run.options["until"]).exists():
        assert time.monotonic() < end
        time.sleep(0.1)


def add_up(run: Run) -> list[list[float]]:
    """An average and a sum, opened at the server and revealed to all."""
    parties, server = [PYU(name) for name in run.cluster.trainers], PYU(run.cluster.server)
    aggregator = SecurePruneAggregator(server, parties)
    held = [party(_numbers)(k) for k, party in enumerate(parties)]
    masks = [party(_mask)() for party in parties]
    weights = list(range(1, len(parties) + 1))
    average = reveal(aggregator.average(held, axis=0, weights=weights, prune_mask=masks))
    # Of other numbers: a sum of those would be their average under other weights, which is refused.
    total = reveal(aggregator.sum([party(_numbers)(k + 3) for k, party in enumerate(parties)], axis=0))
    return [np.asarray(array, float).tolist() for arrays in (average, total) for array in arrays]


def fingerprints(run: Run) -> list[str]:
    """The key agreement in short, at each party; empty if it was not signed by pinned identities."""
    if identities_here() is None:
        return []
    aggregator = SecurePruneAggregator(PYU(run.cluster.server), [PYU(name) for name in run.cluster.trainers])
    return list(reveal(aggregator.fingerprint()).values())


def _numbers(k: int) -> list[np.ndarray]:
    return [np.full(3, float(k + 1)), np.full(2, k + 1)]


def _mask() -> list[np.ndarray | None]:
    return [np.array([1, 1, 0]), None]
