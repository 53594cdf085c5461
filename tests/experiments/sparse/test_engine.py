"""The engine comes to FLModel's numbers, and its selections to those of the product."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn, optim
from torch.nn import functional as F
from torchmetrics import Accuracy

import secretflow as sf
from experiments.sparse.engine import Data, Outcome, Recipe, Run, train
from experiments.sparse.methods import Dense, Product
from experiments.sparse.selection import keep_largest, keep_largest_over_layers, lamp
from secretflow.data.ndarray import FedNdarray, PartitionWay
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.core.torch import BaseModule, TorchModel, metric_wrapper, optim_wrapper
from secretflow.ml.nn.fl.pruning import PruneSettings, prune_by_magnitude, prune_over_layers
from secretflow.ml.nn.fl.pruning.scores import scores as scores_by
from secretflow.security.aggregation import SecurePruneAggregator

ROWS = (90, 45)
SEED = 7
RECIPE = Recipe(
    epochs=3, aggregate_freq=2, batch_size=15, optimizer="adam", learning_rate=0.01, weight_decay=1e-3
)
SETTINGS: dict[str, dict[str, Any]] = {
    "nothing set": {},
    "a slow end": {"prune_end_epoch": 3},
    "local, by layer": {"prune_percent": 20},
    "local, over layers": {
        "prune_preset": "lottery",
        "prune_scope": "global",
        "prune_schedule": "cubic",
        "prune_end_epoch": 2,
        "prune_freq": 1,
    },
    "global, by layer": {"mask_scope": "global", "prune_percent": 20, "prune_freq": 1},
    "global, over layers": {
        "prune_preset": "lottery",
        "mask_scope": "global",
        "prune_scope": "global",
        "prune_schedule": "cubic",
        "prune_end_epoch": 2,
    },
    "global, steps scaled": {
        "prune_preset": "lottery",
        "mask_scope": "global",
        "prune_scope": "global",
        "prune_schedule": "cubic",
        "prune_end_epoch": 2,
        "prune_freq": 1,
        "step_power": 1.0,
    },
    "local, steps scaled": {"prune_percent": 30, "prune_freq": 1, "step_power": 0.5},
}


class Net(BaseModule):
    """A convolution and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.fc = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        return self.fc(F.max_pool2d(F.relu(self.conv(x)), 2).flatten(1))


def rows() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    y = generator.integers(0, 3, sum(ROWS))
    return (generator.normal(size=(len(y), 1, 8, 8)) + y[:, None, None, None]).astype(np.float32), y


def held() -> list[np.ndarray]:
    return np.split(np.arange(sum(ROWS)), [ROWS[0]])


def flmodel(devices: SimpleNamespace, aggregator: Any, **options: Any) -> tuple[FLModel, Any]:
    parties = [devices.alice, devices.bob]
    model = FLModel(
        server=devices.carol,
        device_list=parties,
        model=TorchModel(
            model_fn=Net,
            loss_fn=nn.CrossEntropyLoss,
            optim_fn=optim_wrapper(optim.Adam, lr=RECIPE.learning_rate, weight_decay=RECIPE.weight_decay),
            metrics=[metric_wrapper(Accuracy, task="multiclass", num_classes=3, average="micro")],
        ),
        aggregator=aggregator,
        backend="torch",
        random_seed=SEED,
        **options,
    )
    x, y = rows()
    data = [
        FedNdarray(
            {
                party: party(lambda part: part)(array[part])
                for party, part in zip(parties, held(), strict=True)
            },
            PartitionWay.HORIZONTAL,
        )
        for array in (x, np.eye(3, dtype=np.float32)[y])
    ]
    history = model.fit(
        *data,
        epochs=RECIPE.epochs,
        batch_sampling_rate=RECIPE.batch_size * len(ROWS) / sum(ROWS),
        shuffle=True,
        aggregate_freq=RECIPE.aggregate_freq,
        random_seed=SEED,
        verbose=0,
    )
    return model, history


def engine(method: Any, settings: PruneSettings | None = None, **options: Any) -> Outcome:
    x, y = map(torch.from_numpy, rows())
    # Other runs beside it, which must change nothing.
    beside = [Run(Dense(), SEED + k, held()[::-1]) for k in range(5)]
    runs = [Run(method, SEED, held(), settings), *beside]
    return train(runs, Net, Data(x, y, x, y), RECIPE, **options)[0]


def check(model: FLModel, outcome: Outcome) -> None:
    for k, worker in enumerate(model._workers.values()):
        for array, wanted in zip(outcome.weights.values(), sf.reveal(worker.get_weights()), strict=True):
            np.testing.assert_allclose(array[k].numpy(), wanted, atol=2e-4)


