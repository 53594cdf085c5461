"""The rows of finished runs: one file, written anew, at once, whenever some have finished."""

from __future__ import annotations

import json
import statistics
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

from experiments.sparse.grid import Cell
from secretflow._atomic import write_text

Row = dict[str, Any]
TARGET_POINTS = 1.0
"""So many points below the dense run is the target of ``bytes_to_target``."""


def cell_of(row: Row) -> Cell:
    """The cell that a row measures."""
    return Cell(**{name: row[name] for name in Cell._fields if name in row})


def task_of(row: Row) -> tuple[str, str, str, int]:
    """What rows must share to stand in one table."""
    return row["dataset"], row["model"], row["split"], row["parties"]


def _alike(row: Row) -> Hashable:
    """What a row must share with the dense run that it is compared with."""
    cell = cell_of(row)
    return task_of(row), cell.seed, cell.optimizer, cell.learning_rate, cell.decay


def target_of(dense: Row) -> float:
    """The accuracy that ``bytes_to_target`` asks for.

    The last epochs but one are looked at with the same test rows as all before; their mean is less of an
    accident than one of them.
    """
    return statistics.mean(point[0] for point in dense["curve"][-4:-1]) - TARGET_POINTS


def with_bytes_to_target(rows: Sequence[Row]) -> list[Row]:
    """Fills ``bytes_to_target`` in: bytes of a party until it first reaches the target.

    Args:
        rows: all rows; the target is that of the dense run of the same task, seed and steps.

    Returns:
        New rows; None stands where the target was never reached or the dense run is missing.
    """
    targets = {_alike(row): target_of(row) for row in rows if row["method"] == "dense"}
    filled = []
    for row in rows:
        target = targets.get(_alike(row))
        reached = None
        if target is not None:
            reached = next((point[1] for point in row["curve"][:-1] if point[0] >= target), None)
        filled.append({**row, "bytes_to_target": reached})
    return filled


class Results:
    """The rows in a file.

    Args:
        path: the JSON file; it need not exist.

    Raises:
        ValueError: the file holds something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: list[Row] = []
        if path.exists():
            try:
                self.rows = json.loads(path.read_text(encoding="utf-8"))
                for row in self.rows:
                    cell_of(row)
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{path} must hold rows of the sparse evaluation, got {error!r}") from None

    @property
    def done(self) -> set[Cell]:
        """The cells that have been run."""
        return set(map(cell_of, self.rows))

    def add(self, rows: Sequence[Row]) -> None:
        """Keeps rows; a reader of the file sees all rows before them, or all with them."""
        self.rows = with_bytes_to_target([*self.rows, *rows])
        lines = ",\n".join(json.dumps(row, allow_nan=False) for row in self.rows)
        write_text(self._path, f"[\n{lines}\n]\n")
