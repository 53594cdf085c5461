"""Pruned training comes to the numbers of a plain simulation, and without pruning to those of averaging."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch import optim

from secretflow.data.ndarray import FedNdarray
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.fl.pruning import PruneSettings, density
from secretflow.security.aggregation import PlainAggregator

from .conftest import BATCH, masks_of, weights_of
from .reference import Reference, named

CASES = {
    "local": {},
    "local, over layers": {"prune_scope": "global"},
    "local, cubic": {"prune_schedule": "cubic", "prune_start_epoch": 1, "prune_end_epoch": 3},
    "local, regrowing": {"regrow_percent": 20},
    "local, by snip": {"prune_criterion": "snip"},
    "local, within epochs": {"prune_freq": 2, "prune_percent": 10},
    "local, cubic, within epochs": {
        "prune_schedule": "cubic",
        "prune_freq": 1,
        "prune_start_epoch": 1,
        "prune_end_epoch": 3,
    },
    "global, within epochs": {"mask_scope": "global", "prune_freq": 2},
    "global, cubic, within epochs": {
        "mask_scope": "global",
        "prune_schedule": "cubic",
        "prune_freq": 1,
        "prune_end_epoch": 3,
    },
    "local, withholding": {"withhold_percent": 30},
    "local, regrowing and withholding": {"regrow_percent": 20, "withhold_percent": 30},
    "global": {"mask_scope": "global"},
    "global, withholding": {"mask_scope": "global", "withhold_percent": 30},
    "global, over layers, cubic": {
        "mask_scope": "global",
        "prune_scope": "global",
        "prune_schedule": "cubic",
        "prune_end_epoch": 3,
    },
}


@pytest.mark.parametrize("aggregate_freq", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_training_is_what_a_plain_simulation_computes(
    make_model: Callable[..., FLModel],
    data: tuple[FedNdarray, FedNdarray],
    case: str,
    aggregate_freq: int,
) -> None:
    chosen: dict[str, Any] = {"prune_end_rate": 0.3, "prune_percent": 30, **CASES[case]}
    model = make_model(**chosen)
    history = model.fit(*data, epochs=4, batch_size=BATCH, aggregate_freq=aggregate_freq, verbose=0)
    reference = Reference(PruneSettings(**chosen))
    reference.fit(4, aggregate_freq)
    for mask, expected in zip(masks_of(model), reference.masks, strict=True):
        for entry, wanted in zip(mask, expected, strict=True):
            np.testing.assert_array_equal(entry, wanted)
    for weights, net in zip(weights_of(model), reference.nets, strict=True):
        for array, wanted in zip(weights, net.state_dict().values(), strict=True):
            np.testing.assert_allclose(array, wanted.numpy(), atol=1e-4)
    rates = [density(named(mask)) for mask in reference.masks]
    assert history.global_history["density"][-1] == pytest.approx(sum(rates) / 2)
    if "global" in chosen.get("mask_scope", "local"):
        assert rates[0] == rates[1] < 0.31
    else:
        assert any((a != b).any() for a, b in zip(*reference.masks, strict=True)), (
            "masks of two parties differ"
        )


def test_without_pruning_it_is_federated_averaging(
    make_model: Callable[..., FLModel], data: tuple[FedNdarray, FedNdarray], devices: SimpleNamespace
) -> None:
    plain = make_model(strategy="fed_avg_w", aggregator=PlainAggregator(devices.carol), optimizer=optim.Adam)
    dense = make_model(prune_end_rate=1, optimizer=optim.Adam)
    curves = []
    for model in (plain, dense):
        history = model.fit(*data, validation_data=data, epochs=3, batch_size=BATCH, verbose=0, random_seed=3)
        curves.append(history.global_history["val_multiclassaccuracy"])
    np.testing.assert_allclose(*curves)
    for one, other in zip(*(weights_of(model) for model in (plain, dense)), strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)
