"""Weights of classes and rows, labels of other shapes, paths of any kind: applied as given, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchmetrics import MeanSquaredError
from torchmetrics.classification import MulticlassAccuracy

import secretflow as sf
from secretflow.ml.nn.core.torch import BaseModule, metric_wrapper
from secretflow.ml.nn.fl.callbacks import Checkpoint
from secretflow.ml.nn.fl.worker.capture import GradientCapture
from secretflow.ml.nn.fl.worker.capture_files import load_capture

from .bring import CLASSES, FEATURES, RNG, build, fitted, linear, spread, table, weights_of, worker_of

ACCURACY = metric_wrapper(MulticlassAccuracy, num_classes=CLASSES, average="micro")


def column() -> nn.Module:
    return nn.Linear(FEATURES, 1)


def vector() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 1), nn.Flatten(0))


def nested_norm() -> nn.Module:
    body = nn.Sequential(nn.Linear(FEATURES, 8), nn.Sequential(nn.BatchNorm1d(8)), nn.ReLU())
    return nn.Sequential(body, nn.Linear(8, CLASSES))


@pytest.mark.parametrize("strategy", ["fed_avg_w_prune", "fed_avg_w"])
def test_batch_normalisation_stays_at_a_party_at_any_depth(devices: SimpleNamespace, strategy: str) -> None:
    x, y = table(40)
    x[20:] += 5
    model = build(devices, nested_norm, nn.CrossEntropyLoss, [ACCURACY], strategy=strategy, skip_bn=True)
    data = spread(devices, (20, 20), x), spread(devices, (20, 20), y)
    model.fit(*data, batch_size=5, verbose=0, epochs=2)
    one, other = (worker_of(model, k).model.state_dict() for k in range(2))
    normed = [name for name in one if name.startswith("0.1.0.")]
    assert len(normed) == 5
    for name in ("running_mean", "weight"):
        assert not torch.allclose(one[f"0.1.0.{name}"], other[f"0.1.0.{name}"])
    if strategy == "fed_avg_w_prune":  # of others the last average has not been taken up yet
        assert all(torch.equal(one[name], other[name]) for name in one if name not in normed)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"0": 9.0}, "class_weight's keys must be an integer of at least 0, got '0'"),
        ({0.5: 9.0}, "class_weight's keys must be an integer"),
        ({-1: 9.0}, "class_weight's keys must be an integer"),
        ({0: 1.0, 17: 9.0}, r"class_weight must be of numbers of classes from 0 to 2, got 17"),
        ({0: -1.0}, r"class_weight\[0\] must be a number at least 0"),
    ],
)
def test_weights_of_no_class_are_refused(
    devices: SimpleNamespace, weights: dict[Any, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fitted(devices, (20, 9), linear, nn.CrossEntropyLoss, class_weight=weights)


def test_weights_of_classes_need_labels_of_classes(devices: SimpleNamespace) -> None:
    labels = (2 * RNG.normal(size=(29, 1))).astype(np.float32)
    with pytest.raises(ValueError, match="class_weight must be None with labels that are no numbers"):
        fitted(devices, (20, 9), column, nn.MSELoss, y=labels, class_weight={0: 9.0})


def test_weights_of_classes_may_be_numbers_of_numpy(devices: SimpleNamespace) -> None:
    y = table(29)[1]
    x = RNG.normal(size=(29, FEATURES)).astype(np.float32)
    found = []
    for weights in ({0: 5.0}, {np.int64(0): np.float32(5)}, {0: np.int32(5)}, None):
        model = build(devices, linear, nn.CrossEntropyLoss)
        data = spread(devices, (20, 9), x), spread(devices, (20, 9), y)
        model.fit(*data, batch_size=5, verbose=0, class_weight=weights)
        found.append(weights_of(model)[0])
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])
    assert not np.array_equal(found[0], found[3])


@pytest.mark.parametrize("strategy", ["fed_avg_w_prune", "fed_avg_w"])
def test_evaluation_refuses_weights_that_it_would_not_apply(devices: SimpleNamespace, strategy: str) -> None:
    x, y = table(29)
    model = build(devices, linear, nn.CrossEntropyLoss, [ACCURACY], strategy=strategy)
    data = spread(devices, (20, 9), x), spread(devices, (20, 9), y)
    weights = spread(devices, (20, 9), np.ones(29))
    with pytest.raises(ValueError, match="sample_weight must be None in evaluation"):
        model.evaluate(*data, sample_weight=weights)
    model.evaluate(*data)


class OwnValidation(BaseModule):
    """Applies weights in validation; its metric is of those rows alone."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = linear()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)

    def validation_step(self, batch: Any, *args: Any, sample_weight: Any = None, **kwargs: Any) -> None:
        x, y = batch
        chosen = sample_weight > 0
        self.update_metrics(self(x)[chosen], y[chosen])


