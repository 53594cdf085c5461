"""A user's own training module: the example with and without a blind server, one of unequal parties, then the
aggregator by itself, then a wait to be looked at.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import ray

from experiments import production
from secretflow.device import PYU, PYUObject, proxy, reveal
from secretflow.ml.nn.callbacks.early_stopping import EarlyStoppingEpoch
from secretflow.party.training import Run
from secretflow.security.aggregation import SecurePruneAggregator
from secretflow.security.aggregation.secagg.identity import identities_here
from secretflow.security.aggregation.secagg.participant import Participant
from tests.production import own_numbers

_SECONDS = 240


def train(run: Run) -> None:
    """Trains, adds up, and then waits until the file of the option ``until`` is there."""
    production.train(run)
    train_at_a_blind_server(run)
    train_on_unequal_rows(run)
    (run.out / "sums.json").write_text(json.dumps(add_up(run)))
    (run.out / "fingerprints.json").write_text(json.dumps(fingerprints(run)))
    end = time.monotonic() + _SECONDS
    while not Path(run.options["until"]).exists():
        assert time.monotonic() < end
        time.sleep(0.1)


def train_at_a_blind_server(run: Run) -> None:
    """Trains without the server, until a callback stops it; takes down what this driver was told."""
    trainers = tuple(name for name in run.cluster.trainers if name != run.cluster.server)
    settings = {**run.cluster.settings, "server_blind": True}
    blind = replace(
        run, cluster=replace(run.cluster, trainers=trainers, settings=settings), out=run.out / "blind"
    )
    # Nobody comes to its baseline, so it stops after an epoch; it goes by a metric that the server has not.
    stop = EarlyStoppingEpoch("val_multiclassaccuracy", patience=1, baseline=2.0)
    with everything_told() as told:
        production.train(blind, [stop])
    (blind.out / "told.json").write_text(json.dumps(told))


def train_on_unequal_rows(run: Run) -> None:
    """Trains, and takes down what this driver was told and what it makes of it."""
    with everything_told() as told:
        found = own_numbers.train(PYU(run.cluster.server), [PYU(name) for name in run.cluster.trainers])
    (run.out / "own_numbers.json").write_text(json.dumps({**found, "told": told}))


@contextmanager
def everything_told() -> Iterator[dict[str, list[Any]]]:
    """All that this process, which is the driver, gets from Ray: numbers, and the kinds of the rest."""
    told: dict[str, list[Any]] = {"floats": [], "integers": [], "kinds": []}

    def take_down(value: Any) -> None:
        if isinstance(value, dict):
            value = list(value.items())
        if isinstance(value, (list, tuple, set)):
            for part in value:
                take_down(part)
        elif isinstance(value, (np.ndarray, np.generic)):
            take_down(value.tolist())
        elif isinstance(value, float):
            told["floats"].append(value)
        elif isinstance(value, int):
            told["integers"].append(value)
        elif value is not None:
            told["kinds"].append(type(value).__name__)
            take_down(getattr(value, "__dict__", None))

    get = ray.get

    def get_and_take_down(*args: Any, **kwargs: Any) -> Any:
        value = get(*args, **kwargs)
        take_down(value)
        return value

    with mock.patch.object(ray, "get", get_and_take_down):
        yield told


def add_up(run: Run) -> list[list[float]]:
    """An average and a sum, opened at the server and revealed to all, by actors one after the other.

    What they know of the calls before must not travel, so it is in no list of what may.
    """
    parties, server = [PYU(name) for name in run.cluster.trainers], PYU(run.cluster.server)
    aggregator = SecurePruneAggregator(server, parties)
    held = [party(_numbers)(k) for k, party in enumerate(parties)]
    masks = [party(_mask)() for party in parties]
    weights = list(range(1, len(parties) + 1))
    average = reveal(aggregator.average(held, axis=0, weights=weights, prune_mask=masks))
    aggregator.host_at({party: proxy(PYUObject)(Participant)(device=party) for party in parties})
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
