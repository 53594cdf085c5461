"""Federated metrics: what each party counts, added up, gives the metric over all parties' rows.

Names, arithmetic and results are upstream's, those of ``keras.metrics``, without its import of TensorFlow.
Counts and totals may be numbers, lists, arrays or tensors; a metric holds nothing else, so pickle carries it.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


class Value(np.ndarray):
    """A result: a float32 array, of shape () for one number, that is read with ``numpy()`` as a tensor is."""

    @classmethod
    def of(cls, value: Any) -> Value:
        return np.asarray(value, np.float32).view(cls)

    def numpy(self) -> Any:
        """The float32 number, or an array of them."""
        return np.asarray(self)[()]


class Metric(ABC):
    """A metric of one party or of several."""

    name: str

    @abstractmethod
    def result(self) -> Value:
        """The value of the metric."""

    @abstractmethod
    def __add__(self, other: Any) -> Any:
        """The metric over the rows of both.

        Raises:
            TypeError: the other is another kind of metric.
            ValueError: its name, thresholds, curve or shape of counts is another one.
        """

    def __radd__(self, other: int) -> Any:
        if other != 0:
            return NotImplemented
        return self  # the start of ``sum``

    def __float__(self) -> float:
        return float(self.result())

    def __repr__(self) -> str:
        """``accuracy=0.93``: what a notebook shows of ``FLModel.evaluate``."""
        return f"{self.name}={np.array2string(np.asarray(self.result()), precision=4)}"

    def _check(self, other: Metric, *fields: str) -> None:
        if type(other) is not type(self):
            raise TypeError(f"a {type(other).__name__} cannot be added to a {type(self).__name__}")
        for field in ("name", *fields):
            ours, theirs = getattr(self, field), getattr(other, field)
            if not np.array_equal(ours, theirs):
                raise ValueError(f"metrics of different {field} cannot be added: {ours!r} and {theirs!r}")

    def _sums(self, other: Metric, *fields: str) -> list[Any]:
        return [_added(getattr(self, field), getattr(other, field)) for field in fields]


@dataclass(repr=False)
class Mean(Metric):
    """A mean: ``total / count``.

    Attributes:
        name: name of the metric.
        total: sum over the rows.
        count: number of rows, not negative.
    """

    name: str
    total: float | np.ndarray
    count: float | np.ndarray

    def __add__(self, other: Mean) -> Mean:
        self._check(other)
        return type(self)(self.name, *self._sums(other, "total", "count"))

    def result(self) -> Value:
        return Value.of(_divide(self.total, self.count))


@dataclass(repr=False)
class Default(Mean):
    """The mean of the parties' values of a metric that cannot be put together from counts.

    Attributes:
        name: name of the metric.
        total: the value times the party's weight, its number of rows.
        count: the weight; 0 where the metric is not defined on the party's rows.
        left_out: the parties where it is not, all or some of it.
    """

    left_out: tuple[str, ...] = ()

    def __add__(self, other: Default) -> Default:  # type: ignore[override]
        self._check(other)
        if np.any(_array(self.count)) and np.any(_array(other.count)):
            total, count = self._sums(other, "total", "count")
        else:  # not defined at one of them, which then need not know the shape
            total = _array(self.total) + _array(other.total)
            count = _array(self.count) + _array(other.count)
        return Default(self.name, total, count, (*self.left_out, *other.left_out))

    def result(self) -> Value:
        """The mean, NaN where no party has a value; warns that it is a mean, and of whom it is not."""
        without = f", without {', '.join(self.left_out)}, where it is not defined" if self.left_out else ""
        warnings.warn(f"{self.name} is the mean of the parties' values{without}", stacklevel=2)
        count = _array(self.count)
        return Value.of(np.where(count == 0, np.nan, _divide(self.total, count)))


@dataclass(repr=False)
class Precision(Metric):
    """Precision: true positives among the rows that are said to be positive.

    Attributes:
        name: name of the metric.
        thresholds: one threshold in [0, 1] or several.
        true_positives: for each threshold, not negative.
        false_positives: for each threshold, not negative.
    """

    name: str
    thresholds: float | Sequence[float]
    true_positives: float | Sequence[float]
    false_positives: float | Sequence[float]

    def __add__(self, other: Precision) -> Precision:
        self._check(other, "thresholds")
        return Precision(self.name, self.thresholds, *self._sums(other, "true_positives", "false_positives"))

    def result(self) -> Value:
        return _ratio(self.true_positives, self.false_positives)


@dataclass(repr=False)
class Recall(Metric):
    """Recall: true positives among the rows that are positive.

    Attributes:
        name: name of the metric.
        thresholds: one threshold in [0, 1] or several.
        true_positives: for each threshold, not negative.
        false_negatives: for each threshold, not negative.
    """

    name: str
    thresholds: float | Sequence[float]
    true_positives: float | Sequence[float]
    false_negatives: float | Sequence[float]

    def __add__(self, other: Recall) -> Recall:
        self._check(other, "thresholds")
        return Recall(self.name, self.thresholds, *self._sums(other, "true_positives", "false_negatives"))

    def result(self) -> Value:
        return _ratio(self.true_positives, self.false_negatives)


class AUC(Metric):
    """Area, in [0, 1], under the ROC or the precision-recall curve, from counts at thresholds.

    Args:
        name: name of the metric.
        thresholds: T ascending thresholds, from 0 to 1; each count below has shape (T,).
        true_positives: rows of the positive class above each threshold.
        true_negatives: rows of the negative class not above it.
        false_positives: rows of the negative class above it.
        false_negatives: rows of the positive class not above it.
        curve: "ROC" (the default) or "PR", or the member of keras' enumeration.

    Raises:
        ValueError: the curve is another one.
    """

    def __init__(
        self,
        name: str,
        thresholds: list[float],
        true_positives: list[float],
        true_negatives: list[float],
        false_positives: list[float],
        false_negatives: list[float],
        curve: Any = None,
    ) -> None:
        self.name = name
        self.thresholds = thresholds
        self.true_positives = true_positives
        self.true_negatives = true_negatives
        self.false_positives = false_positives
        self.false_negatives = false_negatives
        self.curve = "ROC" if curve is None else str(getattr(curve, "value", curve)).upper()
        if self.curve not in ("ROC", "PR"):
            raise ValueError(f"curve must be 'ROC' or 'PR', got {curve!r}")

    def __add__(self, other: AUC) -> AUC:
        self._check(other, "curve", "thresholds")
        return AUC(
            self.name,
            self.thresholds,
            _added(self.true_positives, other.true_positives),
            _added(self.true_negatives, other.true_negatives),
            _added(self.false_positives, other.false_positives),
            _added(self.false_negatives, other.false_negatives),
            self.curve,
        )

    def result(self) -> Value:
        """The area, by trapezoids under ROC; ValueError unless there is a count for each threshold."""
        tp, tn = _array(self.true_positives), _array(self.true_negatives)
        fp, fn = _array(self.false_positives), _array(self.false_negatives)
        # Counts for each label would otherwise add up to one number that means nothing.
        if {tp.shape, tn.shape, fp.shape, fn.shape} != {(len(self.thresholds),)}:
            raise ValueError(f"counts of shape {tp.shape} at {len(self.thresholds)} thresholds")
        if self.curve == "PR":
            return Value.of(_area_under_precision_recall(tp, fp, fn))
        recall, fall_out = _divide(tp, tp + fn), _divide(fp, fp + tn)
        return Value.of(np.sum((fall_out[:-1] - fall_out[1:]) * (recall[:-1] + recall[1:]) / 2))


def aggregate_metrics(local_metrics: Iterable[Iterable[Metric]]) -> list[Metric]:
    """Puts the parties' metrics together.

    Args:
        local_metrics: for each party its metrics, in the same order.

    Returns:
        The metrics over all parties' rows, in that order.

    Raises:
        ValueError: the parties have different metrics.
    """
    return [sum(metrics) for metrics in zip(*local_metrics, strict=True)]


def _area_under_precision_recall(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> float:
    """Interpolates true positives linearly between thresholds, not precision.

    Source: Davis and Goadrich, "The Relationship Between Precision-Recall and ROC Curves", ICML 2006,
    section 4, as keras integrates it.
    """
    positives = tp + fp
    slope = _divide(tp[:-1] - tp[1:], positives[:-1] - positives[1:])
    intercept = tp[1:] - slope * positives[1:]
    both = (positives[:-1] > 0) & (positives[1:] > 0)
    growth = np.where(both, _divide(positives[:-1], np.maximum(positives[1:], 0)), 1.0)
    areas = slope * (tp[:-1] - tp[1:] + intercept * np.log(growth))
    return float(np.sum(_divide(areas, tp[1:] + fn[1:])))


def _added(a: Any, b: Any) -> Any:
    if np.shape(a) != np.shape(b):
        raise ValueError(f"counts of different shape cannot be added: {a!r} and {b!r}")
    if isinstance(a, (list, tuple)) or isinstance(b, (list, tuple)):
        return (_array(a) + _array(b)).tolist()  # ``+`` would join two lists
    return a + b


def _ratio(part: Any, rest: Any) -> Value:
    ratio = _divide(part, _array(part) + _array(rest))
    return Value.of(ratio[0] if ratio.shape == (1,) else ratio)


def _divide(a: Any, b: Any) -> np.ndarray:
    """Divides; where the divisor is 0, so is the result, as in keras."""
    a, b = _array(a), _array(b)
    return np.divide(a, b, out=np.zeros(np.broadcast(a, b).shape), where=b != 0)


def _array(value: Any) -> np.ndarray:
    # A tensor on another device, of bfloat16 or with a gradient becomes a list, but not an array.
    return np.asarray(value.tolist() if hasattr(value, "tolist") else value, np.float64)
