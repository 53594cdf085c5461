"""The leakage audit: what gradient-inversion attackers get back, under which defence.

``python experiments/leakage_audit.py --help`` says what can be chosen. Rows that are finished are kept in
``rows.jsonl`` and not measured again, so an audit that was stopped goes on with the same command.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # so that it runs from any directory
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from tqdm import tqdm

from experiments.audit import report
from experiments.audit.accuracy import accuracy_under
from experiments.audit.attack_cell import SAME_AS, Effort, baselines, filled_in, measure
from experiments.audit.cells import (
    ATTACKS,
    DEFENCES,
    GROUP,
    NOISE,
    NOISY,
    NONE,
    PRUNING,
    REMOVED,
    SPARSE,
    VIEWS,
    WITHHELD,
    Cell,
    plan,
)
from experiments.audit.code import digest_of_code
from experiments.audit.data import CANDIDATES, Dataset, cifar100, crops, mnist
from experiments.audit.rows import Rows, key_of
from experiments.data import load_images
from experiments.report import versions
from secretflow.ml.nn.fl.attacks.scores import SUCCESS_MSE

INTERRUPTED = 130
DATASETS = ("MNIST", "colour crops", "CIFAR-100")
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


def make_parser() -> argparse.ArgumentParser:
    """The command line of the audit."""
    parser = argparse.ArgumentParser(
        description="Attacks gradients with and without pruning and other defences and writes report.json, "
        "plots and report.html. Goes on where it was stopped.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    effort = Effort()
    parser.add_argument("--out", type=Path, default=Path("dgl/audit"), help="folder for what is made")
    parser.add_argument(
        "--data", type=Path, help="a folder with CIFAR-100 as torchvision keeps it, to attack too"
    )
    parser.add_argument("--images", type=int, default=effort.images, help="images to attack in each row")
    parser.add_argument(
        "--first",
        type=int,
        default=effort.first,
        help="number of the first of them; settings were chosen on those from 50 on",
    )
    parser.add_argument("--restarts", type=int, default=effort.restarts, help="random starts of DLG and iDLG")
    parser.add_argument(
        "--slow-restarts",
        type=int,
        default=effort.slow_restarts,
        help="the same on updates of five steps and on aggregates",
    )
    parser.add_argument(
        "--iterations", type=int, default=effort.iterations, help="steps of 20 evaluations of DLG and iDLG"
    )
    parser.add_argument(
        "--adam-iterations",
        type=int,
        default=effort.adam_iterations,
        help="steps of 20 evaluations of Inverting Gradients",
    )
    parser.add_argument(
        "--patience", type=int, default=effort.patience, help="steps without progress after which to give up"
    )
    parser.add_argument(
        "--start-mean", type=float, default=effort.start_mean, help="of the random starts of DLG and iDLG"
    )
    parser.add_argument(
        "--start-deviation", type=float, default=effort.start_deviation, help="of these random starts"
    )
    parser.add_argument(
        "--tv-weight", type=float, default=effort.tv_weight, help="total variation in Inverting Gradients"
    )
    parser.add_argument("--seed", type=int, default=effort.seed, help="of nets and random starts")
    parser.add_argument(
        "--datasets",
        nargs="+",
        choices=DATASETS,
        default=DATASETS,
        help="images to attack; CIFAR-100 needs --data",
    )
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=ATTACKS, help="attacks to make")
    parser.add_argument("--views", nargs="+", choices=VIEWS, default=VIEWS, help="what attackers see")
    parser.add_argument(
        "--defences", nargs="+", choices=DEFENCES, default=DEFENCES, help="defences to attack"
    )
    parser.add_argument(
        "--removed",
        nargs="+",
        type=float,
        default=REMOVED,
        help="parts that pruning, sparsification and withholding remove, each in [0, 1)",
    )
    parser.add_argument(
        "--noise",
        nargs="+",
        type=float,
        default=NOISE,
        help="deviations of the noise, relative to the gradient",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=20.0,
        help="start no further row after that; the same command measures the rest",
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes, of one thread each"
    )
    return parser


def parse_effort(parser: argparse.ArgumentParser, chosen: argparse.Namespace) -> Effort:
    """Checks the numbers of the command line.

    Raises:
        SystemExit: with code 2 and a message if one is not allowed.
    """
    for name in (
        "images",
        "restarts",
        "slow_restarts",
        "iterations",
        "adam_iterations",
        "patience",
        "workers",
    ):
        if getattr(chosen, name) < 1:
            parser.error(f"--{name.replace('_', '-')} {getattr(chosen, name)} is not allowed: at least 1")
    # Aggregates of eight parties attack whole groups, and identification needs them among its candidates.
    most = CANDIDATES - GROUP
    if not 0 <= chosen.first <= most - 1:
        parser.error(f"--first {chosen.first} is not allowed: from 0 to {most - 1}")
    if chosen.images > most - chosen.first:
        parser.error(
            f"--images {chosen.images} is not allowed with --first {chosen.first}: at most "
            f"{most - chosen.first}"
        )
    if not chosen.minutes > 0:
        parser.error(f"--minutes {chosen.minutes} is not allowed: above 0")
    if any(not 0 <= level < 1 for level in chosen.removed):
        parser.error(f"--removed {chosen.removed} is not allowed: parts in [0, 1)")
    if any(not 0 < level < float("inf") for level in chosen.noise):
        parser.error(f"--noise {chosen.noise} is not allowed: numbers above 0")
    if not 0 <= chosen.tv_weight < float("inf"):
        parser.error(f"--tv-weight {chosen.tv_weight} is not allowed: a number from 0 up")
    effort = Effort(**{name: getattr(chosen, name) for name in asdict(Effort())})
    try:
        effort.dlg(1), effort.inverting(1)
    except ValueError as error:
        parser.error(str(error))
    return effort


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


def _load(folder: Path | None) -> list[Dataset]:
    return [mnist(), crops(), *([cifar100(folder)] if folder else [])]


def _start_worker(folder: Path | None) -> None:
    torch.set_num_threads(1)
    _datasets.update({dataset.name: dataset for dataset in _load(folder)})


def _work(task: Task, effort: Effort) -> dict[str, Any]:
    if task.kind == "attack":
        return measure(task.cell, _datasets[task.cell.data], effort)
    seeds = range(effort.seed, effort.seed + _TRAININGS)
    return accuracy_under(task.cell.defence, task.cell.level, load_images(), seeds)


class _InThisProcess(Executor):
    """Does the work at once: for one worker, to whom another process would bring nothing but its start."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Calls the function."""
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def _executor(workers: int, folder: Path | None) -> Executor:
    if workers == 1:
        _start_worker(folder)
        return _InThisProcess()
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker, (folder,))


