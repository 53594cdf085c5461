"""What a run of the main job ends with: a table, the files to open and what to try next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.console import LOG
from experiments.report import ATTACKERS_PICTURE, COMPARISON_PICTURE, REPORT

_RUNS = {"plain": "without pruning", "pruned": "with pruning"}
_ATTACKS = {
    "before_prune": "nothing is pruned",
    "after_prune": "pruned, mask known",
    "after_prune_mask_oblivious": "pruned, mask ignored",
}
_FILES = {
    COMPARISON_PICTURE: "accuracy over rounds",
    ATTACKERS_PICTURE: "what two attackers got",
    REPORT: "all figures",
    LOG: "what the libraries said",
}
_NEXT = {
    "make demo DEMO_OPTIONS='--prune-percent 20'": "fewer weights live",
    "make experiment": "all of MNIST (minutes)",
    "make audit": "more attackers (20 minutes)",
}


def summary(content: Mapping[str, Any], out: Path) -> list[str]:
    """The last lines of a run.

    Args:
        content: of the report.
        out: folder of the run; files that are not there are left out.

    Returns:
        Lines of at most 80 characters, as long as the folder's name is short.
    """
    files = {str(out / name): told for name, told in _FILES.items() if (out / name).exists()}
    return [
        "",
        *_table(["training", "accuracy", "density", "uploaded", "seconds"], _training(content["training"])),
        "",
        *_table(["attack on a gradient", "what came back"], _attacks(content["attack"])),
        "",
        *_listed("Open", files),
        *_listed("Next", _NEXT),
    ]


def verdict(scores: Mapping[str, Any]) -> str:
    """What came back, in words that fit the picture; never from the error alone.

    Args:
        scores: what the report holds of an attack.
    """
    among = f"{scores['candidates']:,}"
    if scores["got_back"]:
        return f"the image itself: mean squared error {scores['mse']:.1g}"
    if scores["identified"]:
        return f"not below 0.01, yet recognisable: nearest of {among}"
    return f"not recognisable: {scores['rank'] - 1:,} of {among} others are nearer"


def _training(training: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for name, told in _RUNS.items():
        epochs = training.get(name, {}).get("epochs")
        if epochs:
            uploaded = sum(epoch["bytes_uploaded"] for epoch in epochs)
            rows.append(
                [
                    told,
                    f"{100 * epochs[-1]['val_multiclassaccuracy']:.1f} %",
                    f"{epochs[-1]['density']:.2f}",
                    f"{uploaded / 1e6:.1f} MB",
                    f"{sum(epoch['seconds'] for epoch in epochs):.0f}",
                ]
            )
    return rows


def _attacks(attack: Mapping[str, Any]) -> list[list[str]]:
    return [[told, verdict(attack[name])] for name, told in _ATTACKS.items() if name in attack]


def _table(head: list[str], rows: Sequence[list[str]]) -> list[str]:
    """Columns as wide as what they hold, the first one wide enough for both tables."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    widths[0] = max(widths[0], 22)
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def _listed(title: str, entries: Mapping[str, str]) -> list[str]:
    width = max(map(len, entries), default=0)
    return [
        f"{title if number == 0 else '':<6}{name:<{width}}  {told}"
        for number, (name, told) in enumerate(entries.items())
    ]
