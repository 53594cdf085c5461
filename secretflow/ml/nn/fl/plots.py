"""Pictures of a training run. They need the extra ``plots`` (Matplotlib), imported when one is drawn.

Each function returns a figure, which a notebook shows and ``figure.savefig("run.png")`` writes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from secretflow import _validate
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
        TypeError: it is no history.
        ValueError: the history is not one of ``fed_avg_w_prune``, or has no epoch.
    """
    _check_history(history)
    overall, local = history["global_history"], history["local_history"]
    rounds = _rounds(history)
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
    losses = [value for value in overall.get("loss", ()) if not math.isnan(value)]
    lowest, highest = min(0, 0, *losses), max(0, 0, *losses) or 1
    loss.set_ylim(lowest, highest + 0.05 * (highest - lowest))
    for axes in (metrics, upload):
        if curves and not any(value < 0 or value > 1 for values in curves.values() for value in values):
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


def plot_participants(history: Mapping[str, Any]) -> Figure:
    """Draws who took part in which round of a fit with ``min_survivors``.

    A row for each party, a column for each round, dark where the party's upload is in the average; a round
    without an average has no dark place. Lines are between epochs. Behind a party's name stands in how many
    rounds it was.

    Args:
        history: what ``FLModel.fit`` returned, with at least one epoch.

    Raises:
        ImportError: Matplotlib is not installed.
        TypeError: it is no history.
        ValueError: the history does not say who took part, as that of a fit without ``min_survivors``.
    """
    _check_history(history)
    epochs: list[list[list[str]]] = history.get("participants") or []
    rounds = [names for epoch in epochs for names in epoch]
    if not rounds:
        raise ArgumentError(
            "history must have participants, as that of a fit with min_survivors of SecurePruneAggregator "
            "has, got none"
        )
    parties = _parties(history["local_history"], rounds)
    there = np.array([[name in names for names in rounds] for name in parties], bool)
    figure, axes = _figure(1, 1, (10.0, 1.2 + 0.3 * len(parties)))
    extent = (0.5, len(rounds) + 0.5, len(parties) - 0.5, -0.5)
    axes.imshow(~there, cmap="gray", vmin=-0.4, vmax=1, aspect="auto", interpolation="nearest", extent=extent)
    axes.set_yticks(
        range(len(parties)),
        [f"{name} ({own.sum()} of {len(rounds)})" for name, own in zip(parties, there, strict=True)],
    )
    for ended in list(accumulate(map(len, epochs)))[:-1]:
        axes.axvline(ended + 0.5, color="tab:red", linewidth=1)
    for between in range(1, len(parties)):
        axes.axhline(between - 0.5, color="white", linewidth=2)
    axes.set_title("Who took part in which round")
    axes.set_xlabel("Round")
    axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _check_history(history: Any) -> None:
    columns = {"global_history", "local_history"}
    fits = isinstance(history, Mapping) and columns <= history.keys()
    _validate.check(fits, "history", history, "what FLModel.fit returned", TypeError)


def _parties(local: Columns, rounds: Sequence[Sequence[str]]) -> list[str]:
    """All parties, those that never took part among them, in the order of the history, then by name."""
    ended = "_round_payload_bytes"
    told = [name.removesuffix(ended) for name in local if name.endswith(ended)]
    return [*told, *sorted({name for names in rounds for name in names} - {*told})]


def _draw_densities(axes: Axes, rounds: Sequence[int], overall: Columns, local: Columns) -> None:
    layers: dict[str, list[Sequence[float]]] = {}
    for name, values in local.items():
        party_and_kind, found, layer = name.partition("_density.")
        if found and party_and_kind:
            layers.setdefault(layer, []).append(values)
    for layer, of_parties in layers.items():
        axes.plot(rounds, _means(of_parties), linewidth=1, label=layer)
    if "density" in overall:  # what a blind server's driver is told has none
        axes.plot(rounds, overall["density"], color="black", marker="o", markersize=3, label="all layers")


def _rounds(history: Mapping[str, Any]) -> list[int]:
    """How many rounds had been trained when each epoch ended."""
    of_parties = [
        by_epoch
        for name, by_epoch in history["local_history"].items()
        if name.endswith("_round_payload_bytes") and by_epoch
    ]
    if not of_parties:
        raise ArgumentError(
            "history must be one of fed_avg_w_prune with an epoch or more, got one without rounds"
        )
    # A party that dropped out was in fewer rounds, and one that came back late has no rounds before.
    lengths = history.get("participants") or [max(epoch, key=len) for epoch in zip(*of_parties, strict=True)]
    return list(accumulate(map(len, lengths)))


def _means(of_parties: Sequence[Sequence[float]]) -> list[float]:
    """The mean over the parties that have a number, for each epoch; NaN where none has."""
    known = [[value for value in epoch if not math.isnan(value)] for epoch in zip(*of_parties, strict=True)]
    return [sum(values) / len(values) if values else math.nan for values in known]


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
    epochs = len(overall["payload_bytes"])
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