@pytest.mark.parametrize("matrices", [False, True])
@pytest.mark.parametrize("case", SETTINGS)
def test_pruned_training_comes_to_the_numbers_of_flmodel(
    devices: SimpleNamespace, case: str, matrices: bool
) -> None:
    chosen = {"prune_end_rate": 0.2, **SETTINGS[case]}
    aggregator = SecurePruneAggregator(devices.carol, [devices.alice, devices.bob])
    model, history = flmodel(devices, aggregator, strategy="fed_avg_w_prune", **chosen)
    settings = PruneSettings(**chosen)
    outcome = engine(Product(settings), settings, matrices=matrices)
    check(model, outcome)
    _, uploaded, density, _ = outcome.curve[-1]
    assert density == pytest.approx(history.global_history["density"][-1])
    assert uploaded * len(ROWS) == pytest.approx(sum(history.global_history["payload_bytes"]))


@pytest.mark.parametrize("bits", [8, 4])
def test_rounded_updates_come_to_the_numbers_of_flmodel(
    devices: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, bits: int
) -> None:
    for module in ("secretflow.ml.nn.fl.worker.rounds", "experiments.sparse.updates"):
        monkeypatch.setattr(f"{module}.rounding_key", lambda *_: bytes(32))  # the same draws at both
    chosen = {"prune_end_rate": 0.2, "prune_end_epoch": 2}
    aggregator = SecurePruneAggregator(devices.carol, [devices.alice, devices.bob], upload_bits=bits)
    model, history = flmodel(devices, aggregator, strategy="fed_avg_w_prune", **chosen)
    settings = PruneSettings(**chosen)
    outcome = engine(Product(settings, upload_bits=bits), settings)
    check(model, outcome)
    assert outcome.curve[-1][1] * len(ROWS) == sum(history.global_history["payload_bytes"])


def test_dense_training_comes_to_the_numbers_of_flmodel(devices: SimpleNamespace) -> None:
    # Upstream's own fit draws another order of rows; that this one is federated averaging is tested
    # elsewhere.
    aggregator = SecurePruneAggregator(devices.carol, [devices.alice, devices.bob])
    model, history = flmodel(devices, aggregator, strategy="fed_avg_w_prune", prune_end_rate=1)
    outcome = engine(Dense())
    check(model, outcome)
    assert outcome.curve[-1][1] * len(ROWS) == sum(history.global_history["payload_bytes"])


def test_a_runs_rate_is_a_learning_rate_of_its_own_in_a_stack() -> None:
    def weights(learning_rate: float, *rates: float) -> dict[str, Tensor]:
        x, y = map(torch.from_numpy, rows())
        recipe = replace(RECIPE, learning_rate=learning_rate)
        runs = [Run(Dense(), SEED, held(), rate=rate) for rate in rates]
        return dict(train(runs, Net, Data(x, y, x, y), recipe)[0].weights)

    alone, beside = weights(RECIPE.learning_rate, 1.0), weights(2 * RECIPE.learning_rate, 0.5, 1.0)
    for name, value in alone.items():
        torch.testing.assert_close(beside[name], value, atol=1e-4, rtol=0)


def test_steps_shrink_to_nothing_as_a_cosine() -> None:
    run = Run(Dense(), SEED, held(), rate=2.0, decay="cosine")
    assert [run.rate_at(progress) for progress in (0, 0.5, 1)] == pytest.approx([2, 1, 0])


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_selections_are_those_of_the_product(seed: int, keep: int) -> None:
    generator = np.random.default_rng(seed)
    layers = [generator.integers(-4, 5, size).astype(np.float32) for size in (12, 7, 30)]  # with many ties
    masks = [(generator.random(layer.size) < 0.7).astype(np.uint8) for layer in layers]
    for mask in masks:
        mask[generator.integers(mask.size)] = 1
    scores = [torch.tensor(layer).abs()[None] for layer in layers]
    alive = [torch.tensor(mask)[None] != 0 for mask in masks]
    for layer, mask, score, living in zip(layers, masks, scores, alive, strict=True):
        expected = prune_by_magnitude(layer, mask, keep)
        np.testing.assert_array_equal(keep_largest(score, living, keep)[0].numpy(), expected)
    for layer in layers:
        found = lamp(torch.tensor(layer)[None])[0].numpy()
        np.testing.assert_allclose(found, scores_by("lamp", [layer], None)[0], rtol=1e-12)
    together = prune_over_layers(layers, masks, keep)
    for found, wanted in zip(keep_largest_over_layers(scores, alive, keep), together, strict=True):
        np.testing.assert_array_equal(found[0].numpy(), wanted)
