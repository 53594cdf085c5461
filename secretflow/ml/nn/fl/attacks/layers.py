"""Which parameters are a net's first and last layer: found by what they do, not by when they were defined.

A probe is a random input with random weights of the scores. Its gradient shows what a parameter does: that of
a bias behind the scores is the scores' own, that of their weights the outer product with the features, that
of the first layer's weights the outer product of its bias' gradient with the input. Rows may hold numbers of
both signs, whatever an image should look like, so probes do: what holds for numbers from 0 to 1 alone, as
behind a clamp, does not count.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.net import by_first_name, called, differentiable_twice, in_mode
from secretflow.ml.nn.fl.attacks.observation import Observation

_FAR = 30.0
"""How many times a standard normal number a probe holds that shows the sign of features."""
_LEAST_FAR = 4
"""Of how many such probes the net must take, or nothing is said about signs."""
_TOLERANCE = 1e-3
"""Relative error up to which a gradient counts as the one that is expected; float32 keeps 1e-5."""


@dataclass(frozen=True)
class LastLayer:
    """The layer that computes the scores of the classes.

    Attributes:
        bias: number of its bias among the parameters; None if it has none.
        weight: number of its weights, None if they are not to be found.
        by_column: whether the weights have a column for each class instead of a row.
        signed: whether features in front of it can be negative, or may be for all that is known.
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
                signed = _signed(observation, k, by_column, found)
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


def _signed(observation: Observation, number: int, by_column: bool, found: list[torch.Tensor]) -> bool:
    """Whether features are negative for some input, or no input shows that they are not."""
    far = [probe for x in _far(observation) if (probe := _probe(observation, x)) is not None]
    features = [_features(probe, number, by_column) for probe in far]
    known = [each for each in features if each is not None]
    return len(known) < _LEAST_FAR or any(map(_has_negative, [*found, *known]))


def _has_negative(features: torch.Tensor) -> bool:
    return bool((features < -_TOLERANCE * features.abs().max()).any())


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


def needed_first_layer(observation: Observation) -> tuple[int, int]:
    """What :func:`first_layer` finds, for an attack that needs it.

    Raises:
        ValueError: there is no such layer.
    """
    numbers = first_layer(observation)
    what = "one that begins with a fully connected layer with bias"
    _validate.check(numbers is not None, "model", type(observation.model()).__name__, what)
    assert numbers is not None
    return numbers


def _probes(observation: Observation) -> Iterator[_Probe]:
    """Probes of numbers from 0 to 1 and, where the net takes such, of both signs."""
    for x in _within(observation, 2):
        probe = _probe(observation, x)
        if probe is None:
            raise ValueError(
                "weights must give a gradient for numbers from 0 to 1, got one that is not finite"
            )
        yield probe
    if observation.value_range is None:
        for scale in (1.0, 3.0):
            probe = _probe(observation, scale * _normal(observation, seed=1))
            if probe is not None:
                yield probe


def _far(observation: Observation) -> list[torch.Tensor]:
    """Inputs that show whether features can be negative: whatever a row can hold, and far from zero."""
    if observation.value_range is not None:
        return _within(observation, 8)
    normal = [_normal(observation, seed) for seed in (2, 3)]
    return [*(scale * x for x in normal for scale in (1.0, _FAR)), -normal[0].abs(), -_FAR * normal[0].abs()]


def _within(observation: Observation, count: int) -> list[torch.Tensor]:
    """Inputs from the range that the attacker knows, or from 0 to 1."""
    low, high = observation.value_range or (0.0, 1.0)
    generator = torch.Generator().manual_seed(0)
    shape = (observation.batch_size, *observation.image_shape)
    return [low + (high - low) * torch.rand(shape, generator=generator) for _ in range(count)]


def _normal(observation: Observation, seed: int) -> torch.Tensor:
    shape = (observation.batch_size, *observation.image_shape)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _probe(observation: Observation, x: torch.Tensor) -> _Probe | None:
    """The gradient of the first row's scores, weighted at random; None if there is none for such an input."""
    net = in_mode(observation.model(), observation.evaluating)
    tensors = by_first_name(net, observation.pruned_weights())
    names = [name for name, _ in net.named_parameters()]
    x = x.to(observation.gradients[0].dtype)
    weights = torch.randn(observation.classes, generator=torch.Generator().manual_seed(0)).to(x.dtype)
    weights = weights - weights.mean()  # then a log-softmax changes nothing
    own = {name: tensors[name].detach().cpu().clone().requires_grad_() for name in names}
    held = {name: value.detach().cpu() for name, value in tensors.items()}
    try:
        with differentiable_twice(net), torch.enable_grad():
            scores = called(net, {**held, **own}, x)
            found = torch.autograd.grad(
                (scores.log_softmax(dim=1)[0] * weights).sum(), list(own.values()), allow_unused=True
            )
    except (IndexError, RuntimeError, ValueError):
        return None  # such as a negative number for an embedding, which no row can hold either
    gradients = [
        torch.zeros_like(value) if gradient is None else gradient
        for gradient, value in zip(found, own.values(), strict=True)
    ]
    finite = all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
    return _Probe(x[0], weights, gradients) if finite else None


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
