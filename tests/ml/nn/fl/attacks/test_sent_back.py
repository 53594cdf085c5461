"""Rows are put through the net once more, and must send back what the gradient shows of them."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from secretflow.ml.nn.fl.attacks import Observation
from secretflow.ml.nn.fl.attacks.sent_back import explained
from secretflow.ml.nn.fl.audit.views import Knowledge, PartyStep, observe, weight_update

FEATURES, CLASSES, BIAS = 6, 3, 1
SHARES = torch.tensor([[0.5], [0.25], [0.25]])


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 12), nn.ReLU(), nn.Linear(12, CLASSES))


@pytest.fixture
def rows() -> torch.Tensor:
    return torch.randn(3, FEATURES, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def seen(rows: torch.Tensor) -> Observation:
    torch.manual_seed(0)
    party = PartyStep(net, dict(net().state_dict()), rows, torch.tensor([0, 0, 2]), {})
    return observe(party, weight_update(party, 1, 1.0), Knowledge.MASK_KNOWN, classes=CLASSES)


def back(seen: Observation, rows: torch.Tensor) -> torch.Tensor:
    """The gradient of the first bias for each row alone, with labels 0, 0 and 2."""
    model = net()
    model.load_state_dict(dict(seen.weights))
    losses = nn.functional.cross_entropy(model(rows), torch.tensor([0, 0, 2]), reduction="none")
    parameter = dict(model.named_parameters())["0.bias"]
    return torch.stack([torch.autograd.grad(loss, parameter, retain_graph=True)[0] for loss in losses])


def test_rows_of_a_batch_are_explained(seen: Observation, rows: torch.Tensor) -> None:
    shown = back(seen, rows) / 3
    assert explained(seen, BIAS, rows, shown).all()
    assert explained(seen, BIAS, rows[1:], shown[1:]).all()
    assert explained(seen, BIAS, rows[:0], shown[:0]).shape == (0,)


def test_a_mixture_of_rows_is_not_though_one_percent_of_another_is_in_it(
    seen: Observation, rows: torch.Tensor
) -> None:
    shown = back(seen, rows) / 3
    mixed = torch.stack([0.99 * rows[0] + 0.01 * rows[1], rows[1], rows[2]])
    assert explained(seen, BIAS, mixed, shown).tolist() == [False, True, True]


def test_what_has_the_weight_of_two_rows_is_not_one(seen: Observation, rows: torch.Tensor) -> None:
    shown = back(seen, rows) / 3
    assert explained(seen, BIAS, rows[:2], shown[:2] * torch.tensor([[2.0], [1.0]])).tolist() == [False, True]
    assert not explained(seen, BIAS, rows[:1], -shown[:1]).any()


def test_weights_may_differ_where_all_rows_are_there(seen: Observation, rows: torch.Tensor) -> None:
    shown = SHARES * back(seen, rows)
    assert explained(seen, BIAS, rows, shown).all()
    assert not explained(seen, BIAS, rows, 2 * shown).any()
    assert not explained(seen, BIAS, rows[:2], shown[:2]).any()


def test_where_the_net_draws_numbers_all_rows_count_or_none(seen: Observation, rows: torch.Tensor) -> None:
    def random() -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, 12), nn.ReLU(), nn.Linear(12, CLASSES), nn.Dropout(0.5))

    drawn = dataclasses.replace(
        seen, model=random, weights={name: seen.weights[name] for name in random().state_dict()}
    )
    shown = torch.rand(3, 12)
    assert explained(drawn, BIAS, rows, shown).all()
    assert not explained(drawn, BIAS, rows[:2], shown[:2]).any()
