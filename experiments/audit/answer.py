"""What the rows say, in sentences: each is made from counts, none is written beforehand.

No sentence rests on one score: every count of images that were got back stands beside that of images that
were identified, because a picture that names its original is a leak whatever its error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.audit.cells import (
    KNOWN,
    NOISY,
    OBLIVIOUS,
    PADDED,
    PRUNING,
    SECURE,
    SPARSE,
    WEIGHTS_ONLY,
    WITHHELD,
    ZEROS_LEFT_OUT,
)
from secretflow.ml.nn.fl.audit.intervals import wilson_interval

Row = Mapping[str, Any]

ACCURACY_COST = 0.02
"""Loss of accuracy at which defences are compared: two points of a hundred."""


def sentences(content: Mapping[str, Any]) -> list[str]:
    """The answer to the audit's question, the strongest attacker first.

    Args:
        content: of ``report.json``.

    Returns:
        Sentences for which there are rows.
    """
    rows = content["rows"]
    return [
        *_strongest(rows),
        *_several(rows),
        *_padded(rows, content),
        *_by_rate(rows),
        *_effect_of_the_mask(rows),
        *_at_equal_cost(rows, content["accuracies"]),
    ]


def beyond_chance(row: Row) -> bool:
    """Whether the 95 % interval of identified images lies above what guessing among the candidates gives."""
    return wilson_interval(row["identified"], row["images"])[0] > 1 / row["candidates"]


def percent_interval(count: int, images: int) -> str:
    """The 95 % interval of a count, in words."""
    low, high = (f"{100 * end:.0f}" for end in wilson_interval(count, images))
    return f"{low} to {high} %"


def worst_first(row: Row) -> tuple[float, float]:
    """A key that sorts attackers: who identifies most comes first, then who gets most back."""
    return -row["identified"] / row["images"], -row["successes"] / row["images"]


def pruned_gradients(rows: Sequence[Row]) -> list[Row]:
    """Those of attackers on one party's gradient, with or without pruned weights."""
    return [row for row in rows if (row["view"], row["defence"]) == ("gradient", PRUNING)]


def _scores(row: Row) -> str:
    images = row["images"]
    return (
        f"identifies {row['identified']} of {images} ({percent_interval(row['identified'], images)}) and "
        f"gets back {row['successes']} ({percent_interval(row['successes'], images)})"
    )


def _short(row: Row) -> str:
    return f"{row['identified']} and {row['successes']} of {row['images']}"


def _line_of(rows: Sequence[Row], data: str, attack: str, knowledge: str) -> list[Row]:
    """A pruned party's gradient under one attacker, most living weights first."""
    chosen = [
        row
        for row in pruned_gradients(rows)
        if (row["data"], row["attack"], row["knowledge"]) == (data, attack, knowledge)
    ]
    return sorted(chosen, key=lambda row: row["level"])


def _pairs(rows: Sequence[Row]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row["data"], row["attack"]) for row in rows))


def _strongest(rows: Sequence[Row]) -> list[str]:
    """At each rate of living weights the attacker who identifies most images."""
    found = []
    chosen = pruned_gradients(rows)
    for data in dict.fromkeys(row["data"] for row in chosen):
        levels = sorted({row["level"] for row in chosen if row["data"] == data})
        best = [
            min((row for row in chosen if (row["data"], row["level"]) == (data, level)), key=worst_first)
            for level in levels
        ]
        parts = [f"at {_living(row)} {row['attack']}{_who(row)} {_scores(row)}" for row in best]
        leaks = [row for row in best if row["level"] and beyond_chance(row)]
        where = (
            f"the strongest of the attackers tried identifies images beyond chance at {_list(leaks)}"
            if leaks
            else "no attacker tried identifies images beyond chance where weights are pruned"
        )
        found.append(f"From one gradient of one image of {data}, {where}. In detail, {'; '.join(parts)}.")
    return found


