"""Measures the strong attackers and writes ``leakage.json``; ``--tables`` prints it as the tables of a page.

``python -m experiments.audit.strong --out docs/results/leakage.json`` measures what is not there yet.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn

from experiments.audit import (
    strong_adam,
    strong_averages,
    strong_cocktail,
    strong_exact,
    strong_fedavg,
    strong_grouping,
    strong_noise,
    strong_own_masks,
    strong_pruned,
    strong_rounds,
    strong_settings,
    strong_trained,
)
from experiments.audit.strong_scores import CANDIDATES, Material, load_material
from experiments.audit.strong_tables import Row, cells, tables
from secretflow._atomic import write_text

Measure = Callable[[Material, int], Iterator[Row]]

PAGE = Path(__file__).parents[2] / "docs/results/leakage.md"
"""Where the tables of the rows beside it stand."""


def _lenet(density: float, attacks: Sequence[str], bits: int | None = None) -> Measure:
    return lambda material, images: strong_settings.lenet_gradients(material, images, density, attacks, bits)


def _perceptron(density: float) -> Measure:
    return lambda material, images: strong_settings.perceptron_gradients(material, images, density)


def _lenet_batches(density: float, batch: int) -> Measure:
    return lambda material, images: strong_settings.lenet_batches(material, images, density, batch)


def _average(parties: int, equal: bool = True) -> Measure:
    return lambda material, images: strong_averages.averages(material, images, parties, equal)


def _candidates_in_average(parties: int) -> Measure:
    return lambda material, images: strong_averages.candidates_in_averages(material, images, parties)


def _rounds(rounds: int, parties: int, equal: bool = True) -> Measure:
    return lambda material, _: strong_rounds.rounds_of_averages(material, rounds, parties, equal)


def _pruned(density: float, own_masks: bool, parties: int) -> Measure:
    return lambda material, images: strong_pruned.pruned_averages(
        material, images, density, own_masks, parties
    )


def _trained(epochs: int, density: float, steps: int = 1) -> Measure:
    return lambda material, images: strong_trained.trained_gradients(material, images, epochs, density, steps)


def _trained_searches(epochs: int, density: float) -> Measure:
    return lambda material, images: strong_trained.trained_searches(material, images, epochs, density)


def _batches(epochs: int, density: float, batch: int) -> Measure:
    return lambda material, images: strong_trained.trained_batches(material, images, epochs, density, batch)


def _exact(batch: int, dtype: torch.dtype) -> Measure:
    return lambda material, images: strong_exact.exact_batches(material, images, batch, dtype)


def _exact_of_one_label(batch: int, neurons: int) -> Measure:
    return lambda material, images: strong_exact.batches_of_one_label(material, images, batch, neurons)


def _exact_average(density: float, own_masks: bool, parties: int) -> Measure:
    return lambda material, images: strong_pruned.exact_averages(
        material, images, density, own_masks, parties
    )


def _searched(parties: int, model: Callable[[], nn.Module], net: str) -> Measure:
    return lambda material, images: strong_own_masks.masked_averages(
        material, images, 0.1, parties, model, net
    )


def _adam(density: float, fresh: bool) -> Measure:
    return lambda material, images: strong_adam.adam_updates(material, images, 1, density, fresh)


def _noisy(epsilon: float) -> Measure:
    return lambda material, images: strong_noise.noisy_averages(material, images, 16, epsilon)


def _percent(density: float) -> str:
    return "dense" if density == 1 else f"{100 * density:g} %"


def _rounded(bits: int | None) -> str:
    return "" if bits is None else f", {bits} bits"


SETTINGS: Mapping[str, Measure] = {
    "baselines": strong_settings.baselines,
    "perceptron 5 %": _perceptron(0.05),
    "perceptron 2 %": _perceptron(0.02),
    **{f"average of {n}": _average(n) for n in (1, 2, 4, 8, 16, 32, 64, 128)},
    **{f"average of {n}, candidates": _candidates_in_average(n) for n in (64, 128, 256, 512)},
    "average of 16, unequal": _average(16, equal=False),
    **{
        f"{name} rounds of 32": _rounds(rounds, 32)
        for name, rounds in (("ten", 10), ("twenty", 20), ("fifty", 50))
    },
    "ten rounds of 16, unequal": _rounds(10, 16, equal=False),
    **{
        f"average of {parties}, 10 %, {'own masks' if own_masks else 'one mask'}": _pruned(
            0.1, own_masks, parties
        )
        for own_masks in (False, True)
        for parties in (2, 4, 8, 16, 32, 64, 128)
    },
    **{
        f"average of {parties}, 10 %, {'own masks' if own_masks else 'one mask'}, exact": _exact_average(
            0.1, own_masks, parties
        )
        for own_masks in (False, True)
        for parties in (2, 4, 8)
    },
    **{
        f"average of {parties}, 10 %, own masks{name}, searched": _searched(parties, model, net)
        for name, model, net, counts in (
            ("", strong_averages.perceptron, "784-256-10 ReLU", (2, 4, 8, 16, 32)),
            (", LeNet", strong_own_masks.lenet, "LeNet", (2, 4, 8, 16)),
        )
        for parties in counts
    },
    **{
        f"exact batches of {batch}{name}": _exact(batch, dtype)
        for batch in (16, 20, 25)
        for name, dtype in (("", torch.float32), (", float64", torch.float64))
    },
    **{
        f"exact batches of 8 of one label, {neurons} neurons": _exact_of_one_label(8, neurons)
        for neurons in (20, 50, 100, 200)
    },
    "updates of five parties": strong_fedavg.rounds_of_updates,
    "updates of five parties, grouped": strong_grouping.grouped_updates,
    "updates of five unequal parties, grouped": partial(strong_grouping.grouped_updates, equal=False),
    **strong_cocktail.SETTINGS,
    "LeNet, 99 % of each gradient pruned": strong_settings.lenet_pruned_gradients,
    **{
        f"LeNet {100 * density:g} %, {attack}": _lenet(density, (attack,))
        for density in (0.1, 0.05, 0.02, 0.01)
        for attack in ("learned", "prior")
    },
    **{
        f"LeNet {_percent(density)}, {bits} bits, {attack}": _lenet(density, (attack,), bits)
        for density, attacks in ((1.0, ("prior", "iDLG")), (0.1, ("learned", "prior")))
        for bits in (8, 4, 2)
        for attack in attacks
    },
    **{
        f"LeNet {_percent(density)}{_rounded(bits)}, candidates": _lenet(density, ("candidates",), bits)
        for density, bits in (
            *((d, None) for d in (0.1, 0.05, 0.02, 0.01)),
            *((d, b) for d in (1.0, 0.1, 0.01) for b in (8, 4, 2)),
        )
    },
    **{
        f"LeNet {_percent(density)}, batch of {batch}": _lenet_batches(density, batch)
        for density in (1.0, 0.1, 0.02)
        for batch in (8, 32)
    },
    **{
        f"ConvNet {_percent(density)}, {epochs} epochs": _trained(epochs, density)
        for epochs in (0, 1, 3, 10)
        for density in (1.0, 0.1)
    },
    **{
        f"ConvNet {_percent(density)}, DLG and direction": _trained_searches(3, density)
        for density in (1.0, 0.1)
    },
    **{
        f"ConvNet {_percent(density)}, 5 local steps": _trained(3, density, steps=5) for density in (1.0, 0.1)
    },
    **{
        f"ConvNet {_percent(density)}, batch of {batch}": _batches(3, density, batch)
        for density in (1.0, 0.1)
        for batch in (8, 32)
    },
    **{
        f"ConvNet {_percent(density)}, Adam{', first step' if fresh else ''}": _adam(density, fresh)
        for density in (1.0, 0.1)
        for fresh in (False, True)
    },
    **{
        f"average of 16, {'no noise' if epsilon == math.inf else f'noise of epsilon {epsilon:g}'}": _noisy(
            epsilon
        )
        for epsilon in (math.inf, 1e6, 1e5, 1e4, 10)
    },
}
"""By name, in the order in which they are measured and printed; "learned" has the regression with it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what is missing.

    Args:
        arguments: the command line without the program's name; None is ``sys.argv``.
    """
    chosen = _parsed(arguments)
    rows = _rows(chosen.out)
    if chosen.tables:
        print(tables(rows, list(SETTINGS)))
        return 0
    torch.set_num_threads(chosen.threads)
    effort = {"images": chosen.images, "public": chosen.public}
    end = time.monotonic() + 60 * chosen.minutes
    done = {row["setting"] for row in rows if row["effort"] == effort}
    waiting = [name for name in chosen.settings if name not in done]
    material = load_material(chosen.public) if waiting else None
    for name in waiting:
        if time.monotonic() > end or material is None:
            break
        new = [{"setting": name, **row, "effort": effort} for row in SETTINGS[name](material, chosen.images)]
        # Read again, for another command may have measured other settings meanwhile.
        rows = [row for row in _rows(chosen.out) if row["setting"] != name] + new
        rows.sort(key=lambda row: list(SETTINGS).index(row["setting"]))
        write_text(chosen.out, json.dumps({"rows": rows}, indent=1) + "\n")
        for row in new:
            print(" | ".join(cells(row)), flush=True)
    return 0


def _rows(out: Path) -> list[Row]:
    """Rows that are there, but for those of settings that there were once."""
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"] if out.exists() else []
    return [row for row in rows if row["setting"] in SETTINGS]


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measures the strong attackers, setting by setting. Goes on where it was stopped.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="the file of rows to write or go on with")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="to measure")
    parser.add_argument("--images", type=int, default=100, help="to attack in each setting")
    parser.add_argument("--public", type=int, default=20_000, help="images that the attacker has")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--minutes", type=float, default=60.0, help="start no further setting after that")
    parser.add_argument("--tables", action="store_true", help="print the tables of the rows, measure nothing")
    chosen = parser.parse_args(arguments)
    for name, most in (("images", CANDIDATES // 2), ("public", 49_000), ("threads", 64)):
        least = 2 if name == "public" else 1
        if not least <= getattr(chosen, name) <= most:
            parser.error(f"--{name} {getattr(chosen, name)} is not allowed: from {least} to {most}")
    return chosen


if __name__ == "__main__":
    sys.exit(main())