def run(tasks: Sequence[Task], effort: Effort, rows: Rows, chosen: argparse.Namespace) -> None:
    """Measures what is not there yet, several rows at a time, until it is done or the time is over."""
    waiting = [task for task in tasks if rows.get(task.key) is None]
    end = time.monotonic() + 60 * chosen.minutes
    total = sum(task.cost for task in waiting)
    bar_format = "{desc} {percentage:3.0f}%|{bar}| {elapsed} gone, {remaining} left{postfix}"
    with (
        tqdm(total=total, desc="Attacking", bar_format=bar_format) as bar,
        _executor(chosen.workers, chosen.data) as pool,
    ):
        under_way: dict[Future[dict[str, Any]], Task] = {}
        try:
            while waiting or under_way:
                while waiting and len(under_way) < chosen.workers and time.monotonic() < end:
                    task = waiting.pop(0)
                    under_way[pool.submit(_work, task, effort)] = task
                if not under_way:
                    break
                done, _ = wait(under_way, return_when=FIRST_COMPLETED)
                for future in done:
                    task = under_way.pop(future)
                    rows.add(task.key, {"kind": task.kind, **future.result()})
                    bar.set_postfix_str(
                        f"{task.cell.attack or 'training'}, {task.cell.defence}", refresh=False
                    )
                    bar.update(task.cost)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the audit and writes its report.

    Args:
        arguments: the command line without the program's name; None is ``sys.argv``.

    Returns:
        The exit code: 0, or 130 if it was broken off with Ctrl-C; what was measured so far is then kept.
    """
    parser = make_parser()
    chosen = parser.parse_args(arguments)
    effort = parse_effort(parser, chosen)
    try:
        datasets = [dataset for dataset in _load(chosen.data) if dataset.name in chosen.datasets]
        if not datasets:
            raise ValueError(f"--datasets {chosen.datasets} is not allowed: CIFAR-100 needs --data")
        chosen.out.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    digests = {
        dataset.name: hashlib.sha256(dataset.x.numpy().tobytes() + dataset.y.numpy().tobytes()).hexdigest()
        for dataset in datasets
    }
    tasks = tasks_of(datasets, effort, chosen, digests)
    rows = Rows(chosen.out / "rows.jsonl")
    started, exit_code = time.monotonic(), 0
    try:
        run(tasks, effort, rows, chosen)
    except KeyboardInterrupt:
        print("\nBroken off; the same command goes on from here.", file=sys.stderr)
        exit_code = INTERRUPTED
    write_report(tasks, datasets, effort, rows, chosen.out, time.monotonic() - started)
    return exit_code


def write_report(
    tasks: Sequence[Task],
    datasets: Sequence[Dataset],
    effort: Effort,
    rows: Rows,
    out: Path,
    seconds: float,
) -> None:
    """Writes the report from the rows that are there."""
    measured = [(task, rows.get(task.key)) for task in tasks]
    known = [row for _, row in measured if row is not None and SAME_AS not in row]
    found = [(task, None if row is None else filled_in(row, known)) for task, row in measured]
    attacks = [row for task, row in found if row is not None and task.kind == "attack"]
    content = {
        "complete": all(row is not None for _, row in found),
        "missing": [task.cell.as_dict() for task, row in found if row is None],
        "success_is_mse_below": SUCCESS_MSE,
        "settings": asdict(effort),
        "code": digest_of_code(),
        "versions": versions(),
        "seconds_of_this_run": round(seconds, 1),
        "rows": [
            {name: value for name, value in row.items() if name not in ("examples", "example_shape", "kind")}
            for row in attacks
        ],
        "baselines": [row for dataset in datasets for row in baselines(dataset, effort)],
        "accuracies": [
            {name: value for name, value in row.items() if name != "kind"}
            for task, row in found
            if row is not None and task.kind == "accuracy"
        ],
    }
    report.write(content, attacks, out)
    print(f"{'Done' if content['complete'] else 'Not complete yet'}: {out / report.PAGE}")


if __name__ == "__main__":
    sys.exit(main())
