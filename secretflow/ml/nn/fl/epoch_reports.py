"""From what the parties tell of an epoch to its columns of the history."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from secretflow.ml.nn.fl.history import History
from secretflow.ml.nn.metrics import aggregate_metrics


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
    rows = sum(report["rows"] for report in there)
    overall: dict[str, Any] = dict(metrics)
    for name, mean in {
        "density": [report["densities"][""] for report in there],
        "train_seconds": [report["train_seconds"] for report in there],
        "aggregate_seconds": [report["aggregate_seconds"] for report in there],
    }.items():
        overall[name] = sum(mean) / len(mean)
    if rows and all(report["loss"] is not None for report in there):
        overall["loss"] = sum(report["loss"] * report["rows"] for report in there) / rows
    overall["seconds"] = seconds
    overall["evaluate_seconds"] = max(report["evaluate_seconds"] for report in there)
    overall["payload_bytes"] = sum(sum(report["round_bytes"]) for report in there)
    before = len(history["participants"])
    _add(history.global_history, overall, before)
    local = {f"{name}_{column}": value for name in names for column, value in _columns(reports.get(name))}
    _add(history.local_history, local, before)
    history["participants"].append(participants)
    return {name: value for name, value in metrics.items() if name.startswith("val_")}


def _columns(report: Mapping[str, Any] | None) -> list[tuple[str, Any]]:
    """The columns of one party, in this epoch."""
    if report is None:
        return []
    columns = {
        **report["logs"],
        "payload_bytes": sum(report["round_bytes"]),
        "round_payload_bytes": report["round_bytes"],
        "train_seconds": report["train_seconds"],
        "aggregate_seconds": report["aggregate_seconds"],
        **({} if report["loss"] is None else {"loss": report["loss"]}),
        **{f"density.{layer}".rstrip("."): rate for layer, rate in report["densities"].items()},
    }
    return list(columns.items())


def _add(columns: dict[str, list[Any]], values: Mapping[str, Any], before: int) -> None:
    """Adds a value to each column; one that has none now, or had none before, has nothing there."""
    for name in [*columns, *(name for name in values if name not in columns)]:
        column = columns.setdefault(name, [])
        nothing: Any = [] if isinstance(values.get(name, (column or [None])[0]), list) else math.nan
        column.extend([nothing] * (before - len(column)))
        column.append(values.get(name, nothing))
