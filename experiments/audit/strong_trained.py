"""Attacks on the net of the main job once it is trained: single images, batches, local steps, Adam."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from experiments.audit.strong_attacks import inverters
from experiments.audit.strong_scores import Material, picked
from experiments.dgl_utils import CLASSES, ConvNet
from secretflow.ml.nn.fl.attacks import Observation, candidate_scores, learn_row_gradients
from secretflow.ml.nn.fl.attacks.activations import as_activations
from secretflow.ml.nn.fl.attacks.adam_updates import gradient_of_adam
from secretflow.ml.nn.fl.attacks.public import Distort
from secretflow.ml.nn.fl.audit.defences import magnitude_mask
from secretflow.ml.nn.fl.audit.views import Knowledge, PartyStep, observe, weight_update

Row = dict[str, Any]
_SEED, _BATCH, _LEARNING_RATE = 1, 32, 1e-2
_LOCAL_RATE = 0.1
_PRUNINGS = 10
_UNSURE = 0.25
"""Deviation of the logarithm of a coordinate's scale that the attacker on Adam expects of its estimate."""


@dataclass(frozen=True)
class Trained:
    """A net that was trained with Adam.

    Attributes:
        weights: of it, by name.
        mask: 0 where a weight is pruned, by name; empty if none is.
        state: of its Adam.
        squares: by parameter the running mean of squares that public batches give in the same steps.
        accuracy: on the attacker's images, which it has not seen.
    """

    weights: dict[str, torch.Tensor]
    mask: dict[str, torch.Tensor]
    state: dict[str, Any]
    squares: tuple[torch.Tensor, ...]
    accuracy: float


def train(material: Material, epochs: int, density: float) -> Trained:
    """Trains the net on the parties' rows, with batches of 32 and Adam, as the main job does.

    Args:
        material: candidates and other rows of the parties to train on, public ones for the attacker's Adam.
        epochs: over all rows.
        density: that ten steps of pruning, each of the same part of what lives, come to in the first half of
            the training, in (0, 1]; the second half trains under the mask.

    Returns:
        The net after the last step.
    """
    torch.manual_seed(_SEED)
    net = ConvNet()
    x, y = torch.cat([material.x, material.rest.x]), torch.cat([material.y, material.rest.y])
    adam = torch.optim.Adam(net.parameters(), lr=_LEARNING_RATE)
    squares = [torch.zeros_like(parameter) for parameter in net.parameters()]
    generator, mask = torch.Generator().manual_seed(_SEED), {}
    orders = torch.cat([torch.randperm(len(x), generator=generator) for _ in range(epochs)])
    steps = orders.split(_BATCH)
    for number, own in enumerate(steps):
        done, left = divmod(number * _PRUNINGS * 2, len(steps))
        if density < 1 and left < _PRUNINGS * 2 and 0 < done <= _PRUNINGS:
            mask = magnitude_mask(ConvNet, net.state_dict(), 1 - density ** (done / _PRUNINGS))
            net.load_state_dict({n: v * mask[n] if n in mask else v for n, v in net.state_dict().items()})
        drawn = torch.randint(len(material.public.x), (_BATCH,), generator=generator)
        for square, gradient in zip(
            squares, _gradient(net, mask, material.public.x[drawn], material.public.y[drawn]), strict=True
        ):
            square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        _step(net, adam, _gradient(net, mask, x[own], y[own]), mask)
    weights = {name: value.detach().clone() for name, value in net.state_dict().items()}
    with torch.no_grad():
        right = net(material.public.x).argmax(dim=1) == material.public.y
    return Trained(weights, mask, adam.state_dict(), tuple(squares), round(float(right.float().mean()), 3))


def trained_gradients(
    material: Material, images: int, epochs: int, density: float, steps: int = 1
) -> Iterator[Row]:
    """One image's gradient, or its update after some steps, in the trained net.

    Args:
        material: images.
        images: to attack.
        epochs: of training.
        density: of the pruned weights, in (0, 1].
        steps: local ones of gradient descent, with a learning rate of 0.1.

    Yields:
        A row for each attack.
    """
    trained = train(material, epochs, density)
    observations = [
        _observed(trained, material.x[k : k + 1], material.y[k : k + 1], steps) for k in range(images)
    ]
    common = _common(
        trained, density, f"gradient after {_epochs(epochs)}" if steps == 1 else f"{steps} local steps"
    )
    yield from ({**common, **row} for row in inverters(*_activations(observations), material))


