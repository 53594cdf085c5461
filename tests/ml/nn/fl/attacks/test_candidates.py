"""The attacker who compares the gradient of each candidate with the one that was seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import nn

from secretflow.ml.nn.fl.attacks import Observation, PublicRows, compare_candidates
from secretflow.ml.nn.fl.audit.defences import round_stochastically
from secretflow.ml.nn.fl.audit.views import Knowledge, PartyStep, observe, weight_update

from .conftest import tiny_net

CANDIDATES, ATTACKED = 300, 10
MakeParty = Callable[..., PartyStep]


def candidates() -> PublicRows:
    drawn = torch.Generator().manual_seed(5)
    x = torch.rand(CANDIDATES, 1, 4, 4, generator=drawn).double()
    return PublicRows(x, torch.randint(3, (CANDIDATES,), generator=drawn))


def observed(party: PartyStep, steps: int = 1, bits: int | None = None) -> list[Observation]:
    rows, found = candidates(), []
    for k in range(ATTACKED):
        own = dataclasses.replace(party, x=rows.x[k : k + 1], y=rows.y[k : k + 1])
        seen = weight_update(own, steps, 0.1)
        if bits is not None:
            seen = round_stochastically(seen, bits, seed=k)
        known = observe(own, seen, Knowledge.MASK_KNOWN, classes=3, local_steps=steps, learning_rate=0.1)
        found.append(known)
    return found


def ranks(scores: torch.Tensor) -> list[int]:
    """Of each attacked row: how many candidates explain what was seen at least as well."""
    own = scores[torch.arange(ATTACKED), torch.arange(ATTACKED)]
    return (scores >= own[:, None]).sum(dim=1).tolist()


@pytest.mark.parametrize(
    ("pruned", "steps", "bits"), [(0.0, 1, None), (0.8, 1, None), (0.5, 5, None), (0.0, 1, 8)]
)
def test_the_row_is_found_whatever_is_done_to_its_gradient(
    make_party: MakeParty, pruned: float, steps: int, bits: int | None
) -> None:
    scores = compare_candidates(observed(make_party(pruned=pruned), steps, bits), candidates())
    assert scores.shape == (ATTACKED, CANDIDATES) and float(scores.max()) <= 0
    assert ranks(scores) == [1] * ATTACKED


def test_what_is_seen_of_signs_is_compared_with_signs(make_party: MakeParty) -> None:
    def sign(arrays: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return tuple(array.sign() for array in arrays)

    seen = [dataclasses.replace(each, gradients=sign(each.gradients)) for each in observed(make_party())]
    like, unlike = (sorted(ranks(compare_candidates(seen, candidates(), how))) for how in (sign, None))
    assert like[ATTACKED // 2] <= 3  # some rows have the same signs
    assert unlike[ATTACKED // 2] > like[ATTACKED // 2]


def test_rows_of_one_label_are_not_told_apart_by_a_gradient_of_the_label_alone(make_party: MakeParty) -> None:
    class Blind(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(3).double())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.bias + torch.zeros_like(x).flatten(1).sum(dim=1, keepdim=True)

    places = ranks(compare_candidates(observed(make_party(Blind)), candidates()))
    labels = candidates().y
    assert places == [int((labels == labels[k]).sum()) for k in range(ATTACKED)]


def test_noise_leads_nowhere(make_party: MakeParty) -> None:
    torch.manual_seed(0)
    seen = [
        dataclasses.replace(each, gradients=tuple(torch.randn_like(g) for g in each.gradients))
        for each in observed(make_party())
    ]
    assert sorted(ranks(compare_candidates(seen, candidates())))[ATTACKED // 2] > CANDIDATES // 10


def test_a_batch_is_refused(make_party: MakeParty) -> None:
    party = make_party(tiny_net, batch=2)
    seen = observe(party, weight_update(party, 1, 0.1), Knowledge.MASK_KNOWN, classes=3)
    with pytest.raises(ValueError, match="batch_size must be 1"):
        compare_candidates([seen], candidates())
