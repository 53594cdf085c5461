"""Which rows each model trains on in each step: as FLModel deals them out, with ``shuffle`` and one seed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

SEED_STRIDE = 1_000_003
"""FLModel's, between the seeds of two epochs."""


def batch_sizes(rows: int, rate: float, batches: int) -> list[int]:
    """Sizes of a party's batches in an epoch, as FLModel's ``batch_sampling_rate`` makes them.

    Args:
        rows: of the party, at least as many as batches.
        rate: part of the rows in a batch.
        batches: how many.

    Returns:
        The sizes: the part rounded down and a smaller last one, or, where that leaves rows out, such as differ
        by at most one, the larger ones first.
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


def epoch_batches(
    held: Sequence[np.ndarray], seeds: Sequence[int], rate: float, batches: int, epoch: int
) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """The batches of an epoch.

    Args:
        held: of each model the rows that it trains on, at least as many as batches.
        seeds: of each model's order.
        rate: part of a model's rows in a batch.
        batches: of an epoch.
        epoch: from 0.

    Returns:
        Row numbers, int64 of shape (batches, models, rows of the largest batch), filled up with 0; the weight
        of each in a mean over its batch, float32, 0 where filled up; sizes, int64 of shape (batches, models).
    """
    sizes = np.array([batch_sizes(len(rows), rate, batches) for rows in held]).T
    numbers = np.zeros((batches, len(held), int(sizes.max())), np.int64)
    weights = np.zeros(numbers.shape, np.float32)
    for model, (rows, seed) in enumerate(zip(held, seeds, strict=True)):
        dealt = np.split(rows[order_of(len(rows), seed, epoch)], np.cumsum(sizes[:, model])[:-1])
        for step, batch in enumerate(dealt):
            numbers[step, model, : len(batch)] = batch
            weights[step, model, : len(batch)] = 1 / len(batch)
    return torch.from_numpy(numbers), torch.from_numpy(weights), sizes
