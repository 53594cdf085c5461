"""The evaluation: accuracy and upload of dense and pruned training over a grid of cases.

``python -m experiments.evaluate --help`` says what can be chosen.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from experiments.command_line import add_options
from experiments.data import Images, load_images
from experiments.evaluation.document import DOCUMENT, write_document
from experiments.evaluation.grid import Case, Recipe, grid, recipe_of, select
from experiments.evaluation.options import Options
from experiments.evaluation.results import Results

INTERRUPTED = 130
RESULTS = "training.json"
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts it."""

_COST = {"convnet": 1.0, "fedavg-cnn": 12.0}
"""Time that a row takes, beside the ConvNet's; for the time left only."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what is missing of the grid and writes the report.

    Args:
        arguments: the command line without the program's name; None is ``sys.argv``.

    Returns:
        The exit code: 0, or 130 if it was broken off with Ctrl-C; the finished runs are kept then.
    """
    parser = make_parser()
    chosen = Options(**vars(parser.parse_args(arguments)))
    try:
        jobs = _jobs(chosen)
        results = Results(chosen.out / RESULTS)
        for case, recipe in jobs:
            results.check_schedule(case, recipe)
        images = load_datasets({case.dataset for case, _ in jobs}, chosen.data)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    jobs = [(case, recipe) for case, recipe in jobs if case.dataset in images]
    missing = [(case, recipe) for case, recipe in jobs if not results.has(case, recipe)]
    print(f"{len(jobs)} runs, {len(jobs) - len(missing)} of them done before", file=sys.stderr)
    try:
        _run(missing, images, results)
    except KeyboardInterrupt:
        print(f"\nBroken off. The finished runs are in {chosen.out / RESULTS}.", file=sys.stderr)
        return INTERRUPTED
    finally:
        if results.rows:
            write_document(results.rows, chosen.out)
    print(f"Done: {chosen.out / DOCUMENT}")
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The command line of the evaluation."""
    parser = argparse.ArgumentParser(
        description="Trains dense and pruned over a grid of datasets, splits, parties, models, densities "
        f"and seeds. Each finished run is added to {RESULTS} in --out at once; a run that is there is not "
        f"repeated, so a broken-off evaluation goes on where it was. Then {DOCUMENT} and its pictures are "
        "written.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_options(parser, Options)
    return parser


def _jobs(chosen: Options) -> list[tuple[Case, Recipe]]:
    cases = select(grid(densities=chosen.densities, seeds=chosen.seeds), chosen.only)
    jobs = [(case, dataclasses.replace(recipe_of(case), **chosen.recipe_changes())) for case in cases]
    for _, recipe in jobs:
        if recipe.prune_end_epoch > recipe.epochs:
            raise ValueError(
                f"argument --prune-end-epoch: must be at most --epochs, {recipe.epochs}, got "
                f"{recipe.prune_end_epoch}"
            )
    if chosen.regrow_percent and any(case.method == "global" for case in cases):
        raise ValueError(
            "argument --regrow-percent: must be left out with global masks (--only dense,local), got "
            f"{chosen.regrow_percent}"
        )
    return jobs


def load_datasets(
    names: set[str], fashion_mnist: Path | None = None, installed: Path = FASHION_MNIST
) -> dict[str, Images]:
    """Loads the datasets; Fashion-MNIST is left out, with a word, if nobody named it and it is not installed.

    Args:
        names: of the datasets.
        fashion_mnist: folder that the user named for Fashion-MNIST, if any.
        installed: where it is otherwise.

    Returns:
        The images of each dataset that is there.

    Raises:
        FileNotFoundError: MNIST is not installed, or what the user named is not there.
        ValueError: a file is not what it should be.
    """
    images = {}
    if "fashion-mnist" in names:
        if fashion_mnist is None and not installed.exists():
            print(
                f"Fashion-MNIST is left out: {installed} does not exist. Install the Debian package "
                "dataset-fashion-mnist, or name a folder with --data.",
                file=sys.stderr,
            )
        else:
            images["fashion-mnist"] = load_images(fashion_mnist or installed)
    if "mnist" in names:
        images["mnist"] = load_images()
    return images


def _run(jobs: Sequence[tuple[Case, Recipe]], images: dict[str, Images], results: Results) -> None:
    """Runs the jobs one after the other and keeps each one's row."""
    if not jobs:
        return
    import torch

    import secretflow as sf
    from experiments.evaluation.run import SERVER, party_names, run_case

    torch.set_num_threads(1)  # nets this small gain little by more, and lose when cores are busy
    warnings.filterwarnings("ignore", message=".*mean of the parties' values$")  # as the report says
    names = party_names(max(case.parties for case, _ in jobs))
    sf.init([*names, SERVER], debug_mode=True, logging_level="error")
    logging.disable(logging.INFO)  # upstream logs the arguments of every fit
    costs = [recipe.rows * recipe.epochs * _COST[case.model] for case, recipe in jobs]
    shape = "{percentage:3.0f}% |{bar}| {elapsed} gone, {remaining} left {desc}"
    with tqdm(total=sum(costs), bar_format=shape) as progress:
        for (case, recipe), cost in zip(jobs, costs, strict=True):
            progress.set_description_str(str(case))
            # Upstream's workers print their metrics after each epoch, over the progress bar.
            with contextlib.redirect_stdout(None):
                row = run_case(case, recipe, images[case.dataset])
            results.add(row)
            progress.update(cost)


if __name__ == "__main__":
    sys.exit(main())
