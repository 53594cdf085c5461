"""Attacks on updates of Adam, the main job's optimiser, in its net once it is trained."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from experiments.audit.strong_attacks import as_layers_were_given, compared, inverters
from experiments.audit.strong_scores import Material
from experiments.audit.strong_trained import (
    BATCH,
    LEARNING_RATE,
    Trained,
    adam_step,
    common_columns,
    pruned_gradient,
    train,
)
from experiments.dgl_utils import CLASSES, ConvNet
from secretflow.ml.nn.fl.attacks import Observation
from secretflow.ml.nn.fl.attacks.adam_updates import gradient_of_adam
from secretflow.ml.nn.fl.audit.views import Knowledge, PartyStep, observe

Row = dict[str, Any]
Arrays = tuple[torch.Tensor, ...]
_UNSURE = 0.25
"""Deviation of the logarithm of a coordinate's scale that the attacker expects of its estimate."""
_NOISE = 1e-2
"""Part of the largest coordinate of a bias below which quotients count less, for they are so much off."""
_ROUNDED = 1e-4
"""What rounding of the weights leaves of a coordinate, relative to the root of its mean square."""
_BETAS, _EPS = (0.9, 0.999), 1e-8


def adam_updates(material: Material, images: int, epochs: int, density: float, fresh: bool) -> Iterator[Row]:
    """One image's update of Adam, whose state is that of the training or fresh.

    Args:
        material: images.
        images: to attack.
        epochs: of training.
        density: of the pruned weights, in (0, 1].
        fresh: see :func:`observed_updates`.

    Yields:
        A row for each attack.
    """
    trained = train(material, epochs, density)
    observations, last = observed_updates(trained, material, images, fresh)
    common = common_columns(trained, density, "Adam's first update" if fresh else "Adam's update")
    if last is None:
        yield {**common, **compared(observations, material, signs)}
        yield from ({**common, **row} for row in inverters(observations, signs, material))
        return
    level = [replace(each, gradients=last.levelled(each.gradients)) for each in observations]
    yield {**common, **compared(level, material, lambda arrays: last.levelled(last.solved(arrays, 0.0)))}
    given, change = as_layers_were_given(observations, _NOISE)
    yield from (
        {**common, **row}
        for row in inverters(given, lambda arrays: change(last.solved(arrays, _UNSURE)), material)
    )


@dataclass(frozen=True)
class LastStep:
    """What an attacker knows before an update of Adam, array by array.

    Attributes:
        weights: of the party's net.
        update: of the step before.
        squares: running means of squares, as the attacker estimates them.
        step: number of the next step.
    """

    weights: Arrays
    update: Arrays
    squares: Arrays
    step: int

    def solved(self, gradients: Arrays, unsure: float) -> Arrays:
        """What the attacker would make of the update that a gradient gives, which the weights round.

        Args:
            gradients: a row's, array by array.
            unsure: deviation of the logarithm of each scale; 0 is that the estimated squares are right.
        """
        found = []
        for gradient, *known in zip(gradients, self.weights, self.update, self.squares, strict=True):
            weight, before, square = (each.to(gradient.device) for each in known)
            first, second = (1 - beta ** (self.step - 1) for beta in _BETAS)
            momentum = first * before * ((square / second).sqrt() + _EPS)
            now = _BETAS[1] * square + (1 - _BETAS[1]) * gradient.square()
            mean = _BETAS[0] * momentum + (1 - _BETAS[0]) * gradient
            first, second = (1 - beta**self.step for beta in _BETAS)
            change = mean / first / ((now / second).sqrt() + _EPS)
            seen = (weight - (weight - LEARNING_RATE * change)) / LEARNING_RATE
            estimate = square * (2 * unsure * torch.randn_like(square)).exp() if unsure else square
            found.append(gradient_of_adam((seen,), (before,), (estimate,), step=self.step)[0])
        return tuple(found)

    def levelled(self, gradients: Arrays) -> Arrays:
        """Gradients on a scale on which errors of their scales and of rounding are alike."""
        return tuple(
            torch.asinh(gradient / (_ROUNDED * square.sqrt() + 1e-12).to(gradient.device))
            for gradient, square in zip(gradients, self.squares, strict=True)
        )


def observed_updates(
    trained: Trained, material: Material, images: int, fresh: bool
) -> tuple[list[Observation], LastStep | None]:
    """What an attacker makes of updates of single images.

    Args:
        trained: the net, and the party's Adam.
        material: images.
        images: of which there is an update each.
        fresh: whether Adam's state is that of a first step, which shows signs only; else a batch of 32 comes
            before, whose update the attacker has seen as well, and it solves for the gradient.

    Returns:
        The observations, and what was known before; None before a first step.
    """
    party, rest = _AdamParty(trained, fresh), material.rest
    last: LastStep | None = None
    if not fresh:
        update = party.update(rest.x[:BATCH], rest.y[:BATCH])
        last = LastStep(party.parameters(), update, trained.squares, party.steps + 1)
    before, found = party.weights(), []
    for k in range(images):
        x, y = material.x[k : k + 1], material.y[k : k + 1]
        seen = party.alone(x, y)
        if last is not None:
            seen = gradient_of_adam(seen, last.update, last.squares, step=last.step)
        step = PartyStep(ConvNet, before, x, y, trained.mask)
        found.append(observe(step, seen, Knowledge.MASK_KNOWN, classes=CLASSES))
    return found, last


class _AdamParty:
    """A party that makes steps of Adam."""

    def __init__(self, trained: Trained, fresh: bool) -> None:
        self._mask = trained.mask
        self._net = ConvNet()
        self._net.load_state_dict(trained.weights)
        self._adam = torch.optim.Adam(self._net.parameters(), lr=LEARNING_RATE)
        if not fresh:
            self._adam.load_state_dict(trained.state)

    @property
    def steps(self) -> int:
        """Steps so far."""
        states = list(self._adam.state.values())
        return int(states[0]["step"]) if states else 0

    def parameters(self) -> Arrays:
        """In their order."""
        return tuple(parameter.detach().clone() for parameter in self._net.parameters())

    def weights(self) -> dict[str, torch.Tensor]:
        """By name."""
        return {name: value.detach().clone() for name, value in self._net.state_dict().items()}

    def update(self, x: torch.Tensor, y: torch.Tensor) -> Arrays:
        """Makes a step; what it takes off the weights, over the learning rate."""
        before = self.parameters()
        adam_step(self._net, self._adam, pruned_gradient(self._net, self._mask, x, y), self._mask)
        after = self.parameters()
        return tuple((old - new) / LEARNING_RATE for old, new in zip(before, after, strict=True))

    def alone(self, x: torch.Tensor, y: torch.Tensor) -> Arrays:
        """The update of a step, which is taken back."""
        return copy.deepcopy(self).update(x, y)


def signs(arrays: Sequence[torch.Tensor]) -> Arrays:
    """What a first step of Adam makes of a gradient."""
    return tuple(array / (array.abs() + _EPS) for array in arrays)