def test_a_validation_step_of_ones_own_gets_the_weights(devices: SimpleNamespace) -> None:
    x, y = table(29)
    model = build(devices, OwnValidation, nn.CrossEntropyLoss, [ACCURACY])
    data = spread(devices, (20, 9), x), spread(devices, (20, 9), y)
    rows = sf.reveal(list(model.predict(data[0]).values()))
    right = np.concatenate([torch.stack(part).argmax(1).numpy() for part in rows]) == y
    weights = spread(devices, (20, 9), right.astype(float))
    assert float(model.evaluate(*data, sample_weight=weights)[0][0].result()) == 1.0


@pytest.mark.parametrize("strategy", ["fed_avg_w_prune", "fed_avg_w"])
def test_rows_of_somebody_who_does_not_train_are_refused(devices: SimpleNamespace, strategy: str) -> None:
    x, y = table(29)
    model = build(devices, linear, nn.CrossEntropyLoss, [ACCURACY], strategy=strategy)
    three = spread(devices, (20, 5, 4), x), spread(devices, (20, 5, 4), y)
    one = spread(devices, (29,), x), spread(devices, (29,), y)
    for data in (three, one):
        for call in (lambda d: model.evaluate(*d), lambda d: model.predict(d[0]), lambda d: model.fit(*d)):
            with pytest.raises(ValueError, match="x must be of the parties of device_list"):
                call(data)


@pytest.mark.parametrize("loss", [nn.MSELoss, nn.L1Loss, nn.HuberLoss, nn.SmoothL1Loss, nn.PoissonNLLLoss])
@pytest.mark.parametrize("net", [column, vector])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_column_of_labels_and_a_vector_are_the_same(
    devices: SimpleNamespace, net: Callable[[], nn.Module], loss: Any, weighted: bool
) -> None:
    x = RNG.normal(size=(20, FEATURES)).astype(np.float32)
    y = np.abs(x @ np.array([1.0, 2.0, -1.0, 0.5])).astype(np.float32)
    weights = spread(devices, (10, 10), np.linspace(0.5, 2, 20)) if weighted else None
    found = []
    for labels in (y, y[:, None]):
        model = build(devices, net, loss, lr=0.05)
        data = spread(devices, (10, 10), x), spread(devices, (10, 10), labels)
        model.fit(*data, batch_size=5, verbose=0, epochs=3, sample_weight=weights)
        found.append(weights_of(model))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_the_loss_of_a_vector_of_labels_falls_with_its_metric(devices: SimpleNamespace) -> None:
    x = RNG.normal(size=(20, FEATURES)).astype(np.float32)
    y = (x @ np.array([1.0, 2.0, -1.0, 0.5])).astype(np.float32)
    model = build(devices, column, nn.MSELoss, [metric_wrapper(MeanSquaredError)], lr=0.2)
    data = spread(devices, (10, 10), x), spread(devices, (10, 10), y)
    history = model.fit(*data, batch_size=5, verbose=0, epochs=40).global_history
    assert history["loss"][-1] < 1e-4 and history["meansquarederror"][-1] < 1e-4


