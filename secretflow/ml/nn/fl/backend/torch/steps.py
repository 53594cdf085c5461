"""The default steps of a model: forward, metrics and loss, as torch and torchmetrics define them.

A model that has a ``training_step``, ``forward_step`` or ``update_metrics`` of its own keeps it.
"""

from __future__ import annotations

from copy import copy
from types import MethodType
from typing import Any

import torch
from torch import nn

from secretflow.errors import ArgumentError, WrongTypeError
from secretflow.ml.nn.core.torch import BaseModule
from secretflow.ml.nn.fl.backend.torch.batches import outputs_of
from secretflow.ml.nn.fl.backend.torch.row_metrics import RowMetrics, class_numbers, shaped_as

_STEPS = ("training_step", "validation_step", "forward_step", "update_metrics")
_OF_CLASS_NUMBERS = (nn.NLLLoss, nn.MultiMarginLoss)
_OF_PAIRS = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.PoissonNLLLoss, nn.SoftMarginLoss)


def check_steps(kind: type, has_optimizer: bool) -> None:
    """Refuses a class of a model that defines steps which would not be used.

    Args:
        kind: of the module, as the user wrote it.
        has_optimizer: whether ``optim_fn`` is given, which is then used.

    Raises:
        TypeError: it defines one, and is no ``BaseModule``, or one whose own step comes first.
    """
    steps = [*_STEPS, *(() if has_optimizer else ("configure_optimizers",))]
    for step in steps:
        used = getattr(kind, step, None) if issubclass(kind, BaseModule) else getattr(BaseModule, step)
        own = any(step in vars(each) for each in kind.__mro__ if each not in BaseModule.__mro__)
        if own and used is getattr(BaseModule, step):
            raise WrongTypeError(
                f"model must be a BaseModule of secretflow.ml.nn.core.torch for its {step} to be used, got "
                f"{kind.__name__}; write class {kind.__name__}(BaseModule), BaseModule first of several"
            )


def use_default_steps(model: Any) -> None:
    """Gives a model the steps of this module in place of upstream's, where it has none of its own."""
    steps = (training_step, forward_step, update_metrics)
    default = [
        step for step in steps if getattr(type(model), step.__name__) is getattr(BaseModule, step.__name__)
    ]
    for step in default:
        object.__setattr__(model, step.__name__, MethodType(step, model))
    # A step of the user's own may read the metrics after each batch.
    object.__setattr__(model, "row_metrics", RowMetrics(model.metrics, at_once=len(default) == len(steps)))


def uses_default_steps(model: Any) -> bool:
    """Whether a model's loss is computed by the steps of this module."""
    steps = ("training_step", "forward_step")
    return all(getattr(type(model), step) is getattr(BaseModule, step) for step in steps)


def check_classes(party: str, loss: Any, labels: torch.Tensor) -> None:
    """Refuses labels that a loss over classes would cut to whole numbers.

    Args:
        party: whose they are.
        loss: of the model.
        labels: of all rows.

    Raises:
        ValueError: one is no whole number.
    """
    numbers = labels.dim() == 1 or labels.shape[1:] == (1,)
    if not numbers or not isinstance(loss, (nn.CrossEntropyLoss, *_OF_CLASS_NUMBERS)):
        return
    wrong = (labels != labels.round()).reshape(-1).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise ArgumentError(
            f"y of {party} must hold numbers of classes, 0, 1, 2 and so on, for {type(loss).__name__}, got "
            f"{labels.reshape(-1)[row]:g} in y[{row}]"
        )


