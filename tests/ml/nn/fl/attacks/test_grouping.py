"""Rows of averages put together by party."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from secretflow.ml.nn.fl.attacks import LayerRound, group_rows

INPUTS, HELD, ROUNDS = 60, (2, 4, 6), 20


def trained(steps: int, equal: bool) -> tuple[torch.Tensor, torch.Tensor, list[LayerRound]]:
    """Rows, their parties, and rounds in which each party takes steps with one row each."""
    torch.manual_seed(0)
    held = (4, 4, 4) if equal else HELD
    x, y = torch.randn(sum(held), INPUTS) + 0.5, torch.randint(3, (sum(held),))
    parties = torch.repeat_interleave(torch.arange(3), torch.tensor(held))
    net = nn.Sequential(nn.Linear(INPUTS, 300), nn.ReLU(), nn.Linear(300, 3)).double()
    nn.init.constant_(net[0].bias, -0.8)  # few rows switch a neuron on
    rounds, shared = [], {name: value.clone() for name, value in net.state_dict().items()}
    for _ in range(ROUNDS):
        total = {name: torch.zeros_like(value) for name, value in shared.items()}
        for party, share in enumerate(held):
            net.load_state_dict(shared)
            optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
            own = (parties == party).nonzero().flatten()
            for row in own[torch.randperm(len(own))[:steps]].tolist():
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x[row : row + 1].double()), y[row : row + 1]).backward()
                optimizer.step()
            for name, value in net.state_dict().items():
                total[name] += (value - shared[name]) * share / sum(held)
        names = "0.weight", "0.bias"
        rounds.append(LayerRound(*(shared[n] for n in names), *(total[n] for n in names)))
        shared = {name: value + total[name] for name, value in shared.items()}
    return x, parties, rounds


@pytest.mark.parametrize("equal", [True, False])
def test_rows_of_a_party_are_put_together_and_no_others(equal: bool) -> None:
    x, parties, rounds = trained(steps=2, equal=equal)
    groups = group_rows(x, rounds)
    together, same = groups[:, None] == groups, parties[:, None] == parties
    pairs = ~torch.eye(len(x), dtype=torch.bool)
    assert not bool((together & ~same).any())
    assert int((together & same & pairs).sum()) > 0.8 * int((same & pairs).sum())


def test_a_single_local_step_tells_nothing() -> None:
    x, _, rounds = trained(steps=1, equal=True)
    assert group_rows(x, rounds).tolist() == list(range(len(x)))


def test_a_row_that_was_not_read_links_nothing_wrongly() -> None:
    x, parties, rounds = trained(steps=2, equal=True)
    known = torch.arange(len(x)) % 4 != 0
    groups = group_rows(x[known], rounds)
    wrong = (groups[:, None] == groups) & (parties[known][:, None] != parties[known])
    assert not bool(wrong.any())


def test_more_rows_than_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match="rows must be two-dimensional, fewer rows than inputs"):
        group_rows(torch.randn(5, 5), [])
