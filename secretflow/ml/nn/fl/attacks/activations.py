"""What a fully connected layer was given, read off the gradient of one row: clues that have no length.

The gradient of such a layer's weights is that of its bias times what the layer was given, so a quotient gives
the latter, however sure the net is of the row and whatever its loss is. An inverter that learns from these
instead of the gradient gets far more out of trained nets.

Source: as of :mod:`~.closed_form`, there for the first layer, where what is given is the row itself.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.observation import Observation
from secretflow.ml.nn.fl.attacks.public import Distort, living_arrays

_LEAST = 1e-30
"""Gradient of a bias up to which its quotients are taken for rounding."""
_SMALLEST = 1e-12


def as_activations(observation: Observation, noise: float = 0.0) -> Distort:
    """What an attacker does to gradients of single rows, its own and those it sees, to learn from them.

    A class of which the net is sure that it is not has a gradient many orders below the others', and its
    quotients are as exact as theirs, for floating point keeps relative precision: all count alike.

    Args:
        observation: net and mask count; what was seen in it does not.
        noise: deviation of an error of each coordinate, relative to the largest coordinate of the bias,
            at least 0; quotients of smaller coordinates then count less.

    Returns:
        A function of arrays in the order of the parameters. In place of the gradient of a fully connected
        layer's weights each row holds what the layer was given, as far as living weights show it, and 0
        elsewhere. Its bias is on a logarithmic scale, with its sign: its largest coordinate is 1, and one
        of 1e-12 of that or less is 0. All other arrays are scaled so that they have length 1 together.

    Raises:
        TypeError: it is no observation.
        ValueError: the net has no fully connected layer with bias, or ``noise`` is negative.
    """
    _validate.instance("observation", observation, Observation, "an Observation")
    _validate.number("noise", noise, at_least=0)
    net = observation.model()
    numbers = {name: number for number, (name, _) in enumerate(net.named_parameters())}
    pairs = {
        numbers[f"{name}.weight"]: numbers[f"{name}.bias"]
        for name, module in net.named_modules()
        if isinstance(module, nn.Linear) and f"{name}.weight" in numbers and f"{name}.bias" in numbers
    }
    biases = set(pairs.values())
    what = "one with a fully connected layer with bias, whose gradient shows what it was given"
    _validate.check(bool(pairs), "model", type(net).__name__, what)
    living = living_arrays(observation)

    def changed(arrays: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        others = [
            array for number, array in enumerate(arrays) if number not in pairs and number not in biases
        ]
        squares = [array.square().sum() for array in others] or [arrays[0].new_zeros(())]
        length = torch.stack(squares).sum().sqrt().clamp(min=_LEAST)
        found = []
        for number, array in enumerate(arrays):
            if number in pairs:
                alive = living[number].to(array.device)
                found.append(_given(array, arrays[pairs[number]], alive, noise))
            else:
                found.append(_logarithmic(array) if number in biases else array / length)
        return tuple(found)

    return changed


def _given(weight: torch.Tensor, bias: torch.Tensor, alive: torch.Tensor, noise: float) -> torch.Tensor:
    """What a layer was given, from the gradients of its weights and bias, where its weights live."""
    back = bias.double()
    shown = back.abs() > _LEAST
    quotients = weight.double() / torch.where(shown, back, 1)[:, None]
    squares = (back / back.abs().amax().clamp(min=_LEAST)).square()
    counts = alive * (shown * squares / (squares + noise**2).clamp(min=1e-300))[:, None]
    evidence = counts.sum(dim=0)
    mean = (counts * quotients).sum(dim=0) / torch.where(evidence > 0, evidence, 1)
    return (alive * mean).to(weight)


def _logarithmic(bias: torch.Tensor) -> torch.Tensor:
    """From -1 to 1, by sign and number of digits."""
    part = bias.double().abs() / bias.double().abs().amax().clamp(min=_LEAST)
    return (bias.sign() * (1 - part.clamp(min=_SMALLEST).log() / math.log(_SMALLEST))).to(bias)