def training_step(
    self: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0, sample_weight: torch.Tensor | None = None
) -> torch.Tensor | None:
    """The loss of a batch; None for a model that steps its optimisers itself.

    Args:
        self: the model.
        batch: features and labels.
        batch_idx: number of the step.
        dataloader_idx: upstream's.
        sample_weight: weights of the rows; the loss is the mean of weight times loss, as in keras.

    Raises:
        ValueError: there are weights of rows, and the model's own ``forward_step`` takes none; or there is no
            loss.
    """
    weighted = {} if sample_weight is None else {"sample_weight": sample_weight}
    own = getattr(type(self), "forward_step") is not BaseModule.forward_step  # noqa: B009
    if own and weighted:
        raise ValueError(
            "sample_weight must be None for a model with a forward_step of its own, got weights: apply them "
            "in a training_step(batch, batch_idx, dataloader_idx=0, sample_weight=None)"
        )
    _, loss = self.forward_step(batch, batch_idx, dataloader_idx, **weighted)
    if not self.automatic_optimization:
        return None
    if loss is None and self.training:  # evaluation needs none
        raise ValueError("loss_fn of TorchModel must be given for a model without a training_step, got None")
    return loss


def forward_step(
    self: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0, sample_weight: torch.Tensor | None = None
) -> tuple[Any, torch.Tensor | None]:
    """Output and loss of a batch; the metrics count its rows."""
    x, y = batch
    predicted = outputs_of(self, x)
    if not isinstance(predicted, torch.Tensor):
        raise ValueError(
            "model must give one tensor for its loss and metrics, got "
            f"{type(predicted).__name__}: write a training_step that says what to do with several outputs"
        )
    self.update_metrics(predicted, y)
    return predicted, loss_of(self.loss, predicted, y, sample_weight) if self.loss else None


def update_metrics(self: Any, y_pred: torch.Tensor, y_true: torch.Tensor) -> None:
    """Has the metrics count the rows of a batch."""
    self.row_metrics.count(y_pred, y_true)


def loss_of(
    loss: Any, predicted: torch.Tensor, y: torch.Tensor, sample_weight: torch.Tensor | None
) -> torch.Tensor:
    """The loss of a batch.

    Args:
        loss: a loss of torch's.
        predicted: the model's output, the first dimension the rows.
        y: labels; what a loss over classes takes as numbers of classes may be one column too. For other
            losses a column becomes a vector, and a vector a column, where the output is one.
        sample_weight: weights of the rows, of shape (n,) or (n, 1).

    Raises:
        ValueError: there are weights, and the loss cannot be had row by row; or labels would be compared
            with the outputs of other rows.
    """
    # CrossEntropyLoss takes a column for each class as probabilities.
    numbers = isinstance(loss, nn.CrossEntropyLoss) and (y.shape != predicted.shape or y.shape[1:] == (1,))
    if numbers or isinstance(loss, _OF_CLASS_NUMBERS):
        y = class_numbers(predicted, y)
    else:
        y = _as_output(loss, predicted, y)
    if sample_weight is None:
        return loss(predicted, y)
    if getattr(loss, "reduction", None) not in ("mean", "sum", "none"):
        raise ValueError(
            "sample_weight must be None with a loss that has no reduction, as those of torch have, got "
            f"weights with {type(loss).__name__}"
        )
    by_row = copy(loss)
    by_row.reduction = "none"
    losses = by_row(predicted, y)
    losses = losses.reshape(len(predicted), -1)
    if losses.shape[1] > 1:
        losses = losses.sum(1) if loss.reduction == "sum" else losses.mean(1)
    weighted = losses.reshape(-1) * sample_weight.reshape(-1)
    return weighted.sum() if loss.reduction == "sum" else weighted.mean()


def _as_output(loss: Any, predicted: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Labels of the output's shape: a column and a vector are the same, as for metrics.

    Broadcasting would compare each row's output with the labels of all rows.
    """
    y = shaped_as(predicted, y)
    if isinstance(loss, _OF_PAIRS) and y.shape != predicted.shape:
        raise ValueError(
            f"y must be of the shape of the model's output for {type(loss).__name__}, "
            f"{tuple(predicted.shape)}, got {tuple(y.shape)}"
        )
    return y
