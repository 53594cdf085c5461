"""What the rules about contributors cost in accuracy: training with and without them.

A weight with too few contributors does not travel, and goes on learning at each party that keeps it from that
party's rows alone. The runs are of the ConvNet on MNIST and differ in the aggregator's rules alone:

* ``without``: ``min_contributors=2, fixed_contributors=False``, as before the rules,
* ``three``: ``min_contributors`` as it is by default, ``fixed_contributors=False``,
* ``default``: both as they are by default.

    python -m benchmarks.contributors

With one mask for all (``global``) all parties contribute to all that travels, and the rules have nothing to
leave out. Each run is kept at once, so a run that was broken off goes on where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import secretflow as sf
from benchmarks.contributors_run import SCOPES, SERVER, SPLITS, Cell, Recipe, party_names, train
from benchmarks.environment import ROOT, describe, write_json
from experiments.data import Images, load_images

RULES: dict[str, dict[str, Any]] = {
    "without": {"min_contributors": 2, "fixed_contributors": False},
    "three": {"fixed_contributors": False},
    "default": {},
}
SEEDS = (1, 2, 3)
_TASK = {"dataset": "mnist", "model": "convnet"}


def cells(
    scopes: Sequence[str], parties: Sequence[int], densities: Sequence[float], seeds: Sequence[int]
) -> list[Cell]:
    """Each split, scope of masks, number of parties, density and seed.

    Args:
        scopes: of :data:`~benchmarks.contributors_run.SCOPES`.
        parties: numbers of parties, each at least 3.
        densities: of the pruned runs.
        seeds: of the runs.
    """
    return [
        Cell(split, scope, count, density, seed)
        for seed in seeds
        for scope in scopes
        for split in SPLITS
        for count in parties
        for density in densities
    ]


def measure(cell: Cell, rules: str, images: Images, recipe: Recipe) -> dict[str, Any]:
    """One run: the accuracy after the last epoch, in percent, and the bytes that a party has uploaded.

    Args:
        cell: of :func:`cells`. SecretFlow has its parties.
        rules: a name in :data:`RULES`.
        images: MNIST.
        recipe: how it is trained.
    """
    with contextlib.redirect_stdout(None):  # upstream's workers print their metrics
        accuracy, sent = train(cell, recipe, images, RULES[rules])
    made = {"accuracy": accuracy, "bytes": sent, "rows": recipe.rows, "epochs": recipe.epochs}
    return {**cell._asdict(), "rules": rules, **made}


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each cell over its seeds, and for all: points lost by the rules, and bytes over those without.

    Args:
        rows: of :func:`measure`; seeds that have not been run under all rules are left out.
    """
    by_run: dict[tuple[Any, ...], dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        by_run.setdefault(tuple(row[name] for name in Cell._fields), {})[row["rules"]] = row
    runs = [run for run, found in by_run.items() if found.keys() == RULES.keys()]
    lines = []
    for cell in dict.fromkeys([run[:-1] for run in runs] + [()]):
        same = [run for run in runs if run[: len(cell)] == cell]
        of_cell: dict[str, Any] = {
            **dict(zip(Cell._fields, cell, strict=False)),
            "seeds": len({run[-1] for run in same}),
        }
        for rules in ("three", "default") if same else ():
            pairs = [(by_run[run]["without"], by_run[run][rules]) for run in same]
            lost = [before["accuracy"] - after["accuracy"] for before, after in pairs]
            of_cell[rules] = {
                "points_lost": round(statistics.fmean(lost), 2),
                "points_lost_most": round(max(lost), 2),
                "bytes": round(
                    statistics.fmean(after["bytes"] / before["bytes"] for before, after in pairs), 3
                ),
            }
        lines.append(of_cell)
    return lines


def main() -> None:
    """Writes ``benchmarks/results/contributors.json``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--scopes", nargs="+", choices=SCOPES, default=list(SCOPES), help="of masks")
    parser.add_argument("--parties", nargs="+", type=int, default=[5, 10], help="numbers of parties")
    parser.add_argument("--densities", nargs="+", type=float, default=[0.3, 0.1], help="of the pruned runs")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS), help="of the runs")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "contributors.json")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(chosen.out.read_text(encoding="utf-8"))["rows"] if chosen.out.exists() else []
    done = {(*(row[name] for name in Cell._fields), row["rules"]) for row in rows}
    wanted = [
        (cell, rules)
        for cell in cells(chosen.scopes, chosen.parties, chosen.densities, chosen.seeds)
        for rules in RULES
        if (*cell, rules) not in done
    ]
    sf.init([*party_names(max(chosen.parties)), SERVER], debug_mode=True, logging_level="error")
    logging.disable(logging.INFO)  # upstream logs the arguments of every fit
    images = load_images()
    for cell, rules in tqdm(wanted, desc="runs"):
        rows.append(measure(cell, rules, images, Recipe()))
        write_json(chosen.out, {**describe(), **_TASK, "summary": summary(rows), "rows": rows})
    for line in summary(rows):
        print(line)


if __name__ == "__main__":
    main()
