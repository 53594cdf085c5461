"""Which parameters are a net's first and last layer: found by what they do, not by when they were defined.

A probe is a random input with random weights of the scores. Its gradient shows what a parameter does: that of
a bias behind the scores is the scores' own, that of their weights the outer product with the features, that
of the first layer's weights the outer product of its bias' gradient with the input.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from secretflow.ml.nn.fl.attacks.net import by_first_name, called, differentiable_twice, in_mode
from secretflow.ml.nn.fl.attacks.observation import Observation

_PROBES = 4
_TOLERANCE = 1e-3
"""Relative error up to which a gradient counts as the one that is expected; float32 keeps 1e-5."""


@dataclass(frozen=True)
class LastLayer:
    """The layer that computes the scores of the classes.

    Attributes:
        bias: number of its bias among the parameters; None if it has none.
        weight: number of its weights, None if they are not to be found.
        by_column: whether the weights have a column for each class instead of a row.
        signed: whether features in front of it can be negative.
    """

    bias: int | None
    weight: int | None
    by_column: bool = False
    signed: bool = False


@dataclass(frozen=True)
class _Probe:
    x: torch.Tensor
    weights: torch.Tensor
    gradients: list[torch.Tensor]


def last_layer(observation: Observation) -> LastLayer | None:
    """The last layer of a net whose scores go into the cross entropy as they are, or behind a log-softmax.

    Args:
        observation: net, weights and mode.

    Returns:
        The layer; None if no parameter does what a last layer's does, as where its weights are tied.
    """
    probes = list(_probes(observation))
    count = len(observation.gradients)
    biases = [k for k in range(count) if all(_is_bias(probe, k) for probe in probes)]
    for by_column in (False, True):
        for k in range(count):
            features = [_features(probe, k, by_column) for probe in probes]
            found = [each for each in features if each is not None]
            if len(found) == len(features) and any(bool(each.any()) for each in found):
                signed = any(bool((each < -_TOLERANCE * each.abs().max()).any()) for each in found)
                return LastLayer(biases[0] if biases else None, k, by_column, signed)
    return LastLayer(biases[0], None) if biases else None


def single_score(observation: Observation) -> int | None:
    """The bias of the one score of a net for two classes, whose other score is always 0.

    Args:
        observation: net, weights and mode.

    Returns:
        Its number among the parameters; None if there is none.
    """
    probes = list(_probes(observation)) if observation.classes == 2 else []
    for number, gradient in enumerate(observation.gradients):
        fits = gradient.shape == (1,) and probes
        if fits and all(_close(probe.gradients[number], probe.weights[1:]) for probe in probes):
            return number
    return None


def first_layer(observation: Observation) -> tuple[int, int] | None:
    """Weights and bias of a fully connected layer that gets the input as it is.

    Args:
        observation: net, weights and mode.

    Returns:
        Their numbers among the parameters; None if there is no such layer.
    """
    probes = list(_probes(observation))
    shapes = [tuple(gradient.shape) for gradient in observation.gradients]
    inputs = math.prod(observation.image_shape)
    for weight, shape in enumerate(shapes):
        if len(shape) != 2 or shape[1] != inputs:
            continue
        for bias, other in enumerate(shapes):
            if other == shape[:1] and all(_is_first(probe, weight, bias) for probe in probes):
                return weight, bias
    return None


def _probes(observation: Observation) -> Iterator[_Probe]:
    net = in_mode(observation.model(), observation.evaluating)
    tensors = by_first_name(net, observation.pruned_weights())
    names = [name for name, _ in net.named_parameters()]
    generator = torch.Generator().manual_seed(0)
    for _ in range(_PROBES):
        like = observation.gradients[0]
        x = torch.rand(observation.batch_size, *observation.image_shape, generator=generator).to(like.dtype)
        weights = torch.randn(observation.classes, generator=generator).to(like.dtype)
        weights = weights - weights.mean()  # then a log-softmax changes nothing
        own = {name: tensors[name].detach().cpu().clone().requires_grad_() for name in names}
        held = {name: value.detach().cpu() for name, value in tensors.items()}
        with differentiable_twice(net), torch.enable_grad():
            scores = called(net, {**held, **own}, x)
            found = torch.autograd.grad(
                (scores.log_softmax(dim=1)[0] * weights).sum(), list(own.values()), allow_unused=True
            )
        gradients = [
            torch.zeros_like(value) if gradient is None else gradient
            for gradient, value in zip(found, own.values(), strict=True)
        ]
        yield _Probe(x[0], weights, gradients)


def _is_bias(probe: _Probe, number: int) -> bool:
    gradient = probe.gradients[number]
    if gradient.shape != probe.weights.shape:
        return False
    scale = (gradient @ probe.weights) / (probe.weights @ probe.weights)
    return bool(scale > 0) and _close(gradient, scale * probe.weights)


def _features(probe: _Probe, number: int, by_column: bool) -> torch.Tensor | None:
    """The features that a parameter's gradient is the outer product with; None if it is none."""
    gradient = probe.gradients[number]
    gradient = gradient.T if by_column and gradient.dim() == 2 else gradient
    if gradient.dim() != 2 or len(gradient) != len(probe.weights):
        return None
    features = (probe.weights @ gradient) / (probe.weights @ probe.weights)
    return features if _close(gradient, torch.outer(probe.weights, features)) else None


def _is_first(probe: _Probe, weight: int, bias: int) -> bool:
    return _close(probe.gradients[weight], torch.outer(probe.gradients[bias], probe.x.flatten()))


def _close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((found - expected).norm() <= _TOLERANCE * found.norm())
