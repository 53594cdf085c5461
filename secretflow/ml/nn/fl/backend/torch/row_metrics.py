"""Metrics that count the rows of many batches at once, which takes a fraction of the time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torchmetrics
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassStatScores

_BY_ROW = (MulticlassStatScores, MulticlassConfusionMatrix)
_BATCHES = 32
_ELEMENTS = 2**20


def counts_by_row(metric: torchmetrics.Metric) -> bool:
    """Whether a metric of some batches is, to the last bit, that of their rows in one batch.

    Others may look at a batch as a whole: torchmetrics takes outputs for probabilities or for logits by what
    a batch holds, and a metric of a user's own may count batches. Sums of real numbers depend on their order.
    """
    return isinstance(metric, _BY_ROW) and type(metric).__module__.startswith("torchmetrics.")


class RowMetrics:
    """Has metrics count rows.

    Args:
        metrics: of torchmetrics.
        at_once: whether batches may be held back until :meth:`count_held`; only those of metrics that
            :func:`counts_by_row` are.
    """

    def __init__(self, metrics: Sequence[torchmetrics.Metric], at_once: bool) -> None:
        self._metrics = metrics
        self._at_once = at_once and all(map(counts_by_row, metrics))
        self._held: list[tuple[torch.Tensor, torch.Tensor]] = []

    def count(self, predicted: torch.Tensor, y: torch.Tensor) -> None:
        """Counts the rows of a batch, now or with later ones.

        Args:
            predicted: the model's output.
            y: labels, see :func:`labels_for`.
        """
        if predicted.dim() and not len(predicted):
            return  # a step of the model's own may leave all rows of a batch out
        if not self._at_once or not predicted.dim() or not y.dim():
            self._update(predicted, y)
            return
        if self._held and not all(map(_fits, self._held[0], (predicted, y))):
            self.count_held()
        # Copies: whoever made the batch may use its memory again.
        self._held.append((predicted.detach().clone(), y.clone()))
        if len(self._held) == _BATCHES or len(self._held) * (predicted.numel() + y.numel()) > _ELEMENTS:
            self.count_held()

    def count_held(self) -> None:
        """Counts what was held back, as whoever reads the metrics must have done before."""
        if self._held:
            predicted, y = (torch.cat(parts) for parts in zip(*self._held, strict=True))
            self._held.clear()
            self._update(predicted, y)

    def _update(self, predicted: torch.Tensor, y: torch.Tensor) -> None:
        # A metric that keeps rows would keep the graph of every batch with them.
        predicted, y = predicted.detach(), y.detach()
        for metric in self._metrics:
            metric.update(predicted, labels_for(metric, predicted, y))


def labels_for(metric: torchmetrics.Metric, predicted: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Labels as a metric takes them.

    Args:
        metric: of torchmetrics.
        predicted: the model's output.
        y: labels: numbers, numbers of classes, or columns of 0 and 1.

    Returns:
        Classification gets integers, and one of several classes its number; others get ``y`` as it is. A
        column becomes a vector, and a vector a column, where the output is one.
    """
    tasks = {kind.__name__ for kind in type(metric).__mro__}
    if any(name.startswith("Multiclass") for name in tasks):
        return class_numbers(predicted, y)
    y = shaped_as(predicted, y)
    classifies = any(name.startswith(("Binary", "Multilabel")) for name in tasks)
    return y.long() if classifies else y


def shaped_as(predicted: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Labels in the shape of the output where that only adds or takes away dimensions of one.

    Torch would pair each number of a vector with each of a column.
    """
    same = [size for size in y.shape if size > 1] == [size for size in predicted.shape if size > 1]
    return y.reshape(predicted.shape) if same else y


def class_numbers(predicted: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Numbers of classes, (n, ...), from themselves, a column of them, or one column for each class."""
    one_hot = y.dim() == predicted.dim() and y.shape == predicted.shape and predicted.is_floating_point()
    if y.dim() >= 2 and y.shape[1] > 1 and (one_hot or y.dim() == predicted.dim() + 1):
        return y.argmax(1)
    if y.dim() == predicted.dim() and y.dim() >= 2 and y.shape[1] == 1:
        y = y.squeeze(1)
    return y.long()


def _fits(held: torch.Tensor, other: torch.Tensor) -> bool:
    return held.shape[1:] == other.shape[1:] and held.dtype == other.dtype and held.device == other.device
