"""What every search must find, and what none may seem to find."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import pytest
import torch

from secretflow.ml.nn.fl.attacks import (
    DLGSettings,
    InvertingSettings,
    Observation,
    PriorSettings,
    Reconstruction,
    dlg_attack,
    fit_gaussian,
    idlg_attack,
    inverting_attack,
    prior_attack,
)
from secretflow.ml.nn.fl.audit.scores import ranks
from secretflow.ml.nn.fl.audit.views import Knowledge, PartyStep, observe, party_gradient

ROWS, CANDIDATES = 8, 60
Search = Callable[[Sequence[Observation]], list[Reconstruction]]
PUBLIC = torch.rand(200, 1, 4, 4, generator=torch.Generator().manual_seed(9)).double()
SEARCHES: dict[str, Search] = {
    "DLG": lambda seen: dlg_attack(seen, DLGSettings(iterations=20)),
    "iDLG": lambda seen: idlg_attack(seen, DLGSettings(iterations=20)),
    "direction": lambda seen: inverting_attack(seen, InvertingSettings(iterations=30, tv_weight=0.0)),
    "prior": lambda seen: prior_attack(seen, fit_gaussian(PUBLIC), PriorSettings(iterations=20)),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_identifies_rows_by_their_gradients_and_none_by_noise(
    make_party: Callable[..., PartyStep], name: str
) -> None:
    rows = torch.rand(CANDIDATES, 1, 4, 4, generator=torch.Generator().manual_seed(8)).double()
    party, seen = make_party(), []
    for k in range(ROWS):
        own = dataclasses.replace(party, x=rows[k : k + 1], y=torch.tensor([k % 3]))
        seen.append(observe(own, party_gradient(own), Knowledge.MASK_KNOWN, classes=3))
    drawn = torch.Generator().manual_seed(7)
    noise = [
        dataclasses.replace(
            each,
            gradients=tuple(torch.randn(g.shape, generator=drawn).double() * g.std() for g in each.gradients),
        )
        for each in seen
    ]
    places = {}
    for what, observations in (("gradients", seen), ("noise", noise)):
        found = torch.cat([each.images for each in SEARCHES[name](observations)])
        places[what] = ranks(found.nan_to_num(0.5), torch.arange(ROWS), rows)
    assert int((places["gradients"] == 1).sum()) >= ROWS // 2
    assert int((places["noise"] == 1).sum()) <= 3  # by chance one in 60
    assert int(places["noise"].median()) > 10  # by chance 30
