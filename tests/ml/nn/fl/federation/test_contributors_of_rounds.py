"""Who stands behind what travels in the rounds of a fit."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch import optim

from benchmarks.internals import Uploads, watched_uploads
from secretflow.device import PYUObject, proxy
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.core.torch import optim_wrapper
from secretflow.security.aggregation import SecurePruneAggregator
from secretflow.security.aggregation.secagg.errors import AggregationError
from secretflow.security.aggregation.secagg.participant import Participant
from secretflow.utils.simulation.data.ndarray import create_ndarray

from ..conftest import Mlp, model_def
from .conftest import BATCH, data_of, masks_of, weights_of

NAMES = ["alice", "bob", "carol"]


def trained(
    devices: SimpleNamespace,
    rows: tuple[int, ...] = (30, 30, 40),
    between: Callable[[FLModel], None] = lambda _: None,
    before: Callable[[FLModel], None] = lambda _: None,
    **options: Any,
) -> tuple[FLModel, list[Uploads]]:
    """Two fits of three parties with skewed rows, and what was uploaded for their averages."""
    parties = [getattr(devices, name) for name in NAMES]
    chosen = {"fixed_contributors", "min_contributors", "min_share", "ring_bits"}
    how = {name: options.pop(name) for name in chosen & options.keys()}
    model = FLModel(
        server=devices.davy,
        device_list=parties,
        model=model_def(Mlp, optim_wrapper(optim.SGD, lr=1.0)),
        aggregator=SecurePruneAggregator(devices.davy, parties, **how),
        strategy="fed_avg_w_prune",
        backend="torch",
        random_seed=1,
        prune_percent=30,
        **{"prune_end_rate": 0.2, **options},
    )
    ends = np.cumsum([0, *rows])
    places = {party: (ends[k], ends[k + 1]) for k, party in enumerate(parties)}
    own = [data_of(seed, count) for seed, count in enumerate(rows)]
    x = create_ndarray(np.concatenate([features for features, _ in own]), parts=places, axis=0)
    # Each party calls the classes otherwise, so that they prune otherwise.
    named = [np.roll(labels, k, axis=1) for k, (_, labels) in enumerate(own)]
    y = create_ndarray(np.concatenate(named), parts=places, axis=0)
    smallest = min(BATCH, *rows)
    batches = {party: count * smallest // min(rows) for party, count in zip(parties, rows, strict=True)}
    before(model)
    with watched_uploads(3) as rounds:
        model.fit(x, y, epochs=3, batch_size=batches, aggregate_freq=2, verbose=0)
        between(model)
        model.fit(x, y, epochs=3, batch_size=batches, aggregate_freq=2, verbose=0)
    return model, rounds


@pytest.mark.parametrize("min_contributors", [None, 2])
@pytest.mark.parametrize("options", [{}, {"regrow_percent": 20}, {"mask_scope": "global"}])
def test_no_weight_travels_in_a_round_with_fewer_than_min_contributors_or_with_others_than_before(
    devices: SimpleNamespace, min_contributors: int | None, options: dict[str, Any]
) -> None:
    _, rounds = trained(devices, min_contributors=min_contributors, **options)
    check(rounds, min_contributors or 3)


def check(rounds: list[Uploads], min_contributors: int) -> None:
    first: dict[int, bytes] = {}
    for uploads in rounds:
        behind = uploads.contributors()[uploads.travels()]
        assert behind.size and behind.min() >= min_contributors
        for element in np.flatnonzero(uploads.travels()):
            now = uploads.contributes[:, element].tobytes()
            assert first.setdefault(int(element), now) == now
    assert rounds[-1].travels().sum() < rounds[0].travels().sum(), "something must have stopped travelling"


def test_contributors_stay_the_same_though_another_model_was_trained_in_between(
    devices: SimpleNamespace,
) -> None:
    """It takes the parties' clients in, so that they are made anew for the second fit."""

    def another(model: FLModel) -> None:
        others = {device: dispatched(device) for device in model._workers}
        model._aggregator.host_at(others)

    def dispatched(device: Any) -> Any:
        return proxy(PYUObject)(Participant)(device=device)

    _, rounds = trained(devices, min_contributors=2, between=another)
    check(rounds, 2)


def test_a_weight_that_too_few_parties_keep_goes_on_learning_where_it_is_kept(
    devices: SimpleNamespace,
) -> None:
    model, _ = trained(devices)
    masks = [np.concatenate([entry.ravel() for entry in mask]) for mask in masks_of(model)]
    weights = [np.concatenate([a.ravel() for a in arrays if a.ndim >= 2]) for arrays in weights_of(model)]
    kept_by = np.sum(masks, axis=0)
    for own, mask in zip(weights, masks, strict=True):
        private = (mask == 1) & (kept_by < 3)
        assert private.any() and (own[private] != 0).all()
    both = (masks[0] == 1) & (masks[1] == 1) & (kept_by == 2)
    assert both.any() and (weights[0][both] != weights[1][both]).all()


def test_a_fit_in_which_too_few_parties_hold_enough_rows_is_refused(devices: SimpleNamespace) -> None:
    with pytest.raises(AggregationError, match=r"weights must give at least min_contributors=3.*got 1"):
        trained(devices, rows=(1, 1, 1500), ring_bits=64)
    trained(devices, rows=(1, 1, 1500), ring_bits=64, min_share=1e-3)


@pytest.mark.parametrize("mask_scope", ["local", "global"])
def test_a_party_of_few_rows_takes_part_and_does_not_count(devices: SimpleNamespace, mask_scope: str) -> None:
    how: dict[str, Any] = {"min_contributors": 2, "ring_bits": 64, "mask_scope": mask_scope}
    _, rounds = trained(devices, rows=(750, 750, 1), **how)
    check(rounds, 3)  # one more than must count, for who does not is not known


@pytest.mark.parametrize("mask_scope", ["local", "global"])
def test_who_counted_in_an_average_before_the_fit_is_told_how_to_count_in_it(
    devices: SimpleNamespace, mask_scope: str
) -> None:
    """In an average of weights before a fit all count alike; the next one without a party tells its part."""
    how: dict[str, Any] = {
        "rows": (750, 750, 1),
        "min_contributors": 2,
        "ring_bits": 64,
        "mask_scope": mask_scope,
        "before": lambda model: model.initialize_weights(model.initialize_masks_prune_rates()[0]),
    }
    with pytest.raises(AggregationError, match=r"where it did before.*smaller min_share"):
        trained(devices, **how)
    trained(devices, **how, min_share=1e-3)
