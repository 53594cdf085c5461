"""A party's own data: checked, in batches, and how many rows each round will have."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence, Sized
from itertools import chain, count, islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    Sampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from secretflow.errors import ArgumentError, WrongTypeError


class _Rows(TensorDataset):
    """Gives a whole batch at once, which one row after the other takes several times as long for."""

    def __getitems__(self, rows: list[int]) -> list[torch.Tensor]:
        # A third of the time of tensor[rows].
        index = torch.tensor(rows)
        return [tensor.index_select(0, index) for tensor in self.tensors]


def _as_it_is(batch: Any) -> Any:
    return batch


class EvenBatches(Sampler[list[int]]):
    """Deals rows out in a number of batches whose sizes differ by at most one, the larger ones first.

    Args:
        rows: the order of the rows, at least as many as batches.
        batches: how many.
    """

    def __init__(self, rows: Sampler[int], batches: int) -> None:
        size, larger = divmod(len(rows), batches)  # type: ignore[arg-type]
        self.sampler = rows
        self.sizes = [size + 1] * larger + [size] * (batches - larger)

    def __iter__(self) -> Iterator[list[int]]:
        rows = iter(self.sampler)
        return (list(islice(rows, size)) for size in self.sizes)

    def __len__(self) -> int:
        return len(self.sizes)


class CyclingBatches(Sampler[list[int]]):
    """Deals out batches of one size; when all rows have been dealt out, they come again in a new order.

    Args:
        rows: an order of the rows, at least ``batch_size`` of them; another one each time it is begun.
        batch_size: rows of a batch.
        batches: how many batches.
    """

    def __init__(self, rows: Sampler[int], batch_size: int, batches: int) -> None:
        self.sampler = rows
        self.sizes = [batch_size] * batches

    def __iter__(self) -> Iterator[list[int]]:
        rows = chain.from_iterable(iter(self.sampler) for _ in count())
        return (list(islice(rows, size)) for size in self.sizes)

    def __len__(self) -> int:
        return len(self.sizes)


class PoissonBatches(Sampler[list[int]]):
    """Draws each row into each batch by itself, with one probability; a batch without rows is drawn again.

    Args:
        rows: how many there are.
        rate: the probability, in (0, 1].
        batches: how many batches to draw in an epoch.
    """

    def __init__(self, rows: int, rate: float, batches: int) -> None:
        self._rows, self._rate, self._batches = rows, rate, batches

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(self._batches):
            chosen: list[int] = []
            while not chosen:
                chosen = (torch.rand(self._rows) < self._rate).nonzero().flatten().tolist()
            yield chosen

    def __len__(self) -> int:
        return self._batches


def batch_loader(
    tensors: Sequence[torch.Tensor],
    batch_size: int,
    shuffle: bool = False,
    batches: int | None = None,
    poisson_rate: float | None = None,
    cycle: bool = False,
    even: bool = False,
) -> DataLoader:
    """Deals out rows, each batch taken out of the tensors at once; without ``cycle`` every row once an epoch.

    Args:
        tensors: of as many rows each, at least one.
        batch_size: rows of a batch; the last one may have fewer.
        shuffle: whether each epoch has an order of its own.
        batches: how many there shall be at most, not more than rows; where ``batch_size`` makes more, they
            are of equal size instead, as near as can be.
        poisson_rate: draws ``batches`` batches as :class:`PoissonBatches` does instead.
        cycle: deals out ``batches`` batches as :class:`CyclingBatches` does instead.
        even: has ``batches`` batches of equal size, as near as can be, also where only the last one would
            have fewer rows.
    """
    rows = _Rows(*tensors)
    order: Sampler[int] = RandomSampler(rows) if shuffle else SequentialSampler(rows)
    sampler: Sampler[list[int]] = BatchSampler(order, batch_size, drop_last=False)
    if batches is not None and cycle:
        sampler = CyclingBatches(order, batch_size, batches)
    elif batches is not None and poisson_rate is not None:
        sampler = PoissonBatches(len(rows), poisson_rate, batches)
    elif batches is not None and (even or len(sampler) > batches):  # type: ignore[arg-type]
        sampler = EvenBatches(order, batches)
    return DataLoader(rows, batch_sampler=sampler, collate_fn=_as_it_is)


def as_tensor(party: str, name: str, array: np.ndarray, *, keep_integers: bool = False) -> torch.Tensor:
    """Numbers as a float32 tensor of its own memory.

    Args:
        party: whose they are.
        name: of the argument.
        array: numbers.
        keep_integers: makes an int64 tensor of integers instead.

    Raises:
        TypeError: it holds text, dates or objects.
        ValueError: it holds integers that the tensor would make others of.
    """
    check_numbers(party, {name: array})
    if keep_integers and array.dtype.kind in "iu":
        whole = array.astype(np.int64)
        if (whole.astype(array.dtype) != array).any() or (array.dtype.kind == "u" and (whole < 0).any()):
            raise ArgumentError(f"{name} of {party} must hold integers up to 2^63 - 1, got {array.max()}")
        return torch.from_numpy(whole)
    single = array.astype(np.float64).astype(np.float32)
    if array.dtype.kind in "iu" and array.size:
        changed = single.astype(np.float64) != array
        if changed.any():
            raise ArgumentError(
                f"{name} of {party} must hold integers that float32 holds, as it does all up to 2^24, got "
                f"{array[changed][0]}: number identifiers from 0, for example with pandas.factorize; of "
                f"amounts that may be rounded make real numbers, {name}.astype(float)"
            )
    if array.dtype == np.float64:
        _warn_of_merged_numbers(party, name, array, single)
    return torch.from_numpy(single)


def _warn_of_merged_numbers(party: str, name: str, array: np.ndarray, single: np.ndarray) -> None:
    """Says where whole numbers, which may be identifiers that pandas made floats of, become the same."""
    columns = array.reshape(len(array), -1)
    for k, (exact, rounded) in enumerate(zip(columns.T, single.reshape(columns.shape).T, strict=True)):
        finite = exact[np.isfinite(exact)]
        if np.abs(finite).max(initial=0) <= 2**24 or (finite != np.rint(finite)).any():
            continue
        different = len(np.unique(exact)), len(np.unique(rounded))
        if different[0] != different[1]:
            warnings.warn(
                f"column {k} of {name} of {party} holds {different[0]} different whole numbers, of which "
                f"float32 makes {different[1]}: number identifiers from 0, for example with pandas.factorize",
                stacklevel=2,
            )


def row_weights(
    party: str,
    rows: int,
    sample_weight: np.ndarray | None,
    labels: torch.Tensor | None,
    by_class: Any,
    class_count: int | None = None,
) -> torch.Tensor | None:
    """Weights of the rows, those of their classes included; None if there are none.

    Args:
        party: whose rows they are.
        rows: how many.
        sample_weight: of shape (n,) or (n, 1), or None.
        labels: numbers of classes, (n,) or (n, 1), or a column of 0 and 1 for each class.
        by_class: a weight for each class by its number; a class without has 1. None for none.
        class_count: how many classes the model tells apart; None if nobody knows.

    Raises:
        ValueError: there are not as many weights as rows, one is negative or no number, or the labels are not
            of classes.
    """
    weights = torch.ones(rows)
    if sample_weight is not None:
        weights = as_tensor(party, "sample_weight", sample_weight).reshape(-1)
        if len(weights) != rows or not bool((weights >= 0).all()):
            raise ArgumentError(
                f"sample_weight of {party} must be a number of at least 0 for each of {rows} rows, got one "
                f"of shape {sample_weight.shape}, smallest {weights.min():g}"
            )
    if by_class is None:
        return None if sample_weight is None else weights
    if labels is None or labels.dim() > 2:
        raise ArgumentError(f"class_weight must be None without one class for each row, got {by_class!r}")
    one_hot = labels.dim() == 2 and labels.shape[1] > 1
    if one_hot and not bool(((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all()):
        raise ArgumentError(
            f"class_weight must be None where rows have no class or several, got {by_class!r}"
        )
    classes = labels.argmax(1) if one_hot else labels.reshape(-1)
    if not bool(((classes >= 0) & (classes == classes.round())).all()):
        raise ArgumentError(
            "class_weight must be None with labels that are no numbers of classes, got "
            f"{by_class!r} and a label of {party} {float(classes[classes != classes.round()][:1].sum()):g}"
        )
    if class_count is not None and max(by_class, default=0) >= class_count:
        raise ArgumentError(
            f"class_weight must be of numbers of classes from 0 to {class_count - 1}, got {max(by_class)}"
        )
    return weights * torch.tensor([float(by_class.get(int(number), 1)) for number in classes.tolist()])


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
            raise WrongTypeError(
                f"{name} of {party} must hold numbers, for example {name}.astype(numpy.float32), got the "
                f"dtype {array.dtype}{_texts_in(array)}"
            )


def _texts_in(array: np.ndarray) -> str:
    """Where the array of a table holds text, in words."""
    if array.dtype.kind != "O" or array.ndim != 2:
        return ""
    columns = [k for k, column in enumerate(array.T) if any(isinstance(value, str) for value in column)]
    return f", with text in the columns {', '.join(map(str, columns))} (from 0)" if columns else ""


def nan_in(loader: Any) -> list[str]:
    """Where the tensors of a loader are NaN: of "x", "y" and "sample_weight" the first such row, from 0."""
    tensors = getattr(getattr(loader, "dataset", None), "tensors", ())
    places = []
    for name, tensor in zip(("x", "y", "sample_weight"), tensors, strict=False):
        wrong = torch.isnan(tensor).nonzero()
        if len(wrong):
            places.append(f"{name}[{', '.join(map(str, wrong[0].tolist()))}]")
    return places


def rows_by_round(loader: Any, ends: Sequence[int]) -> list[int] | None:
    """Rows in each round of an epoch.

    Args:
        loader: what the batches come from.
        ends: how many batches of an epoch have been trained on at the end of each round, at least 1.

    Returns:
        The rows of each round, or None where only dealing them out would tell: it is no ``DataLoader`` that
        cuts a sampler of known length into batches of one size, or it puts rows together in a way of its own.
    """
    if not isinstance(loader, DataLoader) or loader.collate_fn not in (default_collate, _as_it_is):
        return None
    sampler = loader.batch_sampler
    if isinstance(sampler, (EvenBatches, CyclingBatches)):
        by_batch = sampler.sizes
    elif type(sampler) is BatchSampler and isinstance(sampler.sampler, Sized):
        rows = len(sampler.sampler)
        by_batch = [min(sampler.batch_size, rows - k * sampler.batch_size) for k in range(len(sampler))]
    else:
        return None
    if ends[-1] > len(by_batch):
        return None
    return [sum(by_batch[first:last]) for first, last in zip([0, *ends], ends, strict=False)]
