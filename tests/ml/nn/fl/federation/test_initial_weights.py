"""A fit begins with the same weights at all parties; where they have them already, none travel."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import secretflow as sf
from secretflow.data.ndarray import FedNdarray
from secretflow.ml.nn import FLModel
from secretflow.security.aggregation import SecurePruneAggregator

from .conftest import BATCH, weights_of

MakeModel = Callable[..., FLModel]
Data = tuple[FedNdarray, FedNdarray]


def began_with(model: FLModel, data: Data) -> tuple[list[np.ndarray], dict[str, int]]:
    """Weights after a fit in which nothing is learnt; what each party uploaded before its rounds."""
    before = uploaded(model)
    history = model.fit(*data, epochs=1, batch_size=BATCH, verbose=0)
    in_rounds = {party: sum(history.local_history[f"{party}_payload_bytes"]) for party in before}
    first, *others = weights_of(model)
    for other in others:
        for one, another in zip(first, other, strict=True):
            np.testing.assert_array_equal(one, another)
    return first, {party: size - before[party] - in_rounds[party] for party, size in uploaded(model).items()}


def uploaded(model: FLModel) -> dict[str, int]:
    sizes = sf.reveal(dict(model._aggregator.payload_bytes()))
    return {party.party: size for party, size in sizes.items()}


def still(make_model: MakeModel, **options: Any) -> FLModel:
    """A model that training does not change."""
    return make_model(optimizer=Still, prune_end_rate=1, **options)


class Still(torch.optim.SGD):
    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, lr=0.0)


@pytest.mark.parametrize("bits", [None, 8])
def test_equal_weights_stay_to_the_bit_and_do_not_travel(
    devices: SimpleNamespace, parties: list[Any], make_model: MakeModel, data: Data, bits: int | None
) -> None:
    model = still(make_model, aggregator=SecurePruneAggregator(devices.carol, parties, upload_bits=bits))
    numbers = sum(array.size for array in weights_of(model)[0])
    initial = weights_of(model)[0]
    found, at_start = began_with(model, data)
    for array, wanted in zip(found, initial, strict=True):
        np.testing.assert_allclose(array, wanted, atol=2e-6)
    assert all(size < numbers for size in at_start.values()), at_start  # far below 4 bytes each
    _, at_start = began_with(model, data)  # what the first fit ends with is the same everywhere, too
    assert all(size < numbers for size in at_start.values()), at_start


@pytest.mark.parametrize("bits", [None, 8])
def test_other_weights_are_averaged(
    devices: SimpleNamespace, parties: list[Any], make_model: MakeModel, data: Data, bits: int | None
) -> None:
    model = still(make_model, aggregator=SecurePruneAggregator(devices.carol, parties, upload_bits=bits))
    first, second = weights_of(model)
    second[0][0, 0] += 1
    sf.reveal(list(model._workers.values())[1].set_weights(second))
    numbers = sum(array.size for array in first)
    found, at_start = began_with(model, data)
    assert all(size >= 4 * numbers for size in at_start.values()), at_start
    assert found[0][0, 0] == pytest.approx(first[0][0, 0] + 1 / 2, abs=1e-5)  # all count alike
    np.testing.assert_allclose(found[0].flat[1:], first[0].flat[1:], atol=2e-6)


def test_weights_that_are_not_finite_are_named_where_all_have_them(make_model: MakeModel, data: Data) -> None:
    model = still(make_model)
    for worker in model._workers.values():
        weights = sf.reveal(worker.get_weights())
        weights[0][0, 0] = np.nan
        sf.reveal(worker.set_weights(weights))
    with pytest.raises(Exception, match="must hold finite numbers, got NaN"):
        model.fit(*data, epochs=1, batch_size=BATCH, verbose=0)


def test_without_a_seed_all_parties_draw_the_same_weights_and_each_model_others(
    make_model: MakeModel,
) -> None:
    models = [weights_of(make_model(random_seed=None)) for _ in range(2)]
    for first, second in models:
        for one, another in zip(first, second, strict=True):
            np.testing.assert_array_equal(one, another)
    assert not np.array_equal(models[0][0][0], models[1][0][0])


def test_a_seed_of_torch_gives_the_weights(make_model: MakeModel) -> None:
    found = []
    for _ in range(2):
        torch.manual_seed(11)
        found.append(weights_of(make_model(random_seed=None))[0][0])
    np.testing.assert_array_equal(*found)
