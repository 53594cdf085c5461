"""Runs cells, many at once, on one or several processes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from experiments.sparse.engine import Data, Recipe, Run, train
from experiments.sparse.grid import Cell, made
from experiments.sparse.tasks import NETS, load, recipe_of, split

Row = dict[str, Any]


@lru_cache(maxsize=2)
def _data(dataset: str, fashion_mnist: Path | None, device: str) -> Data:
    data = load(dataset, fashion_mnist)
    return Data(data.x.to(device), data.y.to(device), data.x_test.to(device), data.y_test.to(device))


def run_cells(
    cells: Sequence[Cell], device: str = "cpu", fashion_mnist: Path | None = None, **changes: Any
) -> list[Row]:
    """Trains cells of one task and one split together.

    Args:
        cells: they differ in method, density and seed only.
        device: "cpu" or "cuda".
        fashion_mnist: see :func:`~experiments.sparse.tasks.load`.
        **changes: of the recipe.

    Returns:
        A row of the results for each, without ``bytes_to_target``.
    """
    if device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    started = time.perf_counter()
    first = cells[0]
    data = _data(first.dataset, fashion_mnist, device)
    labels = data.y.cpu().numpy()
    runs = []
    for cell in cells:
        method, settings = made(cell.method, cell.density)
        held = split(labels, cell.dataset, cell.split, cell.parties, cell.seed)
        runs.append(Run(method, cell.seed, held, settings))
    recipe: Recipe = replace(recipe_of(first.dataset, first.model, first.parties), **changes)
    outcomes = train(runs, NETS[first.model], data, recipe, device)
    seconds = (time.perf_counter() - started) / len(cells)
    return [
        {
            **cell._asdict(),
            "accuracy": round(outcome.curve[-1][0], 3),
            "bytes": round(outcome.curve[-1][1]),
            "seconds": round(seconds, 2),
            **asdict(recipe),
            "curve": [
                [round(accuracy, 2), round(size), round(density, 4), round(loss, 4)]
                for accuracy, size, density, loss in outcome.curve
            ],
        }
        for cell, outcome in zip(cells, outcomes, strict=True)
    ]


def stacks(cells: Sequence[Cell], models: int) -> Iterator[list[Cell]]:
    """Cells in groups that can be trained together.

    Args:
        cells: in the order of what they are worth.
        models: at most so many models in a stack, over all parties of its runs.
    """
    groups: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.dataset, cell.model, cell.split, cell.parties), []).append(cell)
    for key, group in groups.items():
        at_once = max(1, models // key[3])
        for k in itertools.count():
            some = group[k * at_once : (k + 1) * at_once]
            if not some:
                break
            yield some
