"""Reads rows of a batch off single neurons of a first fully connected layer, whatever comes behind it.

A neuron that one row of the batch alone switches on holds that row: the gradient of its weights over that
of its bias. Where two neurons hold the same vector it is a row, for mixtures of rows differ from neuron to
neuron. To use for small batches and averages in nets that begin with such a layer and a ReLU and have more
than two layers (of two layers :mod:`~.averages` reads more); with a single score, mixtures agree too and
are taken for rows.

Source: Marchand et al., "SRATTA: Sample re-attribution attack of secure aggregation in federated learning",
ICML 2023, section 3.
"""

from __future__ import annotations

import math

import torch

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.closed_form import input_of_first_layer
from secretflow.ml.nn.fl.attacks.first_gradients import FirstGradient
from secretflow.ml.nn.fl.attacks.gaussian import Prior, check_prior
from secretflow.ml.nn.fl.attacks.observation import Observation

_AGREE = 1e-3
"""Relative distance up to which two neurons hold the same row; float32 keeps about 1e-5."""

_COMMON = 3
"""Numbers that are not zero, at least, in which neurons must agree."""

_LEAST = 1e-4
"""Gradient of a bias, relative to the largest one, below which a neuron is left out."""


def read_neurons(observation: Observation, prior: Prior | None = None) -> torch.Tensor:
    """The rows that at least two neurons agree on.

    Args:
        observation: of a batch or an average, with any number of rows.
        prior: what rows look like; numbers that no living weight shows are then what it expects beside the
            others, else 0.

    Returns:
        float64 of shape (read, *image_shape), those on which most neurons agree first, at most as many as
        there are rows.

    Raises:
        TypeError: it is no observation.
        ValueError: the input goes into no fully connected layer with bias.
    """
    _validate.instance("observation", observation, Observation, "an Observation")
    check_prior(prior)
    layer = FirstGradient.of(observation)
    weight, bias, counts = layer.weight, layer.bias, layer.living.to(layer.weight)
    strong = bias.abs() > _LEAST * bias.abs().max()
    weight, bias, counts = weight[strong], bias[strong], counts[strong]
    left, found = list(range(len(weight))), []
    while left:
        own = _agreeing(weight, bias, counts, left)
        if len(own) > 1:
            found.append(own)
        left = [neuron for neuron in left if neuron not in own]
    found.sort(key=len, reverse=True)
    rows = [
        _filled(*input_of_first_layer(weight[own], bias[own], counts[own]), prior)
        for own in found[: observation.batch_size]
    ]
    shape = (len(rows), *observation.image_shape)
    return (torch.stack(rows) if rows else weight[:0]).reshape(shape).clamp(*observation.bounds)


def _agreeing(weight: torch.Tensor, bias: torch.Tensor, counts: torch.Tensor, left: list[int]) -> list[int]:
    """The first of some neurons, and those that hold the same row wherever both have a living weight.

    Neurons of a pruned layer have few numbers in common, so each is compared with all that agree so far.
    """
    index, own = torch.tensor(left), left[:1]
    held = weight[index] / bias[index, None]
    least = min(_COMMON, weight.shape[1])
    while True:
        row, known = input_of_first_layer(weight[own], bias[own], counts[own])
        both = counts[index] * known
        apart = ((held - row) * both).norm(dim=1)
        length = (row * both).norm(dim=1)
        lit = (row.abs() * both > _AGREE * row.abs().max()).sum(dim=1)
        same = (apart <= _AGREE * length) & (lit >= least)
        same[0] = True
        more = index[same].tolist()
        if len(more) <= len(own):
            return own
        own = more


def _filled(row: torch.Tensor, known: torch.Tensor, prior: Prior | None) -> torch.Tensor:
    if prior is None or bool(known.all()):
        return row
    return prior.conditional_mean(row, torch.where(known, 0.0, math.inf).to(row))
