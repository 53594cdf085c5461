"""Metrics are what torchmetrics computes on the same weights and rows, over all parties together."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics
from torch import nn
from torchmetrics import classification as tc
from torchmetrics import regression as tr

import secretflow as sf
from secretflow.ml.nn.core.torch import BaseModule, metric_wrapper
from secretflow.ml.nn.fl.metric_sums import Sums
from secretflow.ml.nn.metrics import Default
from secretflow.party.messages import pack, unpack

from .bring import build, spread, worker_of

ROWS = (70, 31, 9)
N, FEATURES = sum(ROWS), 5
RNG = np.random.default_rng(5)
X = RNG.normal(size=(N, FEATURES)).astype(np.float32)
NOISE = RNG.normal(size=(N, 4)).astype(np.float32)
CLASSES = (X[:, :4] + NOISE).argmax(1)

LABELS: dict[str, np.ndarray] = {
    "real": (X[:, :1] * 3 + NOISE[:, :1] + 0.25).astype(np.float32),
    "real vector": (X[:, 0] * 3 + NOISE[:, 0]).astype(np.float64),
    "two reals": (X[:, :2] + NOISE[:, :2] + 10).astype(np.float32),
    "binary": (X[:, :1] + NOISE[:, :1] > 0).astype(np.float32),
    "binary vector": (X[:, 0] + NOISE[:, 0] > 0).astype(np.int64),
    "multilabel": (X[:, :3] + NOISE[:, :3] > 0).astype(np.float32),
    "integer multilabel": (X[:, :3] + NOISE[:, :3] > 0).astype(np.int32),
    "one-hot": np.eye(4, dtype=np.float32)[CLASSES],
    "classes": CLASSES,
    "column of classes": CLASSES[:, None].astype(np.int32),
}

# Metric, labels, outputs of the net, loss, and whether the metric over all rows is exact.
SUMS: list[tuple[Callable[[], torchmetrics.Metric], str]] = [
    *((metric, "real") for metric in (tr.MeanSquaredError, tr.MeanAbsoluteError, tr.R2Score)),
    *((metric, "real vector") for metric in (tr.MeanSquaredError, tr.ExplainedVariance)),
    *((metric, "two reals") for metric in (tr.MeanSquaredError, tr.MeanAbsolutePercentageError)),
    (lambda: tr.MeanSquaredError(squared=False), "real"),
    (lambda: tr.MeanSquaredError(num_outputs=2), "two reals"),
    (lambda: tr.R2Score(multioutput="raw_values"), "two reals"),
    (tr.SymmetricMeanAbsolutePercentageError, "real"),
    (tr.LogCoshError, "real"),
    (lambda: tr.TweedieDevianceScore(power=0), "real"),
    *((metric, "binary") for metric in (tc.BinaryAccuracy, tc.BinaryF1Score, tc.BinaryPrecision)),
    *((metric, "binary vector") for metric in (tc.BinaryRecall, tc.BinarySpecificity)),
    (lambda: tc.BinaryAUROC(thresholds=50), "binary"),
    (lambda: tc.BinaryAveragePrecision(thresholds=50), "binary"),
    (tc.BinaryMatthewsCorrCoef, "binary"),
    (tc.BinaryConfusionMatrix, "binary"),
    (lambda: tc.BinaryAccuracy(threshold=0.7), "binary"),
    *((lambda m=m: m(num_labels=3), "multilabel") for m in (tc.MultilabelAccuracy, tc.MultilabelF1Score)),
    (lambda: tc.MultilabelRecall(num_labels=3, average="none"), "integer multilabel"),
    (lambda: tc.MultilabelAUROC(num_labels=3, thresholds=20), "multilabel"),
    *((lambda m=m: m(num_classes=4), "one-hot") for m in (tc.MulticlassAccuracy, tc.MulticlassCohenKappa)),
    (lambda: tc.MulticlassAccuracy(num_classes=4, average="micro"), "classes"),
    (lambda: tc.MulticlassAccuracy(num_classes=4, average=None), "column of classes"),
    (lambda: tc.MulticlassAccuracy(num_classes=4, top_k=2), "classes"),
    (lambda: tc.MulticlassPrecision(num_classes=4, average="weighted"), "one-hot"),
    (lambda: tc.MulticlassConfusionMatrix(num_classes=4, normalize="true"), "classes"),
    (lambda: tc.MulticlassAUROC(num_classes=4, thresholds=30), "classes"),
]


def outputs(labels: str) -> int:
    return {"two reals": 2, "multilabel": 3, "integer multilabel": 3}.get(
        labels, 4 if "class" in labels or labels == "one-hot" else 1
    )


def loss_for(labels: str) -> Any:
    if "real" in labels:
        return nn.MSELoss
    return nn.CrossEntropyLoss if outputs(labels) == 4 else nn.BCEWithLogitsLoss


class Net(nn.Module):
    def __init__(self, labels: str) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, outputs(labels))
        self.flat = labels.endswith(" vector")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x)
        return y[:, 0] if self.flat else y


def reference(metric: torchmetrics.Metric, labels: str, net: nn.Module, rows: slice = slice(None)) -> Any:
    y = torch.tensor(LABELS[labels][rows])
    if labels == "one-hot":
        y = y.argmax(1)
    if "column" in labels:
        y = y[:, 0]
    y = y.float() if "real" in labels else y.long()
    metric.update(net(torch.tensor(X[rows])).detach(), y)
    return metric.compute().numpy()


@pytest.mark.parametrize("case", range(len(SUMS)))
def test_over_all_rows_it_is_torchmetrics_exactly(devices: SimpleNamespace, case: int) -> None:
    make, labels = SUMS[case]
    x, y = spread(devices, ROWS, X), spread(devices, ROWS, LABELS[labels])
    model = build(devices, lambda: Net(labels), loss_for(labels), [make], parties=3, lr=0.02)
    history = model.fit(x, y, batch_size=9, epochs=2, verbose=0, validation_data=(x, y))
    net = worker_of(model).model
    expected = reference(make(), labels, net)
    [metric], local = model.evaluate(x, y, batch_size=8)
    assert isinstance(metric, Sums)
    np.testing.assert_allclose(metric.result().numpy(), expected, rtol=2e-5, atol=2e-6)
    (name,) = [name for name in history.global_history if name.startswith("val_")]
    np.testing.assert_allclose(history.global_history[name][-1], expected, rtol=2e-5, atol=2e-6)
    first = reference(make(), labels, net, slice(0, ROWS[0]))
    np.testing.assert_allclose(local["alice"][0].result().numpy(), first, rtol=2e-5, atol=2e-6)
    travelled = unpack(pack(metric))
    np.testing.assert_array_equal(travelled.result(), metric.result())


@pytest.mark.parametrize("strategy", ["fed_avg_w", "fed_prox"])
def test_upstreams_strategies_have_them_too(devices: SimpleNamespace, strategy: str) -> None:
    x, y = spread(devices, ROWS, X), spread(devices, ROWS, LABELS["real"])
    metrics = [tr.MeanSquaredError, tr.R2Score]
    model = build(devices, lambda: Net("real"), nn.MSELoss, metrics, strategy=strategy, parties=3, lr=0.02)
    model.fit(x, y, batch_size=9, epochs=1, verbose=0)
    net = worker_of(model).model
    for metric, make in zip(model.evaluate(x, y)[0], metrics, strict=True):
        np.testing.assert_allclose(metric.result().numpy(), reference(make(), "real", net), rtol=1e-5)


def test_the_error_of_a_net_that_is_right_is_tiny(devices: SimpleNamespace) -> None:
    exact = X @ np.array([[0.3], [-0.2], [0.5], [0.1], [0.25]], np.float32) + np.float32(0.125)
    x, y = spread(devices, ROWS, X), spread(devices, ROWS, exact)
    metrics = [tr.MeanSquaredError, tr.R2Score]
    model = build(devices, lambda: Net("real"), nn.MSELoss, metrics, parties=3, lr=0.2)
    history = model.fit(x, y, batch_size=9, epochs=60, verbose=0)
    assert history.global_history["meansquarederror"][-1] < 1e-6
    assert history.global_history["r2score"][-1] > 0.99999


def test_what_has_no_sums_is_a_mean_weighted_by_rows(devices: SimpleNamespace) -> None:
    x, y = spread(devices, ROWS, X), spread(devices, ROWS, LABELS["binary"])
    metrics = [tc.BinaryAUROC, tc.BinaryCalibrationError]
    model = build(devices, lambda: Net("binary"), nn.BCEWithLogitsLoss, metrics, parties=3)
    model.fit(x, y, batch_size=9, epochs=3, verbose=0)
    net, ends = worker_of(model).model, np.cumsum([0, *ROWS])
    with pytest.warns(UserWarning, match="binaryauroc is the mean of the parties' values$"):
        values = [metric.result().numpy() for metric in model.evaluate(x, y, batch_size=7)[0]]
    for value, make in zip(values, metrics, strict=True):
        each = [reference(make(), "binary", net, slice(ends[k], ends[k + 1])) for k in range(3)]
        assert value == pytest.approx(np.average(each, weights=ROWS))


@pytest.mark.parametrize("only", [0.0, 1.0])
@pytest.mark.parametrize("make", [tc.BinaryAUROC, tc.BinaryAveragePrecision, lambda: tc.MulticlassAUROC(4)])
def test_a_party_on_whose_rows_a_metric_is_not_defined_is_left_out_and_named(
    devices: SimpleNamespace, only: float, make: Callable[[], torchmetrics.Metric]
) -> None:
    multiclass = isinstance(make(), tc.MulticlassAUROC)
    if make is tc.BinaryAveragePrecision and only:
        pytest.skip("of positive rows alone the average precision is 1")
    labels = CLASSES.astype(np.float32) if multiclass else LABELS["binary"].copy()
    labels[: ROWS[0]] = only  # the largest has one class
    x, y = spread(devices, ROWS[:2], X[: sum(ROWS[:2])]), spread(devices, ROWS[:2], labels[: sum(ROWS[:2])])
    kind = "classes" if multiclass else "binary"
    model = build(devices, lambda: Net(kind), loss_for(kind), [make])
    net = worker_of(model).model
    theirs = make()
    part = slice(ROWS[0], sum(ROWS[:2]))
    theirs.update(net(torch.tensor(X[part])).detach(), torch.tensor(labels[part]).long())
    with pytest.warns(UserWarning, match="without alice, where it is not defined"):
        value = model.evaluate(x, y)[0][0].result().numpy()
    assert value == pytest.approx(float(theirs.compute()))


def test_a_metric_that_no_party_has_is_no_number(devices: SimpleNamespace) -> None:
    x, y = spread(devices, (5, 4), X[:9]), spread(devices, (5, 4), np.ones((9, 1), np.float32))
    model = build(devices, lambda: Net("binary"), nn.BCEWithLogitsLoss, [tc.BinaryAUROC])
    with pytest.warns(UserWarning, match="without alice, bob, where"):
        assert np.isnan(model.evaluate(x, y)[0][0].result())


def test_a_party_with_too_few_rows_of_its_own_counts_among_all_rows(devices: SimpleNamespace) -> None:
    x, y = spread(devices, (12, 1), X[:13]), spread(devices, (12, 1), LABELS["real"][:13])
    model = build(devices, lambda: Net("real"), nn.MSELoss, [tr.R2Score])
    [metric], local = model.evaluate(x, y)
    expected = reference(tr.R2Score(), "real", worker_of(model).model, slice(0, 13))
    assert metric.result().numpy() == pytest.approx(expected, rel=1e-5)
    assert np.isnan(local["bob"][0].result())
    model.fit(x, y, batch_size=1, verbose=0)


def test_five_hospitals_of_which_most_have_one_class(devices: SimpleNamespace) -> None:
    rows = [400, 40, 30]
    rng = np.random.default_rng(2)
    x = rng.normal(size=(sum(rows), FEATURES)).astype(np.float32)
    y = (x[:, :1] + rng.normal(size=(sum(rows), 1)) > 0).astype(np.float32)
    y[400:440], y[440:] = 0, 1
    held = spread(devices, rows, x), spread(devices, rows, y)
    model = build(devices, lambda: Net("binary"), nn.BCEWithLogitsLoss, [tc.BinaryAUROC], parties=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        history = model.fit(*held, batch_size=10, epochs=3, verbose=0, validation_data=held)
        _, local = model.evaluate(*held)
        largest = float(local["alice"][0].result())
    assert history.global_history["val_binaryauroc"][-1] == pytest.approx(largest)
    own = history.local_history
    trained = [float(value) for value in own["alice_train_binaryauroc"]]
    assert history.global_history["binaryauroc"] == pytest.approx(trained)
    assert float(own["alice_val_eval_binaryauroc"][-1]) == pytest.approx(largest)
    for party in ("bob", "carol"):
        assert np.isnan([own[f"{party}_{stage}_binaryauroc"] for stage in ("train", "val_eval")]).all()


def test_two_metrics_of_a_class_are_both_there(devices: SimpleNamespace) -> None:
    x, y = spread(devices, ROWS, X), spread(devices, ROWS, LABELS["real"])
    both = [tr.MeanSquaredError, metric_wrapper(tr.MeanSquaredError, squared=False)]
    model = build(devices, lambda: Net("real"), nn.MSELoss, both, parties=3, lr=0.01)
    history = model.fit(x, y, batch_size=9, verbose=0).global_history
    squared, root = history["meansquarederror"][0], history["meansquarederror_2"][0]
    assert squared == pytest.approx(root**2, rel=1e-5)


def test_a_collection_is_its_metrics(devices: SimpleNamespace) -> None:
    class Collected(BaseModule):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(FEATURES, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x)

        def configure_metrics(self) -> list[Any]:
            return [torchmetrics.MetricCollection([tc.BinaryPrecision(), tc.BinaryRecall()])]

    x, y = spread(devices, ROWS, X), spread(devices, ROWS, LABELS["binary"])
    model = build(devices, Collected, nn.BCEWithLogitsLoss, parties=3)
    values = {name: metric.result() for name, metric in model.evaluate(x, y, return_dict=True)[0].items()}
    net = worker_of(model).model
    for make in (tc.BinaryPrecision, tc.BinaryRecall):
        assert values[f"val_{make.__name__.lower()}"] == pytest.approx(reference(make(), "binary", net))


class MyError(torchmetrics.Metric):
    """A metric of the user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("worst", torch.tensor(0.0), dist_reduce_fx="max")

    def update(self, predicted: torch.Tensor, y: torch.Tensor) -> None:
        self.worst = torch.maximum(self.worst, (predicted - y).abs().max())

    def compute(self) -> torch.Tensor:
        return self.worst


