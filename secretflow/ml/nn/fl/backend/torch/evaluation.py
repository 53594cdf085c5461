"""Evaluation and prediction at a party, which change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torchmetrics
from torch import nn

from secretflow.errors import ArgumentError
from secretflow.ml.nn.core.torch import BaseModule
from secretflow.ml.nn.fl.backend.torch.batches import SQUEEZED, moved, outputs_of, row_count, rows_of
from secretflow.ml.nn.fl.backend.torch.local_metrics import (
    flat_metrics,
    local_metric,
    metrics_kept,
    named_metrics,
    value_of,
)
from secretflow.ml.nn.fl.backend.torch.own_norms import use_own_norms
from secretflow.ml.nn.fl.backend.torch.steps import use_default_steps
from secretflow.ml.nn.metrics import Metric


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, without gradients; then the modes, buffers and torch's random state of before.

    Args:
        model: a module of torch's.
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    devices = {value.device.index for value in model.parameters() if value.device.type == "cuda"}
    with torch.random.fork_rng(devices), torch.no_grad():
        model.eval()
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            for module, name, buffer, before in buffers:
                module._buffers[name] = buffer.copy_(before)


class Evaluation:
    """Evaluates and predicts with the model of a party; a base of its worker in front of upstream's."""

    model: Any
    eval_set: Any
    exe_device: torch.device
    logs: dict[str, Any] | None
    wrapped_metrics: list[Metric]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._rows_counted = 0
        super().__init__(*args, **kwargs)
        object.__setattr__(self.model, "metrics", flat_metrics(self.model.metrics))
        use_default_steps(self.model)
        use_own_norms(self.model)

    def next_batch(self, stage: str = "train") -> tuple[Any, Any, torch.Tensor | None]:
        """The next batch: features, labels and the weights of the rows, on the device of the model.

        Args:
            stage: "train" or "eval".

        Raises:
            StopIteration: there is none.
            ValueError: a batch has other parts.
        """
        batch = next(self.eval_iter if stage == "eval" else self.train_iter)  # type: ignore[attr-defined]
        if not isinstance(batch, (list, tuple)) or len(batch) not in (2, 3):
            raise ArgumentError(
                "a batch must be features, labels and, if there are any, weights of rows (several inputs as "
                f"one tuple of features), got {_said(batch)}"
            )
        x, y, *weights = moved(list(batch), self.exe_device)
        self._rows_counted += row_count(x)
        return x, y, weights[0] if weights else None

    def _metrics(self) -> list[torchmetrics.Metric]:
        """The metrics, with all rows counted."""
        self.model.row_metrics.count_held()
        metrics: list[torchmetrics.Metric] = self.model.metrics
        return metrics

    def check_evaluation_weights(self) -> None:
        """Looks whether weights of rows have a meaning in evaluation.

        Raises:
            ValueError: they have none: metrics count rows, and the model has no ``validation_step`` of its
                own.
        """
        if type(self.model).validation_step is BaseModule.validation_step:
            raise ArgumentError(
                "sample_weight must be None in evaluation, where metrics count every row once, got weights; "
                "a validation_step(batch, batch_idx, dataloader_idx=0, sample_weight=None) of the model's "
                "own can apply them"
            )

    def reset_metrics(self) -> None:
        """Begins the counting anew."""
        self._rows_counted = 0
        for metric in self._metrics():
            metric.reset()

    def wrap_local_metrics(self, stage: str = "train") -> list[Metric]:
        """The metrics of the rows since :meth:`reset_metrics`, see :func:`local_metric`.

        Args:
            stage: "val" puts ``val_`` in front of the names.
        """
        prefix, party = "val_" if stage == "val" else "", getattr(self, "_party", "") or "a party"
        return [
            local_metric(metric, prefix + name, party, self._rows_counted)
            for name, metric in named_metrics(self._metrics())
        ]

    def transform_metrics(self, logs: dict[str, Any], stage: str = "train") -> dict[str, Any]:
        """Adds the metrics' values to ``logs`` under ``<stage>_<metric>``; returns ``logs``."""
        for name, metric in named_metrics(self._metrics()):
            logs[f"{stage}_{name}"] = value_of(metric)
        return logs

    def evaluate(self, evaluate_steps: int = 0) -> list[Metric]:
        """The metrics of the evaluation data, their names after ``val_``.

        Args:
            evaluate_steps: most batches.

        Raises:
            ValueError: the model has no metric.
        """
        if not self.model.metrics:
            raise ArgumentError("metrics of TorchModel must have a metric for evaluate, got none")
        counted = self._rows_counted
        with metrics_kept(self._metrics()), evaluation_mode(self.model):
            self.reset_metrics()
            self.eval_iter = iter(self.eval_set)
            for step in range(evaluate_steps):
                try:
                    x, y, weights = self.next_batch(stage="eval")
                except StopIteration:  # another party has more rows
                    break
                self.model.validation_step((x, y), step, sample_weight=weights)
            metrics = self.wrap_local_metrics("val")
            if self.logs is not None:
                values = self.transform_metrics({}, stage="eval")
                self.logs.update({f"val_{name}": value for name, value in values.items()})
        self._rows_counted = counted
        self.wrapped_metrics.extend(metrics)
        return metrics

    def predict(self, predict_steps: int = 0) -> list[Any]:
        """The model's output for each row of the evaluation data, in order.

        Args:
            predict_steps: most batches.

        Returns:
            For each row a tensor on the CPU, without gradient; of a model with several outputs a tuple or
            dictionary of them.

        Raises:
            ValueError: the model does not give one output for each row.
        """
        predicted: list[Any] = []
        with evaluation_mode(self.model):
            self.eval_iter = iter(self.eval_set)
            for _ in range(predict_steps):
                try:
                    batch = next(self.eval_iter)
                except StopIteration:  # another party has more rows
                    break
                x = moved(batch[0] if isinstance(batch, (list, tuple)) else batch, self.exe_device)
                rows = rows_of(outputs_of(self.model, x))
                if len(rows) != row_count(x):
                    raise ArgumentError(
                        f"model must give one output for each row, got {len(rows)} for {row_count(x)} rows"
                        + (SQUEEZED if row_count(x) == 1 else "")
                    )
                predicted += rows
        return predicted


def _said(batch: Any) -> str:
    parts = f" of {len(batch)}" if isinstance(batch, (list, tuple)) else ""
    return f"a {type(batch).__name__}{parts}"
