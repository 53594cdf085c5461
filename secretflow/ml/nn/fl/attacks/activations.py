"""What a fully connected layer was given, read off the gradient of one row: clues that have no length.

The gradient of such a layer's weights is that of its bias times what the layer was given, so a quotient gives
the latter, however sure the net is of the row and whatever its loss is. An inverter that learns from these
instead of the gradient gets far more out of trained nets.

Source: as of :mod:`~.closed_form`, there for the first layer, where what is given is the row itself.
"""

from __future__ import annotations

import torch
from torch import nn

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.observation import Observation
from secretflow.ml.nn.fl.attacks.public import Distort, living_arrays

_LEAST = 1e-30


def as_activations(observation: Observation) -> Distort:
    """What an attacker does to gradients of single rows, its own and those it sees, to learn from them.

    Args:
        observation: net and mask count; what was seen in it does not.

    Returns:
        A function of arrays in the order of the parameters. In place of the gradient of a fully connected
        layer's weights each row holds what the layer was given, as far as living weights show it, and 0
        elsewhere; all other arrays are scaled so that they have length 1 together.

    Raises:
        TypeError: it is no observation.
    """
    _validate.instance("observation", observation, Observation, "an Observation")
    net = observation.model()
    numbers = {name: number for number, (name, _) in enumerate(net.named_parameters())}
    pairs = {
        numbers[f"{name}.weight"]: numbers[f"{name}.bias"]
        for name, module in net.named_modules()
        if isinstance(module, nn.Linear) and f"{name}.weight" in numbers and f"{name}.bias" in numbers
    }
    living = living_arrays(observation)

    def changed(arrays: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        others = [array for number, array in enumerate(arrays) if number not in pairs]
        length = torch.stack([array.square().sum() for array in others]).sum().sqrt().clamp(min=_LEAST)
        found = []
        for number, array in enumerate(arrays):
            if number not in pairs:
                found.append(array / length)
                continue
            alive = living[number].to(array)
            back = arrays[pairs[number]]
            back = back / back.abs().amax().clamp(min=_LEAST)
            evidence = alive.T @ back.square()
            given = (alive * array / arrays[pairs[number]].abs().amax().clamp(min=_LEAST)).T @ back
            found.append(alive * (given / evidence.clamp(min=1e-12))[None])
        return tuple(found)

    return changed
