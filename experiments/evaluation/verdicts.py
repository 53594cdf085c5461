"""Means over seeds, and whether the targets are met, computed from the rows alone."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.evaluation.grid import DENSE, has_targets
from experiments.evaluation.results import Row, case_of, group_of

MET, MISSED, NOT_MEASURED = "met", "missed", "not measured"


@dataclass(frozen=True)
class Summary:
    """What the seeds of one method at one density say together.

    Attributes:
        method: "dense", "local" or "global".
        density: in (0, 1].
        rows: one for each seed.
        accuracy: mean, in percent.
        deviation: sample standard deviation of the accuracy, in points; None of one seed.
        loss: mean over the seeds of the dense run's accuracy minus this one's, in points; None without one.
        loss_deviation: sample standard deviation of that difference, in points; None of less than two.
        bytes: mean upload of a party.
        to_target: mean upload of a party until the target is reached; None if a seed never reached it.
        reached: how many seeds reached the target.
        seconds: mean.
    """

    method: str
    density: float
    rows: Sequence[Row]
    accuracy: float
    deviation: float | None
    loss: float | None
    loss_deviation: float | None
    bytes: float
    to_target: float | None
    reached: int
    seconds: float


@dataclass(frozen=True)
class Target:
    """One target, for MNIST, IID, two parties.

    Attributes:
        model: "convnet" or "fedavg-cnn".
        density: of the pruned runs.
        within: points that the accuracy may be below the dense runs'; None for a target of bytes.
        fewer: how many times fewer bytes a party shall upload until its accuracy has reached the dense run's
            final one minus 1 point; None for a target of accuracy.
    """

    model: str
    density: float
    within: float | None = None
    fewer: float | None = None

    def __str__(self) -> str:
        if self.within is not None:
            return f"accuracy within {self.within:g} points of dense"
        return f"upload to dense final accuracy minus 1 point at least {self.fewer:g} times smaller"


TARGETS = (
    Target("convnet", 0.6, within=0.75),
    Target("convnet", 0.3, within=2.0),
    Target("convnet", 0.1, within=5.0),
    Target("fedavg-cnn", 0.1, within=0.5),
    Target("convnet", 0.1, fewer=4.0),
    Target("fedavg-cnn", 0.1, fewer=4.0),
)


@dataclass(frozen=True)
class Verdict:
    """Whether one mask scope meets one target.

    Attributes:
        target: the target.
        method: "local" or "global".
        outcome: :data:`MET`, :data:`MISSED` or :data:`NOT_MEASURED`.
        measured: the figure, in words.
        pruned: the runs that were judged; None if some are missing.
    """

    target: Target
    method: str
    outcome: str
    measured: str
    pruned: Summary | None


STALLED_POINTS = 5.0
"""A dense run that ends so many points below the best seed of its group has stalled.

The ConvNet ends in a softmax and is trained with a loss that applies another, so its gradient vanishes where
it is surely wrong: with some initial weights it does not learn one or two of the digits for many epochs.
"""


def groups(rows: Iterable[Row]) -> dict[tuple[Any, ...], list[Row]]:
    """The rows of each table."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(group_of(row), []).append(row)
    return dict(sorted(found.items()))


def method_of(row: Row) -> str:
    """Which method a row measures: "dense", "local" or "global"."""
    return "dense" if row["strategy"] == DENSE else row["scope"]


def summaries(rows: Iterable[Row]) -> list[Summary]:
    """Means over the seeds of one group.

    Args:
        rows: of one group.

    Returns:
        One summary for each method and density: dense first, then falling densities.
    """
    rows = list(rows)
    dense = {row["seed"]: row["accuracy"] for row in rows if method_of(row) == "dense"}
    kinds = {(method_of(row), row["density"]) for row in rows}
    order = sorted(kinds, key=lambda kind: (kind[0] != "dense", kind[0] != "local", -kind[1]))
    return [
        _summary(kind, [row for row in rows if (method_of(row), row["density"]) == kind], dense)
        for kind in order
    ]


