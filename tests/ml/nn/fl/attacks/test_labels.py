"""Labels are read off a gradient by the cited equation, whatever the net looks like otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from secretflow.ml.nn.fl.attacks import InvertingSettings, Observation, inverting_attack
from secretflow.ml.nn.fl.attacks.idlg import labels_from_gradient
from secretflow.ml.nn.fl.attacks.layers import first_layer, last_layer
from secretflow.ml.nn.fl.audit.defences import magnitude_mask
from secretflow.ml.nn.fl.audit.views import Knowledge, PartyStep, observe, party_gradient

INPUTS, CLASSES = 12, 10


class HeadFirst(nn.Module):
    """A head that is defined before a wider layer, whose bias has as many entries as there are classes."""

    def __init__(self, hidden: int = CLASSES, bias: bool = True) -> None:
        super().__init__()
        self.head = nn.Linear(hidden, CLASSES, bias=bias)
        self.wide = nn.Linear(INPUTS, hidden)
        self.lone = nn.Parameter(torch.zeros(CLASSES, CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.wide(x)))


class Shared(nn.Module):
    """A head of its own behind a layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(INPUTS, CLASSES, bias=False)
        self.twice = nn.Linear(INPUTS, INPUTS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.twice(torch.tanh(self.twice(x)))))


class ByColumn(nn.Module):
    """A head that is a matrix with a column for each class."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(INPUTS, CLASSES)
        self.matrix = nn.Parameter(torch.randn(CLASSES, CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.first(x)) @ self.matrix


class Convolved(nn.Module):
    """No fully connected layer at all: the mean of a map for each class."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv1d(3, CLASSES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.view(-1, 3, 4)).mean(dim=2)


def with_head(activation: nn.Module, bias: bool = False, classes: int = CLASSES) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Linear(INPUTS, 16), activation, nn.Linear(16, classes, bias=bias))


def logarithmic() -> nn.Module:
    return nn.Sequential(with_head(nn.Tanh())(), nn.LogSoftmax(1))


def party(
    net: Callable[[], nn.Module], seed: int, batch: int = 1, pruned: float = 0.0, classes: int = CLASSES
) -> PartyStep:
    torch.manual_seed(seed)
    weights = net().state_dict()
    mask = magnitude_mask(net, weights, pruned) if pruned else {}
    x, y = torch.rand(batch, INPUTS), torch.randperm(classes)[:batch]
    return PartyStep(net, weights, x, y, mask)


def right(net: Callable[[], nn.Module], seeds: int = 100, batch: int = 1, pruned: float = 0.0) -> int:
    found = 0
    for seed in range(seeds):
        one = party(net, seed, batch, pruned)
        known = observe(one, party_gradient(one), Knowledge.MASK_KNOWN, classes=CLASSES)
        found += sorted(labels_from_gradient(known).tolist()) == sorted(one.y.tolist())
    return found


@pytest.mark.parametrize(
    "net",
    [
        with_head(nn.Tanh()),
        with_head(nn.ELU()),
        with_head(nn.ReLU()),
        logarithmic,
        HeadFirst,
        lambda: HeadFirst(32),
        lambda: HeadFirst(bias=False),
        Shared,
        ByColumn,
        Convolved,
    ],
)
def test_the_label_of_one_row_is_always_read(net: Callable[[], nn.Module]) -> None:
    assert right(net, seeds=50) == 50


@pytest.mark.parametrize("pruned", [0.5, 0.8])
def test_the_label_is_read_where_the_last_layer_is_pruned(pruned: float) -> None:
    assert right(with_head(nn.Tanh()), seeds=30, pruned=pruned) == 30


@pytest.mark.parametrize("net", [with_head(nn.Sigmoid()), with_head(nn.Tanh(), bias=True)])
def test_labels_of_a_batch_are_read(net: Callable[[], nn.Module]) -> None:
    assert right(net, seeds=20, batch=4) == 20


def test_what_the_gradient_does_not_tell_is_refused() -> None:
    two = party(with_head(nn.Tanh(), classes=2), 0, classes=2)
    known = observe(two, party_gradient(two), Knowledge.MASK_KNOWN, classes=2)
    with pytest.raises(ValueError, match=r"model must have a bias in its last layer, .* of two classes"):
        labels_from_gradient(known)
    batch = party(with_head(nn.Tanh()), 0, batch=3)
    known = observe(batch, party_gradient(batch), Knowledge.MASK_KNOWN, classes=CLASSES)
    with pytest.raises(ValueError, match="a batch of 3"):
        inverting_attack([known])
    result = inverting_attack([known], InvertingSettings(iterations=1), labels=batch.y[None])[0]
    assert torch.equal(result.labels, batch.y)


