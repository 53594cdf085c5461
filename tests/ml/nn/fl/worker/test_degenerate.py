"""Layers that sort rows into bins are told from all that training comes to."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from torch import nn

from secretflow.ml.nn.fl.attacks import PublicRows, imprint_weights
from secretflow.ml.nn.fl.audit.defences import magnitude_mask
from secretflow.ml.nn.fl.worker.incoming import IncomingWeights

Data = tuple[torch.Tensor, torch.Tensor]


def digits() -> Data:
    found = load_digits()
    return torch.tensor(found.data / 16, dtype=torch.float32), torch.tensor(found.target)


def columns_of_all_sizes() -> Data:
    """Unscaled: one column is a thousand times as wide as another."""
    found = load_breast_cancer()
    return torch.tensor(found.data, dtype=torch.float32), torch.tensor(found.target)


def four_columns() -> Data:
    found = load_iris()
    return torch.tensor(found.data, dtype=torch.float32), torch.tensor(found.target)


def linear(inputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 128), nn.ReLU(), nn.Linear(128, 10))


def deep(inputs: int) -> nn.Module:
    hidden = [layer for _ in range(8) for layer in (nn.Linear(32, 32), nn.Tanh())]
    return nn.Sequential(nn.Linear(inputs, 32), nn.BatchNorm1d(32), nn.ReLU(), *hidden, nn.Linear(32, 10))


def small_weights(inputs: int) -> nn.Module:
    """Of which training has many units weigh their inputs nearly alike."""
    net = linear(inputs)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter *= 0.02
    return net


def convolutions(inputs: int) -> nn.Module:
    body = nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
    return nn.Sequential(nn.Unflatten(1, (1, 8, 8)), *body, nn.Linear(72, 64), nn.ReLU(), nn.Linear(64, 10))


class Tokens(nn.Module):
    """An embedding, attention and fully connected layers over rows of numbers from 0 to 1."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(17, 16)
        self.body = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.embedding((x[:, ::4] * 16).long())).mean(dim=1))


def trained(net: nn.Module, data: Data, epochs: int, mask: dict[str, torch.Tensor]) -> nn.Module:
    x, y = data
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    named = dict(net.named_parameters())
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
            with torch.no_grad():
                for name, entry in mask.items():
                    named[name] *= entry
    return net


def look(net: nn.Module, data: Data, mask: dict[str, torch.Tensor]) -> None:
    incoming = IncomingWeights(net, "alice", accepts=False)
    living = {name: entry.numpy().astype(np.uint8) for name, entry in mask.items()}
    incoming.check_layers(net.state_dict(), living)
    for rows in (16, 32, 100):
        with torch.no_grad(), incoming.watching(living):
            net(data[0][torch.randperm(len(data[0]))[:rows]])


@pytest.mark.parametrize(
    ("make", "data"),
    [
        (linear, digits),
        (small_weights, digits),
        (deep, digits),
        (convolutions, digits),
        (Tokens, digits),
        (linear, columns_of_all_sizes),
        (linear, four_columns),
    ],
)
def test_no_net_that_is_fresh_or_trained_or_pruned_to_one_percent_is_taken_for_one(
    make: Callable[[int], nn.Module], data: Callable[[], Data]
) -> None:
    rows = data()
    inputs = rows[0].shape[1]
    torch.manual_seed(1)
    net = make(inputs)
    look(net, rows, {})
    look(trained(net, rows, 4, {}), rows, {})
    for living in (0.1, 0.01):
        mask = magnitude_mask(lambda: make(inputs), net.state_dict(), 1 - living)
        net = copy.deepcopy(net)
        look(trained(net, rows, 2, mask), rows, mask)


def bins(part: int = 1) -> nn.Module:
    """A net whose first layer, or one unit in so many of it, sorts rows into bins."""
    x, y = digits()
    torch.manual_seed(1)
    net = linear(64)
    weights = imprint_weights(lambda: linear(64), net.state_dict(), PublicRows(x, y))
    with torch.no_grad():
        for own, chosen in zip(net[0].parameters(), (weights["0.weight"], weights["0.bias"]), strict=True):
            own[::part] = chosen[::part]
    return net


@pytest.mark.parametrize("part", [1, 2])
def test_units_that_share_a_projection_are_found(part: int) -> None:
    net = bins(part=part)
    message = r"weights that come to alice must sort no rows .* layer '0' with \d+ of 64 units that weigh"
    with pytest.raises(ValueError, match=message):
        IncomingWeights(net, "alice", accepts=False).check_layers(net.state_dict(), {})


SCALES = (
    (1.0, torch.float32),
    (1e-30, torch.float32),
    (1e-18, torch.float32),
    (1e18, torch.float32),
    (1e34, torch.float32),
    (1e-100, torch.float64),
    (1e100, torch.float64),
    (1.0, torch.bfloat16),
)
"""Of a layer's weights and biases; the next layer can take it back, so that the net computes as before."""


@pytest.mark.parametrize(("scale", "dtype"), SCALES)
def test_units_are_found_however_small_or_large_their_weights_are(scale: float, dtype: torch.dtype) -> None:
    net = bins().to(dtype)
    with torch.no_grad():
        for parameter in net[0].parameters():
            parameter *= scale
    with pytest.raises(ValueError, match=r"layer '0' with \d+ of 64 units that weigh"):
        IncomingWeights(net, "alice", accepts=False).check_layers(net.state_dict(), {})


@pytest.mark.parametrize(("scale", "dtype"), SCALES)
def test_units_that_differ_where_rows_hold_nothing_are_found_by_what_they_make_of_rows(
    scale: float, dtype: torch.dtype
) -> None:
    net, rows = bins().to(dtype), digits()
    dark = rows[0].amax(dim=0) == 0
    with torch.no_grad():
        net[0].weight[:, dark] = torch.randn(128, int(dark.sum()), dtype=dtype)
        for parameter in net[0].parameters():
            parameter *= scale
    incoming = IncomingWeights(net, "alice", accepts=False)
    incoming.check_layers(net.state_dict(), {})
    found = pytest.raises(
        ValueError, match=r"layer '0' with .* units that tell the party's rows apart by one"
    )
    with found, incoming.watching({}):
        net(rows[0][:32].to(dtype))


def test_a_layer_that_is_accepted_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    net = bins()
    incoming = IncomingWeights(net, "alice", accepts=True)
    for _ in range(2):
        incoming.check_layers(net.state_dict(), {})
        with incoming.watching({}):
            net(digits()[0][:32])
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "layer '0' with 64 of 64 units" in caplog.text


def test_weights_of_another_shape_are_not_stretched() -> None:
    net = linear(4)
    incoming = IncomingWeights(net, "alice", accepts=False)
    own = dict(net.named_parameters())
    came = [value.detach().numpy() for value in own.values()]
    incoming.check_arrays(own, came)
    with pytest.raises(ValueError, match=r"of the model's shapes, \[\(128, 4\), .*got \[\(1, 4\)"):
        incoming.check_arrays(own, [came[0][:1], *came[1:]])
    with pytest.raises(ValueError, match="must be of the model's shapes"):
        incoming.check_arrays(own, came[:-1])
    with pytest.raises(ValueError, match=r"0\.weight must be real numbers, got complex64"):
        incoming.check_arrays(own, [came[0].astype(np.complex64), *came[1:]])