def _several(rows: Sequence[Row]) -> list[str]:
    """One sentence for each view of several steps or parties."""
    by_view: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if row["view"] not in ("gradient", PADDED) and row["defence"] == PRUNING:
            by_view.setdefault((row["attack"], row["view"], row["data"]), []).append(row)
    return [
        f"{attack} on {view} of {data}, images identified and got back: "
        + "; ".join(
            f"{row['knowledge'] if row['level'] else 'nothing pruned'} at {_living(row)} living {_short(row)}"
            for row in sorted(line, key=worst_first)
        )
        + "."
        for (attack, view, data), line in by_view.items()
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
    parts = "; ".join(
        f"{row['attack']} {_scores(row)}, median MSE {row['median_mse']:.2g}"
        for row in sorted(padded, key=worst_first)
    )
    return [
        f"From one party's padded upload, without keys: {parts}. Chance identifies 1 in "
        f"{padded[0]['candidates']}; guessing random noise {_scores(noise)}, median MSE "
        f"{noise['median_mse']:.2g}."
    ]


def _by_rate(rows: Sequence[Row]) -> list[str]:
    """How far down each attacker identifies beyond chance, and gets back at least half of the images."""
    found = []
    for data, attack in _pairs(rows):
        for knowledge in (KNOWN, OBLIVIOUS):
            line = [row for row in _line_of(rows, data, attack, knowledge) if row["level"]]
            if not line:
                continue
            identified = [row for row in line if beyond_chance(row)]
            half = [row for row in line if 2 * row["successes"] >= row["images"]]
            found.append(
                f"{attack} on {data}, {knowledge}, weights pruned: identifies images beyond chance at "
                f"{_list(identified)}; gets back at least half of them at {_list(half)}."
            )
    return found


def _who(row: Row) -> str:
    return f" ({row['knowledge']})" if row["level"] else ""


def _list(rows: Sequence[Row]) -> str:
    return f"{', '.join(map(_living, rows))} living weights" if rows else "no rate that was tried"


def _living(row: Row) -> str:
    return f"{round(100 * row['density'], 1):g} %"


def _effect_of_the_mask(rows: Sequence[Row]) -> list[str]:
    """Only the coordinates that are compared differ between the two."""
    found = []
    for data, attack in _pairs(rows):
        known = {row["level"]: row for row in _line_of(rows, data, attack, KNOWN)}
        ignored = {row["level"]: row for row in _line_of(rows, data, attack, WEIGHTS_ONLY)}
        levels = [level for level in known if level in ignored and level]
        if not levels:
            continue
        apart = {
            score: [known[level] for level in levels if _is_above(known[level], ignored[level], score)]
            for score in ("identified", "successes")
        }
        found.append(
            f"What the mask alone brings to {attack} on {data}: with the same pruned weights, starts, "
            f"optimiser and images, matching only the mask's coordinates does better beyond the 95 % "
            f"intervals in images identified at {_list(apart['identified'])} "
            f"({len(apart['identified'])} of {len(levels)} rates that were tried), in images got back at "
            f"{_list(apart['successes'])} ({len(apart['successes'])} of {len(levels)})."
        )
    return found


def _is_above(one: Row, other: Row, score: str) -> bool:
    low, _ = wilson_interval(one[score], one["images"])
    _, high = wilson_interval(other[score], other["images"])
    return low > high


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
        got = ", ".join(_through(rows, defence, best["level"])) or "not attacked at this level"
        found.append(
            f"{defence} at {best['level']:g} (by seed {min(points):+.1f} to {max(points):+.1f} points): {got}"
        )
    return [
        f"At a mean cost of at most {100 * ACCURACY_COST:g} points of accuracy in a short training of "
        f"{len(undefended['accuracies'])} seeds, the strongest level of each defence and how many images "
        f"the best informed attackers identify and get back through it: {'; '.join(found)}. Undefended, the "
        f"seeds alone range from {100 * min(undefended['accuracies']):.1f} to "
        f"{100 * max(undefended['accuracies']):.1f} %, so this orders the defences roughly at best."
    ]


def _through(rows: Sequence[Row], defence: str, level: float) -> list[str]:
    """What the best informed attackers identify and get back through one defence, worst first."""
    chosen = [
        row
        for row in rows
        if (row["data"], row["view"], row["defence"]) == ("MNIST", "gradient", defence)
        and row["level"] == level
        and row["knowledge"] not in (OBLIVIOUS, WEIGHTS_ONLY)
        and (row["knowledge"] == ZEROS_LEFT_OUT or defence in (PRUNING, NOISY))
        and (row["knowledge"] == KNOWN or defence != PRUNING)
    ]
    return [f"{row['attack']} {_short(row)}" for row in sorted(chosen, key=worst_first)]
