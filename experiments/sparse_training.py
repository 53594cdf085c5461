"""The sparse evaluation: accuracy and upload of sparse training with skewed labels, beside published methods.

``python -m experiments.sparse_training --help`` says what can be chosen.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from experiments.sparse.document import write_document
from experiments.sparse.grid import PARTS, Cell, cells
from experiments.sparse.results import Results
from experiments.sparse.running import run_cells, stacks
from experiments.workers import in_workers

RESULTS = "sparse.json"
INTERRUPTED = 130
_MODELS_ON_GPU = 80


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what is missing and writes the report.

    Args:
        arguments: the command line without the program's name; None is ``sys.argv``.

    Returns:
        The exit code: 0, or 130 if it was broken off with Ctrl-C; the finished runs are kept then.
    """
    parser = make_parser()
    chosen = parser.parse_args(arguments)
    if chosen.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device must be cpu on a machine without a GPU for torch, got cuda")
    try:
        chosen.out.mkdir(parents=True, exist_ok=True)
        results = Results(chosen.out / RESULTS)
        wanted = those_with(chosen.only, cells(chosen.part))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    missing = [cell for cell in wanted if cell not in results.done]
    print(f"{len(wanted)} runs, {len(wanted) - len(missing)} of them done before", file=sys.stderr)
    on_gpu, end = chosen.device == "cuda", time.monotonic() + 60 * chosen.minutes
    models = chosen.models or (_MODELS_ON_GPU if on_gpu else 1)
    processes = chosen.workers or (1 if on_gpu else min(os.cpu_count() or 1, max(1, len(missing))))
    in_time = itertools.takewhile(lambda _: time.monotonic() < end, stacks(missing, models))
    run = partial(run_cells, device=chosen.device, fashion_mnist=chosen.data)
    try:
        with tqdm(total=len(missing), unit="run") as bar:
            for _, rows in in_workers(run, in_time, processes, torch.set_num_threads, (1,)):
                results.add(rows)
                bar.update(len(rows))
    except KeyboardInterrupt:
        print(f"\nBroken off. The finished runs are in {chosen.out / RESULTS}.", file=sys.stderr)
        return INTERRUPTED
    except FileNotFoundError as error:
        parser.error(str(error))
    finally:
        if results.rows:
            write_document(results.rows, chosen.out)
    return 0


def those_with(values: str, some: Sequence[Cell]) -> list[Cell]:
    """The cells that have all of some values.

    Args:
        values: between commas, ``value`` of whatever field or ``field=value``.
        some: cells.

    Raises:
        ValueError: no cell has a value.
    """
    for word in filter(None, values.split(",")):
        field, _, value = word.partition("=")
        named = field in Cell._fields
        found = [
            cell for cell in some if word in map(str, cell) or (named and str(getattr(cell, field)) == value)
        ]
        if not found:
            known = sorted({str(getattr(cell, field)) for cell in some}) if named else Cell._fields
            raise ValueError(
                f"--only must name values of runs, {field if named else 'a field or its value'} of "
                f"{', '.join(known)}, got {word!r} in {values!r}"
            )
        some = found
    return list(some)


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=f"Trains many runs at once. Finished ones are added to {RESULTS} in --out at once, and "
        "one that is there is not repeated, so that a broken-off evaluation goes on where it was. Then "
        "sparse.md is written.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--part", choices=PARTS, default="measured", help="which runs")
    parser.add_argument(
        "--only",
        default="",
        metavar="VALUES",
        help="values between commas that a run must have, with the name of their field where others have the "
        f"same: mnist,ours,parties=10; fields are {', '.join(Cell._fields)}",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="what computes")
    parser.add_argument(
        "--models",
        type=_count,
        default=0,
        help=f"how many models are trained at once, whole runs of them; 0 is {_MODELS_ON_GPU} on a GPU and "
        "one run on a CPU",
    )
    parser.add_argument(
        "--workers",
        type=_count,
        default=0,
        help="processes, of one thread each if there are several; 0 is one on a GPU and one for each core on "
        "a CPU",
    )
    parser.add_argument("--minutes", type=_minutes, default=1e6, help="after which no more runs are begun")
    parser.add_argument(
        "--data",
        type=Path,
        help="folder with the IDX files of Fashion-MNIST; without it that of Debian's package",
    )
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="folder for what is made")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {number}")
    return number


def _minutes(text: str) -> float:
    number = float(text)
    if not number >= 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {text}")
    return number


if __name__ == "__main__":
    sys.exit(main())
