"""What the audit measures: one cell is one attacker against one defence on some images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from secretflow.ml.nn.fl.audit.views import Knowledge

REMOVED = (0.0, 0.05, 0.1, 0.2, 0.5, 0.8, 0.9, 0.95, 0.99)
NOISE = (1e-4, 1e-3, 3e-3, 1e-2, 1e-1)
ATTACKS = ("DLG", "iDLG", "Inverting Gradients", "closed form")
PADDED = "padded upload"
VIEWS = (
    "gradient",
    "update k=1",
    "update k=5",
    "aggregate n=2",
    "aggregate n=4",
    "aggregate n=8",
    PADDED,
)
GROUP = 8
"""Parties of the largest aggregate."""
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

_BOTH = (KNOWN, OBLIVIOUS)
_ATTACKERS = {
    "DLG": (OBLIVIOUS, WEIGHTS_ONLY, KNOWN, INFERRED),
    "iDLG": _BOTH,
    "Inverting Gradients": _BOTH,
    "closed form": (OBLIVIOUS, KNOWN, INFERRED),  # it does not look at weights
}


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
        if self.knowledge == INFERRED:
            return 0.05  # the mask that is inferred is nearly always the one that is known
        steps = 3.0 if self.view in ("update k=5", "aggregate n=2") else 1.0
        gives_up = self.knowledge in (OBLIVIOUS, WEIGHTS_ONLY, ZEROS_COUNT) and self.attack in ("DLG", "iDLG")
        return (
            steps * (0.4 if gives_up and self.level > 0.1 else 1.0) * (1.0 if self.data == "MNIST" else 6.0)
        )

    def as_dict(self) -> dict[str, Any]:
        """Its fields, for a row of the report."""
        return asdict(self)


def plan(
    datasets: Sequence[str], removed: Sequence[float] = REMOVED, noise: Sequence[float] = NOISE
) -> list[Cell]:
    """All cells of an audit, what matters most first.

    On the first dataset every attack, with and without the mask, meets every pruning rate, DLG with every
    kind of knowledge, and then every other view and defence; the others get a control and pruning at one
    rate. Where nothing is removed there is nothing to know, so one attacker is the control of all.

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
    for level in [level for level in removed if level]:
        for attack, attackers in _ATTACKERS.items():
            cells += [_pruned(first, attack, level, knowledge) for knowledge in attackers]
    cells += [Cell(first, attack, PADDED, SECURE, 0.0, NOTHING) for attack in ATTACKS[:3]]
    for data in others:
        cells += [_pruned(data, "iDLG", level, knowledge) for level in some[:1] for knowledge in _BOTH]
    for view in VIEWS[1:6]:
        attack = "DLG" if view.startswith("aggregate") else "iDLG"
        cells += [Cell(first, attack, view, PRUNING, 0.0, KNOWN)] if 0.0 in removed else []
        # One step is the gradient again, so there nothing is to be inferred that was not measured.
        attackers = _BOTH if view == "update k=1" else (KNOWN, INFERRED, OBLIVIOUS)
        cells += [Cell(first, attack, view, PRUNING, level, who) for level in some[:1] for who in attackers]
    cells += [Cell(first, ATTACKS[2], "gradient", NOISY, level, NOTHING) for level in noise]
    for level in [level for level in removed if level]:
        for knowledge in (ZEROS_LEFT_OUT, ZEROS_COUNT) if level in some[:1] else (ZEROS_LEFT_OUT,):
            cells += [_sparse(first, defence, level, knowledge) for defence in (SPARSE, WITHHELD)]
    return cells


def _pruned(data: str, attack: str, level: float, knowledge: str) -> Cell:
    return Cell(data, attack, "gradient", PRUNING, level, knowledge)


def _sparse(data: str, defence: str, level: float, knowledge: str) -> Cell:
    # What is withheld is what the label would be read off, so this attacker must guess it.
    attack = "DLG" if defence == WITHHELD else "iDLG"
    return Cell(data, attack, "gradient", defence, level, knowledge)
