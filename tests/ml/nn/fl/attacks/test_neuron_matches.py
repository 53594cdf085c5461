"""Candidates told by single neurons of an average."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from secretflow.ml.nn.fl.attacks import Observation, match_neurons

from .kept import kept_average

FEATURES, CLASSES, PARTIES = 60, 4, 5


def sharp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(FEATURES, 160), nn.ReLU(), nn.Linear(160, 20), nn.ReLU(), nn.Linear(20, CLASSES)
    )


def smooth() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 160), nn.Tanh(), nn.Linear(160, CLASSES))


def average(net, density: float) -> tuple[torch.Tensor, Observation]:
    return kept_average(net, (PARTIES, FEATURES), CLASSES, density, apart=0.01)


@pytest.mark.parametrize("density", [1.0, 0.4])
def test_rows_are_found_one_after_the_other(density: float) -> None:
    x, observation = average(sharp, density)
    scores = match_neurons(observation, torch.cat([x, torch.randn(300, FEATURES)]))
    assert float(scores[:PARTIES].min()) >= 8 and float(scores[PARTIES:].max()) < 1


def test_where_every_row_switches_all_neurons_on_none_is_told() -> None:
    x, observation = average(smooth, 1.0)
    assert float(match_neurons(observation, torch.cat([x, torch.randn(300, FEATURES)])).max()) < 1


def test_what_does_not_fit_is_refused() -> None:
    x, observation = average(sharp, 1.0)
    with pytest.raises(ValueError, match="x must be rows of shape"):
        match_neurons(observation, x[:, 1:])
