"""The rows that an audit measures, and the work on them: several at a time, each kept when it is finished."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from experiments.audit.accuracy import accuracy_under
from experiments.audit.attack_cell import measure
from experiments.audit.cells import NOISY, NONE, PRUNING, SPARSE, WITHHELD, Cell, plan
from experiments.audit.code import digest_of_code
from experiments.audit.data import Dataset, cifar100, crops, mnist
from experiments.audit.effort import Effort
from experiments.data import load_images
from experiments.workers import in_workers
from secretflow.ml.nn.fl.audit.finished import Finished, key_of

_TRAININGS = 3
"""Seeds with which a defence's cost in accuracy is measured."""
_ACCURACY_COST = 0.4


@dataclass(frozen=True)
class Task:
    """One row to measure.

    Attributes:
        kind: "attack" or "accuracy".
        cell: attacker and defence; of an accuracy the defence and its level count.
        key: of the row.
    """

    kind: str
    cell: Cell
    key: str

    @property
    def cost(self) -> float:
        """See :meth:`~experiments.audit.cells.Cell.cost`."""
        return self.cell.cost() if self.kind == "attack" else _ACCURACY_COST


def tasks_of(
    datasets: Sequence[Dataset], effort: Effort, chosen: argparse.Namespace, digests: dict[str, str]
) -> list[Task]:
    """The rows that were asked for."""
    cells = [
        cell
        for cell in plan([dataset.name for dataset in datasets], chosen.removed, chosen.noise)
        if cell.attack in chosen.attacks
        and cell.view in chosen.views
        and (NONE if cell.defence == PRUNING and not cell.level else cell.defence) in chosen.defences
    ]
    code = digest_of_code()
    how = {**asdict(effort), "torch": torch.__version__, "code": code}
    tasks = [
        Task("attack", cell, key_of(cell.as_dict(), how, {"data": digests[cell.data]})) for cell in cells
    ]
    training = {"seed": effort.seed, "trainings": _TRAININGS, "code": code}
    # Nothing removed is the same training under every name, and has the first one.
    removed = [level for level in chosen.removed if level]
    levels = {PRUNING: chosen.removed, SPARSE: removed, WITHHELD: removed, NOISY: chosen.noise}
    for defence in (PRUNING, SPARSE, WITHHELD, NOISY):
        if defence in chosen.defences:
            costs = [Cell(datasets[0].name, "", "", defence, level, "") for level in levels[defence]]
            tasks += [Task("accuracy", c, key_of({"accuracy": c.as_dict(), **training})) for c in costs]
    return tasks


_datasets: dict[str, Dataset] = {}


def load_datasets(folder: Path | None) -> list[Dataset]:
    """The images that can be attacked.

    Args:
        folder: with CIFAR-100, if it is to be attacked too.
    """
    return [mnist(), crops(), *([cifar100(folder)] if folder else [])]


def _start_worker(folder: Path | None) -> None:
    torch.set_num_threads(1)
    _datasets.update({dataset.name: dataset for dataset in load_datasets(folder)})


def _work(task: Task, effort: Effort) -> dict[str, Any]:
    if task.kind == "attack":
        return measure(task.cell, _datasets[task.cell.data], effort)
    seeds = range(effort.seed, effort.seed + _TRAININGS)
    return accuracy_under(task.cell.defence, task.cell.level, load_images(), seeds)


def run(tasks: Sequence[Task], effort: Effort, rows: Finished, chosen: argparse.Namespace) -> None:
    """Measures what is not there yet, several rows at a time, until it is done or the time is over."""
    waiting = [task for task in tasks if rows.get(task.key) is None]
    end = time.monotonic() + 60 * chosen.minutes
    in_time = takewhile(lambda _: time.monotonic() < end, waiting)
    if chosen.workers == 1:
        _start_worker(chosen.data)
    work = partial(_work, effort=effort)
    total = sum(task.cost for task in waiting)
    bar_format = "{desc} {percentage:3.0f}%|{bar}| {elapsed} gone, {remaining} left{postfix}"
    with tqdm(total=total, desc="Attacking", bar_format=bar_format) as bar:
        for task, row in in_workers(work, in_time, chosen.workers, _start_worker, (chosen.data,)):
            rows.add(task.key, {"kind": task.kind, **row})
            bar.set_postfix_str(f"{task.cell.attack or 'training'}, {task.cell.defence}", refresh=False)
            bar.update(task.cost)