def test_layers_are_found_by_what_they_do() -> None:
    one = party(HeadFirst, 0)
    known = observe(one, party_gradient(one), Knowledge.MASK_KNOWN, classes=CLASSES)
    names = [name for name, _ in one.model().named_parameters()]
    last = last_layer(known)
    assert last is not None and last.bias is not None and last.weight is not None
    assert (names[last.weight], names[last.bias], last.signed) == ("head.weight", "head.bias", True)
    first = first_layer(known)
    assert first is not None and [names[k] for k in first] == ["wide.weight", "wide.bias"]


def of_rows(
    net: Callable[[], nn.Module],
    rows: torch.Tensor,
    labels: torch.Tensor,
    classes: int,
    value_range: tuple[float, float] | None = None,
) -> Observation:
    built = net()
    loss = nn.functional.cross_entropy(built(rows), labels)
    gradients = torch.autograd.grad(loss, list(built.parameters()))
    return Observation(
        image_shape=tuple(rows.shape[1:]),
        classes=classes,
        gradients=gradients,
        model=net,
        weights=built.state_dict(),
        batch_size=len(rows),
        value_range=value_range,
    )


def logistic(classes: int = 5) -> nn.Module:
    return nn.Linear(INPUTS, classes, bias=False)


def behind_positive_weights() -> nn.Module:
    net = nn.Sequential(nn.Linear(INPUTS, 6, bias=False), nn.Tanh(), nn.Linear(6, 5, bias=False))
    with torch.no_grad():
        net[0].weight.abs_()
    return net


def pooled(classes: int = 5) -> nn.Module:
    return nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(INPUTS, classes, bias=False))


def sure_of_itself() -> nn.Module:
    net = logistic()
    with torch.no_grad():
        net.weight.mul_(5)
    return net


def positive_near_zero() -> nn.Module:
    """Its features are above zero for numbers from 0 to 1, and far below for others."""
    net = nn.Sequential(nn.Linear(INPUTS, 6), nn.Tanh(), nn.Linear(6, 2, bias=False))
    nn.init.constant_(net[0].bias, 4.0)
    return net


@pytest.mark.parametrize("shift", [0.0, -2.0, 3.0])
@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (logistic, (INPUTS,)),
        (behind_positive_weights, (INPUTS,)),
        (pooled, (1, 4, 12)),
        (sure_of_itself, (INPUTS,)),
    ],
)
def test_the_label_of_a_row_of_any_sign_is_read(
    net: Callable[[], nn.Module], shape: tuple[int, ...], shift: float
) -> None:
    found = []
    for seed in range(6):
        torch.manual_seed(seed)
        label = torch.tensor([seed % 5])
        found.append(
            int(labels_from_gradient(of_rows(net, torch.randn(1, *shape) + shift, label, 5))) == label
        )
    assert all(found)


@pytest.mark.parametrize(
    ("net", "shape", "classes", "batch"),
    [
        (lambda: logistic(2), (INPUTS,), 2, 1),
        (logistic, (INPUTS,), 5, 2),
        (lambda: pooled(2), (1, 4, 12), 2, 1),
        (positive_near_zero, (INPUTS,), 2, 1),
    ],
)
def test_features_that_rows_make_negative_are_refused(
    net: Callable[[], nn.Module], shape: tuple[int, ...], classes: int, batch: int
) -> None:
    for shift in (0.0, -10.0):
        torch.manual_seed(1)
        known = of_rows(net, torch.randn(batch, *shape) + shift, torch.arange(batch), classes)
        with pytest.raises(ValueError, match="features that are not negative"):
            labels_from_gradient(known)


def test_a_known_range_of_numbers_tells_the_sign_of_features() -> None:
    for seed in range(10):
        torch.manual_seed(seed)
        label = torch.tensor([seed % 2])
        known = of_rows(lambda: logistic(2), torch.rand(1, INPUTS), label, 2, value_range=(0.0, 1.0))
        assert torch.equal(labels_from_gradient(known), label)


def test_rows_that_contradict_a_range_are_refused() -> None:
    torch.manual_seed(0)
    known = of_rows(lambda: logistic(2), torch.randn(1, INPUTS), torch.tensor([1]), 2, value_range=(0.0, 1.0))
    with pytest.raises(ValueError, match="features that are not negative"):
        labels_from_gradient(known)


def test_a_gradient_of_zeros_has_no_label() -> None:
    known = of_rows(lambda: nn.Linear(INPUTS, 3), torch.rand(1, INPUTS), torch.tensor([1]), 3)
    none = replace(known, gradients=tuple(map(torch.zeros_like, known.gradients)))
    with pytest.raises(ValueError, match="gradients must be other than zero"):
        labels_from_gradient(none)


class Clamped(nn.Module):
    """Its first layer gets the input as it is between 0 and 1 alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(INPUTS, 16), nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.sigmoid(self.first(torch.relu(x))))


def test_a_layer_behind_a_clamp_is_not_the_first() -> None:
    known = of_rows(Clamped, torch.randn(1, INPUTS), torch.tensor([1]), CLASSES)
    assert first_layer(known) is None
    assert first_layer(replace(known, value_range=(0.0, 1.0))) is not None
