"""The pictures of the main job."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch

from secretflow.ml.nn.fl.attacks import Reconstruction, Snapshot
from secretflow.ml.nn.fl.audit.scores import mean_squared_error

matplotlib.use("Agg")  # files only, no window

from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

Epochs = Sequence[dict[str, float]]

GRID = (3, 10)
_DPI = 150
_DOTS: dict[str, Any] = {"marker": "o", "markersize": 4}


def draw_accuracy(epochs: Epochs, title: str, path: Path) -> None:
    """Draws training and validation accuracy over the rounds.

    Args:
        epochs: what is known of each epoch.
        title: of the picture.
        path: file to write.
    """
    figure, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    for name, label in (("multiclassaccuracy", "training"), ("val_multiclassaccuracy", "validation")):
        _draw_curve(axes, epochs, name, label)
    axes.set_title(title)
    _finish_axes(axes)
    axes.legend(loc="lower right")
    _save(figure, path)


def draw_comparison(plain: Epochs, pruned: Epochs, path: Path) -> None:
    """Draws the validation accuracy of both runs and the density of the pruned one, on one axis from 0 to 1.

    Args:
        plain: epochs without pruning.
        pruned: epochs with pruning.
        path: file to write.
    """
    figure, axes = plt.subplots(figsize=(7.2, 4.6), layout="constrained")
    name = "val_multiclassaccuracy"
    _draw_curve(
        axes, plain, name, f"accuracy without pruning: {plain[-1][name]:.1%} at the end", color="tab:blue"
    )
    _draw_curve(axes, pruned, name, f"accuracy with pruning: {pruned[-1][name]:.1%}", color="tab:orange")
    living = f"fraction of the weights that live: {pruned[-1]['density']:.2f}"
    _draw_curve(axes, pruned, "density", living, color="tab:gray", linestyle="--")
    axes.set_title("Validation accuracy with and without pruning")
    _finish_axes(axes)
    axes.set_ylabel("Accuracy, density")
    axes.legend(loc="lower left")
    _save(figure, path)


def draw_reconstruction(history: Sequence[Snapshot], truth: torch.Tensor, title: str, path: Path) -> None:
    """Draws the true image and how the reconstruction went, 30 steps at most from first to last.

    Args:
        history: frames of a reconstruction.
        truth: the true image, float of shape (1, 1, height, width) in [0, 1].
        title: of the picture.
        path: file to write.
    """
    columns = GRID[1]
    chosen = spread(history, GRID[0] * columns)
    rows = math.ceil(len(chosen) / columns)
    figure = plt.figure(figsize=(16.5, 0.5 + 1.95 * rows), layout="constrained")
    grid = figure.add_gridspec(rows, columns + 2)
    true_axes = figure.add_subplot(grid[:, :2])
    _show(true_axes, truth)
    true_axes.set_title("true image", fontsize=12)
    for place, frame in enumerate(chosen):
        axes = figure.add_subplot(grid[place // columns, 2 + place % columns])
        _show(axes, frame.images)
        error = mean_squared_error(frame.images, truth)
        axes.set_title(f"iter {frame.iteration}\nloss {frame.loss:.2g}\nMSE {error:.2g}", fontsize=8.5)
    figure.suptitle(textwrap.fill(title, 120), fontsize=13)
    _save(figure, path)


def draw_attackers(
    reconstructions: Sequence[tuple[str, Reconstruction, str]], truth: torch.Tensor, title: str, path: Path
) -> None:
    """Draws the true image beside what several attackers got back.

    Args:
        reconstructions: name of the attacker, its reconstruction, and what came back in words.
        truth: the true image, float of shape (1, 1, height, width) in [0, 1].
        title: of the picture.
        path: file to write.
    """
    figure, places = plt.subplots(
        1, len(reconstructions) + 1, figsize=(3.4 * (len(reconstructions) + 1), 4.9), layout="constrained"
    )
    _show(places[0], truth)
    places[0].set_title("true image")
    for axes, (name, found, verdict) in zip(places[1:], reconstructions, strict=True):
        _show(axes, found.images)
        words = textwrap.fill(verdict, 34)
        axes.set_title(f"{name}\niter {found.iteration}, loss {found.loss:.2g}\n{words}", fontsize=10)
    figure.suptitle(title)
    _save(figure, path)


def spread(history: Sequence[Snapshot], count: int) -> list[Snapshot]:
    """Picks at most ``count`` frames, the first and the last among them, evenly between."""
    places = np.unique(np.linspace(0, len(history) - 1, min(count, len(history))).round().astype(int))
    return [history[place] for place in places]


def _show(axes: Any, images: torch.Tensor) -> None:
    axes.imshow(images[0, 0].clamp(0, 1).numpy(force=True), cmap="gray", vmin=0, vmax=1)
    axes.axis("off")


def _draw_curve(axes: Any, epochs: Epochs, name: str, label: str, **how: Any) -> None:
    rounds = [row["rounds"] for row in epochs]
    axes.plot(rounds, [row[name] for row in epochs], **_DOTS, label=label, **how)


def _finish_axes(axes: Any) -> None:
    axes.set_xlabel("Round")
    axes.set_ylabel("Accuracy")
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=_DPI)
    plt.close(figure)
