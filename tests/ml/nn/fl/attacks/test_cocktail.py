"""Rows unmixed by independence behind activations that are never zero."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from secretflow.ml.nn.fl.attacks import Observation, read_neurons, unmix_rows

from .kept import kept_average

FEATURES, CLASSES, PARTIES = 400, 4, 4


def smooth() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 60), nn.Tanh(), nn.Linear(60, CLASSES))


def observed(sparse: bool, density: float = 1.0) -> tuple[torch.Tensor, Observation]:
    """Rows that are nothing but few large numbers, or Gaussian noise, of which every rotation is alike."""
    return kept_average(
        smooth, (PARTIES, FEATURES), CLASSES, density, apart=0.0, draw=spikes if sparse else torch.randn
    )


def spikes(*shape: int) -> torch.Tensor:
    return 2 * torch.randn(*shape) * (torch.rand(*shape) < 0.1)


def likeness(found: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Of each row the cosine with what is most like it."""
    return nn.functional.cosine_similarity(rows[:, None].double(), found[None], dim=2).amax(dim=1)


@pytest.mark.parametrize("density", [1.0, 0.5])
def test_rows_that_are_independent_come_back_where_no_neuron_holds_one(density: float) -> None:
    x, observation = observed(sparse=True, density=density)
    assert float(likeness(unmix_rows(observation), x).min()) > 0.95
    assert len(read_neurons(observation)) == 0


def test_gaussian_rows_cannot_be_told_from_their_mixtures() -> None:
    x, observation = observed(sparse=False)
    assert float(likeness(unmix_rows(observation), x).min()) < 0.9


def test_what_cannot_be_unmixed_is_refused() -> None:
    _, observation = observed(sparse=True)
    with pytest.raises(ValueError, match="batch_size must be below the smaller side of the first layer, 60"):
        unmix_rows(dataclasses.replace(observation, batch_size=60))
    with pytest.raises(ValueError, match="local_steps must be 1"):
        unmix_rows(dataclasses.replace(observation, local_steps=2, learning_rate=0.1))
