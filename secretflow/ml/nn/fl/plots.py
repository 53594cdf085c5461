"""Pictures of a training run. They need the extra ``plots`` (Matplotlib), imported when one is drawn.

Each function returns a figure, which a notebook shows and ``figure.savefig("run.png")`` writes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from secretflow.errors import ArgumentError
from secretflow.ml.nn.fl.numbers_of import numbers_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Columns = Mapping[str, Sequence[Any]]

_MOST_NAMES = 10
_NOT_METRICS = ("clipped", "density", "loss")


def plot_history(history: Mapping[str, Columns]) -> Figure:
    """Draws what a fit recorded: metrics, loss and densities over rounds, metrics over uploaded bytes.

    A metric that is a vector, such as the accuracy of each class, has a line for each number. A matrix has
    none.

    Args:
        history: what ``FLModel.fit`` returned, with at least one epoch.

    Raises:
        ImportError: Matplotlib is not installed.
        ValueError: the history is not one of ``fed_avg_w_prune``, or has no epoch.
    """
    overall, local = history["global_history"], history["local_history"]
    rounds = _rounds(local)
    figure, ((metrics, loss), (density, upload)) = _figure(2, 2, (10.0, 7.0))
    curves = {
        label: values for name in _metric_names(overall) for label, values in _curves(name, overall[name])
    }
    sent = [total / 1e6 for total in accumulate(overall["payload_bytes"])]
    for name, values in curves.items():
        metrics.plot(rounds, values, marker="o", markersize=3, label=name)
        upload.plot(sent, values, marker="o", markersize=3, label=name)
    if "loss" in overall:
        loss.plot(rounds, overall["loss"], marker="o", markersize=3, color="tab:red")
    _draw_densities(density, rounds, overall, local)
    for axes, title, x in (
        (metrics, "Metrics", "Round"),
        (loss, "Training loss", "Round"),
        (density, "Density by layer, mean of the parties", "Round"),
        (upload, "Metrics over uploaded bytes", "Megabytes, all parties together"),
    ):
        axes.set_title(title)
        axes.set_xlabel(x)
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
    density.set_ylim(0, 1.02)
    lowest, highest = min(0, *overall.get("loss", [0])), max(0, *overall.get("loss", [0])) or 1
    loss.set_ylim(lowest, highest + 0.05 * (highest - lowest))
    for axes in (metrics, upload):
        if curves and all(0 <= value <= 1 for values in curves.values() for value in values):
            axes.set_ylim(0, 1.02)
    for axes in (metrics, density):
        if 0 < len(axes.get_lines()) <= _MOST_NAMES:
            axes.legend(fontsize=8)
    return figure


def plot_mask(weights: Any, title: str = "") -> Figure:
    """Draws where the weights of a layer live: a black point for each that does, a row for each output.

    Args:
        weights: array or tensor of two or more dimensions, the output first; pruned weights are zero, as in
            a state dictionary that :func:`~secretflow.ml.nn.fl.sparse_model.load_sparse` gives.
        title: of the picture, for example the layer's name; the density stands behind it.

    Raises:
        ImportError: Matplotlib is not installed.
        ValueError: there are fewer than two dimensions.
    """
    array = np.asarray(weights)
    if array.ndim < 2:
        raise ArgumentError(f"weights must have two dimensions or more, got {array.ndim}")
    lives = (array != 0).reshape(len(array), -1)
    figure, axes = _figure(1, 1, (8.0, 4.0))
    axes.imshow(~lives, cmap="gray", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.set_title(f"{title} density {lives.mean():.3f}".strip())
    axes.set_xlabel("Input of the weight")
    axes.set_ylabel("Output")
    return figure


def _draw_densities(axes: Axes, rounds: Sequence[int], overall: Columns, local: Columns) -> None:
    layers: dict[str, list[Sequence[float]]] = {}
    for name, values in local.items():
        party_and_kind, found, layer = name.partition("_density.")
        if found and party_and_kind:
            layers.setdefault(layer, []).append(values)
    for layer, of_parties in layers.items():
        axes.plot(rounds, np.mean(of_parties, axis=0), linewidth=1, label=layer)
    axes.plot(rounds, overall["density"], color="black", marker="o", markersize=3, label="all layers")


def _rounds(local: Columns) -> list[int]:
    """How many rounds had been trained when each epoch ended."""
    for name, by_epoch in local.items():
        if name.endswith("_round_payload_bytes") and by_epoch:
            return list(accumulate(map(len, by_epoch)))
    raise ArgumentError(
        "history must be one of fed_avg_w_prune with an epoch or more, got one without rounds"
    )


def _curves(name: str, values: Sequence[Any]) -> Iterator[tuple[str, list[float]]]:
    """The curves of a metric by what to call them: one for each number of a vector, none of a matrix."""
    by_epoch = [numbers_of(value, dimensions=1) for value in values]
    for place in by_epoch[0] if by_epoch else ():
        label = "".join([name, *(f"[{index}]" for index in place)])
        # NaN where a metric was not defined in an epoch, not even its shape.
        yield label, [numbers.get(place, math.nan) for numbers in by_epoch]


def _metric_names(overall: Columns) -> list[str]:
    """The columns that are metrics, those of validation alone where there are any."""
    ended = ("_bytes", "_seconds", "seconds")
    epochs = len(overall["density"])
    names = [
        name
        for name, values in overall.items()
        if name not in _NOT_METRICS and not name.endswith(ended) and len(values) == epochs
    ]
    return [name for name in names if name.startswith("val_")] or names


def _figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, Any]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Matplotlib must be installed to draw, got none: pip install matplotlib, or the extra plots"
        ) from error
    figure = Figure(figsize=size, layout="constrained", dpi=110)
    FigureCanvasAgg(figure)  # belongs to nobody: nothing to close, and no window opens
    return figure, figure.subplots(rows, columns)
