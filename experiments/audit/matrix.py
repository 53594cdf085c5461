"""Attackers on one pruned gradient beside the rates of living weights, worst first.

``python -m experiments.audit.matrix dgl/audit/report.json`` prints the table of the README, ``--chinese``
that of its translation.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.audit.answer import Row, pruned_gradients, worst_first
from experiments.audit.cells import KNOWN
from experiments.audit.words import CHINESE


@dataclass(frozen=True)
class Line:
    """What one attacker comes to.

    Attributes:
        data: name of the images.
        attack: name of the attack.
        knowledge: what the attacker knows and does about the mask.
        rows: by the part of the weights that is pruned, in [0, 1).
    """

    data: str
    attack: str
    knowledge: str
    rows: Mapping[float, Row]


def lines(rows: Sequence[Row]) -> list[Line]:
    """One line for each attacker on one party's gradient; whoever identifies most over all rates comes first.

    Where nothing is pruned there is nothing to know, and one attacker stands for all of its attack.

    Args:
        rows: of ``report.json``.
    """
    found: dict[tuple[str, str, str], dict[float, Row]] = {}
    for row in pruned_gradients(rows):
        found.setdefault((row["data"], row["attack"], row["knowledge"]), {})[row["level"]] = row
    for (data, attack, _), line in found.items():
        control = found.get((data, attack, KNOWN), {}).get(0.0)
        if control:
            line.setdefault(0.0, control)
    made = [Line(*who, line) for who, line in found.items()]
    order = list(dict.fromkeys(line.data for line in made))
    return sorted(made, key=lambda line: (order.index(line.data), *_mean_key(line.rows.values())))


def _mean_key(rows: Collection[Row]) -> tuple[float, float]:
    keys = [worst_first(row) for row in rows]
    return sum(one for one, _ in keys) / len(keys), sum(other for _, other in keys) / len(keys)


def markdown(rows: Sequence[Row], data: str, chinese: bool = False) -> str:
    """The lines of one set of images as a table: "images identified / images got back".

    Args:
        rows: of ``report.json``.
        data: name of the images.
        chinese: whether names are translated.
    """
    chosen = [line for line in lines(rows) if line.data == data]
    levels = sorted({level for line in chosen for level in line.rows})
    names = CHINESE if chinese else {}
    head = [*(names.get(name, name) for name in ("attack", "attacker")), *map(_percent, levels)]
    body = [
        [
            *(names.get(name, name) for name in (line.attack, line.knowledge)),
            *(_cell(line.rows.get(level)) for level in levels),
        ]
        for line in chosen
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *body])


def _percent(level: float) -> str:
    return f"{100 * (1 - level):.3g} %"


def _cell(row: Row | None) -> str:
    return "" if row is None else f"{row['identified']} / {row['successes']}"


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="Prints a report's table of attackers on pruned gradients.")
    parser.add_argument("report", type=Path, help="report.json of an audit")
    parser.add_argument("--data", default="MNIST", help="images whose lines to print")
    parser.add_argument("--chinese", action="store_true", help="with Chinese names")
    chosen = parser.parse_args()
    rows = json.loads(chosen.report.read_text(encoding="utf-8"))["rows"]
    print(markdown(rows, chosen.data, chosen.chinese))
    return 0


if __name__ == "__main__":
    sys.exit(main())
