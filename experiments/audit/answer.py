"""What the rows say, in sentences: each is made from counts, none is written beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.audit.cells import (
    KNOWN,
    NOISY,
    OBLIVIOUS,
    PRUNING,
    SECURE,
    SPARSE,
    WEIGHTS_ONLY,
    WITHHELD,
    ZEROS_LEFT_OUT,
)

Row = Mapping[str, Any]

ACCURACY_COST = 0.02
"""Loss of accuracy at which defences are compared: two points of a hundred."""


def sentences(content: Mapping[str, Any]) -> list[str]:
    """The answer to the audit's question.

    Args:
        content: of ``report.json``.

    Returns:
        Sentences for which there are rows.
    """
    rows = content["rows"]
    found = [
        *_controls(rows),
        *_by_rate(rows),
        *_effect_of_the_mask(rows),
        *_several(rows),
        *_padded(rows, content),
    ]
    return [*found, *_at_equal_cost(rows, content["accuracies"])]


def counts(row: Row) -> str:
    """Successes of a row with their interval."""
    low, high = (f"{100 * end:.0f}" for end in row["interval"])
    return f"{row['successes']} of {row['images']} (95 % interval {low} to {high} %)"


def _gradient_rows(rows: Sequence[Row], data: str, attack: str, knowledge: str) -> list[Row]:
    """A pruned party's gradient under one attacker, most living weights first."""
    chosen = [
        row
        for row in rows
        if (row["data"], row["attack"], row["knowledge"]) == (data, attack, knowledge)
        and (row["view"], row["defence"]) == ("gradient", PRUNING)
    ]
    return sorted(chosen, key=lambda row: row["level"])


def _pairs(rows: Sequence[Row]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row["data"], row["attack"]) for row in rows))


def _controls(rows: Sequence[Row]) -> list[str]:
    for_each: dict[str, list[str]] = {}
    for data, attack in _pairs(rows):
        for row in _gradient_rows(rows, data, attack, KNOWN)[:1]:
            if row["level"] == 0:
                for_each.setdefault(data, []).append(f"{attack} {counts(row)}")
    return [
        f"Without any defence, from one gradient of one image of {data}, the attacks get back: "
        f"{'; '.join(parts)}."
        for data, parts in for_each.items()
    ]


def _by_rate(rows: Sequence[Row]) -> list[str]:
    """How far down each attacker still gets back at least half of the images."""
    found = []
    for data, attack in _pairs(rows):
        for knowledge in (KNOWN, OBLIVIOUS):
            line = [row for row in _gradient_rows(rows, data, attack, knowledge) if row["level"]]
            if not line:
                continue
            half = [row for row in line if 2 * row["successes"] >= row["images"]]
            none = [row for row in line if not row["successes"]]
            who = f"{attack} on {data}, {knowledge}, weights pruned"
            reach = (
                f"gets back at least half of the images at {_list(half)} living weights"
                if half
                else "gets back half of the images at no rate that was tried"
            )
            found.append(f"{who}: {reach}{f', and none at {_list(none)}' if none else ''}.")
    return found


def _list(rows: Sequence[Row]) -> str:
    return ", ".join(map(_living, rows))


def _living(row: Row) -> str:
    return f"{100 * row['living_rate']:.3g} %"


def _effect_of_the_mask(rows: Sequence[Row]) -> list[str]:
    """Only the coordinates that are compared differ between the two."""
    found = []
    for data, attack in _pairs(rows):
        known = {row["level"]: row for row in _gradient_rows(rows, data, attack, KNOWN)}
        ignored = {row["level"]: row for row in _gradient_rows(rows, data, attack, WEIGHTS_ONLY)}
        levels = [level for level in known if level in ignored and level]
        if not levels:
            continue
        apart = [level for level in levels if known[level]["interval"][0] > ignored[level]["interval"][1]]
        where = ", ".join(_living(known[level]) for level in apart) or "no rate of"
        found.append(
            f"What the mask alone brings to {attack} on {data}: with the same pruned weights, starts, "
            f"optimiser and images, matching only the mask's coordinates does better beyond the 95 % "
            f"intervals at {where} living weights ({len(apart)} of {len(levels)} rates that were tried)."
        )
    return found


def _several(rows: Sequence[Row]) -> list[str]:
    """One sentence for each view of several steps or parties."""
    by_view: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        if row["view"] not in ("gradient", "padded upload") and row["defence"] == PRUNING:
            who = row["knowledge"] if row["level"] else "nothing pruned"
            by_view.setdefault((row["attack"], row["view"], row["data"]), []).append(
                f"{who} at {_living(row)} living {row['successes']}/{row['images']}"
            )
    return [
        f"{attack} on {view} of {data} gets back: {'; '.join(parts)}."
        for (attack, view, data), parts in by_view.items()
    ]


def _padded(rows: Sequence[Row], content: Mapping[str, Any]) -> list[str]:
    padded = [row for row in rows if row["defence"] == SECURE]
    if not padded:
        return []
    noise = next(
        row
        for row in content["baselines"]
        if row["data"] == padded[0]["data"] and row["baseline"] == "random noise"
    )
    parts = "; ".join(f"{row['attack']} {counts(row)}, median MSE {row['median_mse']:.2g}" for row in padded)
    return [
        f"From one party's padded upload, without keys: {parts}. Guessing random noise has a median MSE of "
        f"{noise['median_mse']:.2g} and {counts(noise)}."
    ]


def _at_equal_cost(rows: Sequence[Row], accuracies: Sequence[Row]) -> list[str]:
    """For each defence the strongest level that costs little accuracy, and what gets through it."""
    undefended = next((row for row in accuracies if row["defence"] == PRUNING and row["level"] == 0), None)
    if undefended is None:
        return []
    found = []
    for defence in (PRUNING, SPARSE, WITHHELD, NOISY):
        good = [
            row
            for row in accuracies
            if row["defence"] == defence and row["accuracy"] >= undefended["accuracy"] - ACCURACY_COST
        ]
        if not any(row["defence"] == defence for row in accuracies):
            continue
        if not good:
            found.append(f"{defence}: every level that was tried costs more than that")
            continue
        best = max(good, key=lambda row: row["level"])
        points = [
            100 * (own - whole)
            for own, whole in zip(best["accuracies"], undefended["accuracies"], strict=True)
        ]
        attacks = [
            f"{row['attack']} {row['successes']}/{row['images']}"
            for row in rows
            if (row["data"], row["view"], row["defence"]) == ("MNIST", "gradient", defence)
            and row["level"] == best["level"]
            and row["knowledge"] not in (OBLIVIOUS, WEIGHTS_ONLY)
            and (row["knowledge"] == ZEROS_LEFT_OUT or defence in (PRUNING, NOISY))
            and (row["knowledge"] == KNOWN or defence != PRUNING)
        ]
        got = ", ".join(attacks) or "not attacked at this level"
        found.append(
            f"{defence} at {best['level']:g} (by seed {min(points):+.1f} to {max(points):+.1f} points): {got}"
        )
    return [
        f"At a mean cost of at most {100 * ACCURACY_COST:g} points of accuracy in a short training of "
        f"{len(undefended['accuracies'])} seeds, the strongest level of each defence and what the best "
        f"informed attackers get back through it: {'; '.join(found)}. Undefended, the seeds alone range from "
        f"{100 * min(undefended['accuracies']):.1f} to {100 * max(undefended['accuracies']):.1f} %, so this "
        "orders the defences roughly at best."
    ]
