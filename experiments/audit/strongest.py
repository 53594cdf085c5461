# ruff: noqa: RUF001 - Chinese has its own punctuation
"""What the strongest attackers of ``docs/results/leakage.json`` come to, one line for what they see.

``python -m experiments.audit.strongest`` prints the table of the README, ``--chinese`` that of its
translation.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from secretflow.ml.nn.fl.audit.words import Said

Row = dict[str, Any]
LEAKAGE = Path("docs/results/leakage.json")

_ATTACKERS = (", learned", ", prior", ", candidates", ", iDLG", ", exact", ", searched")
"""Endings of settings that say who attacks, not what is seen."""

_CHINESE = {
    "ridge regression": "岭回归",
    "learned inverter": "训练的反演网络",
    "gradient of each candidate": "各候选的梯度",
    "closed form, Gaussian of the nearest": "闭式，近邻的高斯",
    "exact batch": "精确求解整批",
    "Gaussian prior": "高斯先验",
    "candidates": "候选",
    "rows read off": "直接读出",
    "membership": "成员判断",
    "rows of neurons": "神经元中的图像",
    "space of the rows": "图像张成的空间",
    "neurons of each candidate": "各候选的神经元",
    "rows in each party's net": "各方网络中的图像",
    "rows in each party's net, masks unknown": "各方网络中的图像，掩码未知",
}


def seen() -> Iterator[tuple[str, Said]]:
    """Settings of the README's table, without who attacks, and what is seen there in words."""
    for percent in (5, 2, 1):
        yield f"LeNet {percent} %", Said(f"LeNet, {percent} % living", f"LeNet，存活 {percent}%")
    yield "LeNet dense, 4 bits", Said("LeNet, dense, rounded to 4 bits", "LeNet，稠密，舍入到 4 位")
    yield (
        "LeNet 10 %, batch of 32",
        Said("LeNet, 10 % living, a batch of 32", "LeNet，存活 10%，一批 32 张"),
    )
    yield (
        "perceptron 2 %",
        Said("two fully connected layers, 2 % living", "两个全连接层，存活 2%"),
    )
    yield (
        "ConvNet 10 %, 3 epochs",
        Said("the main job's net after three epochs, 10 % living", "主任务的网络，三轮之后，存活 10%"),
    )
    yield (
        "ConvNet 10 %, Adam",
        Said("the same after one epoch, two updates of Adam", "同上，一轮之后，Adam 的两次更新"),
    )
    for parties in (32, 128):
        yield (
            f"average of {parties}",
            Said(f"average of {parties} parties, dense", f"{parties} 方的平均，稠密"),
        )
    for parties in (4, 16):
        yield (
            f"average of {parties}, 10 %, one mask",
            Said(f"average of {parties}, 10 % living, one mask", f"{parties} 方的平均，存活 10%，共用掩码"),
        )
        yield (
            f"average of {parties}, 10 %, own masks",
            Said(
                f"average of {parties}, 10 % living, own masks", f"{parties} 方的平均，存活 10%，各自的掩码"
            ),
        )


def table(rows: Sequence[Row], chinese: bool = False) -> str:
    """A line for all that is :func:`seen`, with who gets most back and who finds most.

    Args:
        rows: of ``leakage.json``.
        chinese: whether in Chinese.

    Raises:
        ValueError: nothing was measured for a line.
    """
    heads = ("看到的内容", "恢复", "找出") if chinese else ("what is seen", "got back", "found")
    lines = [list(heads), ["---"] * len(heads)]
    for setting, words in seen():
        own = [row for row in rows if _without_attacker(row["setting"]) == setting]
        if not own:
            raise ValueError(f"rows must have the setting {setting!r}, got none")
        most = (_most(own, score, chinese) for score in ("successes", "identified"))
        lines.append([words.zh if chinese else words.en, *most])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _without_attacker(setting: str) -> str:
    for ending in _ATTACKERS:
        setting = setting.removesuffix(ending)
    return setting


def _most(rows: Sequence[Row], score: str, chinese: bool) -> str:
    tried = [row for row in rows if row[score] is not None]
    if not tried:
        return "没有尝试" if chinese else "not tried"
    best = max(tried, key=lambda row: row[score] / row["images"])
    if chinese:
        return f"{best[score]}/{best['images']}（{_CHINESE[best['attack']]}）"
    return f"{best[score]} of {best['images']} ({best['attack']})"


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description="Prints what the strongest attackers come to.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("file", type=Path, nargs="?", default=LEAKAGE, help="leakage.json")
    parser.add_argument("--chinese", action="store_true", help="in Chinese")
    chosen = parser.parse_args()
    print(table(json.loads(chosen.file.read_text(encoding="utf-8"))["rows"], chosen.chinese))
    return 0


if __name__ == "__main__":
    sys.exit(main())