def trained_batches(
    material: Material, images: int, epochs: int, density: float, batch: int
) -> Iterator[Row]:
    """Which candidates are in the gradient of a batch, in the trained net.

    Args:
        material: images.
        images: to attack, in whole batches, at least one.
        epochs: of training.
        density: of the pruned weights, in (0, 1].
        batch: images of each gradient.

    Yields:
        A row.
    """
    trained = train(material, epochs, density)
    numbers = torch.arange(max(1, images // batch) * batch).view(-1, batch)
    observations = [_observed(trained, material.x[own], material.y[own]) for own in numbers]
    common = _common(trained, density, f"gradient of a batch of {batch} after {_epochs(epochs)}")
    yield {**common, **candidates(observations, numbers, material)}


def candidates(observations: Sequence[Observation], numbers: torch.Tensor, material: Material) -> Row:
    """Which of the 10,000 candidates explain a batch or an average best.

    Args:
        observations: of as many rows each.
        numbers: of the rows that are in each of them, int64 of shape (observations, rows).
        material: candidates and public images.
    """
    started = time.perf_counter()
    learned = learn_row_gradients(observations[0], material.public)
    scores = candidate_scores(learned, observations, material.candidates())
    return {
        "attack": "candidates",
        **picked(scores, numbers),
        "seconds": round(time.perf_counter() - started, 1),
    }


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
    observations = observed_updates(trained, material, images, fresh)
    common = _common(trained, density, "Adam's first update" if fresh else "Adam's update")
    if fresh:
        yield from ({**common, **row} for row in inverters(observations, _signs, material))
    else:
        observed, change = _activations(observations)
        yield from (
            {**common, **row} for row in inverters(observed, lambda arrays: change(_unsure(arrays)), material)
        )


def _activations(observations: Sequence[Observation]) -> tuple[list[Observation], Distort]:
    """Observations in which a gradient of weights is what the layer was given, and how that is done."""
    change = as_activations(observations[0])
    return [replace(each, gradients=change(each.gradients)) for each in observations], change


def observed_updates(trained: Trained, material: Material, images: int, fresh: bool) -> list[Observation]:
    """What an attacker makes of updates of single images.

    Args:
        trained: the net, and the party's Adam.
        material: images.
        images: of which there is an update each.
        fresh: whether Adam's state is that of a first step, which shows signs only; else a batch of 32 comes
            before, whose update the attacker has seen as well, and it solves for the gradient.
    """
    party = _AdamParty(trained, fresh)
    rest = material.rest
    previous = () if fresh else party.update(rest.x[:_BATCH], rest.y[:_BATCH])
    before, found = party.weights(), []
    for k in range(images):
        x, y = material.x[k : k + 1], material.y[k : k + 1]
        seen = party.alone(x, y)
        if not fresh:
            seen = gradient_of_adam(seen, previous, trained.squares, step=party.steps + 1)
        step = PartyStep(ConvNet, before, x, y, trained.mask)
        found.append(observe(step, seen, Knowledge.MASK_KNOWN, classes=CLASSES))
    return found


class _AdamParty:
    """A party that makes steps of Adam."""

    def __init__(self, trained: Trained, fresh: bool) -> None:
        self._mask = trained.mask
        self._net = ConvNet()
        self._net.load_state_dict(trained.weights)
        self._adam = torch.optim.Adam(self._net.parameters(), lr=_LEARNING_RATE)
        if not fresh:
            self._adam.load_state_dict(trained.state)

    @property
    def steps(self) -> int:
        """Steps so far."""
        states = list(self._adam.state.values())
        return int(states[0]["step"]) if states else 0

    def weights(self) -> dict[str, torch.Tensor]:
        """By name."""
        return {name: value.detach().clone() for name, value in self._net.state_dict().items()}

    def update(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Makes a step; what it takes off the weights, over the learning rate."""
        before = [parameter.detach().clone() for parameter in self._net.parameters()]
        _step(self._net, self._adam, _gradient(self._net, self._mask, x, y), self._mask)
        after = self._net.parameters()
        return tuple((old - new.detach()) / _LEARNING_RATE for old, new in zip(before, after, strict=True))

    def alone(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The update of a step, which is taken back."""
        return copy.deepcopy(self).update(x, y)


def _signs(arrays: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """What a first step of Adam makes of a gradient."""
    return tuple(array / (array.abs() + 1e-8) for array in arrays)


def _unsure(arrays: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """A gradient whose coordinates have scales that are known about."""
    return tuple(array * (_UNSURE * torch.randn_like(array)).exp() for array in arrays)


def _gradient(
    net: nn.Module, mask: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor
) -> list[torch.Tensor]:
    found = torch.autograd.grad(nn.functional.cross_entropy(net(x), y), list(net.parameters()))
    names = [name for name, _ in net.named_parameters()]
    return [array * mask[name] if name in mask else array for name, array in zip(names, found, strict=True)]


def _step(
    net: nn.Module, adam: torch.optim.Adam, gradient: Sequence[torch.Tensor], mask: dict[str, torch.Tensor]
) -> None:
    """A step of Adam after which what is pruned is zero."""
    for parameter, array in zip(net.parameters(), gradient, strict=True):
        parameter.grad = array
    adam.step()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name in mask:
                parameter.mul_(mask[name])


def _observed(trained: Trained, x: torch.Tensor, y: torch.Tensor, steps: int = 1) -> Observation:
    party = PartyStep(ConvNet, trained.weights, x, y, trained.mask)
    seen = weight_update(party, steps, _LOCAL_RATE)
    rate = _LOCAL_RATE if steps > 1 else None
    return observe(party, seen, Knowledge.MASK_KNOWN, classes=CLASSES, local_steps=steps, learning_rate=rate)


def _epochs(epochs: int) -> str:
    return f"{epochs} epoch" + ("s" if epochs > 1 else "")


def _common(trained: Trained, density: float, view: str) -> Row:
    return {
        "net": "ConvNet",
        "accuracy": trained.accuracy,
        "view": view,
        "knowledge": "mask-aware" if density < 1 else "nothing pruned",
        "density": density,
        "bits": None,
        "parties": 1,
    }