def test_a_metric_of_the_users_own_is_a_mean_weighted_by_rows(devices: SimpleNamespace) -> None:
    x, y = spread(devices, ROWS, X), spread(devices, ROWS, LABELS["two reals"])
    model = build(devices, lambda: Net("two reals"), nn.MSELoss, [MyError], parties=3)
    net, ends = worker_of(model).model, np.cumsum([0, *ROWS])
    each = [reference(MyError(), "two reals", net, slice(ends[k], ends[k + 1])) for k in range(3)]
    [metric], _ = model.evaluate(x, y, batch_size=4)
    with pytest.warns(UserWarning, match="mean of the parties"):
        assert metric.result().numpy() == pytest.approx(np.average(each, weights=ROWS))


def test_metrics_of_training_are_weighted_by_the_rows_trained_on(devices: SimpleNamespace) -> None:
    x, y = spread(devices, ROWS, X), spread(devices, ROWS, LABELS["real"])
    model = build(devices, lambda: Net("real"), nn.MSELoss, [tr.SpearmanCorrCoef], parties=3, lr=0.01)
    model.fit(x, y, batch_size=9, verbose=0)
    counts = [sf.reveal(worker.wrap_local_metrics())[0].count for worker in model._workers.values()]
    assert counts == list(ROWS)


