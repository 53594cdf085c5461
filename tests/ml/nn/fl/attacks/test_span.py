"""Rows told by the space that the gradient of a first layer spans."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from secretflow.ml.nn.fl.attacks import Observation, span_scores

from .kept import kept_average

FEATURES, CLASSES, PARTIES = 40, 4, 3


def smooth() -> nn.Module:
    """Deep, and no neuron is ever switched off."""
    return nn.Sequential(
        nn.Linear(FEATURES, 80), nn.Tanh(), nn.Linear(80, 20), nn.Tanh(), nn.Linear(20, CLASSES)
    )


def average(density: float, own_masks: bool = False) -> tuple[torch.Tensor, Observation]:
    return kept_average(smooth, (PARTIES, FEATURES), CLASSES, density, apart=0.02 * own_masks)


@pytest.mark.parametrize(("density", "own_masks"), [(1.0, False), (0.4, False), (0.5, True)])
def test_rows_of_an_average_lie_in_the_space_and_others_do_not(density: float, own_masks: bool) -> None:
    x, observation = average(density, own_masks)
    scores = span_scores(observation, torch.cat([x, torch.randn(200, FEATURES)]))
    assert float(scores[:PARTIES].min()) > -1e-3
    assert float(scores[PARTIES:].max()) < -0.3


def test_too_little_of_the_gradient_tells_nothing() -> None:
    x, observation = average(0.05)
    scores = span_scores(observation, torch.cat([x, torch.randn(200, FEATURES)]))
    order = scores.argsort(descending=True)[:PARTIES].tolist()
    assert set(order) != set(range(PARTIES)) or float(scores.max()) == -1


def test_what_does_not_fit_is_refused() -> None:
    x, observation = average(1.0)
    with pytest.raises(ValueError, match="x must be rows of shape"):
        span_scores(observation, x[:, 1:])
    with pytest.raises(ValueError, match="batch_size must be below the smaller side of the first layer, 40"):
        span_scores(dataclasses.replace(observation, batch_size=40), x)
    several = dataclasses.replace(observation, local_steps=2, learning_rate=0.1)
    with pytest.raises(ValueError, match="local_steps must be 1"):
        span_scores(several, x)
