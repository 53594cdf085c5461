"""The rows of finished runs, and the file that keeps them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from experiments.evaluation.grid import DENSE, Case, Recipe
from secretflow._atomic import write_text

Row = dict[str, Any]

TARGET_POINTS = 1.0
"""So many points below the dense run's final accuracy is the target of ``bytes_to_target``."""

_SCHEDULE = ("prune_end_epoch", "prune_freq", "regrow_percent")
_RECIPE = tuple(field.name for field in fields(Recipe) if field.name not in _SCHEDULE)


def group_of(row: Row) -> tuple[Any, ...]:
    """What rows must share to stand in one table: all but method, density and seed."""
    return tuple(row[name] for name in ("dataset", "split", "parties", "model", *_RECIPE))


def case_of(row: Row) -> Case:
    """The case that a row measures."""
    return Case(**{name: row[name] for name in Case._fields})


def bytes_to_target(curve: Iterable[Sequence[float]], target: float) -> int | None:
    """What a party has uploaded when the validation accuracy first reaches a target.

    Args:
        curve: accuracy in percent and uploaded bytes after each epoch.
        target: accuracy in percent.

    Returns:
        Bytes, or None if the target is never reached.
    """
    return next((int(uploaded) for accuracy, uploaded in curve if accuracy >= target), None)


def with_bytes_to_target(rows: Sequence[Row]) -> list[Row]:
    """Fills ``bytes_to_target`` in: the target is the dense run's of the same group and seed.

    Args:
        rows: each with ``curve``.

    Returns:
        New rows; None stands where the target was never reached or the dense run is missing.
    """
    final = {(group_of(row), row["seed"]): row["accuracy"] for row in rows if row["strategy"] == DENSE}
    filled = []
    for row in rows:
        dense = final.get((group_of(row), row["seed"]))
        reached = None if dense is None else bytes_to_target(row["curve"], dense - TARGET_POINTS)
        filled.append({**row, "bytes_to_target": reached})
    return filled


class Results:
    """The rows in a file, which is written anew, at once, whenever a run has finished.

    Args:
        path: the JSON file; it need not exist.

    Raises:
        ValueError: the file holds something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: list[Row] = _read(path) if path.exists() else []

    def has(self, case: Case, recipe: Recipe) -> bool:
        """Whether this case has been run with this recipe."""
        return _identity({**case._asdict(), **asdict(recipe)}) in map(_identity, self.rows)

    def check_schedule(self, case: Case, recipe: Recipe) -> None:
        """Refuses a schedule of pruning beside another one, which a table would take for more seeds of it.

        Raises:
            ValueError: there are rows of the same table with another schedule.
        """
        asked = {**case._asdict(), **asdict(recipe)}
        own = [asked[name] for name in _SCHEDULE]
        for row in self.rows:
            if row["strategy"] == DENSE or case.strategy == DENSE or group_of(row) != group_of(asked):
                continue
            if (other := [row[name] for name in _SCHEDULE]) != own:
                raise ValueError(
                    f"{', '.join(_SCHEDULE)} must be {other}, as of the runs of the same rows and epochs in "
                    f"{self._path}, got {own}; choose another folder with --out"
                )

    def add(self, row: Row) -> None:
        """Keeps a row; a reader of the file sees all rows before it, or all with it."""
        self.rows = with_bytes_to_target([*self.rows, row])
        lines = ",\n".join(json.dumps(row, allow_nan=False) for row in self.rows)
        write_text(self._path, f"[\n{lines}\n]\n")


def _read(path: Path) -> list[Row]:
    needed = {*Case._fields, *_RECIPE, *_SCHEDULE, "accuracy", "bytes", "seconds", "curve"}
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        complete = isinstance(rows, list) and all(needed <= set(row) for row in rows)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} must hold rows of an evaluation, got what is none ({error})") from None
    if not complete:
        raise ValueError(f"{path} must hold rows with {sorted(needed)}, got others")
    return rows


def _identity(row: Row) -> tuple[Any, ...]:
    """What makes a run the same run; a dense one knows no schedule of pruning."""
    schedule = () if row["strategy"] == DENSE else tuple(row[name] for name in _SCHEDULE)
    return (*case_of(row), *(row[name] for name in _RECIPE), *schedule)