class OwnStep(BaseModule):
    """Gives its metrics the output as it is, with its graph."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)

    def training_step(self, batch: Any, batch_idx: int, *_: Any, **__: Any) -> torch.Tensor:
        x, y = batch
        predicted = self(x)
        for metric in self.metrics:
            metric.update(predicted, y)
        return nn.functional.mse_loss(predicted, y)

    validation_step = training_step


@pytest.mark.parametrize("net", [lambda: Net("real"), OwnStep])
@pytest.mark.parametrize("strategy", ["fed_avg_w_prune", "fed_avg_w"])
def test_a_metric_that_keeps_rows_outlives_a_validation(
    devices: SimpleNamespace, net: Any, strategy: str
) -> None:
    x, y = spread(devices, ROWS[:2], X[:101]), spread(devices, ROWS[:2], LABELS["real"][:101])
    metrics = [tr.SpearmanCorrCoef, tr.CosineSimilarity, tr.MeanSquaredError]
    model = build(devices, net, nn.MSELoss, metrics, strategy=strategy, lr=0.01)
    history = model.fit(x, y, validation_data=(x, y), batch_size=9, epochs=2, verbose=0)
    for name in ("spearmancorrcoef", "cosinesimilarity", "meansquarederror"):
        assert np.isfinite(history.global_history[name]).all()
        assert np.isfinite(history.global_history[f"val_{name}"]).all()


def test_no_metric_sees_a_gradient(devices: SimpleNamespace) -> None:
    seen: list[bool] = []

    class Watching(MyError):  # noqa: N818
        def update(self, predicted: torch.Tensor, y: torch.Tensor) -> None:
            seen.append(predicted.requires_grad or y.requires_grad)
            super().update(predicted, y)

    x, y = spread(devices, ROWS[:2], X[:101]), spread(devices, ROWS[:2], LABELS["real"][:101])
    build(devices, lambda: Net("real"), nn.MSELoss, [Watching]).fit(x, y, batch_size=9, verbose=0)
    assert seen and not any(seen)


def test_metrics_of_other_settings_are_not_added() -> None:
    one, other = (tc.BinaryAccuracy(threshold=threshold) for threshold in (0.5, 0.6))
    parts = []
    for metric in (one, other):
        metric.update(torch.rand(4), torch.ones(4).long())
        parts.append(Sums.of(metric, "a"))
    with pytest.raises(ValueError, match="metrics of different settings cannot be added"):
        sum(parts)


@pytest.mark.parametrize(
    "kind",
    [
        "os:system",
        "torchmetrics.metric:Path",
        "torchmetrics.metric:jit",
        "torchmetrics.classification.accuracy:jit",
        "torchmetrics.text.bert:BERTScore",  # loads a net from wherever its settings say
        "torchmetrics.wrappers.bootstrapping:BootStrapper",
    ],
)
def test_a_message_cannot_name_anything_but_a_metric_that_only_calculates(kind: str) -> None:
    metric = Sums("a", kind, {}, {}, {})
    with pytest.raises((ValueError, AttributeError), match=r"kind must be|has no attribute"):
        pickle.loads(pickle.dumps(metric)).result()


def test_values_of_several_numbers_are_left_out_one_by_one() -> None:
    whole = Default("auc", np.array([3.0, 0.0]), np.array([4.0, 0.0]), ("alice",))
    none = Default("auc", 0.0, 0.0, ("bob",))
    other = Default("auc", np.array([2.0, 1.0]), np.array([4.0, 4.0]))
    with pytest.warns(UserWarning, match="without alice, bob"):
        np.testing.assert_allclose((whole + none + other).result(), [5 / 8, 1 / 4])
