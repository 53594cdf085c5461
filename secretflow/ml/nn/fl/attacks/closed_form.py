"""Closed-form recovery of the input of a first fully connected layer with bias.

For a neuron, the gradient of its weights is the input times the gradient of its bias, so one division gives
the input. Source: Phong et al., "Privacy-Preserving Deep Learning via Additively Homomorphic Encryption",
IEEE TIFS 13 (2018), section III; Geiping et al. 2020, proposition 3.1. To use when the input goes into such a
layer as it is and the batch is one row: then it needs no search and is exact, however many weights are
pruned, as long as each number has a living weight to a neuron whose bias has a gradient.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.gaussian import Prior, check_prior
from secretflow.ml.nn.fl.attacks.idlg import labels_or_a_guess
from secretflow.ml.nn.fl.attacks.layers import first_layer
from secretflow.ml.nn.fl.attacks.observation import (
    Observation,
    Progress,
    Reconstruction,
    check_observations,
)
from secretflow.ml.nn.fl.attacks.public import living_arrays


def input_of_first_layer(
    weight: torch.Tensor, bias: torch.Tensor, counts: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The input that a layer's gradient gives away.

    Of each input the least-squares estimate over the neurons whose weight to it counts:
    ``sum_i b_i w_ij / sum_i b_i^2``. With an exact gradient every neuron gives the same: the input.

    Args:
        weight: gradient of the weights, float of shape (neurons, inputs).
        bias: gradient of the bias, (neurons,).
        counts: 0 where ``weight`` is known not to be there, (neurons, inputs); None if all is.

    Returns:
        The input, (inputs,), 0 where it is not known, and where it is known, bool of shape (inputs,).
    """
    counts = torch.ones_like(weight) if counts is None else counts.to(weight)
    evidence = counts.T @ bias.square()
    known = evidence > 0
    return torch.where(known, (counts * weight).T @ bias / torch.where(known, evidence, 1), 0), known


def closed_form_attack(
    observations: Sequence[Observation],
    progress: Progress | None = None,
    prior: Prior | None = None,
) -> list[Reconstruction]:
    """Recovers batches of one row, by dividing a neuron's gradient of the weights by that of its bias.

    Args:
        observations: what the attacker has.
        progress: called once, at the end.
        prior: what rows look like; numbers without a living path are then what it expects beside the known
            ones. It must be one of rows that were not attacked.

    Returns:
        For each observation its row. ``loss`` is the part of its numbers that no gradient shows; without a
        prior they are 0. Without a single known number the loss is infinite and ``diverged`` is 1.

    Raises:
        TypeError: something is not an observation, or no prior.
        ValueError: the input goes into no fully connected layer with bias, or a batch holds more than one
            row.
    """
    check_observations(observations, progress)
    check_prior(prior)
    found = [_recover(observation, prior) for observation in observations]
    if progress is not None:
        progress(1.0)
    return found


def _recover(observation: Observation, prior: Prior | None) -> Reconstruction:
    started = time.perf_counter()
    _validate.check(observation.batch_size == 1, "batch_size", observation.batch_size, "1 for a closed form")
    numbers = first_layer(observation)
    if numbers is None:
        shapes = [tuple(gradient.shape) for gradient in observation.gradients]
        raise ValueError(
            f"model must start with a fully connected layer of {math.prod(observation.image_shape)} inputs "
            f"and a bias for a closed form, got parameters of shapes {shapes} without one"
        )
    weight, bias = (observation.gradients[number].double() for number in numbers)
    counts = living_arrays(observation)[numbers[0]].to(weight)
    # A saturated net has gradients whose squares would vanish.
    largest = bias.abs().max()
    image, known = input_of_first_layer(weight, bias / largest if largest > 0 else bias, counts)
    image = image / largest if largest > 0 else image
    sound = bool(known.any() and image.isfinite().all())
    if prior is not None:
        values = image if sound else torch.zeros_like(image)
        noise = torch.where(known & sound, 0.0, math.inf).to(values)
        image = prior.conditional_mean(values, noise).clamp(*observation.bounds)
    elif not sound:
        image = torch.zeros_like(image)
    return Reconstruction(
        images=image.to(observation.gradients[0].dtype).view(1, *observation.image_shape),
        labels=labels_or_a_guess(observation),
        loss=float((~known).float().mean()) if sound else math.inf,
        history=(),
        iteration=0,
        restart=0,
        diverged=int(not sound),
        seconds=time.perf_counter() - started,
    )
