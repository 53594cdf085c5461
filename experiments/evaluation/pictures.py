"""The pictures of the evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from experiments.evaluation.results import Row
from experiments.evaluation.verdicts import Summary, groups, summaries

matplotlib.use("Agg")  # files only, no window

from matplotlib import pyplot as plt

METHOD_COLORS = {"dense": "black", "local": "tab:blue", "global": "tab:orange"}

_DPI = 110
_COLUMNS = 4
_RATE_STYLES = {0.6: ":", 0.3: "-.", 0.1: "-", 0.05: "--"}
_SHIFTS = {"local": 0.97, "global": 1.03}  # so that one does not hide the other
_MEGABYTE = 1e6


def title_of(group: Sequence[Any]) -> str:
    """What a table or a panel shows, from the key of its group."""
    dataset, split, parties, model, rows, epochs, *_ = group
    return f"{dataset}, {split}, {parties} parties, {model} ({rows:,} rows, {epochs} epochs)"


def draw_accuracy_over_rate(rows: Iterable[Row], path: Path) -> None:
    """Draws mean accuracy, with its deviation, over the density; one panel a group.

    Args:
        rows: of all runs, at least one.
        path: file to write.
    """
    figure, panels = _panels(rows)
    for axes, group in panels:
        found = summaries(group)
        for summary in found:
            if summary.method == "dense":
                axes.axhline(summary.accuracy, color=METHOD_COLORS["dense"], linestyle="--", label="dense")
        for method in ("local", "global"):
            own = [summary for summary in found if summary.method == method]
            if own:
                axes.errorbar(
                    [summary.density * _SHIFTS[method] for summary in own],
                    [summary.accuracy for summary in own],
                    yerr=[math.nan if summary.deviation is None else summary.deviation for summary in own],
                    color=METHOD_COLORS[method],
                    marker="o",
                    markersize=4,
                    capsize=3,
                    label=f"{method} masks",
                )
        rates = sorted({summary.density for summary in found if summary.method != "dense"})
        axes.set_xscale("log")
        axes.set_xlim(0.7 * min(rates, default=0.1), 1.4 * max(rates, default=0.6))
        axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axes.minorticks_off()
        axes.set_xlabel("Density")
    _finish(figure, panels, path)


def draw_accuracy_over_bytes(rows: Iterable[Row], path: Path) -> None:
    """Draws the mean validation accuracy after each epoch over what a party has uploaded; one panel a group.

    Args:
        rows: of all runs, at least one.
        path: file to write.
    """
    figure, panels = _panels(rows)
    for axes, group in panels:
        found = summaries(group)
        for summary in found:
            curve = _mean_curve(summary)
            dense = summary.method == "dense"
            axes.plot(
                curve[:, 1] / _MEGABYTE,
                curve[:, 0],
                color=METHOD_COLORS[summary.method],
                linestyle="-" if dense else _RATE_STYLES.get(summary.density, "-"),
                linewidth=1.2,
                label="dense" if dense else f"{summary.method} {summary.density:g}",
            )
        # The first epochs lie far below, and would press together what is compared.
        last = [summary.accuracy for summary in found]
        low, high = min(last), max(last)
        axes.set_ylim(low - max(2.0, 0.6 * (high - low)), high + 0.8)
        axes.set_xlim(left=0)
        axes.set_xlabel("Upload of a party (MB)")
    _finish(figure, panels, path)


def _mean_curve(summary: Summary) -> np.ndarray:
    """Mean over the seeds, float of shape (epochs, 2): accuracy in percent and bytes."""
    return np.mean([row["curve"] for row in summary.rows], axis=0)


def _panels(rows: Iterable[Row]) -> tuple[Any, list[tuple[Any, list[Row]]]]:
    found = groups(rows)
    columns = min(_COLUMNS, len(found))
    lines = math.ceil(len(found) / columns)
    figure, grid = plt.subplots(
        lines, columns, figsize=(4.6 * columns, 3.6 * lines + 0.5), layout="constrained", squeeze=False
    )
    panels = []
    for axes, (key, group) in zip(grid.flat, found.items(), strict=False):
        axes.set_title(title_of(key).replace(" (", "\n("), fontsize=9)
        axes.grid(alpha=0.3)
        panels.append((axes, group))
    for axes in grid.flat[len(found) :]:
        axes.axis("off")
    return figure, panels


def _finish(figure: Any, panels: Sequence[tuple[Any, Any]], path: Path) -> None:
    labels: dict[str, Any] = {}
    for number, (axes, _) in enumerate(panels):
        if number % _COLUMNS == 0:
            axes.set_ylabel("Accuracy (%)")
        labels.update({label: line for line, label in zip(*axes.get_legend_handles_labels(), strict=True)})
    columns = 3 * min(_COLUMNS, len(panels))
    figure.legend(
        list(labels.values()),
        list(labels),
        loc="outside lower center",
        ncols=min(columns, len(labels)),
        frameon=False,
        fontsize=9,
    )
    figure.savefig(path, dpi=_DPI)
    plt.close(figure)
