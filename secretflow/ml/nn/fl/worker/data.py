"""A party's own data: checked, in batches, and how many rows each round will have."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import Any

import numpy as np
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


def check_numbers(party: str, arrays: Mapping[str, np.ndarray | None]) -> None:
    """Refuses arrays that hold no numbers.

    Args:
        party: whose they are.
        arrays: by the name of the argument; None is left out.

    Raises:
        TypeError: one holds text, dates or objects.
    """
    for name, array in arrays.items():
        if array is not None and array.dtype.kind not in "biuf":
            raise TypeError(
                f"{name} of {party} has the dtype {array.dtype}: numbers are needed, for example "
                f"{name}.astype(numpy.float32)"
            )


def rows_by_round(loader: Any, steps: int, aggregate_freq: int) -> list[int] | None:
    """Rows in each round of an epoch.

    Args:
        loader: what the batches come from.
        steps: batches of an epoch, at least 1.
        aggregate_freq: batches of a round; the last one may have fewer.

    Returns:
        The rows of each round, or None where only dealing them out would tell: it is no ``DataLoader`` that
        cuts a sampler of known length into batches of one size, or it puts rows together in a way of its own.
    """
    if not isinstance(loader, DataLoader) or loader.collate_fn not in (default_collate, _as_it_is):
        return None
    sampler = loader.batch_sampler
    if type(sampler) is not BatchSampler or not isinstance(sampler.sampler, Sized):
        return None
    rows = len(sampler.sampler)
    if steps > len(sampler):
        return None
    by_batch = [min(sampler.batch_size, rows - k * sampler.batch_size) for k in range(steps)]
    return [sum(by_batch[k : k + aggregate_freq]) for k in range(0, steps, aggregate_freq)]
