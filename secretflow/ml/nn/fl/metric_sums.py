"""Metrics of torchmetrics whose states add up over parties, so that they are those of all rows, exactly."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from secretflow.errors import ArgumentError
from secretflow.ml.nn.metrics import Metric, Value

_REDUCTIONS = {"dim_zero_sum": "sum", "dim_zero_max": "max", "dim_zero_min": "min"}
_REDUCE: dict[str, np.ufunc] = {"sum": np.add, "max": np.maximum, "min": np.minimum}
_MODULES = tuple(
    f"torchmetrics.{name}"
    for name in (
        "aggregation",
        "audio.sdr",
        "audio.snr",
        "classification",
        "image.psnr",
        "image.psnrb",
        "image.rmse_sw",
        "image.tv",
        "nominal",
        "regression",
        "segmentation",
        "text.cer",
        "text.edit",
        "text.mer",
        "text.perplexity",
        "text.ter",
        "text.wer",
        "text.wil",
        "text.wip",
    )
)
"""Modules, and packages of them, whose metrics only calculate. What others compute may load a net from a path
or an address, and a message could name it."""

_PLAIN = (bool, int, float, str, type(None))


@dataclass(repr=False)
class Sums(Metric):
    """The states of a metric of torchmetrics, of which each is a sum, a maximum or a minimum over rows.

    It holds counts and totals, never a row, in plain values.

    Attributes:
        name: name of the metric.
        kind: module and class in torchmetrics, as ``module:class``.
        settings: what the metric was made with, by the names of its attributes; tensors are arrays.
        reductions: of each state "sum", "max" or "min".
        states: float64 or int64 arrays.
    """

    name: str
    kind: str
    settings: dict[str, Any]
    reductions: dict[str, str]
    states: dict[str, np.ndarray]

    @classmethod
    def of(cls, metric: Any, name: str) -> Sums | None:
        """The states of a metric; None if they do not add up, or the metric is none of torchmetrics' own.

        Args:
            metric: of torchmetrics, updated.
            name: what to call it.
        """
        kind = type(metric)
        reductions = {
            state: _REDUCTIONS.get(getattr(reduction, "__name__", ""))
            for state, reduction in metric._reductions.items()
        }
        settings = _settings(metric)
        if None in reductions.values() or not reductions or settings is None:
            return None
        states = {state: getattr(metric, state) for state in reductions}
        if not _only_calculates(kind.__module__) or any(isinstance(s, list) for s in states.values()):
            return None
        wide = {state: _wide(value.numpy(force=True)) for state, value in states.items()}
        return cls(name, f"{kind.__module__}:{kind.__qualname__}", settings, reductions, wide)  # type: ignore[arg-type]

    def __add__(self, other: Sums) -> Sums:
        self._check(other, "kind", "reductions")
        if not _same(self.settings, other.settings):
            raise ArgumentError(f"metrics of different settings cannot be added: {self!r} and {other!r}")
        states = {
            state: np.asarray(_REDUCE[how](self.states[state], other.states[state]))
            for state, how in self.reductions.items()
        }
        return Sums(self.name, self.kind, self.settings, self.reductions, states)

    def result(self) -> Value:
        """What torchmetrics computes from the states; NaN where they are of too few rows for it."""
        return Value.of(self.value())

    def value(self) -> np.ndarray:
        """The number of :meth:`result`, or its numbers, in float64."""
        metric = self._metric()
        try:
            value = type(metric).compute(metric)
        except ValueError:  # torchmetrics' word for too few rows
            return np.array(math.nan)
        number = np.asarray(value.numpy(force=True), np.float64)
        return number.reshape(()) if number.size == 1 else number  # as torchmetrics does

    def _metric(self) -> Any:
        import torch
        from torchmetrics import Metric as TorchMetric

        module, _, name = self.kind.partition(":")
        if not _only_calculates(module):
            raise ArgumentError(f"kind must be a metric of torchmetrics, got {self.kind!r}")
        kind: Any = getattr(importlib.import_module(module), name)
        if not (isinstance(kind, type) and issubclass(kind, TorchMetric)):
            raise ArgumentError(f"kind must be a metric of torchmetrics, got {self.kind!r}")
        metric = kind.__new__(kind)
        TorchMetric.__init__(metric)
        metric._update_count = 1
        for held in (self.settings, self.states):
            for attribute, value in held.items():
                tensor = torch.as_tensor(np.array(value)) if isinstance(value, np.ndarray) else value
                object.__setattr__(metric, attribute, tensor)
        return metric


def _only_calculates(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in _MODULES)


def _settings(metric: Any) -> dict[str, Any] | None:
    """What a metric was made with; None if some of it is no plain value."""
    from torchmetrics import SumMetric

    settings: dict[str, Any] = {}
    base = vars(SumMetric())
    for attribute, value in {**vars(metric), **metric._buffers}.items():
        own = attribute not in base and attribute not in metric._defaults
        if not own or attribute.startswith("__"):
            continue
        if hasattr(value, "numpy"):
            value = value.numpy(force=True)
        plain = value if isinstance(value, (list, tuple)) else [value]
        if not isinstance(value, np.ndarray) and not all(isinstance(part, _PLAIN) for part in plain):
            return None
        settings[attribute] = str(value) if isinstance(value, str) else value
    return settings if not metric._modules else None


def _wide(state: np.ndarray) -> np.ndarray:
    return state.astype(np.float64 if state.dtype.kind == "f" else np.int64)


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)
