"""From what the parties tell of an epoch to its columns of the history."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from secretflow.ml.nn.fl.history import History
from secretflow.ml.nn.fl.worker.trainer import EpochLoss
from secretflow.ml.nn.metrics import aggregate_metrics

_MEANS = ("density", "train_seconds", "aggregate_seconds", "clipped")


def record_epoch(
    history: History,
    reports: Mapping[str, Mapping[str, Any]],
    names: Sequence[str],
    participants: list[list[str]],
    seconds: float,
) -> dict[str, Any]:
    """Adds an epoch to a history.

    Args:
        history: changed in place.
        reports: of each party that was there at the end, by name.
        names: of all parties. A party that was not there has NaN in its columns, or an empty list.
        participants: of each round.
        seconds: that the epoch took here.

    Returns:
        The metrics of validation, by name.
    """
    there = [reports[name] for name in names if name in reports]
    merged = aggregate_metrics([report["metrics"] for report in there])
    metrics = {metric.name: metric.result().numpy() for metric in merged}
    own = {name: _columns(report) for name, report in reports.items()}
    overall: dict[str, Any] = {
        **metrics,
        **mean_columns([own[name] for name in names if name in own]),
        **mean_loss(EpochLoss(report["loss"], report["rows"]) for report in there),
    }
    overall["seconds"] = seconds
    overall["evaluate_seconds"] = max(report["evaluate_seconds"] for report in there)
    overall["payload_bytes"] = sum(sum(report["round_bytes"]) for report in there)
    before = len(history["participants"])
    _add(history.global_history, overall, before)
    local = {f"{name}_{column}": value for name in names for column, value in own.get(name, {}).items()}
    _add(history.local_history, local, before)
    history["participants"].append(participants)
    return {name: value for name, value in metrics.items() if name.startswith("val_")}


def uploaded_columns(round_bytes: list[int]) -> dict[str, Any]:
    """What one party has uploaded in an epoch, by column.

    Args:
        round_bytes: in each round.
    """
    return {"payload_bytes": sum(round_bytes), "round_payload_bytes": round_bytes}


def measured_columns(
    seconds: Mapping[str, float], loss: float | None, densities: Mapping[str, float], clipped: float | None
) -> dict[str, float]:
    """What one party has measured in an epoch, by column.

    Args:
        seconds: ``train_seconds`` and ``aggregate_seconds``.
        loss: None if it has none.
        densities: by layer, and under "" of all.
        clipped: part of its updates that was clipped; None where none are rounded.
    """
    return {
        **seconds,
        **({} if loss is None else {"loss": loss}),
        **({} if clipped is None else {"clipped": clipped}),
        **{f"density.{layer}".rstrip("."): rate for layer, rate in densities.items()},
    }


def mean_columns(parties: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over parties of those columns of which a mean says something.

    Args:
        parties: the columns of each, at least one.
    """
    told = [name for name in _MEANS if all(name in columns for columns in parties)]
    return {name: sum(columns[name] for columns in parties) / len(parties) for name in told}


def mean_loss(losses: Iterable[EpochLoss]) -> dict[str, float]:
    """The loss over all parties' rows, under the name of its column; nothing where a party has none."""
    told = [(loss.mean, loss.rows) for loss in losses]
    known = [(mean, rows) for mean, rows in told if mean is not None]
    rows = sum(rows for _, rows in known)
    return {"loss": sum(mean * n for mean, n in known) / rows} if rows and len(known) == len(told) else {}


def _columns(report: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of one party, in this epoch."""
    seconds = {name: report[name] for name in ("train_seconds", "aggregate_seconds")}
    return {
        **report["logs"],
        **uploaded_columns(report["round_bytes"]),
        **measured_columns(seconds, report["loss"], report["densities"], None),
    }


def _add(columns: dict[str, list[Any]], values: Mapping[str, Any], before: int) -> None:
    """Adds a value to each column; one that has none now, or had none before, has nothing there."""
    for name in [*columns, *(name for name in values if name not in columns)]:
        column = columns.setdefault(name, [])
        nothing: Any = [] if isinstance(values.get(name, (column or [None])[0]), list) else math.nan
        column.extend([nothing] * (before - len(column)))
        column.append(values.get(name, nothing))
