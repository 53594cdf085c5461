"""Runs cells, many at once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from experiments.sparse.engine import Data, Run, train
from experiments.sparse.grid import Cell, made
from experiments.sparse.results import Row
from experiments.sparse.tasks import NETS, load, recipe_of, split


@lru_cache(maxsize=2)
def _data(dataset: str, fashion_mnist: Path | None, device: str) -> Data:
    data = load(dataset, fashion_mnist)
    return Data(data.x.to(device), data.y.to(device), data.x_test.to(device), data.y_test.to(device))


def run_cells(cells: Sequence[Cell], device: str = "cpu", fashion_mnist: Path | None = None) -> list[Row]:
    """Trains cells of one task together.

    Args:
        cells: they differ in method, density, seed, learning rate and decay only.
        device: "cpu" or "cuda".
        fashion_mnist: see :func:`~experiments.sparse.tasks.load`.

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
        rate = cell.learning_rate / first.learning_rate
        runs.append(Run(method, cell.seed, held, settings, rate, cell.decay))
    recipe = recipe_of(first.dataset, first.model, first.parties, first.optimizer, first.learning_rate)
    outcomes = train(runs, NETS[first.model], data, recipe, device)
    seconds = (time.perf_counter() - started) / len(cells)
    return [
        {
            **asdict(recipe),
            **cell._asdict(),
            "accuracy": round(outcome.curve[-1][0], 3),
            "mean_accuracy": round(outcome.mean_accuracy, 3),
            "bytes": round(outcome.curve[-1][1]),
            "seconds": round(seconds, 2),
            **run.method.notes(),
            "curve": [
                [round(accuracy, 2), round(size), round(density, 4), round(loss, 4)]
                for accuracy, size, density, loss in outcome.curve
            ],
        }
        for cell, run, outcome in zip(cells, runs, outcomes, strict=True)
    ]


def stacks(cells: Sequence[Cell], models: int) -> Iterator[list[Cell]]:
    """Cells in groups that can be trained together.

    Args:
        cells: in the order of what they are worth.
        models: at most so many models in a stack, over all parties of its runs.
    """
    groups: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        key = cell._replace(method="", density=1.0, seed=0, learning_rate=0.0, decay="")
        groups.setdefault(key, []).append(cell)
        if len(groups[key]) * cell.parties >= models:
            yield groups.pop(key)
    yield from groups.values()
