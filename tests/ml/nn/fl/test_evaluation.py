"""Evaluating and predicting use every row in evaluation mode, and change nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.regression import MeanSquaredError

import secretflow as sf
from secretflow.ml.nn.callbacks.callback import Callback
from secretflow.ml.nn.core.torch import BaseModule, metric_wrapper

from .bring import build, predicted, spread, worker_of

FEATURES = 6
ROWS = (23, 12)
STRATEGIES = ["fed_avg_w_prune", "fed_avg_w"]


class Counter(nn.Module):
    """Counts in a buffer, in whichever mode, how often it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls = self.calls + 1
        return x


class FunctionalDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(F.dropout(x, 0.5, self.training))


class AlwaysNoisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x + torch.randn_like(x))


class PartlyFrozen(nn.Module):
    """Keeps its batch normalisation in evaluation mode while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(FEATURES)
        self.linear = nn.Linear(FEATURES, 1)

    def train(self, mode: bool = True) -> PartlyFrozen:
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.norm(x))


NETS: dict[str, Callable[[], nn.Module]] = {
    "dropout": lambda: nn.Sequential(nn.Linear(FEATURES, 8), nn.Dropout(0.5), nn.Linear(8, 1)),
    "batch norm": lambda: nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)),
    "functional dropout": FunctionalDropout,
    "feature alpha dropout": lambda: nn.Sequential(nn.AlphaDropout(0.3), nn.Linear(FEATURES, 1)),
    "instance norm": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 3)),
        nn.InstanceNorm1d(2, track_running_stats=True),
        nn.Flatten(),
        nn.Linear(FEATURES, 1),
    ),
    "a counter": lambda: nn.Sequential(Counter(), nn.Linear(FEATURES, 1)),
    "partly frozen": PartlyFrozen,
}


def rows(devices: SimpleNamespace, counts: tuple[int, ...] = ROWS) -> tuple[Any, Any, np.ndarray]:
    x = np.random.default_rng(1).normal(size=(sum(counts), FEATURES)).astype(np.float32)
    y = x[:, :1] + 1
    return spread(devices, counts, x), spread(devices, counts, y), x


@pytest.mark.parametrize(
    ("net", "strategy"),
    [
        *((net, "fed_avg_w_prune") for net in NETS),
        ("dropout", "fed_avg_w"),
        ("functional dropout", "fed_prox"),
    ],
)
def test_predictions_after_fit_are_those_of_evaluation_mode(
    devices: SimpleNamespace, net: str, strategy: str
) -> None:
    x, y, array = rows(devices)
    model = build(devices, NETS[net], nn.MSELoss, [metric_wrapper(MeanSquaredError)], strategy=strategy)
    model.fit(x, y, batch_size=6, epochs=2, verbose=0)
    for party, first, last in ((0, 0, ROWS[0]), (1, ROWS[0], sum(ROWS))):
        worker = worker_of(model, party)
        modes = [module.training for module in worker.model.modules()]
        state = copy.deepcopy(worker.model.state_dict())
        random = torch.get_rng_state()
        ours = predicted(model, x, batch_size=5)[party]
        model.evaluate(x, y, batch_size=5)
        assert not ours.requires_grad
        assert modes == [module.training for module in worker.model.modules()]
        assert any(modes)
        torch.testing.assert_close(worker.model.state_dict(), state, rtol=0, atol=0)
        torch.testing.assert_close(torch.get_rng_state(), random)
        expected = copy.deepcopy(worker.model).eval()(torch.tensor(array[first:last])).detach()
        torch.testing.assert_close(ours, expected)


def test_what_is_trained_does_not_depend_on_evaluations(devices: SimpleNamespace) -> None:
    class Evaluates(Callback):
        needs_model_each_round = True

        def on_train_batch_end(self, batch: int) -> None:
            models[0].evaluate(x, y, batch_size=4)
            models[0].predict(x, batch_size=4)

    x, y, _ = rows(devices)
    metrics = [metric_wrapper(MeanSquaredError)]
    models = [build(devices, NETS["dropout"], nn.MSELoss, metrics) for _ in range(2)]
    kept = []
    for model, callbacks in zip(models, ([Evaluates()], None), strict=True):
        torch.manual_seed(0)
        history = model.fit(
            x, y, batch_size=4, epochs=2, shuffle=True, verbose=0, callbacks=callbacks, random_seed=1
        )
        weights = sf.reveal([worker.get_weights() for worker in model._workers.values()])
        kept.append((weights[0][0], history.global_history["meansquarederror"]))
    np.testing.assert_array_equal(kept[0][0], kept[1][0])
    assert kept[0][1] == kept[1][1]


def test_a_net_that_draws_numbers_when_it_predicts_leaves_torchs_as_they_are(
    devices: SimpleNamespace,
) -> None:
    x, y, _ = rows(devices)
    model = build(devices, AlwaysNoisy, nn.MSELoss)
    model.fit(x, y, batch_size=6, verbose=0)
    random = torch.get_rng_state()
    model.predict(x)
    torch.testing.assert_close(torch.get_rng_state(), random)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("batch_size", [1, 7, None])
@pytest.mark.parametrize("counts", [(59, 30), (2, 1500), (97, 11, 5)])
def test_every_row_is_evaluated_and_predicted_once_in_order(
    devices: SimpleNamespace, strategy: str, batch_size: int | None, counts: tuple[int, ...]
) -> None:
    if batch_size == 1 and 1500 in counts:
        pytest.skip("so many batches take their time")
    x, y, array = rows(devices, counts)
    seen: list[np.ndarray] = []

    class Watches(BaseModule):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(FEATURES, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x)

        def validation_step(self, batch: Any, *args: Any, **kwargs: Any) -> None:
            seen.append(batch[0].numpy())
            self.update_metrics(self(batch[0]), batch[1])

    metrics = [metric_wrapper(MeanSquaredError)]
    model = build(devices, Watches, None, metrics, strategy=strategy, parties=len(counts))
    ours = predicted(model, x, batch_size=batch_size)
    assert [len(part) for part in ours] == list(counts)
    net = worker_of(model).model
    torch.testing.assert_close(torch.cat(ours), net(torch.tensor(array)).detach())
    model.evaluate(x, y, **({} if batch_size is None else {"batch_size": batch_size}))
    np.testing.assert_array_equal(np.concatenate(seen), array)
    assert max(map(len, seen)) <= (batch_size or 32)


def test_each_party_may_have_a_batch_size_of_its_own_to_predict_with(devices: SimpleNamespace) -> None:
    x, _, array = rows(devices)
    model = build(devices, NETS["batch norm"], nn.MSELoss)
    ours = predicted(model, x, batch_size={devices.alice: 3, devices.bob: 5})
    torch.testing.assert_close(
        torch.cat(ours), copy.deepcopy(worker_of(model).model).eval()(torch.tensor(array)).detach()
    )


class TwoOutputs(BaseModule):
    def __init__(self, give: Callable[[torch.Tensor, torch.Tensor], Any]) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(FEATURES, 3), nn.Linear(FEATURES, 1)
        self.give = give

    def forward(self, x: torch.Tensor) -> Any:
        return self.give(self.one(x), self.two(x))

    def training_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0, **kwargs: Any) -> Any:
        x, y = batch
        return self.two(x).sub(y).square().mean()


def test_a_net_with_two_outputs_gives_both_for_every_row(devices: SimpleNamespace) -> None:
    x, y, array = rows(devices)
    model = build(devices, lambda: TwoOutputs(lambda one, two: (one, two)))
    model.fit(x, y, batch_size=6, verbose=0)
    predictions = sf.reveal(model.predict(x, batch_size=4)[devices.alice])
    assert len(predictions) == ROWS[0]
    net = worker_of(model).model
    one, two = net(torch.tensor(array[: ROWS[0]]))
    torch.testing.assert_close(torch.stack([row[0] for row in predictions]), one.detach())
    torch.testing.assert_close(torch.stack([row[1] for row in predictions]), two.detach())
    named = build(devices, lambda: TwoOutputs(lambda one, two: {"one": one, "two": two}))
    rows_of_bob = sf.reveal(named.predict(x, batch_size=4)[devices.bob])
    assert [set(row) for row in rows_of_bob] == [{"one", "two"}] * ROWS[1]


@pytest.mark.parametrize(
    "give", [lambda one, two: two.mean(), lambda one, two: "text", lambda one, two: None]
)
def test_an_output_without_rows_is_refused(devices: SimpleNamespace, give: Callable[..., Any]) -> None:
    x, _, _ = rows(devices)
    with pytest.raises(ValueError, match="model must give a tensor with an entry for each row"):
        sf.reveal(build(devices, lambda: TwoOutputs(give)).predict(x)[devices.alice])


def test_outputs_that_are_not_one_for_each_row_are_refused(devices: SimpleNamespace) -> None:
    x, _, _ = rows(devices)
    model = build(devices, lambda: TwoOutputs(lambda one, two: two[:3]))
    with pytest.raises(ValueError, match="one output for each row, got 3 for 23 rows"):
        sf.reveal(model.predict(x)[devices.alice])


def test_a_model_without_metrics_is_told_that_it_cannot_be_evaluated(devices: SimpleNamespace) -> None:
    x, y, _ = rows(devices)
    with pytest.raises(ValueError, match="metrics of TorchModel must have a metric for evaluate"):
        build(devices, NETS["dropout"], nn.MSELoss).evaluate(x, y)


def test_validation_in_fit_sees_every_row(devices: SimpleNamespace) -> None:
    labels = np.arange(89) % 3
    x = np.eye(3, dtype=np.float32)[labels]
    held = spread(devices, (59, 30), x), spread(devices, (59, 30), labels.astype(np.float32))
    metrics = [metric_wrapper(MulticlassAccuracy, num_classes=3, average="micro")]
    model = build(devices, lambda: nn.Linear(3, 3), nn.CrossEntropyLoss, metrics)
    history = model.fit(*held, validation_data=held, batch_size=30, verbose=0)
    net = worker_of(model).model
    expected = (net(torch.tensor(x)).argmax(1).numpy() == labels).mean()
    assert history.global_history["val_multiclassaccuracy"] == [pytest.approx(expected)]
