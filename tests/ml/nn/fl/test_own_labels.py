"""Labels, inputs, outputs and losses as people bring them: taken, or refused in one sentence."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchmetrics.classification import BinaryAccuracy, MulticlassAccuracy

import secretflow as sf
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.core.torch import BaseModule, TorchModel, metric_wrapper
from secretflow.security.aggregation import SecurePruneAggregator

from .bring import (
    CLASSES,
    FEATURES,
    RNG,
    build,
    fitted,
    linear,
    predicted,
    spread,
    table,
    weights_of,
    worker_of,
)


@pytest.mark.parametrize("strategy", ["fed_avg_w_prune", "fed_avg_w"])
@pytest.mark.parametrize(
    "shape", ["vector", "column", "int8", "one-hot", "integer one-hot", "bool one-hot", "floats"]
)
@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss])
def test_numbers_of_classes_are_labels_in_any_form(
    devices: SimpleNamespace, shape: str, loss: Any, strategy: str
) -> None:
    x, y = table(30)
    eye = np.eye(CLASSES)[y]
    labels = {
        "vector": y,
        "column": y[:, None],
        "int8": y.astype(np.int8),
        "one-hot": eye,
        "integer one-hot": eye.astype(np.int64),
        "bool one-hot": eye.astype(bool),
        "floats": y.astype(np.float64),
    }
    if strategy == "fed_avg_w" and shape == "bool one-hot":
        pytest.skip("upstream takes no bools")
    trained = []
    for form in (labels[shape], y.astype(np.float32)):
        model = build(
            devices,
            linear,
            loss,
            [metric_wrapper(MulticlassAccuracy, num_classes=CLASSES, average="micro")],
            strategy=strategy,
        )
        held = spread(devices, (20, 10), x), spread(devices, (20, 10), form)
        history = model.fit(*held, batch_size=5, epochs=2, verbose=0, validation_data=held)
        trained.append((weights_of(model)[0], history.global_history["val_multiclassaccuracy"][-1]))
    np.testing.assert_allclose(trained[0][0], trained[1][0], atol=1e-6)
    expected = (predicted(model, held[0])[0].argmax(1).numpy() == y[:20]).mean() * 20
    expected += (predicted(model, held[0])[1].argmax(1).numpy() == y[20:]).mean() * 10
    assert trained[0][1] == trained[1][1] == pytest.approx(expected / 30)


@pytest.mark.parametrize("loss", [nn.MSELoss, nn.BCEWithLogitsLoss, nn.L1Loss])
def test_one_output_takes_labels_in_a_vector_or_a_column(devices: SimpleNamespace, loss: Any) -> None:
    x, y = table(30)
    y = (y > 0).astype(np.int64)

    def squeezed() -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, 1), nn.Flatten(0))

    def column() -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, 1))

    trained = []
    for net in (squeezed, column):
        for labels in (y, y[:, None], y[:, None].astype(np.float32)):
            model = build(devices, net, loss, [metric_wrapper(BinaryAccuracy)])
            held = spread(devices, (20, 10), x), spread(devices, (20, 10), labels)
            model.fit(*held, batch_size=5, epochs=2, verbose=0)
            trained.append([*weights_of(model), float(model.evaluate(*held)[0][0])])
    for other in trained[1:]:
        for one, another in zip(trained[0], other, strict=True):
            np.testing.assert_allclose(one, another, atol=1e-6)


class Words(nn.Module):
    """Means of embedded tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 4)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.embedding(x).mean(1))


class WordsOfFloats(Words):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.long())


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.uint64])
def test_tokens_stay_integers_in_training_evaluation_and_prediction(
    devices: SimpleNamespace, dtype: Any
) -> None:
    tokens, y = RNG.integers(0, 9, (30, 5)), table(30)[1]
    accuracy = metric_wrapper(MulticlassAccuracy, num_classes=CLASSES, average="micro")
    trained = []
    for net, x in ((Words, tokens.astype(dtype)), (WordsOfFloats, tokens.astype(np.float32))):
        model = build(devices, net, nn.CrossEntropyLoss, [accuracy])
        held = spread(devices, (20, 10), x), spread(devices, (20, 10), y)
        model.fit(*held, batch_size=5, epochs=2, verbose=0, validation_data=held)
        trained.append([*weights_of(model), *predicted(model, held[0])])
    for one, other in zip(*trained, strict=True):
        np.testing.assert_array_equal(one, other)


def test_tokens_that_pandas_made_floats_of_are_told_what_to_do(devices: SimpleNamespace) -> None:
    x, y = RNG.integers(0, 9, (18, 5)).astype(np.float64), table(18)[1]
    model = build(devices, Words, nn.CrossEntropyLoss)
    with pytest.raises(ValueError, match=r"with y.long\(\) or x.long\(\)"):
        model.fit(spread(devices, (9, 9), x), spread(devices, (9, 9), y), batch_size=9, verbose=0)


def test_integers_that_are_no_tokens_stay_numbers(devices: SimpleNamespace) -> None:
    x, y = RNG.integers(0, 9, (18, FEATURES)), table(18)[1]
    model = build(devices, linear, nn.CrossEntropyLoss)
    model.fit(spread(devices, (9, 9), x), spread(devices, (9, 9), y), batch_size=9, verbose=0)


