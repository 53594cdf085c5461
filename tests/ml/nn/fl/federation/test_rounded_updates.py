"""Fits whose updates travel as a few bits each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch import nn, optim

import secretflow as sf
from secretflow.data.ndarray import FedNdarray
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.core.torch import optim_wrapper
from secretflow.security.aggregation import SecurePruneAggregator
from secretflow.security.aggregation.secagg.rounding import UPLOAD_BITS
from secretflow.security.privacy import DPStrategyFL, GaussianModelDP
from secretflow.utils.simulation.data.ndarray import create_ndarray

from ..conftest import CLASSES, FEATURES, Mlp, NormedMlp, model_def
from .conftest import data_of

ROWS = (40, 24, 33)
Make = Callable[..., FLModel]


@pytest.fixture
def parties(devices: SimpleNamespace) -> list[Any]:
    return [devices.alice, devices.bob, devices.carol]


@pytest.fixture
def data(parties: list[Any]) -> tuple[FedNdarray, FedNdarray]:
    arrays = [data_of(seed, rows) for seed, rows in enumerate(ROWS)]
    ends = np.cumsum([0, *ROWS]).tolist()
    parts = {party: (ends[k], ends[k + 1]) for k, party in enumerate(parties)}
    x, y = (np.concatenate(both) for both in zip(*arrays, strict=True))
    return create_ndarray(x, parts=parts, axis=0), create_ndarray(y, parts=parts, axis=0, is_label=True)


@pytest.fixture
def make(devices: SimpleNamespace, parties: list[Any]) -> Make:
    def made(
        upload_bits: int | None, net: type[nn.Module] = Mlp, blind: bool = False, **options: Any
    ) -> FLModel:
        server = devices.davy if blind else devices.carol
        return FLModel(
            server=server,
            device_list=parties,
            model=model_def(net, optim_wrapper(optim.Adam, lr=0.02)),
            aggregator=SecurePruneAggregator(server, parties, upload_bits=upload_bits, server_blind=blind),
            strategy="fed_avg_w_prune",
            backend="torch",
            random_seed=5,
            **{"prune_end_rate": 0.5, "prune_percent": 30, **options},
        )

    return made


def state_of(model: FLModel) -> list[dict[str, np.ndarray]]:
    states = []
    for worker in model._workers.values():
        weights = sf.reveal(worker.get_weights())
        states.append({str(k): array for k, array in enumerate(weights)})
    return states


def fit(model: FLModel, data: tuple[FedNdarray, FedNdarray], epochs: int, **options: Any) -> Any:
    return model.fit(
        *data,
        **{"epochs": epochs, "batch_size": 8, "verbose": 0, "random_seed": 3, "shuffle": True, **options},
    )


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("bits", UPLOAD_BITS)
def test_a_fit_learns_what_it_learns_with_whole_numbers(
    make: Make, data: tuple[FedNdarray, FedNdarray], bits: int, scope: str
) -> None:
    losses = {}
    for used in (None, bits):
        history = fit(make(used, mask_scope=scope), data, 12)
        losses[used] = history.global_history["loss"][-1]
        assert ("clipped" in history.global_history) == (used is not None)
        assert history.global_history["density"][-1] == pytest.approx(0.5, abs=0.02)
    clipped = history.global_history["clipped"]
    assert len(clipped) == 12 and all(0 <= part < 0.2 for part in clipped)
    assert history.local_history["alice_clipped"][0] >= 0
    assert losses[bits] == pytest.approx(losses[None], abs={8: 0.03, 4: 0.06, 2: 0.3}[bits])


def test_an_upload_costs_its_bits(make: Make, data: tuple[FedNdarray, FedNdarray]) -> None:
    history = fit(make(8, mask_scope="global", prune_end_rate=1), data, 1)
    numbers = FEATURES * 6 + 6 + 6 * CLASSES + CLASSES
    lanes = -(-numbers // 6)  # of three parties' sums of 8 bits six are in 59 bits
    expected = 8 * -(-lanes * 59 // 64) + 4 * 4 * 8
    assert set(history.local_history["alice_round_payload_bytes"][0]) == {expected}


@pytest.mark.parametrize("blind", [False, True])
@pytest.mark.parametrize("scope", ["local", "global"])
def test_a_fit_that_was_stopped_goes_on_to_the_bit(
    make: Make, data: tuple[FedNdarray, FedNdarray], scope: str, blind: bool, tmp_path: Path
) -> None:
    whole = make(4, mask_scope=scope, blind=blind)
    fit(whole, data, 4)
    first = make(4, mask_scope=scope, blind=blind)
    fit(first, data, 2)
    first.save_model(f"{tmp_path}/model", is_test=True)
    resumed = make(4, mask_scope=scope, blind=blind)
    resumed.load_model(f"{tmp_path}/model", is_test=True)
    fit(resumed, data, 2)
    for own, other in zip(state_of(whole), state_of(resumed), strict=True):
        for name, array in own.items():
            np.testing.assert_array_equal(array, other[name])


def test_a_fit_begins_with_an_average_if_a_party_has_other_weights(
    make: Make, data: tuple[FedNdarray, FedNdarray]
) -> None:
    model = make(8, mask_scope="global", prune_end_rate=1)
    fit(model, data, 1)
    worker = next(iter(model._workers.values()))
    sf.reveal(worker.set_weights([array + 1 for array in sf.reveal(worker.get_weights())]))
    fit(model, data, 1)
    first, *others = state_of(model)
    for other in others:
        for name, array in first.items():
            np.testing.assert_array_equal(array, other[name])


def test_running_statistics_travel_whole(make: Make, data: tuple[FedNdarray, FedNdarray]) -> None:
    model = make(2, NormedMlp, mask_scope="global")
    fit(model, data, 6)
    for worker in model._workers.values():
        weights = sf.reveal(worker.get_weights())
        (variance,) = (w for k, w in enumerate(weights) if k == 5)
        assert variance.shape == (6,) and (variance > 0).all()


def test_noise_whose_account_would_not_hold_is_refused(
    make: Make, data: tuple[FedNdarray, FedNdarray]
) -> None:
    noise = DPStrategyFL(GaussianModelDP(noise_multiplier=0.5, num_clients=3))
    model = make(8, mask_scope="global", dp_strategy=noise)
    with pytest.raises(ValueError, match="upload_bits must be None with dp_strategy"):
        fit(model, data, 1)
