# ruff: noqa: E501, RUF001 - sentences on a line each; Chinese has its own punctuation
"""What the rows say, in sentences: each is made from counts, none is written beforehand.

No sentence rests on one score: every count of images that were got back stands beside that of images that
were identified, because a picture that names its original is a leak whatever its error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.audit.cells import KNOWN, NOISY, OBLIVIOUS, PRUNING, WEIGHTS_ONLY, ZEROS_LEFT_OUT
from experiments.audit.words import said
from secretflow.ml.nn.fl.audit.intervals import wilson_interval
from secretflow.ml.nn.fl.audit.words import Said, count

Row = Mapping[str, Any]


def sentences(content: Mapping[str, Any]) -> list[Said]:
    """The answer to the audit's question, the strongest attacker first.

    Args:
        content: of ``report.json``.

    Returns:
        Sentences for which there are rows.
    """
    chosen = pruned_gradients(with_chance(content["rows"], content["baselines"]))
    return [_of_data(data, chosen) for data in dict.fromkeys(row["data"] for row in chosen)]


def with_chance(rows: Sequence[Row], baselines: Sequence[Row]) -> list[Row]:
    """Rows with the part of the images that is identified without seeing anything.

    Args:
        rows: of attackers, or baselines themselves.
        baselines: who sees nothing; one is near some images by itself.

    Returns:
        The rows, each with "chance": one in as many as there are candidates, or more if a baseline of its
        images has more.
    """
    blind: dict[str, float] = {}
    for row in baselines:
        blind[row["data"]] = max(blind.get(row["data"], 0.0), row["identified"] / row["images"])
    return [{**row, "chance": max(1 / row["candidates"], blind.get(row["data"], 0.0))} for row in rows]


def beyond_chance(row: Row) -> bool:
    """Whether the 95 % interval of identified images lies above chance, see :func:`with_chance`."""
    return wilson_interval(row["identified"], row["images"])[0] > row["chance"]


def worst_first(row: Row) -> tuple[float, float]:
    """A key that sorts attackers: who identifies most comes first, then who gets most back."""
    return -row["identified"] / row["images"], -row["successes"] / row["images"]


def pruned_gradients(rows: Sequence[Row]) -> list[Row]:
    """Those of attackers on one party's gradient, with or without pruned weights."""
    return [row for row in rows if (row["view"], row["defence"]) == ("gradient", PRUNING)]


def living(row: Row) -> Said:
    """The part of the weights that lives."""
    rate = f"{round(100 * row['density'], 1):g} %"
    return Said(f"{rate} living weights", f"存活权重 {rate}")


def attacker(row: Row) -> Said:
    """Attack and knowledge."""
    attack, knowledge = said(row["attack"]), said(row["knowledge"])
    return Said(f"{attack.en} ({knowledge.en})", f"{attack.zh}（{knowledge.zh}）") if row["level"] else attack


def _of_data(data: str, rows: Sequence[Row]) -> Said:
    """How far down the strongest attacker identifies images of one kind beyond chance."""
    own = [row for row in rows if row["data"] == data]
    best = [
        min((row for row in own if row["level"] == level), key=worst_first)
        for level in sorted({row["level"] for row in own})
    ]
    leaks = [row for row in best if row["level"] and beyond_chance(row)]
    tried, name = sum(row["level"] > 0 for row in best), said(data)
    if not leaks:
        return Said(
            f"From one gradient of one image of {name.en}, no attacker tried identifies images beyond chance where weights are pruned.",
            f"从{name.zh}单幅图像的一个梯度，在剪枝后所试的攻击者识别率都不高于随机。",
        )
    least, does = living(leaks[-1]), _does(leaks[-1])
    return Said(
        f"From one gradient of one image of {name.en}, the strongest attacker tried identifies images beyond chance at {len(leaks)} of {tried} rates of pruning; at {least.en}, {does.en}.",
        f"从{name.zh}单幅图像的一个梯度，在 {tried} 种剪枝比例中的 {len(leaks)} 种下，所试的最强攻击者识别率高于随机；{least.zh}时，{does.zh}。",
    )


def _does(row: Row) -> Said:
    """What an attacker comes to."""
    identified, back = (
        count(row[score], row["images"], wilson_interval(row[score], row["images"]))
        for score in ("identified", "successes")
    )
    who = attacker(row)
    return Said(
        f"{who.en} identifies {identified.en} and gets back {back.en}",
        f"{who.zh}识别 {identified.zh}，还原 {back.zh}",
    )


def through(rows: Sequence[Row], defence: str, level: float) -> Row | None:
    """What the best informed attacker on MNIST comes to through one defence; None if none was tried."""
    chosen = [
        row
        for row in rows
        if (row["data"], row["view"], row["defence"]) == ("MNIST", "gradient", defence)
        and row["level"] == level
        and row["knowledge"] not in (OBLIVIOUS, WEIGHTS_ONLY)
        and (row["knowledge"] == ZEROS_LEFT_OUT or defence in (PRUNING, NOISY))
        and (row["knowledge"] == KNOWN or defence != PRUNING)
    ]
    return min(chosen, key=worst_first, default=None)
