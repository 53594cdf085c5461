"""The command line of the audit."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from pathlib import Path

from experiments.audit.cells import ATTACKS, DEFENCES, GROUP, NOISE, REMOVED, VIEWS
from experiments.audit.data import ATTACKED
from experiments.audit.effort import Effort
from experiments.command_line import refuse

DATASETS = ("MNIST", "colour crops", "CIFAR-100")

_EFFORT = {
    "images": "images to attack in each row, of padded uploads four times as many",
    "first": "number of the first of them; settings were chosen on those from 50 on",
    "restarts": "random starts of DLG and iDLG",
    "slow_restarts": "the same on updates of five steps and on aggregates",
    "iterations": "steps of 20 evaluations of DLG and iDLG",
    "adam_iterations": "steps of 20 evaluations of Inverting Gradients",
    "patience": "steps without progress after which to give up",
    "start_mean": "of the random starts of DLG and iDLG",
    "start_deviation": "of these random starts",
    "tv_weight": "total variation in Inverting Gradients",
    "seed": "of nets and random starts",
}
"""What the numbers of the effort are, by name."""


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
    for name, what in _EFFORT.items():
        default = getattr(effort, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help=what)
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
            _refuse(parser, name, "at least 1", getattr(chosen, name))
    # Aggregates of eight parties attack whole groups, and identification needs them among its candidates.
    most = ATTACKED - GROUP
    if not 0 <= chosen.first <= most - 1:
        _refuse(parser, "first", f"from 0 to {most - 1}", chosen.first)
    if chosen.images > most - chosen.first:
        what = f"at most {most - chosen.first} with --first {chosen.first}"
        _refuse(parser, "images", what, chosen.images)
    if not chosen.minutes > 0:
        _refuse(parser, "minutes", "above 0", chosen.minutes)
    if any(not 0 <= level < 1 for level in chosen.removed):
        _refuse(parser, "removed", "parts in [0, 1)", chosen.removed)
    if any(not 0 < level < float("inf") for level in chosen.noise):
        _refuse(parser, "noise", "numbers above 0", chosen.noise)
    if not 0 <= chosen.tv_weight < float("inf"):
        _refuse(parser, "tv_weight", "a number of at least 0", chosen.tv_weight)
    effort = Effort(**{name: getattr(chosen, name) for name in asdict(Effort())})
    try:
        effort.dlg(1), effort.inverting(1)
    except ValueError as error:
        refuse(parser, Effort, error)
    return effort


def _refuse(parser: argparse.ArgumentParser, name: str, what: str, value: object) -> None:
    parser.error(f"argument --{name.replace('_', '-')}: must be {what}, got {value}")
