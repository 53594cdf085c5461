"""Layouts: which numbers of a list of arrays travel, and in which order.

Everybody builds the layout for himself, from shapes and contributor counts that are the same for all; its
digest travels with every message, because a wrong sum of padded numbers looks like any other.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import numpy as np

from .kernels import COMPILED_FROM


@dataclass(frozen=True, eq=False)
class Layout:
    """Which numbers of a list of arrays travel.

    Attributes:
        shapes: shape of each array.
        dtypes: dtype of each array, as a string.
        is_list: whether the arrays came as a list.
        support: for each array the flat positions that travel, ascending, uint32 or int64; None where all do.
        partial: positions, in the vector of all floats that travel, that fewer than all parties keep.
    """

    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    is_list: bool
    support: tuple[np.ndarray | None, ...]
    partial: np.ndarray

    @classmethod
    def dense(cls, arrays: Sequence[np.ndarray], is_list: bool) -> Layout:
        """The layout in which everything travels."""
        return cls(
            shapes=tuple(array.shape for array in arrays),
            dtypes=tuple(array.dtype.str for array in arrays),
            is_list=is_list,
            support=(None,) * len(arrays),
            partial=np.empty(0, np.int64),
        )

    def narrowed(self, counts: Sequence[np.ndarray | None], parties: int, at_least: int) -> Layout:
        """The layout in which only what enough parties keep travels.

        Args:
            counts: for each array the number of parties that keep each element that travels in this layout,
                in its order; None where all do.
            parties: number of parties.
            at_least: fewest contributors of an element that travels.
        """
        support: list[np.ndarray | None] = []
        # Half the memory to read, where a compiled loop reads it; numpy would convert them each time.
        large = COMPILED_FROM <= self.dense_float_size <= np.iinfo(np.uint32).max
        positions = np.uint32 if large else np.int64
        kept_by: list[np.ndarray] = []
        for size, dtype, count, index in zip(self.sizes, self.dtypes, counts, self.support, strict=True):
            if count is None or (count == parties).all():
                support.append(index)
                if np.dtype(dtype).kind == "f":
                    kept_by.append(np.full(size, parties, np.min_scalar_type(parties)))
                continue
            enough = np.flatnonzero(count >= at_least)
            support.append((enough if index is None else index[enough]).astype(positions, copy=False))
            kept_by.append(count[enough])
        partial = np.flatnonzero(np.concatenate(kept_by) < parties) if kept_by else self.partial
        return Layout(self.shapes, self.dtypes, self.is_list, tuple(support), partial)

    def travelling(self, masks: Sequence[np.ndarray | None]) -> list[np.ndarray | None]:
        """Of masks, one flat one or None for each array, the elements that travel, in their order."""
        return [
            mask if mask is None or index is None else mask[index]
            for mask, index in zip(masks, self.support, strict=True)
        ]

    def split_masked(self, row: np.ndarray, masks: Sequence[np.ndarray | None]) -> list[np.ndarray | None]:
        """Of values of all elements that travel of arrays with a mask, one behind the other, each array's.

        Args:
            row: the values.
            masks: for each array its mask, or None.
        """
        masked = [size for size, mask in zip(self.sizes, masks, strict=True) if mask is not None]
        parts = iter(np.split(row, np.cumsum(masked)[:-1]))
        return [None if mask is None else next(parts) for mask in masks]

    def fits(self, arrays: Sequence[np.ndarray], is_list: bool) -> bool:
        """Whether arrays have this layout's shapes and dtypes."""
        return (
            is_list == self.is_list
            and len(arrays) == len(self.shapes)
            and all(
                a.shape == s and a.dtype.str == d
                for a, s, d in zip(arrays, self.shapes, self.dtypes, strict=True)
            )
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 over everything the layout says."""
        state = sha256(repr((self.shapes, self.dtypes, self.is_list)).encode())
        for index in (*self.support, self.partial):
            state.update(b"all" if index is None else index.size.to_bytes(8, "big") + index.tobytes())
        return state.hexdigest()

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """How many elements of each array travel."""
        return tuple(
            _size(shape) if index is None else index.size
            for shape, index in zip(self.shapes, self.support, strict=True)
        )

    @cached_property
    def dense_float_size(self) -> int:
        """How many floats there are, whether they travel or not."""
        return sum(_size(self.shapes[k]) for k in self._positions("f"))

    @cached_property
    def float_size(self) -> int:
        """How many floats travel."""
        return sum(self.sizes[k] for k in self._positions("f"))

    @cached_property
    def integer_size(self) -> int:
        """How many integers travel."""
        return sum(self.sizes) - self.float_size

    @cached_property
    def float_places(self) -> tuple[tuple[int, slice], ...]:
        """The number of every array of floats, and its place in the vector of all floats that travel."""
        return self.places(self._positions("f"))

    @cached_property
    def integer_places(self) -> tuple[tuple[int, slice], ...]:
        """The number of every array of integers, and its place in the vector of all integers that travel."""
        return self.places(self._positions("iu"))

    def floats_without(self, arrays: Sequence[int]) -> tuple[tuple[int, slice], ...]:
        """The number of every array of floats but some, and its place in the vector of those that travel."""
        return self.places([k for k in self._positions("f") if k not in arrays])

    def places(self, arrays: Sequence[int]) -> tuple[tuple[int, slice], ...]:
        """The numbers of some arrays, each with its place in the vector of what travels of them."""
        ends = [0, *itertools.accumulate(self.sizes[k] for k in arrays)]
        return tuple((k, slice(*ends[i : i + 2])) for i, k in enumerate(arrays))

    def _positions(self, kinds: str) -> list[int]:
        return [k for k, dtype in enumerate(self.dtypes) if np.dtype(dtype).kind in kinds]


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))
