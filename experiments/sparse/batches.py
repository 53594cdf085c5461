"""Which rows each model trains on in each step: as FLModel deals them out, with ``shuffle`` and one seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

_TOGETHER = 8
_ALIKE = 0.75
"""Batches from this part of the largest on are filled up to it."""

SEED_STRIDE = 1_000_003
"""FLModel's, between the seeds of two epochs."""


def batch_sizes(rows: int, rate: float, batches: int) -> list[int]:
    """Sizes of a party's batches in an epoch, as FLModel's ``batch_sampling_rate`` makes them.

    Args:
        rows: of the party, at least as many as batches.
        rate: part of the rows in a batch.
        batches: how many.

    Returns:
        The sizes: the part rounded down and a smaller last one, or, where that leaves rows out, such as
        differ by at most one, the larger ones first.
    """
    size = math.floor(rows * rate)
    if size and math.ceil(rows / size) <= batches:
        return [min(size, rows - first) for first in range(0, rows, size)]
    size, larger = divmod(rows, batches)
    return [size + 1] * larger + [size] * (batches - larger)


def order_of(rows: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which FLModel shuffles a party's rows in an epoch, counted from 0."""
    torch.manual_seed(seed + SEED_STRIDE * epoch)
    torch.empty((), dtype=torch.int64).random_()  # what the loader draws for workers that it does not have
    generator = torch.Generator()
    generator.manual_seed(int(torch.empty((), dtype=torch.int64).random_()))
    return torch.randperm(rows, generator=generator).numpy()


@dataclass(frozen=True)
class Batches:
    """The batches of an epoch of some models of a stack.

    Attributes:
        models: their numbers, int64.
        rows: which rows, int64 of shape (batches, models, rows of the largest batch), filled up with 0.
        weights: of each row in the mean over its batch, float32, 0 where filled up.
    """

    models: torch.Tensor
    rows: torch.Tensor
    weights: torch.Tensor


def epoch_batches(
    held: Sequence[np.ndarray],
    seeds: Sequence[int],
    rate: float,
    batches: int,
    epoch: int,
    device: str = "cpu",
    apart: bool = False,
) -> tuple[list[Batches], np.ndarray]:
    """The batches of an epoch.

    Args:
        held: of each model the rows that it trains on, at least as many as batches.
        seeds: of each model's order.
        rate: part of a model's rows in a batch.
        batches: of an epoch.
        epoch: from 0.
        device: where they are used.
        apart: whether each model stands by itself, so that nothing is filled up.

    Returns:
        The batches, models with batches of about one size together, so that little is filled up; sizes, int64
        of shape (batches, models).
    """
    sizes = np.array([batch_sizes(len(rows), rate, batches) for rows in held]).T
    largest = sizes.max(0)
    parts: list[list[int]] = []
    for model in np.argsort(-largest, kind="stable").tolist():
        full = parts and (len(parts[-1]) >= _TOGETHER and largest[model] < _ALIKE * largest[parts[-1][0]])
        if apart or not parts or full:
            parts.append([])
        parts[-1].append(model)
    made = []
    for part in parts:
        numbers = np.zeros((batches, len(part), int(largest[part].max())), np.int64)
        weights = np.zeros(numbers.shape, np.float32)
        for place, model in enumerate(part):
            order = held[model][order_of(len(held[model]), seeds[model], epoch)]
            dealt = np.split(order, np.cumsum(sizes[:, model])[:-1])
            for step, batch in enumerate(dealt):
                numbers[step, place, : len(batch)] = batch
                weights[step, place, : len(batch)] = 1 / len(batch)
        made.append(
            Batches(*(torch.from_numpy(each).to(device) for each in (np.array(part), numbers, weights)))
        )
    return made, sizes
