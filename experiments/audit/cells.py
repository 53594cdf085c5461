"""What the audit measures: one cell is one attacker against one defence on some images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from secretflow.ml.nn.fl.attacks.views import Knowledge

REMOVED = (0.0, 0.05, 0.1, 0.2, 0.5, 0.8, 0.9, 0.95, 0.99)
NOISE = (1e-4, 1e-3, 3e-3, 1e-2, 1e-1)
ATTACKS = ("DLG", "iDLG", "Inverting Gradients", "closed form")
VIEWS = (
    "gradient",
    "update k=1",
    "update k=5",
    "aggregate n=2",
    "aggregate n=4",
    "aggregate n=8",
    "padded upload",
)
PRUNING, SPARSE, WITHHELD, NOISY, SECURE, NONE = (
    "weight pruning",
    "gradient sparsification",
    "withholding",
    "Gaussian noise",
    "secure aggregation",
    "none",
)
DEFENCES = (NONE, PRUNING, SPARSE, WITHHELD, NOISY, SECURE)
OBLIVIOUS, WEIGHTS_ONLY, KNOWN, INFERRED = (knowledge.value for knowledge in Knowledge)
ZEROS_COUNT, ZEROS_LEFT_OUT = "takes zeros for numbers", "leaves zeros out"
NOTHING = "nothing to know"

_SOME = (0.5, 0.9, 0.99)
"""Rates at which attackers are measured for which all rates would take too long."""


@dataclass(frozen=True)
class Cell:
    """One attacker against one defence.

    Attributes:
        data: name of the dataset.
        attack: one of ``ATTACKS``.
        view: one of ``VIEWS``.
        defence: one of ``DEFENCES``.
        level: part of the entries that the defence removes, in [0, 1); of Gaussian noise its standard
            deviation relative to the norm of the gradient.
        knowledge: what the attacker does about it.
    """

    data: str
    attack: str
    view: str
    defence: str
    level: float
    knowledge: str

    def cost(self) -> float:
        """Roughly how long it takes beside others; only the time that is said to be left depends on it."""
        if self.attack == "closed form":
            return 0.05
        steps = 5.0 if self.view == "update k=5" else 1.0
        gives_up = self.knowledge in (OBLIVIOUS, WEIGHTS_ONLY, ZEROS_COUNT) and self.attack in ("DLG", "iDLG")
        return (
            steps * (0.4 if gives_up and self.level > 0.1 else 1.0) * (1.0 if self.data == "MNIST" else 8.0)
        )

    def as_dict(self) -> dict[str, Any]:
        """Its fields, for a row of the report."""
        return asdict(self)


def plan(
    datasets: Sequence[str], removed: Sequence[float] = REMOVED, noise: Sequence[float] = NOISE
) -> list[Cell]:
    """All cells of an audit, what matters most first.

    The first dataset gets every attacker and defence, the others a control and pruning at one rate.
    DLG, which is quickest to give up, meets every kind of knowledge at every rate. Where nothing is
    removed there is nothing to know, so one attacker is the control of all.

    Args:
        datasets: names.
        removed: parts that pruning, sparsification and withholding remove.
        noise: standard deviations of the noise.
    """
    first, *others = datasets
    some = [level for level in removed if level in _SOME]
    cells = [_pruned(first, attack, 0.0, KNOWN) for attack in ATTACKS if 0.0 in removed]
    for data in others:
        cells += [_pruned(data, attack, 0.0, KNOWN) for attack in ("iDLG", "closed form") if 0.0 in removed]
    for level in removed:
        everyone = (OBLIVIOUS, WEIGHTS_ONLY, KNOWN, INFERRED) if level else (KNOWN,)
        cells += [_pruned(first, "DLG", level, knowledge) for knowledge in everyone]
        cells += [
            _pruned(first, "closed form", level, knowledge)
            for knowledge in everyone
            if knowledge != WEIGHTS_ONLY  # it does not look at weights
        ]
    cells += [Cell(first, attack, "padded upload", SECURE, 0.0, NOTHING) for attack in ATTACKS[:3]]
    for level in [level for level in removed if level]:
        for knowledge in (ZEROS_LEFT_OUT, ZEROS_COUNT) if level in some else (ZEROS_LEFT_OUT,):
            cells += [_sparse(first, defence, level, knowledge) for defence in (SPARSE, WITHHELD)]
    for view in VIEWS[1:6]:
        attack = "DLG" if view.startswith("aggregate") else "iDLG"
        cells += [Cell(first, attack, view, PRUNING, level, KNOWN) for level in (0.0, *some[:1])]
        cells += [Cell(first, attack, view, PRUNING, level, OBLIVIOUS) for level in some[:1]]
    cells += [Cell(first, ATTACKS[2], "gradient", NOISY, level, NOTHING) for level in noise]
    for level in some:
        cells += [_pruned(first, ATTACKS[2], level, knowledge) for knowledge in (KNOWN, OBLIVIOUS)]
        cells += [_pruned(first, "iDLG", level, KNOWN)]
    for data in others:
        cells += [_pruned(data, "iDLG", level, KNOWN) for level in some[:1]]
        cells += [_pruned(data, "iDLG", level, OBLIVIOUS) for level in some[:1]]
    return list(dict.fromkeys(cells))


def _pruned(data: str, attack: str, level: float, knowledge: str) -> Cell:
    return Cell(data, attack, "gradient", PRUNING, level, knowledge)


def _sparse(data: str, defence: str, level: float, knowledge: str) -> Cell:
    # What is withheld is what the label would be read off, so this attacker must guess it.
    attack = "DLG" if defence == WITHHELD else "iDLG"
    return Cell(data, attack, "gradient", defence, level, knowledge)
