"""Plots of how a round grows, and the exponents of the power laws fitted to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Rows = Sequence[dict[str, float]]
TITLES = {"parties": "100,000 weights", "weights": "2 parties"}
COLUMNS = {
    "round_seconds": "round of all parties in turn",
    "sealing_seconds": "sealing and opening, one party",
}


def exponent(rows: Rows, variable: str, column: str) -> float:
    """The exponent of a power law fitted to a column: 1 is linear growth."""
    x = np.log([row[variable] for row in rows])
    y = np.log([row[column] for row in rows])
    return float(np.polyfit(x, y, 1)[0])


def draw_growth(growth: dict[str, Any], folder: Path) -> list[Path]:
    """Draws seconds over parties and over weights, on logarithmic axes.

    Args:
        growth: for each of :data:`TITLES` its rows, and the exponents.
        folder: where ``growth_parties.png`` and ``growth_weights.png`` go.

    Returns:
        Their paths.
    """
    from matplotlib.figure import Figure

    paths = []
    for variable, title in TITLES.items():
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        rows = growth[variable]
        for column, label in COLUMNS.items():
            fitted = growth[f"exponent_of_{variable}"][column]
            axes.loglog(
                [row[variable] for row in rows],
                [1e3 * row[column] for row in rows],
                marker="o",
                label=f"{label} (exponent {fitted:.2f})",
            )
        if variable == "parties":
            axes.set_xticks([row[variable] for row in rows], [str(row[variable]) for row in rows])
            axes.minorticks_off()
        axes.set(xlabel=variable, ylabel="milliseconds", title=title)
        axes.grid(True, which="major", alpha=0.3)
        axes.legend()
        path = folder / f"growth_{variable}.png"
        figure.savefig(path, dpi=120)
        paths.append(path)
    return paths
