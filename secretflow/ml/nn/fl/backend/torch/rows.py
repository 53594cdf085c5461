"""How many rows a data loader deals out in each batch, known before it does."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, default_collate


def rows_of_batches(loader: Any, batches: int) -> list[int] | None:
    """Rows in each of the first batches of an epoch.

    Args:
        loader: what the batches come from.
        batches: how many, at least 1.

    Returns:
        The rows of each, or None where only dealing them out would tell: it is no ``DataLoader`` that cuts a
        sampler of known length into batches of one size, or it puts rows together in a way of its own.
    """
    if not isinstance(loader, DataLoader) or loader.collate_fn is not default_collate:
        return None
    sampler = loader.batch_sampler
    if type(sampler) is not BatchSampler or not isinstance(sampler.sampler, Sized):
        return None
    rows = len(sampler.sampler)
    if batches > len(sampler):
        return None
    return [min(sampler.batch_size, rows - k * sampler.batch_size) for k in range(batches)]
