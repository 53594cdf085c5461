"""A party's own metrics: what torchmetrics computes, in a form that adds up over parties."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torchmetrics

from secretflow.ml.nn.fl.metric_sums import Sums
from secretflow.ml.nn.metrics import Default, Metric

# torchmetrics gives 0 or 1 then, which reads like a value.
_MEANINGLESS = re.compile(r"No (positive|negative) samples")


def flat_metrics(metrics: Sequence[torchmetrics.Metric]) -> list[torchmetrics.Metric]:
    """The metrics, with those of a collection one by one."""
    flat: list[torchmetrics.Metric] = []
    for metric in metrics:
        if isinstance(metric, torchmetrics.MetricCollection):
            flat += metric.values(copy_state=False)
        else:
            flat.append(metric)
    return flat


def named_metrics(metrics: Sequence[torchmetrics.Metric]) -> Iterator[tuple[str, torchmetrics.Metric]]:
    """The metrics by name: that of the class, and a number from the second of a class on."""
    seen: dict[str, int] = {}
    for metric in metrics:
        name = metric._get_name().lower()
        seen[name] = seen.get(name, 0) + 1
        yield (name if seen[name] == 1 else f"{name}_{seen[name]}"), metric


def value_of(metric: torchmetrics.Metric) -> Any:
    """What a metric computes; NaN where it is not defined on the rows it has seen."""
    metric._computed = None  # what torchmetrics kept comes without the warning that it is not defined
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with torch.no_grad():
                value = metric.compute()
        except ValueError:  # torchmetrics' word for too few rows
            return torch.tensor(torch.nan)
    if any(_MEANINGLESS.search(str(warning.message)) for warning in caught):
        return torch.full_like(value, torch.nan) if isinstance(value, torch.Tensor) else value
    return value


def local_metric(metric: torchmetrics.Metric, name: str, party: str, rows: int) -> Metric:
    """A party's metric.

    Args:
        metric: updated with the party's rows.
        name: what to call it.
        party: whose it is.
        rows: how many rows it has seen.

    Returns:
        :class:`Sums` where the states add up to the metric over all parties' rows; else its value, weighted
        by the rows, and with the party's name if it is not defined on them.
    """
    value, sums = value_of(metric), Sums.of(metric, name)
    if not isinstance(value, torch.Tensor):
        warnings.warn(f"{name} gives no number, so it has no mean over the parties", stacklevel=2)
        return Default(name, 0.0, 0.0, (party,))
    number = np.asarray(value.float().numpy(force=True), np.float64)
    if sums is not None:
        ours = sums.value()
        if np.isnan(number).all() or (
            ours.shape == number.shape and np.allclose(ours, number, 1e-3, 1e-6, equal_nan=True)
        ):
            return sums
    defined = np.isfinite(number)
    total = np.where(defined, np.where(defined, number, 0) * rows, 0)
    return Default(name, total, defined * float(rows), () if defined.all() else (party,))


@contextmanager
def metrics_kept(metrics: Sequence[torchmetrics.Metric]) -> Iterator[None]:
    """Gives the metrics back, afterwards, what they had counted before."""
    each = [part for metric in metrics for part in metric.modules() if isinstance(part, torchmetrics.Metric)]
    states = [(_copied(part.metric_state), part._update_count, part._computed) for part in each]
    try:
        yield
    finally:
        for part, (state, count, computed) in zip(each, states, strict=True):
            for name, value in state.items():
                setattr(part, name, value)
            part._update_count, part._computed = count, computed


def _copied(states: Any) -> Any:
    """A copy of tensors, and of lists and dictionaries of them, without the graphs that gave them.

    A step of the user's own may give a metric what has gradients.
    """
    if isinstance(states, dict):
        return {name: _copied(state) for name, state in states.items()}
    if isinstance(states, list):
        return [_copied(part) for part in states]
    return states.detach().clone() if isinstance(states, torch.Tensor) else states
