"""``sparse.md``: tables of the sparse evaluation, written from the rows."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.sparse.document_text import AS_MANY_BYTES, HEAD, SIX_SEEDS, TUNING
from experiments.sparse.grid import MORE_SEEDS, SEEDS, cells
from experiments.sparse.results import Row, cell_of, task_of
from secretflow._atomic import write_text

DOCUMENT = "sparse.md"

_AT_MOST = {0.1: 0.3, 0.05: 0.7, 0.02: 1.5, 0.01: 3.0}
"""Points below dense that were to be lost at most, by density."""

_AIMED_AT = [
    (dataset, model, "dirichlet-0.5", 10)
    for dataset in ("fashion-mnist", "mnist")
    for model in ("fedavg-cnn", "resnet20")
]


def write_document(rows: Sequence[Row], folder: Path) -> None:
    """Writes the document.

    Args:
        rows: of all runs.
        folder: where it goes.
    """
    write_text(folder / DOCUMENT, document(rows))


def document(rows: Sequence[Row]) -> str:
    """The document's text.

    Args:
        rows: of all runs.
    """
    measured = [row for row in rows if row["seed"] in SEEDS and ":" not in row["method"]]
    wanted = set(cells())
    done = len(wanted & set(map(cell_of, rows)))
    parts = [
        HEAD,
        f"{done} of {len(wanted)} runs have been done.\n",
        "## Best, median and worst\n",
        _extremes(measured),
        "Ours, of each net:\n",
        _extremes(measured, by_net=True),
        "## What was aimed at\n",
        "Mean points below dense over three seeds, its standard error, and the bound.\n",
        _aims(measured),
        "## For the same bytes\n",
        AS_MANY_BYTES,
        _same_bytes(measured),
    ]
    further = [row for row in rows if row["seed"] in MORE_SEEDS]
    if further:
        parts += ["## With six seeds\n", SIX_SEEDS, _six_seeds([*measured, *further])]
    for task, group in _by(measured, task_of):
        parts += [f"## {task[0]}, {task[1]}, {task[2]}, {task[3]} parties\n", _table(group)]
    studied = [row for row in rows if row["seed"] in SEEDS and ":" in row["method"]]
    if studied:
        parts.append("## Local masks with one thing changed (`--part why`)\n")
        for task, group in _by(studied, task_of):
            dense = [row for row in measured if row["method"] == "dense" and task_of(row) == task]
            parts += [f"### {task[0]}, {task[1]}, {task[2]}, {task[3]} parties\n", _table([*dense, *group])]
    tuned = [row for row in rows if row["seed"] not in (*SEEDS, *MORE_SEEDS)]
    if tuned:
        parts += ["## What was tried with seeds 11, 12 and 13 (`--part tuning`)\n", TUNING]
        for task, group in _by(tuned, task_of):
            parts += [f"### {task[0]}, {task[1]}, {task[2]}, {task[3]} parties\n", _tuning_table(group)]
    return "\n".join(parts)


def losses(rows: Sequence[Row], group: Iterable[Row]) -> list[float]:
    """Points below the dense run of the same task and seed, where there is one."""
    dense = {(task_of(row), row["seed"]): row["accuracy"] for row in rows if row["method"] == "dense"}
    return [dense[key] - row["accuracy"] for row in group if (key := (task_of(row), row["seed"])) in dense]


def _standard_error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / len(values) ** 0.5


def _extremes(rows: Sequence[Row], by_net: bool = False) -> str:
    """Over the tasks the best, the median and the worst mean loss of our own methods."""
    lines = []
    own = [row for row in rows if row["method"] in (("ours",) if by_net else ("ours", "cubic"))]
    groups = _by(own, lambda row: (row["model"] if by_net else row["method"], row["density"]))
    for (name, density), group in sorted(
        groups, key=lambda each: (each[0][0] != "ours", each[0][0], -each[0][1])
    ):
        by_task = sorted(
            (statistics.mean(found), task)
            for task, some in _by(group, task_of)
            if (found := losses(rows, some))
        )
        if by_task:
            (best, _), (most, worst) = by_task[0], by_task[-1]
            median = statistics.median(loss for loss, _ in by_task)
            numbers = [f"{loss:.2f}" for loss in (best, median, most)]
            lines.append([name, f"{density:g}", str(len(by_task)), *numbers, ", ".join(map(str, worst))])
    head = ["net" if by_net else "method", "density", "tasks", "best loss", "median", "worst", "worst task"]
    return _lines(head, lines)


def _aims(rows: Sequence[Row]) -> str:
    """Mean loss of our own method beside the bound, for the tasks that have one."""
    lines = []
    for task in _AIMED_AT:
        line = [", ".join(map(str, task[:2]))]
        for density, bound in _AT_MOST.items():
            some = [row for row in rows if row["method"] == "ours" and row["density"] == density]
            found = losses(rows, [row for row in some if task_of(row) == task])
            if len(found) < 2:
                line.append("")
                continue
            loss = round(statistics.mean(found), 2)
            word = "met" if loss <= bound else "missed"
            line.append(f"{loss:.2f} ± {_standard_error(found):.2f} ({bound:g}, {word})")
        lines.append(line)
    return _lines(["ten parties, Dirichlet 0.5", *(f"{density:g}" for density in _AT_MOST)], lines)


def _six_seeds(rows: Sequence[Row]) -> str:
    """Loss by seed, for the tasks that have been run with more of them."""
    lines = []
    own = [row for row in rows if row["method"] == "ours"]
    for (task, density), some in _by(own, lambda row: (task_of(row), row["density"])):
        if not {row["seed"] for row in some} & set(MORE_SEEDS):
            continue
        found = losses(rows, some)
        by_seed = ", ".join(f"{loss:.2f}" for loss in found)
        lines.append(
            [
                ", ".join(map(str, task)),
                f"{density:g}",
                by_seed,
                f"{statistics.mean(found):.2f} ± {_standard_error(found):.2f}",
            ]
        )
    return _lines(["task", "density", "loss by seed", "mean"], lines)


def _same_bytes(rows: Sequence[Row]) -> str:
    """Each published method beside the best of our own runs that uploads no more."""
    lines = []
    for task, group in _by(rows, task_of):
        by_method = [
            (
                key,
                statistics.mean(row["accuracy"] for row in some),
                statistics.mean(row["bytes"] for row in some),
            )
            for key, some in _by(group, lambda row: (row["method"], row["density"]))
        ]
        for (method, density), accuracy, size in by_method:
            if not method.startswith(("FedDST", "FedRTS", "PruneFL", "LotteryFL")):
                continue
            line = [f"{task[0]}, {task[1]}", f"{method} {density:g}", f"{accuracy:.2f} ({size / 1e6:.3g} MB)"]
            for own in (("ours",), ("ours-8-bits", "ours-4-bits")):
                fitting = [each for each in by_method if each[0][0] in own and each[2] <= size]
                best = max(fitting, key=lambda each: each[1], default=None)
                if best is None:
                    line += ["-", "-"]
                    continue
                (name, at), found, less = best
                bits = name.removeprefix("ours").strip("-").replace("-", " ")
                which = f"at {at:g}" + (f", {bits}" if bits else "")
                line += [f"{found:.2f} ({which}, {less / 1e6:.3g} MB)", f"{found - accuracy:+.2f}"]
            lines.append(line)
    head = ["task", "method", "accuracy %", "ours", "points", "ours, rounded", "points"]
    return _lines(head, lines)


def _table(group: Sequence[Row]) -> str:
    dense = {row["seed"]: row for row in group if row["method"] == "dense"}
    lines = []
    for (method, density), some in _by(group, lambda row: (row["method"], row["density"])):
        found = losses(group, some)
        ratios = [_times_fewer(row, dense.get(row["seed"])) for row in some]
        accuracies = [row["accuracy"] for row in some]
        deviation = f" ± {statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
        lines.append(
            [
                method,
                f"{density:g}",
                str(len(some)),
                f"{statistics.mean(accuracies):.2f}{deviation}",
                f"{statistics.mean(found):.2f} (worst {max(found):.2f})" if found else "",
                f"{statistics.mean(row['bytes'] for row in some) / 1e6:.3g}",
                ", ".join(ratios),
            ]
        )
    return _lines(
        ["method", "density", "seeds", "accuracy %", "loss", "upload MB", "to target, times fewer"], lines
    )


def _times_fewer(row: Row, dense: Row | None) -> str:
    """Dense bytes until the target over a row's."""
    if dense is None or not dense["bytes_to_target"]:
        return "?"
    return f"{dense['bytes_to_target'] / row['bytes_to_target']:.1f}" if row["bytes_to_target"] else "-"