def test_labels_of_another_shape_are_refused(devices: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match=r"y must be of the shape of the model's output for MSELoss"):
        fitted(devices, (20, 9), linear, nn.MSELoss, y=RNG.normal(size=29).astype(np.float32), batch_size=3)


class Overlapping(nn.Module):
    """A weight of which several elements are one number."""

    def __init__(self, weight: Callable[[], torch.Tensor]) -> None:
        super().__init__()
        self.a, self.out = nn.Linear(FEATURES, 8), nn.Linear(8, CLASSES)
        self.a.weight = nn.Parameter(weight())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.a(x)))


@pytest.mark.parametrize(
    "weight",
    [
        lambda: torch.randn(8 + FEATURES - 1).unfold(0, FEATURES, 1),
        lambda: torch.randn(1, FEATURES).expand(8, -1),
    ],
)
def test_a_weight_that_overlaps_itself_is_refused_before_training(
    devices: SimpleNamespace, weight: Callable[[], torch.Tensor]
) -> None:
    with pytest.raises(ValueError, match=r"a\.weight must have a number of its own for each element, got"):
        build(devices, lambda: Overlapping(weight), nn.CrossEntropyLoss)


def test_a_weight_with_gaps_or_turned_is_taken(devices: SimpleNamespace) -> None:
    for weight in (lambda: torch.randn(16, FEATURES)[::2], lambda: torch.randn(FEATURES, 8).t()):
        F.linear(torch.rand(2, FEATURES), weight())
        build(devices, lambda weight=weight: Overlapping(weight), nn.CrossEntropyLoss)


class AsPath:
    """A path of somebody's own library."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return str(self._path)


@pytest.mark.parametrize("kind", [str, Path, AsPath])
def test_paths_may_be_of_any_kind(devices: SimpleNamespace, tmp_path: Path, kind: Any) -> None:
    options = {"prune_structure": "neuron", "prune_end_rate": 0.5, "prune_percent": 50}
    capture = GradientCapture(directory=kind(tmp_path / "captured"), party="alice")

    def net() -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU(), nn.Linear(8, CLASSES))

    options["gradient_capture"] = capture
    checkpoint = Checkpoint(kind(tmp_path / "run" / "checkpoint"))
    model = fitted(devices, (20, 9), net, nn.CrossEntropyLoss, options=options, callbacks=[checkpoint])
    model.export_sparse(kind(tmp_path / "sparse"))
    model.export_dense_small(kind(tmp_path / "small"))
    model.save_model(kind(tmp_path / "model"))
    model.load_model(kind(tmp_path / "model"))
    model.load_model({device: kind(tmp_path / device.party / "model") for device in model._workers})
    for party in ("alice", "bob"):
        for name in ("sparse", "small", "model", "run/checkpoint"):
            folder, _, file = name.rpartition("/")
            assert (tmp_path / folder / party / file).is_file(), name
    assert load_capture(kind(tmp_path / "captured"))


@pytest.mark.parametrize("number", [7, 2**33 + 1, 1_700_000_000_123, 2**45 + 1])
def test_large_integers_keep_their_value_with_many_rows(devices: SimpleNamespace, number: int) -> None:
    def net() -> nn.Module:
        built = linear()
        built.register_buffer("ids", torch.tensor([number, -number]))
        return built

    model = fitted(devices, (9000, 8532), net, nn.CrossEntropyLoss, batch_size=2844, epochs=2)
    assert worker_of(model).model.ids.tolist() == [number, -number]


def test_integers_that_do_not_fit_are_refused_with_advice(devices: SimpleNamespace) -> None:
    def net() -> nn.Module:
        built = linear()
        built.register_buffer("ids", torch.tensor([2**52 + 1]))
        return built

    with pytest.raises(Exception, match=r"does not fit into 64 bits.*persistent=False"):
        fitted(devices, (9000, 8532), net, nn.CrossEntropyLoss, batch_size=2844)
