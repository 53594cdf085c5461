"""Images read off averages of updates of several local steps, over rounds and trainings."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from experiments.audit.strong_scores import Material, score
from experiments.dgl_utils import CLASSES
from secretflow.ml.nn.fl.attacks import LayerRound

Row = dict[str, Any]
PARTIES, HELD, _BATCH, _STEPS, ROUNDS, TRAININGS = 5, 100, 8, 5, 20, 20
_LEARNING_RATE, _NEURONS, _SEED = 0.5, 1000, 10
LEVELS = 255
_SLACK = 1 / 5120
"""How far a pixel that is read may be from one of the levels of a picture, a twentieth of their distance."""


def rounds_of_updates(material: Material, images: int) -> Iterator[Row]:
    """Federated averaging of five parties with 100 images each: 20 trainings of 20 rounds of 5 batches of 8.

    Parties, rounds, batches, learning rate, net and the attacker's prior (pixels have 256 levels) are those
    of the code of the attack's paper (Marchand et al., "SRATTA", ICML 2023) for Fashion-MNIST; the images are
    MNIST's. A neuron that one image alone switches on in a round holds it.

    Args:
        material: images, of which the parties hold the first ones.
        images: does not count; all 500 are attacked.

    Yields:
        A row.
    """
    x, y = (part[: PARTIES * HELD] for part in (material.x.flatten(1), material.y))
    started = time.perf_counter()
    read = pictures_of(trainings(x, y, [HELD] * PARTIES), x.shape[1])
    seconds = time.perf_counter() - started
    levels = (x * LEVELS).round()
    distances = torch.cdist(levels, read) if len(read) else torch.ones(len(x), 1)
    true = distances.min(dim=1).values == 0
    numbers = torch.arange(len(x))
    found = torch.where(true[:, None], x, torch.zeros_like(x)).view(-1, *material.x.shape[1:])
    yield {
        "net": "784-1000-10 ReLU",
        "view": f"averages of updates, {TRAININGS} trainings of {ROUNDS} rounds",
        "knowledge": "nothing pruned",
        "density": 1.0,
        "bits": None,
        "parties": PARTIES,
        "attack": "neurons of one row",
        **score(found, numbers, material),
        "read": len(read),
        "read_that_are_none": int(len(read) - true.sum()),
        "seconds": round(seconds, 1),
    }


def pictures(weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """What single neurons of a first layer hold, where it is a picture.

    Args:
        weight: update of the weights, of shape (neurons, inputs).
        bias: update of the biases, of shape (neurons,).

    Returns:
        Levels from 0 to 255, a float of shape (read, inputs).
    """
    strong = (bias.abs() > 1e-5) & (weight.abs().amax(dim=1) > 1e-5)
    rows = weight[strong] / bias[strong, None]
    levels = (rows * LEVELS).round()
    near = (rows - levels / LEVELS).abs().amax(dim=1) <= _SLACK
    return levels[near & (levels.amin(dim=1) >= 0) & (levels.amax(dim=1) <= LEVELS)]


def pictures_of(rounds: Iterable[LayerRound], pixels: int) -> torch.Tensor:
    """The pictures among the rows of all updates, each once, of shape (read, pixels)."""
    read = torch.zeros(0, pixels)
    for seen in rounds:
        read = torch.cat([read, pictures(seen.weight_update, seen.bias_update)]).unique(dim=0)
    return read


def trainings(x: torch.Tensor, y: torch.Tensor, held: Sequence[int]) -> Iterator[LayerRound]:
    """Of each round of all trainings what is seen of the first layer; the same each time it is called.

    Args:
        x: images, (images, pixels).
        y: their labels.
        held: images of each party, which are also its aggregation weights.
    """
    for training in range(TRAININGS):
        yield from _updates(x, y, _SEED + training, held)


def _updates(x: torch.Tensor, y: torch.Tensor, seed: int, held: Sequence[int]) -> Iterator[LayerRound]:
    """Of each round of a training what is seen of the first layer.

    The seed is that of the net and of the order of the images.
    """
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(x.shape[1], _NEURONS), nn.ReLU(), nn.Linear(_NEURONS, CLASSES))
    shared = {name: value.detach().clone() for name, value in net.state_dict().items()}
    order: list[torch.Tensor] = [torch.zeros(0, dtype=torch.int64)] * len(held)
    for _ in range(ROUNDS):
        total = {name: torch.zeros_like(value) for name, value in shared.items()}
        for party, count in enumerate(held):
            net.load_state_dict(shared)
            optimizer = torch.optim.SGD(net.parameters(), lr=_LEARNING_RATE)
            for _ in range(_STEPS):
                if not len(order[party]):
                    order[party] = sum(held[:party]) + torch.randperm(count)
                own, order[party] = order[party][:_BATCH], order[party][_BATCH:]
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x[own]), y[own]).backward()
                optimizer.step()
            for name, value in net.state_dict().items():
                total[name] += (value - shared[name]) * (count / sum(held))
        names = "0.weight", "0.bias"
        yield LayerRound(*(shared[name] for name in names), *(total[name] for name in names))
        shared = {name: value + total[name] for name, value in shared.items()}