def _tuning_table(group: Sequence[Row]) -> str:
    def key(row: Row) -> tuple[str, float, str, float, str]:
        return (
            row["method"],
            row["density"],
            row["optimizer"],
            row["learning_rate"],
            row.get("decay", "none"),
        )

    lines = [
        [
            method,
            f"{density:g}",
            f"{optimizer} {rate:g}{' cosine' if decay == 'cosine' else ''}",
            ", ".join(f"{row['accuracy']:.2f}" for row in some),
            ", ".join(f"{row['mean_accuracy']:.2f}" for row in some if "mean_accuracy" in row),
            f"{some[0]['bytes'] / 1e6:.3g}",
        ]
        for (method, density, optimizer, rate, decay), some in _by(group, key)
    ]
    head = ["method", "density", "optimiser", "accuracy % by seed", "of the mean of rounds", "upload MB"]
    return _lines(head, lines)


def _by(rows: Sequence[Row], key: Callable[[Row], Any]) -> Iterator[tuple[Any, list[Row]]]:
    """Rows in groups of one key, in the order in which keys come first."""
    order: dict[Any, int] = {}
    for row in rows:
        order.setdefault(key(row), len(order))
    for found, some in itertools.groupby(sorted(rows, key=lambda row: order[key(row)]), key):
        yield found, sorted(some, key=lambda row: row["seed"])


def _lines(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines]) + "\n"
