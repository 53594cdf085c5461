"""From what the parties tell of an epoch to its columns of the history."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from secretflow.ml.nn.fl.history import History
from secretflow.ml.nn.metrics import Mean, Metric, aggregate_metrics

_BYTES = "payload_bytes"


class Measured(TypedDict):
    """What a party has measured in an epoch.

    Attributes:
        loss: its mean; None if the model returned none.
        rows: how many were trained on.
        logs: its metrics as numbers, by name.
        metrics: likewise, so that they can be added to others'.
        densities: of each prunable layer by name, and of all under the empty name.
        clipped: part of its updates that were cut off where they are rounded; None where none travelled.
        train_seconds: of training.
        aggregate_seconds: of its part of the aggregation.
    """

    loss: float | None
    rows: int
    logs: dict[str, Any]
    metrics: list[Metric]
    densities: dict[str, float]
    clipped: float | None
    train_seconds: float
    aggregate_seconds: float


class Report(Measured):
    """What a party has measured in an epoch, and what it has uploaded.

    Attributes:
        round_bytes: bytes of each round.
    """

    round_bytes: list[int]


class SurvivorReport(Report):
    """What a party has measured in an epoch that it has ended by itself.

    Attributes:
        evaluate_seconds: of its evaluation.
    """

    evaluate_seconds: float


def record_epoch(
    history: History,
    overall: Mapping[str, Any],
    reports: Mapping[str, Report],
    names: Sequence[str],
    participants: list[list[str]],
) -> None:
    """Adds an epoch to a history.

    Args:
        history: changed in place.
        overall: the columns of all who were there together.
        reports: of each party of which this driver is told, by name, as for :func:`columns_of`.
        names: of all parties. A party without a report has NaN in its columns, or an empty list.
        participants: of each round.
    """
    own = {name: columns_of(report) for name, report in reports.items()}
    before = len(history["participants"])
    _add(history.global_history, overall, before)
    local = {f"{name}_{column}": value for name in names for column, value in own.get(name, {}).items()}
    _add(history.local_history, local, before)
    history["participants"].append(participants)


def columns_of(report: Report) -> dict[str, Any]:
    """The columns of one party, in this epoch."""
    own = {**_by_party(report), "loss": report["loss"]}
    known = {name: value for name, value in own.items() if value is not None}
    return {
        **report["logs"],
        _BYTES: sum(report["round_bytes"]),
        "round_payload_bytes": report["round_bytes"],
        **known,
        **{f"density.{layer}".rstrip("."): rate for layer, rate in report["densities"].items()},
    }


def overall_columns(reports: Sequence[Measured]) -> dict[str, Any]:
    """The columns of all parties together.

    Args:
        reports: of each, at least one.
    """
    merged = aggregate_metrics([report["metrics"] for report in reports])
    # Of metrics of one name the last is meant; some warn when they are computed.
    last = list({metric.name: metric for metric in merged}.values())
    means = zip(*(_means(report) for report in reports), strict=True)
    return total_columns([*last, *(sum(parts) for parts in means if None not in parts)])


def survivors_columns(reports: Sequence[Report]) -> dict[str, Any]:
    """The columns of all who were there together, as :func:`sums_columns` finds them.

    Args:
        reports: of each, at least one.
    """
    return {
        **overall_columns(reports),
        _BYTES: sum(sum(report["round_bytes"]) for report in reports),
    }


def survivors_measures(report: Report) -> list[Metric | None]:
    """What one party has measured, see :func:`own_measures`, and the bytes that it has uploaded."""
    return [*own_measures(report), Mean(_BYTES, float(sum(report["round_bytes"])), 1)]


def sums_columns(totals: Iterable[Metric]) -> dict[str, Any]:
    """The columns that sums of :func:`survivors_measures` make, of bytes the sum itself."""
    metrics = {metric.name: metric for metric in totals}
    sizes = metrics.pop(_BYTES, None)
    columns = total_columns(metrics.values())
    return columns if not isinstance(sizes, Mean) else {**columns, _BYTES: int(sizes.total)}


def total_columns(totals: Iterable[Metric]) -> dict[str, Any]:
    """The columns that metrics of all parties together make.

    Args:
        totals: of different names.
    """
    return {metric.name: _value(metric) for metric in totals}


def own_measures(report: Measured) -> list[Metric | None]:
    """What one party has measured, for others' to be added; None for what it has not."""
    return [*{metric.name: metric for metric in report["metrics"]}.values(), *_means(report)]


def _means(report: Measured) -> list[Mean | None]:
    """The loss, a mean over rows, and means over parties of what such a mean says something of."""
    loss, rows = report["loss"], report["rows"]
    by_party = {"density": report["densities"][""], **_by_party(report)}
    return [
        None if loss is None or not rows else Mean("loss", loss * rows, rows),
        *(None if value is None else Mean(name, value, 1) for name, value in by_party.items()),
    ]


def _by_party(report: Measured) -> dict[str, float | None]:
    """What is a number of a party, and of all parties their mean."""
    return {
        "train_seconds": report["train_seconds"],
        "aggregate_seconds": report["aggregate_seconds"],
        "clipped": report["clipped"],
    }


def _value(metric: Metric) -> Any:
    if type(metric) is Mean:
        return float(np.asarray(metric.total) / np.asarray(metric.count))
    return metric.result().numpy()


def _add(columns: dict[str, list[Any]], values: Mapping[str, Any], before: int) -> None:
    """Adds a value to each column; one that has none now, or had none before, has nothing there."""
    for name in [*columns, *(name for name in values if name not in columns)]:
        column = columns.setdefault(name, [])
        nothing: Any = [] if isinstance(values.get(name, (column or [None])[0]), list) else math.nan
        column.extend([nothing] * (before - len(column)))
        column.append(values.get(name, nothing))
