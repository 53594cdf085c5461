"""Unmixes the rows of a batch or an average by independence, whatever activations come after the first layer.

The gradient of a first fully connected layer is a linear mixture of the rows behind it, and independent
component analysis finds the rows in the space that it spans. Of pictures the differences of neighbouring
pixels are unmixed: mixing commutes with them, and they are far less alike from picture to picture than
pixels are. The gradient of the bias, in which each row has a 1, gives scale and sign. To use where no
neuron is switched off exactly (tanh, sigmoid, GELU), so that :mod:`~.neurons` and :mod:`~.spear` have
nothing to hold on to.

Source: Kariyappa et al., "Cocktail Party Attack: Breaking aggregation-based privacy in federated learning
using independent component analysis", ICML 2023, for the attack, here with differences in place of its
regularisers; Hyvärinen, "Fast and robust fixed-point algorithms for independent component analysis", IEEE
Trans. Neural Networks 10 (1999), for the iteration.
"""

from __future__ import annotations

import math

import torch

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.first_gradients import FirstGradient
from secretflow.ml.nn.fl.attacks.gaussian import Prior, check_prior
from secretflow.ml.nn.fl.attacks.observation import Observation

_STEPS = 300
_STILL = 1e-8
_GOOD = 1e-2
"""Relative error at which filling in a pruned gradient stops; going on is slower and worse."""
_LEAST_VALUE = 1e-7
"""Singular value, relative to the largest, below which a direction is rounding."""


def unmix_rows(observation: Observation, prior: Prior | None = None, seed: int = 0) -> torch.Tensor:
    """The independent rows behind a gradient.

    Args:
        observation: of one local step; its ``batch_size`` is the number of all rows, which must be fewer than
            the first layer has neurons and inputs.
        prior: what rows look like; numbers that too few living weights show are then what it expects beside
            the others.
        seed: of the start.

    Returns:
        float64 of shape (read, *image_shape), in no order, at most as many as there are rows; none where too
        little of the gradient lives to fill it in. They are not checked: where rows are not independent they
        are mixtures.

    Raises:
        TypeError: it is no observation, or no prior.
        ValueError: the input goes into no fully connected layer with bias, several local steps were taken, or
            there are too many rows.
    """
    _validate.instance("observation", observation, Observation, "an Observation")
    check_prior(prior)
    _validate.integer("seed", seed, 0)
    count, layer = observation.batch_size, FirstGradient.of_few_rows(observation, "unmix rows")
    space = _space(layer, count)
    signals = _signals(space[:, :-1], observation)
    found = _unmixed(signals, seed) @ space if len(signals) else space
    rows = found[:, :-1] / found[:, -1:]
    rows = rows[rows.isfinite().all(dim=1)].clamp(*observation.bounds)
    known = layer.living.sum(dim=0) >= count
    if prior is not None and not bool(known.all()):
        noise = torch.where(known, 0.0, math.inf).to(rows)
        filled = [prior.conditional_mean(row, noise).clamp(*observation.bounds) for row in rows]
        rows = torch.stack(filled) if filled else rows
    return rows.reshape(len(rows), *observation.image_shape)


def _space(layer: FirstGradient, count: int) -> torch.Tensor:
    """An orthonormal basis of what the gradient's rows span, (at most count, inputs + 1)."""
    gradient = layer.both()
    if not bool(layer.living.all()):
        factors = layer.factors(count, _GOOD)
        if factors is None:
            return gradient[:0]
        gradient = torch.linalg.qr(factors[0]).R @ factors[1]
    _, values, right = torch.linalg.svd(gradient, full_matrices=False)
    return right[:count][values[:count] > _LEAST_VALUE * values[0]]


def _signals(basis: torch.Tensor, observation: Observation) -> torch.Tensor:
    """What is unmixed: differences of neighbouring pixels, or other rows without their mean."""
    if not observation.is_image:
        return basis - basis.mean(dim=1, keepdim=True)
    pictures = basis.reshape(len(basis), *observation.image_shape)
    return torch.cat([pictures.diff(dim=side).flatten(1) for side in (2, 3)], dim=1)


def _unmixed(signals: torch.Tensor, seed: int) -> torch.Tensor:
    """Coefficients of the independent components, one a row."""
    left, values, right = torch.linalg.svd(signals, full_matrices=False)
    white = right * signals.shape[1] ** 0.5
    start = torch.randn(len(white), len(white), generator=torch.Generator().manual_seed(seed))
    weights = _orthogonal(start.to(white))
    for _ in range(_STEPS):
        squashed = torch.tanh(weights @ white)
        slope = (1 - squashed.square()).mean(dim=1, keepdim=True)
        after = _orthogonal(squashed @ white.T / white.shape[1] - slope * weights)
        moved = 1 - (after * weights).sum(dim=1).abs()
        weights = after
        if float(moved.max()) < _STILL:
            break
    return weights @ (left / values).T


def _orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    left, _, right = torch.linalg.svd(matrix)
    return left @ right