def verdicts(rows: Iterable[Row], targets: Sequence[Target] = TARGETS) -> list[Verdict]:
    """Judges every target for both mask scopes.

    Seeds of which the dense run has stalled do not count, for beside it any pruning looks good.

    Args:
        rows: of all runs. Where a case was measured with several recipes, that of the most training counts.
        targets: what is judged.

    Returns:
        Two verdicts for each target.
    """
    rows = with_targets(rows)
    found: list[Verdict] = []
    for target in targets:
        candidates = [
            group for group in groups(rows).values() if all(row["model"] == target.model for row in group)
        ]
        best = max(candidates, key=lambda group: group[0]["rows"] * group[0]["epochs"], default=[])
        stalled = stalled_seeds(best)
        counted = summaries(row for row in best if row["seed"] not in stalled)
        found.extend(_verdict(target, method, counted) for method in ("local", "global"))
    return found


def with_targets(rows: Iterable[Row]) -> list[Row]:
    """The rows that have targets: MNIST, IID, two parties."""
    return [row for row in rows if has_targets(case_of(row))]


def stalled_seeds(rows: Iterable[Row]) -> dict[int, float]:
    """The seeds of one group of which the dense run has stalled, with its accuracy in percent."""
    dense = {row["seed"]: row["accuracy"] for row in rows if method_of(row) == "dense"}
    best = max(dense.values(), default=0.0)
    return {seed: accuracy for seed, accuracy in dense.items() if accuracy < best - STALLED_POINTS}


def _summary(kind: tuple[str, float], rows: list[Row], dense: dict[int, float]) -> Summary:
    accuracy = [row["accuracy"] for row in rows]
    losses = [dense[row["seed"]] - row["accuracy"] for row in rows if row["seed"] in dense]
    reached = [row["bytes_to_target"] for row in rows if row["bytes_to_target"] is not None]
    return Summary(
        method=kind[0],
        density=kind[1],
        rows=rows,
        accuracy=statistics.mean(accuracy),
        deviation=statistics.stdev(accuracy) if len(accuracy) > 1 else None,
        loss=statistics.mean(losses) if losses else None,
        loss_deviation=statistics.stdev(losses) if len(losses) > 1 else None,
        bytes=statistics.mean(row["bytes"] for row in rows),
        to_target=statistics.mean(reached) if len(reached) == len(rows) else None,
        reached=len(reached),
        seconds=statistics.mean(row["seconds"] for row in rows),
    )


def _verdict(target: Target, method: str, found: Sequence[Summary]) -> Verdict:
    dense = next((summary for summary in found if summary.method == "dense"), None)
    own = next((s for s in found if (s.method, s.density) == (method, target.density)), None)
    if dense is None or own is None or own.loss is None:
        return Verdict(target, method, NOT_MEASURED, "-", None)
    if target.within is not None:
        outcome = MET if own.loss <= target.within else MISSED
        where = "below" if own.loss >= 0 else "above"
        measured = f"{abs(own.loss):.2f} points {where} dense"
        if own.loss_deviation is not None:
            measured += f" ± {own.loss_deviation:.2f}"
            if abs(own.loss - target.within) < own.loss_deviation:
                measured += ", so within the seeds' noise of the target"
        return Verdict(target, method, outcome, measured, own)
    # The dense runs of the same seeds, in case more dense than pruned ones are there.
    dense_bytes = {row["seed"]: row["bytes_to_target"] for row in dense.rows}
    if any(dense_bytes.get(row["seed"]) is None for row in own.rows):
        return Verdict(target, method, NOT_MEASURED, "-", None)
    if own.to_target is None:
        return Verdict(target, method, MISSED, f"reached by {own.reached} of {len(own.rows)} seeds", own)
    ratio = statistics.mean(dense_bytes[row["seed"]] for row in own.rows) / own.to_target
    outcome = MET if ratio >= (target.fewer or 0) else MISSED
    by_seed = sorted(dense_bytes[row["seed"]] / row["bytes_to_target"] for row in own.rows)
    measured = f"{ratio:.2f} times smaller" + (
        f" ({by_seed[0]:.2f} to {by_seed[-1]:.2f} by seed)" if len(by_seed) > 1 else ""
    )
    return Verdict(target, method, outcome, measured, own)
