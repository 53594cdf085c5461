"""Rows of the own data in batches: how many there will be, and fetched a batch at a time."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, TensorDataset, default_collate


class _Rows(TensorDataset):
    """Gives a whole batch at once, which one row after the other takes several times as long for."""

    def __getitems__(self, rows: list[int]) -> list[torch.Tensor]:
        return [tensor[rows] for tensor in self.tensors]


def _as_it_is(batch: Any) -> Any:
    return batch


def fetching_batches(loader: DataLoader) -> DataLoader:
    """A loader of the same batches in the same order that takes each out of the tensors at once.

    Args:
        loader: over a ``TensorDataset``, with torch's own way to put rows together.
    """
    rows = _Rows(*loader.dataset.tensors)  # type: ignore[attr-defined]
    return DataLoader(rows, batch_sampler=loader.batch_sampler, collate_fn=_as_it_is)


def rows_of_batches(loader: Any, batches: int) -> list[int] | None:
    """Rows in each of the first batches of an epoch.

    Args:
        loader: what the batches come from.
        batches: how many, at least 1.

    Returns:
        The rows of each, or None where only dealing them out would tell: it is no ``DataLoader`` that cuts a
        sampler of known length into batches of one size, or it puts rows together in a way of its own.
    """
    if not isinstance(loader, DataLoader) or loader.collate_fn not in (default_collate, _as_it_is):
        return None
    sampler = loader.batch_sampler
    if type(sampler) is not BatchSampler or not isinstance(sampler.sampler, Sized):
        return None
    rows = len(sampler.sampler)
    if batches > len(sampler):
        return None
    return [min(sampler.batch_size, rows - k * sampler.batch_size) for k in range(batches)]
