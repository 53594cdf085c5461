"""Attacks on the net of the main job once it is trained: single images, batches, local steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from experiments.audit.strong_attacks import as_layers_were_given, compared, in_batches, inverters, searches
from experiments.audit.strong_scores import Material
from experiments.dgl_utils import CLASSES, ConvNet
from secretflow.ml.nn.fl.attacks import Observation
from secretflow.ml.nn.fl.audit.defences import magnitude_mask
from secretflow.ml.nn.fl.audit.views import Knowledge, PartyStep, observe, weight_update

Row = dict[str, Any]
_SEED = 1
BATCH, LEARNING_RATE = 32, 1e-2
"""Of the training and of a party's updates."""
_LOCAL_RATE = 0.1
_PRUNINGS = 10


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
        epochs: over all rows; with 0 the net is as it begins, pruned at once.
        density: that ten steps of pruning, each of the same part of what lives, come to in the first half of
            the training, in (0, 1]; the second half trains under the mask.

    Returns:
        The net after the last step.
    """
    torch.manual_seed(_SEED)
    net = ConvNet()
    x, y = torch.cat([material.x, material.rest.x]), torch.cat([material.y, material.rest.y])
    adam = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    squares = [torch.zeros_like(parameter) for parameter in net.parameters()]
    generator, mask = torch.Generator().manual_seed(_SEED), {}
    orders = [torch.randperm(len(x), generator=generator) for _ in range(epochs)]
    steps = torch.cat(orders).split(BATCH) if orders else ()
    if density < 1 and not steps:
        mask = magnitude_mask(ConvNet, net.state_dict(), 1 - density)
    for number, own in enumerate(steps):
        done, left = divmod(number * _PRUNINGS * 2, len(steps))
        if density < 1 and left < _PRUNINGS * 2 and 0 < done <= _PRUNINGS:
            mask = magnitude_mask(ConvNet, net.state_dict(), 1 - density ** (done / _PRUNINGS))
            net.load_state_dict({n: v * mask[n] if n in mask else v for n, v in net.state_dict().items()})
        drawn = torch.randint(len(material.public.x), (BATCH,), generator=generator)
        for square, gradient in zip(
            squares,
            pruned_gradient(net, mask, material.public.x[drawn], material.public.y[drawn]),
            strict=True,
        ):
            square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        adam_step(net, adam, pruned_gradient(net, mask, x[own], y[own]), mask)
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
    common = common_columns(
        trained, density, f"gradient after {_epochs(epochs)}" if steps == 1 else f"{steps} local steps"
    )
    yield {**common, **compared(observations, material)}
    yield from ({**common, **row} for row in inverters(*as_layers_were_given(observations), material))


def trained_searches(material: Material, images: int, epochs: int, density: float) -> Iterator[Row]:
    """One image's gradient in the trained net, and those who search without public images.

    Args:
        material: images.
        images: to attack, at most 20.
        epochs: of training.
        density: of the pruned weights, in (0, 1].

    Yields:
        A row for each attack.
    """
    trained = train(material, epochs, density)
    observations = [
        _observed(trained, material.x[k : k + 1], material.y[k : k + 1], 1) for k in range(images)
    ]
    common = common_columns(trained, density, f"gradient after {_epochs(epochs)}")
    yield from ({**common, **row} for row in searches(observations, material))


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
    common = common_columns(trained, density, f"gradient of a batch of {batch} after {_epochs(epochs)}")
    yield {**common, **in_batches(observations, numbers, material)}


def pruned_gradient(
    net: nn.Module, mask: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor
) -> list[torch.Tensor]:
    """The gradient of a batch, zero where the mask is."""
    found = torch.autograd.grad(nn.functional.cross_entropy(net(x), y), list(net.parameters()))
    names = [name for name, _ in net.named_parameters()]
    return [array * mask[name] if name in mask else array for name, array in zip(names, found, strict=True)]


def adam_step(
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


def common_columns(trained: Trained, density: float, view: str) -> Row:
    """What all rows of a setting say."""
    return {
        "net": "ConvNet",
        "accuracy": trained.accuracy,
        "view": view,
        "knowledge": "mask-aware" if density < 1 else "nothing pruned",
        "density": density,
        "bits": None,
        "parties": 1,
    }
