"""Weights of rows and classes, and identifiers: applied, or refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from secretflow.ml.nn.fl.backend.torch.steps import loss_of

from .bring import (
    CLASSES,
    FEATURES,
    build,
    fitted,
    linear,
    spread,
    table,
    weights_of,
)


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
        np.testing.assert_allclose(one, other, atol=5e-6)  # averages go through fixed point


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
