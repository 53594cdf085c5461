"""The rows that an audit is made on: images, tables, sequences of tokens; and how two are compared."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch

from secretflow import _validate

Kind = Literal["images", "table", "tokens"]
KINDS: tuple[Kind, ...] = ("images", "table", "tokens")


@dataclass(frozen=True)
class Column:
    """A column of a table, as the net gets it.

    Attributes:
        name: of the column.
        start: number of the input where it begins, from 0.
        categories: of a column of categories, which takes one input for each; empty for numbers.
        low: smallest number of the column, as the net gets it.
        high: largest one, above ``low``.
        offset: what is added to ``scale`` times the input to show the number as the user wrote it.
        scale: see there.
    """

    name: str
    start: int
    categories: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 1.0
    offset: float = 0.0
    scale: float = 1.0

    @property
    def width(self) -> int:
        """How many inputs it takes."""
        return len(self.categories) or 1

    def scored(self, x: torch.Tensor) -> torch.Tensor:
        """The column such that the squared distance of two rows is 1 for another category and for the range.

        Args:
            x: rows as the net gets them, (rows, inputs).
        """
        own = x[:, self.start : self.start + self.width].double()
        if not self.categories:
            return ((own - self.low) / (self.high - self.low)).clamp(0, 1)
        return torch.nn.functional.one_hot(own.argmax(dim=1), self.width).double() / 2**0.5

    def shown(self, row: torch.Tensor) -> str:
        """What a person reads in the column of a row as the net gets it, (inputs,)."""
        if self.categories:
            return self.categories[int(row[self.start : self.start + self.width].argmax())]
        number = float(row[self.start]) * self.scale + self.offset
        if abs(number) < 1e-6 * abs(self.scale):
            return "0"  # what is left of it is float32's rounding
        return f"{number:.0f}" if 1e4 <= abs(number) < 1e15 else f"{number:.4g}"


@dataclass(frozen=True)
class Rows:
    """Private rows with labels.

    Attributes:
        x: as the net gets them, float32: images (rows, channels, height, width), tables (rows, inputs),
            numbers of tokens (rows, steps).
        y: numbers of classes, int64 of shape (rows,).
        kind: "images", "table" or "tokens".
        labels: names of the classes, at least two.
        columns: of a table, which together make up its inputs; () takes each input for a number.
        value_range: smallest and largest pixel of images.
        padding: number of the token that fills up short sequences; None is none.
        words: of tokens, by number; () shows numbers.

    Raises:
        TypeError: a value is of the wrong type.
        ValueError: the parts do not belong together.
    """

    x: torch.Tensor
    y: torch.Tensor
    kind: Kind
    labels: tuple[str, ...]
    columns: tuple[Column, ...] = ()
    value_range: tuple[float, float] = (0.0, 1.0)
    padding: int | None = None
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _validate.one_of("kind", self.kind, KINDS)
        for name in ("x", "y"):
            _validate.instance(name, getattr(self, name), torch.Tensor, "a tensor")
        dimensions = 4 if self.kind == "images" else 2
        shape = tuple(self.x.shape)
        _validate.check(len(shape) == dimensions, "x", shape, f"of {dimensions} dimensions for {self.kind}")
        _validate.check(len(self.x) >= 4, "x", shape, "at least four rows")
        _validate.check(self.x.dtype == torch.float32, "x", self.x.dtype, "of float32", TypeError)
        _validate.check(bool(self.x.isfinite().all()), "x", "NaN or infinity", "finite numbers")
        _validate.check(self.y.dtype == torch.int64, "y", self.y.dtype, "of int64", TypeError)
        _validate.check(tuple(self.y.shape) == shape[:1], "y", tuple(self.y.shape), f"of shape {shape[:1]}")
        _validate.check(len(self.labels) >= 2, "labels", self.labels, "at least two classes")
        ends = int(self.y.min()), int(self.y.max())
        fit = ends[0] >= 0 and ends[1] < len(self.labels)
        _validate.check(fit, "y", ends, f"from 0 to {len(self.labels) - 1}, a number for each of labels")
        if self.kind == "images":
            low, high = float(self.x.min()), float(self.x.max())
            within = self.value_range[0] <= low and high <= self.value_range[1]
            what = f"within value_range, {self.value_range}"
            _validate.check(within, "x", (low, high), what)
        if self.kind == "table" and not self.columns:
            object.__setattr__(self, "columns", _plain_columns(self.x))
        widths = sum(column.width for column in self.columns)
        whole = self.kind != "table" or widths == shape[1]
        _validate.check(whole, "columns", widths, f"of {shape[-1]} inputs together, those of a row of x")

    def __len__(self) -> int:
        return len(self.x)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one row's features."""
        return tuple(self.x.shape[1:])

    @property
    def bounds(self) -> tuple[float, float]:
        """Smallest and largest number that a row can hold; of a table over all its inputs."""
        if self.kind == "images":
            return self.value_range
        if self.kind == "tokens":
            return 0.0, float(max(len(self.words) - 1, int(self.x.max())))
        return float(self.x.min()), float(self.x.max()) + 1e-6

    @property
    def success_error(self) -> float:
        """:meth:`errors` below which a row is got back; a sequence has to be got back whole."""
        from secretflow.ml.nn.fl.audit.scores import SUCCESS_MSE

        return 0.5 if self.kind == "tokens" else SUCCESS_MSE

    def scored(self, x: torch.Tensor) -> torch.Tensor:
        """Rows in the space in which they are compared, float of shape (rows, numbers), distances squared.

        Pixels in [0, 1]; columns as :meth:`Column.scored` has them; of a sequence which tokens it holds.

        Args:
            x: rows of the shape of these.
        """
        if self.kind == "table":
            return torch.cat([column.scored(x) for column in self.columns], dim=1)
        if self.kind == "tokens":
            size = int(max(self.x.max(), x.max())) + 1
            held = torch.zeros(len(x), size).scatter_(1, x.round().long().clamp(0, size - 1), 1.0)
            if self.padding is not None and self.padding < size:
                held[:, self.padding] = 0
            return held
        low, high = self.value_range
        return ((x.flatten(1) - low) / (high - low)).clamp(0, 1)

    def errors(self, found: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Mean squared error of each row in that space: over pixels, over columns, or as a number of tokens.

        Args:
            found: rows that came back, of the shape of these.
            truth: the true ones.

        Returns:
            float64 of shape (rows,), at least 0.
        """
        both = self.scored(torch.cat([found.to(truth), truth])).double()
        squares = (both[: len(found)] - both[len(found) :]).square().sum(dim=1)
        parts = {"images": both.shape[1], "table": len(self.columns), "tokens": 1}[self.kind]
        return squares / parts

    def taken(self, numbers: torch.Tensor) -> Rows:
        """Some of these rows."""
        return replace(self, x=self.x[numbers], y=self.y[numbers])


def _plain_columns(x: torch.Tensor) -> tuple[Column, ...]:
    """A column of numbers for each input; one that never differs gets a range of 1."""
    low, high = x.amin(dim=0), x.amax(dim=0)
    high = torch.where(high > low, high, low + 1)
    return tuple(
        Column(f"input {k}", k, low=float(a), high=float(b))
        for k, (a, b) in enumerate(zip(low, high, strict=True))
    )
