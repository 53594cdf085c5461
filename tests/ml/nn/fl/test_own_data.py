"""Rows, labels, weights and models as people bring them: taken, or refused in one sentence."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchmetrics.classification import MulticlassAccuracy

import secretflow as sf
from secretflow.ml.nn.core.torch import BaseModule, metric_wrapper
from secretflow.ml.nn.fl.backend.torch.steps import loss_of
from secretflow.ml.nn.fl.worker.data import EvenBatches, batch_loader, rows_by_round
from secretflow.security.aggregation import SecurePruneAggregator
from secretflow.security.aggregation.secagg.errors import AggregationError

from .bring import build, predicted, spread, worker_of

FEATURES, CLASSES = 4, 3
RNG = np.random.default_rng(3)


def table(rows: int) -> tuple[np.ndarray, np.ndarray]:
    x = RNG.normal(size=(rows, FEATURES)).astype(np.float32)
    return x, x[:, :CLASSES].argmax(1)


def linear() -> nn.Module:
    return nn.Linear(FEATURES, CLASSES)


class Watching(BaseModule):
    """A linear net that keeps the rows of each batch it is trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, CLASSES)
        self.batches: list[np.ndarray] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)

    def training_step(self, batch: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        x, y = batch
        self.batches.append(x.numpy().copy())
        return F.cross_entropy(self(x), y.long())


def fitted(devices: SimpleNamespace, rows: tuple[int, ...], net: Any, loss: Any = None, **fit: Any) -> Any:
    x, y = table(sum(rows))
    options, y = fit.pop("options", {}), fit.pop("y", y)
    model = build(devices, net, loss, parties=len(rows), **options)
    how = {"batch_size": 5, "verbose": 0, "random_seed": 1, **fit}
    model.fit(spread(devices, rows, x), spread(devices, rows, y), **how)
    return model


def weights_of(model: Any) -> list[np.ndarray]:
    return [array for worker in model._workers.values() for array in sf.reveal(worker.get_weights())]


# Rows


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("rows", [(59, 30), (30, 59), (31, 30), (90, 61, 30), (1000, 30)])
def test_each_party_trains_on_every_row_once_an_epoch(
    devices: SimpleNamespace, rows: tuple[int, ...], shuffle: bool
) -> None:
    x, y = table(sum(rows))
    model = build(devices, Watching, parties=len(rows))
    model.fit(
        spread(devices, rows, x), spread(devices, rows, y), batch_size=1, epochs=2, verbose=0, shuffle=shuffle
    )
    ends = np.cumsum([0, *rows])
    for party in range(len(rows)):
        batches = worker_of(model, party).model.batches
        assert len(batches) == 2 * 30
        for epoch in (batches[:30], batches[30:]):
            sizes = [len(batch) for batch in epoch]
            assert max(sizes) - min(sizes) <= 1
            seen, held = np.concatenate(epoch), x[ends[party] : ends[party + 1]]
            if not shuffle:
                np.testing.assert_array_equal(seen, held)
            np.testing.assert_array_equal(np.sort(seen, axis=0), np.sort(held, axis=0))


@pytest.mark.parametrize("rate", [0.3, 0.07, 1.0])
def test_a_rate_of_sampling_leaves_no_row_out(devices: SimpleNamespace, rate: float) -> None:
    model = fitted(devices, (47, 20), Watching, batch_sampling_rate=rate)
    assert [sum(map(len, worker_of(model, k).model.batches)) for k in range(2)] == [47, 20]


@pytest.mark.parametrize("rate", [0, -0.1, 1.5, float("nan")])
def test_a_rate_that_is_none_is_refused(devices: SimpleNamespace, rate: float) -> None:
    with pytest.raises(ValueError, match="batch_sampling_rate must be a number above 0 and at most 1"):
        fitted(devices, (20, 20), linear, nn.CrossEntropyLoss, batch_sampling_rate=rate)


def test_a_party_with_fewer_rows_than_batches_is_named(devices: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match=r"batch_sampling_rate must be at least 0.5, for bob has 2 rows"):
        fitted(devices, (40, 2), linear, nn.CrossEntropyLoss, batch_sampling_rate=0.1)


def test_a_batch_size_that_would_become_thousands_names_the_rate_that_does_not(
    devices: SimpleNamespace,
) -> None:
    with pytest.raises(ValueError, match=r"2560 rows each at alice; batch_sampling_rate=0.032 makes"):
        fitted(devices, (4000, 200), linear, nn.CrossEntropyLoss, batch_size=128)
    model = fitted(devices, (4000, 200), Watching, batch_sampling_rate=0.032)
    assert max(map(len, worker_of(model).model.batches)) == 128


def test_a_large_batch_that_was_asked_for_is_taken(devices: SimpleNamespace) -> None:
    model = fitted(devices, (2100, 2000), Watching, batch_size=2000)
    assert len(worker_of(model).model.batches[0]) == 2100


@pytest.mark.parametrize(("rows", "batches"), [(7, 3), (9, 2), (100, 33)])
def test_the_rows_of_even_batches_are_known_beforehand(rows: int, batches: int) -> None:
    loader = batch_loader([torch.arange(rows)], max(1, rows // batches // 2), batches=batches)
    assert isinstance(loader.batch_sampler, EvenBatches)
    dealt = [len(batch) for (batch,) in loader]
    assert len(dealt) == batches and sum(dealt) == rows
    expected = [sum(dealt[k : k + 2]) for k in range(0, batches, 2)]
    assert rows_by_round(loader, batches, 2) == expected


def test_a_poisson_sampler_draws_each_row_with_its_rate(devices: SimpleNamespace) -> None:
    x, y = table(400)
    for row in range(400):
        x[row, 0] = row
    model = build(devices, Watching, lr=0.0)
    held = spread(devices, (300, 100), x), spread(devices, (300, 100), y)
    model.fit(*held, batch_sampling_rate=0.1, sampler_method="poisson", epochs=20, verbose=0, random_seed=1)
    batches = worker_of(model).model.batches
    sizes = np.array([len(batch) for batch in batches])
    assert len(batches) == 200 and len(set(sizes)) > 10
    assert abs(sizes.mean() - 30) < 2 and sizes.min() > 0
    assert all(len(np.unique(batch[:, 0])) == len(batch) for batch in batches)
    counts = np.bincount(np.concatenate(batches)[:, 0].astype(int), minlength=300)
    assert counts[:300].min() > 0 and counts.max() < 60


@pytest.mark.parametrize("strategy", ["fed_avg_w_prune", "fed_avg_w"])
def test_a_sampler_that_there_is_not_is_named(devices: SimpleNamespace, strategy: str) -> None:
    with pytest.raises(ValueError, match=r"sampler_method must be one of 'batch'.*got 'possion'"):
        fitted(
            devices,
            (9, 9),
            linear,
            nn.CrossEntropyLoss,
            sampler_method="possion",
            options={"strategy": strategy},
        )


# Seeds


@pytest.mark.parametrize("strategy", ["fed_avg_w_prune", "fed_avg_w", "scaffold"])
@pytest.mark.parametrize("seed", [0, np.int64(0), 7])
def test_any_seed_gives_the_same_run_twice(devices: SimpleNamespace, strategy: str, seed: Any) -> None:
    x, y = table(60)
    held = spread(devices, (40, 20), x), spread(devices, (40, 20), y.astype(np.float32))

    def net() -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, 8), nn.Dropout(0.5), nn.Linear(8, CLASSES))

    runs = []
    for _ in range(2):
        metrics = [metric_wrapper(MulticlassAccuracy, num_classes=CLASSES)]
        model = build(devices, net, nn.CrossEntropyLoss, metrics, strategy=strategy, random_seed=seed)
        torch.seed()
        model.fit(
            *held, batch_size=5, epochs=2, shuffle=True, verbose=0, random_seed=seed, validation_data=held
        )
        runs.append(weights_of(model))
    for one, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_seed_0_of_the_model_gives_the_same_weights_twice(devices: SimpleNamespace) -> None:
    runs = []
    for _ in range(2):
        torch.seed()
        runs.append(weights_of(build(devices, linear, nn.CrossEntropyLoss, random_seed=0)))
    np.testing.assert_array_equal(runs[0][0], runs[1][0])


# Labels, inputs, outputs and losses


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


# Weights of rows and classes


@pytest.mark.parametrize("strategy", ["fed_avg_w_prune", "fed_avg_w"])
@pytest.mark.parametrize("column", [False, True])
def test_a_row_of_weight_0_is_as_if_it_were_not_there(
    devices: SimpleNamespace, strategy: str, column: bool
) -> None:
    x, y = table(24)
    wrong = y.copy()
    wrong[::2] = 0
    weight = np.tile([0.0, 1.0], 12)[:, None] if column else np.tile([0.0, 1.0], 12)
    kept = []
    for labels in (y, wrong):
        model = build(devices, linear, nn.CrossEntropyLoss, strategy=strategy)
        parts = [spread(devices, (12, 12), array) for array in (x, labels.astype(np.float32), weight)]
        model.fit(*parts[:2], sample_weight=parts[2], batch_size=4, epochs=2, verbose=0)
        kept.append(weights_of(model))
    for one, other in zip(*kept, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("labels", ["numbers", "one-hot", "column"])
def test_weights_of_classes_are_weights_of_their_rows(devices: SimpleNamespace, labels: str) -> None:
    x, y = table(24)
    form = {"numbers": y, "one-hot": np.eye(CLASSES)[y], "column": y[:, None]}[labels]
    rows = spread(devices, (12, 12), x), spread(devices, (12, 12), form)
    own = np.linspace(0.5, 1.5, 24)
    by_class, by_row = (build(devices, linear, nn.CrossEntropyLoss) for _ in range(2))
    how = {"batch_size": 4, "epochs": 2, "verbose": 0}
    weights = spread(devices, (12, 12), own)
    by_class.fit(*rows, sample_weight=weights, class_weight={0: 5, 2: 0.1}, **how)
    product = spread(devices, (12, 12), own * np.array([5, 1, 0.1])[y])
    by_row.fit(*rows, sample_weight=product, **how)
    for one, other in zip(weights_of(by_class), weights_of(by_row), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "y"),
    [
        (nn.CrossEntropyLoss(), torch.tensor([0, 2, 1])),
        (nn.MSELoss(), torch.randn(3, 3)),
        (nn.BCEWithLogitsLoss(), torch.ones(3, 3)),
        (nn.HuberLoss(reduction="sum"), torch.randn(3, 3)),
        (nn.CrossEntropyLoss(label_smoothing=0.1), torch.tensor([[0], [2], [1]])),
    ],
)
def test_a_weighted_loss_is_the_mean_of_weight_times_loss(loss: Any, y: torch.Tensor) -> None:
    predicted, weight = torch.randn(3, 3), torch.tensor([[1.0], [0.0], [3.0]])
    each = [loss_of(loss, predicted[k : k + 1], y[k : k + 1], None) for k in range(3)]
    total = each[0] + 3 * each[2]
    expected = total if loss.reduction == "sum" else total / 3
    torch.testing.assert_close(loss_of(loss, predicted, y, weight), expected)
    ones = torch.ones(3)
    torch.testing.assert_close(loss_of(loss, predicted, y, ones), loss_of(loss, predicted, y, None))


@pytest.mark.parametrize(
    ("fit", "message"),
    [
        ({"class_weight": [1, 2, 3]}, "class_weight must be a dictionary"),
        ({"class_weight": {0: -1}}, r"class_weight\[0\] must be a number at least 0"),
        (
            {"class_weight": {0: 2}, "y": np.full((18, 2), 0.5)},
            "class_weight must be None where rows",
        ),
    ],
)
def test_weights_of_classes_that_mean_nothing_are_refused(
    devices: SimpleNamespace, fit: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fitted(devices, (9, 9), lambda: nn.Linear(FEATURES, 2), nn.CrossEntropyLoss, **fit)


def test_weights_of_rows_must_be_one_each_and_not_negative(devices: SimpleNamespace) -> None:
    for weight in (-np.ones(18), np.ones((18, 2))):
        with pytest.raises(
            ValueError, match="sample_weight of alice must be a number of at least 0 for each"
        ):
            fitted(
                devices, (9, 9), linear, nn.CrossEntropyLoss, sample_weight=spread(devices, (9, 9), weight)
            )


def test_weights_for_a_loss_that_cannot_take_them_are_refused(devices: SimpleNamespace) -> None:
    class Total(nn.Module):
        def forward(self, predicted: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return predicted.sum() * 0

    with pytest.raises(ValueError, match="sample_weight must be None with a loss that has no reduction"):
        fitted(devices, (9, 9), linear, Total, sample_weight=spread(devices, (9, 9), np.ones(18)))


def test_upstreams_strategies_refuse_what_they_would_ignore(devices: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="class_weight must be None with strategy='fed_avg_w'"):
        fitted(
            devices,
            (9, 9),
            linear,
            nn.CrossEntropyLoss,
            class_weight={0: 2},
            options={"strategy": "fed_avg_w"},
        )
    with pytest.raises(ValueError, match="server_agg_method must be None with an aggregator"):
        build(devices, linear, nn.CrossEntropyLoss, strategy="fed_avg_w", server_agg_method=lambda x: x)


@pytest.mark.parametrize("name", ["x", "y"])
@pytest.mark.parametrize("dtype", [np.int64, np.uint32])
def test_identifiers_that_float32_would_change_are_refused(
    devices: SimpleNamespace, name: str, dtype: Any
) -> None:
    x, y = np.ones((18, FEATURES), dtype), np.zeros(18, dtype)
    {"x": x, "y": y}[name][3] = 2**24 + 1
    model = build(devices, linear, nn.CrossEntropyLoss)
    held = spread(devices, (9, 9), x), spread(devices, (9, 9), y)
    with pytest.raises(ValueError, match=rf"{name} of alice must hold integers .* got 16777217: number"):
        model.fit(*held, batch_size=9, verbose=0)
    if name == "x":
        with pytest.raises(ValueError, match="x of alice must hold integers"):
            model.predict(held[0])


def test_large_integers_that_float32_holds_are_taken(devices: SimpleNamespace) -> None:
    x = np.full((18, FEATURES), 2**30)
    held = spread(devices, (9, 9), x), spread(devices, (9, 9), np.zeros(18, int))
    build(devices, linear, nn.CrossEntropyLoss, lr=1e-20).fit(*held, batch_size=9, verbose=0)


# Buffers, dtypes, NaN


class Causal(nn.Module):
    """Attention under a mask of minus infinity, which is a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(1, 4)
        self.register_buffer("mask", torch.full((FEATURES, FEATURES), float("-inf")).triu(1))
        self.register_buffer("limit", torch.tensor(float("nan")))
        self.attention = nn.MultiheadAttention(4, 1, batch_first=True)
        self.last = nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x[:, :, None])
        return self.last(self.attention(h, h, h, attn_mask=self.mask, need_weights=False)[0][:, -1])


@pytest.mark.parametrize("mask_scope", ["local", "global"])
def test_a_buffer_that_is_no_number_stays_at_a_party(devices: SimpleNamespace, mask_scope: str) -> None:
    options = {"mask_scope": mask_scope, "prune_end_rate": 0.4, "prune_percent": 40}
    model = fitted(devices, (20, 9), Causal, nn.CrossEntropyLoss, epochs=3, options=options)
    nets = [worker_of(model, k).model for k in range(2)]
    for net in nets:
        torch.testing.assert_close(net.mask, Causal().mask)
        assert net.limit.isnan() and all(p.isfinite().all() for p in net.parameters())
    assert sf.reveal(worker_of(model).prune_state()[1]) < 0.6
    torch.testing.assert_close(nets[0].last.bias, nets[1].last.bias)
    assert len(weights_of(model)) == 2 * (len(nets[0].state_dict()) - 2)


def test_bfloat16_is_refused_by_the_name_of_the_weight(devices: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="model must hold float32 numbers, got bfloat16 in weight of Linear"):
        build(devices, lambda: linear().to(torch.bfloat16), nn.CrossEntropyLoss)


@pytest.mark.parametrize("name", ["x", "y"])
def test_nan_in_the_data_is_named(devices: SimpleNamespace, name: str) -> None:
    x, y = table(18)[0], RNG.normal(size=(18, CLASSES)).astype(np.float32)
    {"x": x, "y": y}[name][2, 1] = np.nan
    model = build(devices, linear, nn.MSELoss, prune_end_rate=0.5, prune_percent=50)
    with pytest.raises(
        ValueError, match=rf"loss of alice must be a number, got NaN; NaN is in {name}\[2, 1\]"
    ):
        model.fit(spread(devices, (9, 9), x), spread(devices, (9, 9), y), batch_size=9, verbose=0)


def test_a_loss_that_runs_away_is_told_from_nan_in_the_data(devices: SimpleNamespace) -> None:
    x, y = table(60)
    model = build(devices, linear, nn.MSELoss, lr=1e30)
    with pytest.raises((ValueError, AggregationError), match=r"lower learning rate|too high a learning rate"):
        held = spread(devices, (30, 30), x), spread(devices, (30, 30), np.eye(CLASSES)[y])
        model.fit(*held, batch_size=5, epochs=3, aggregate_freq=100, verbose=0)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_the_aggregator_names_what_is_no_number(devices: SimpleNamespace, number: float) -> None:
    parties = [devices.alice, devices.bob]
    aggregator = SecurePruneAggregator(devices.carol, parties)
    data = [
        party(lambda k=k: np.array([1.0, number if k else 2.0], np.float32))()
        for k, party in enumerate(parties)
    ]
    what = "NaN" if np.isnan(number) else "infinity"
    with pytest.raises(AggregationError, match=rf"data\[0\] of bob must hold finite numbers, got {what}"):
        sf.reveal(aggregator.average(data))


# Unequal parties


def average_of(devices: SimpleNamespace, weights: list[int], values: list[float], **ring: Any) -> float:
    parties = [devices.alice, devices.bob, devices.carol][: len(weights)]
    aggregator = SecurePruneAggregator(devices.davy, parties, **ring)
    data = [party(lambda v=v: np.array([v]))() for party, v in zip(parties, values, strict=True)]
    return float(np.ravel(sf.reveal(aggregator.average(data, weights=weights)))[0])


@pytest.mark.parametrize("weights", [[1, 1, 10**6], [100, 100, 10**7], [1, 10**5], [100, 100, 10**8]])
def test_a_party_that_the_ring_would_round_away_is_told_of_64_bits(
    devices: SimpleNamespace, weights: list[int]
) -> None:
    values = [0.05] * (len(weights) - 1) + [0.0]
    with pytest.raises(AggregationError, match=r"weights\[0\] must be at least .* ring_bits=64"):
        average_of(devices, weights, values)
    ours = average_of(devices, weights, values, ring_bits=64)
    assert ours == pytest.approx(
        sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights), rel=1e-3
    )


@pytest.mark.parametrize("weights", [[1, 1, 1], [1, 100, 100], [0, 5, 5], [1, 1, 900]])
def test_weights_that_the_ring_holds_are_taken(devices: SimpleNamespace, weights: list[int]) -> None:
    ours = average_of(devices, weights, [1.0, 2.0, 3.0])
    assert ours == pytest.approx(np.average([1.0, 2.0, 3.0], weights=weights), abs=1e-5)


def test_equal_parties_may_choose_few_bits(devices: SimpleNamespace) -> None:
    assert average_of(devices, [1, 1, 1], [1.0, 2.0, 3.0], fxp_bits=6) == pytest.approx(2, abs=0.05)


def test_training_with_parties_of_very_unequal_size_is_told_of_64_bits(devices: SimpleNamespace) -> None:
    x, y = table(4)
    big = np.tile(x[:1], (12_000, 1))
    held = [
        spread(devices, (4, 12_000), np.concatenate(both)) for both in ((x, big), (y, np.zeros(12_000, int)))
    ]
    with pytest.raises(AggregationError, match="ring_bits=64"):
        build(devices, linear, nn.CrossEntropyLoss).fit(*held, batch_sampling_rate=1.0, verbose=0)
    members = [devices.alice, devices.bob]
    wide = SecurePruneAggregator(devices.carol, members, ring_bits=64)
    build(devices, linear, nn.CrossEntropyLoss, aggregator=wide).fit(
        *held, batch_sampling_rate=1.0, verbose=0
    )