class OwnStep(BaseModule):
    def __init__(self, step: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, CLASSES)
        self.step = step

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)

    def training_step(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        return self.step(self, *batch)


def test_a_step_that_takes_labels_for_integers_is_told_what_to_do(devices: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match=r"training_step must make integers .* with y.long\(\)"):
        fitted(devices, (9, 9), lambda: OwnStep(lambda net, x, y: F.cross_entropy(net(x), y)))


@pytest.mark.parametrize("gather", [list, tuple])
@pytest.mark.parametrize("options", [{}, {"mu": 0.5}])
def test_a_list_of_losses_is_their_sum(
    devices: SimpleNamespace, gather: Any, options: dict[str, Any]
) -> None:
    def parts(net: Any, x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
        return [F.cross_entropy(net(x), y.long()), net.linear.weight.square().sum()]

    RNG.bit_generator.state = np.random.PCG64(1).state
    several = fitted(devices, (9, 9), lambda: OwnStep(lambda *a: gather(parts(*a))), options=options)
    RNG.bit_generator.state = np.random.PCG64(1).state
    summed = fitted(devices, (9, 9), lambda: OwnStep(lambda *a: sum(parts(*a))), options=options)
    for one, other in zip(weights_of(several), weights_of(summed), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert worker_of(several)._training.trainer.last_loss() > 0


@pytest.mark.parametrize("loss", [{"loss": torch.ones(())}, None, 3.0])
def test_what_is_no_loss_is_refused(devices: SimpleNamespace, loss: Any) -> None:
    with pytest.raises(ValueError, match="training_step must return a tensor or a list of tensors"):
        fitted(devices, (9, 9), lambda: OwnStep(lambda *_: loss))


def test_a_model_without_a_loss_is_told_so(devices: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="loss_fn of TorchModel must be given"):
        fitted(devices, (9, 9), linear)


def test_a_model_without_an_optimiser_is_told_so(devices: SimpleNamespace) -> None:
    parties = [devices.alice, devices.bob]
    model = FLModel(
        server=devices.carol,
        device_list=parties,
        model=TorchModel(linear, nn.CrossEntropyLoss),
        aggregator=SecurePruneAggregator(devices.carol, parties),
        strategy="fed_avg_w_prune",
        backend="torch",
    )
    x, y = table(18)
    with pytest.raises(ValueError, match=r"^optim_fn of TorchModel must be given .*optim_wrapper"):
        model.fit(spread(devices, (9, 9), x), spread(devices, (9, 9), y), batch_size=9, verbose=0)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(2, CLASSES), nn.Linear(2, CLASSES)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return self.a(a) + self.b(b)


class Pairs(Dataset):
    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.y = torch.tensor(x), torch.tensor(y)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, row: int) -> Any:
        return (self.x[row, :2], self.x[row, 2:]), self.y[row]


def pairs(arrays: list[np.ndarray], stage: str) -> tuple[DataLoader, int]:
    y = arrays[1] if len(arrays) > 1 else np.zeros(len(arrays[0]), np.int64)
    loader = DataLoader(Pairs(arrays[0], y), batch_size=6)
    return loader, len(loader)


def test_several_inputs_are_a_tuple_of_features(devices: SimpleNamespace) -> None:
    x, y = table(36)
    rows = (18, 18)
    metrics = [metric_wrapper(MulticlassAccuracy, num_classes=CLASSES)]
    model = build(devices, TwoInputs, nn.CrossEntropyLoss, metrics, prune_end_rate=0.5, prune_percent=30)
    held = spread(devices, rows, x), spread(devices, rows, y)
    builders = {devices.alice: pairs, devices.bob: pairs}
    history = model.fit(
        *held, dataset_builder=builders, validation_data=held, epochs=3, batch_size=6, verbose=0
    )
    assert history.global_history["val_multiclassaccuracy"][-1] > 0.3
    ours = sf.reveal(model.predict(held[0], batch_size=6, dataset_builder=builders)[devices.alice])
    net = worker_of(model).model
    expected = net(torch.tensor(x[:18, :2]), torch.tensor(x[:18, 2:])).detach()
    torch.testing.assert_close(torch.stack(ours), expected)


def test_a_net_with_two_outputs_and_no_step_is_told_to_have_one(devices: SimpleNamespace) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear()

        def forward(self, x: torch.Tensor) -> Any:
            return self.linear(x), x

    with pytest.raises(ValueError, match="model must give one tensor for its loss and metrics, got tuple"):
        fitted(devices, (9, 9), Two, nn.CrossEntropyLoss)


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (lambda y: np.where(np.arange(len(y)) == 7, np.nan, y), r"got nan in y\[7\]"),
        (lambda y: (y / 2)[:, None], r"got 0.5 in y\[\d+\]"),
        (lambda y: y + 1, rf"fewer than the scores .*, got: Target {CLASSES} is out of bounds"),
        (lambda y: y - 1, r"fewer than the scores .*, got: Target -1 is out of bounds"),
    ],
    ids=["missing", "fractions", "from one", "from minus one"],
)
@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss, nn.NLLLoss])
def test_labels_that_are_no_numbers_of_classes_are_refused(
    devices: SimpleNamespace, labels: Any, told: str, loss: Any
) -> None:
    _, y = table(30)
    with pytest.raises(ValueError, match=rf"^y .*must hold numbers of classes.* {told}"):
        fitted(devices, (20, 10), linear, loss, y=labels(y))


def test_tokens_beyond_the_vocabulary_are_refused(devices: SimpleNamespace) -> None:
    def net() -> nn.Module:
        return nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(4 * FEATURES, CLASSES))

    x, y = np.full((30, FEATURES), 10), table(30)[1]
    model = build(devices, net, nn.CrossEntropyLoss)
    with pytest.raises(ValueError, match=r"^x must hold tokens .*, got tokens from 10 to 10 in a batch"):
        model.fit(spread(devices, (20, 10), x), spread(devices, (20, 10), y), batch_size=5, verbose=0)
