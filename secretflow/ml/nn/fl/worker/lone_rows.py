"""What is said where batch normalisation meets a batch of one row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from typing import Any

from secretflow.errors import ArgumentError

_OF_ONE_ROW = "Expected more than 1 value per channel"  # torch's words


@contextmanager
def lone_row_named(party: str, size_of_data: Callable[[], str]) -> Iterator[None]:
    """Explains torch's error about a batch of one row.

    Args:
        party: whose rows they are.
        size_of_data: see :func:`size_of`.

    Raises:
        ValueError: there was one.
    """
    try:
        yield
    except ValueError as error:
        if _OF_ONE_ROW not in str(error):
            raise
        raise ArgumentError(
            "batch_size must leave no batch of one row for batch normalisation in training, got "
            f"{size_of_data()} of {party}; choose one that leaves two rows or more for the last batch, or "
            "give steps_per_epoch a number, with which all batches are full"
        ) from error


def size_of(loader: Any) -> str:
    """How many rows the batches of a loader have, in words, as far as it is known."""
    rows = getattr(loader, "dataset", None)
    size = getattr(getattr(loader, "batch_sampler", None), "batch_size", None)
    told = f"{len(rows)} rows" if isinstance(rows, Sized) else "rows"
    return f"{told} in batches of {size}" if size else f"{told} in batches"
