"""How far a party has come in a fit, as it tells its driver."""

from __future__ import annotations

from dataclasses import dataclass, field

from secretflow.ml.nn.fl.epoch_reports import SurvivorReport
from secretflow.ml.nn.fl.plan import Round
from secretflow.ml.nn.fl.worker.totals import Told


@dataclass(frozen=True)
class Taken:
    """A round as one party has seen it.

    Attributes:
        round: of the plan.
        parties: whose uploads are in its average; empty if it has none.
    """

    round: Round
    parties: tuple[str, ...]


@dataclass
class Progress:
    """How far a party has come.

    Attributes:
        passed: how many entries of the plan, rounds and ends of epochs, are behind it.
        planned: how many there are.
        trained: epochs before the fit.
        taken: rounds passed since this was asked last.
        reports: for each end of an epoch passed since then, what this party has measured in it, by its name.
        totals: for each of them the metrics of those who were there, and the names of those that do not add
            up; None where nothing was added up.
        there: who takes part in the next round.
    """

    passed: int = 0
    planned: int = 0
    trained: int = 0
    taken: list[Taken] = field(default_factory=list)
    reports: dict[int, dict[str, SurvivorReport]] = field(default_factory=dict)
    totals: dict[int, Told | None] = field(default_factory=dict)
    there: tuple[str, ...] = ()
