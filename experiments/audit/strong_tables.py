"""Tables in Markdown of what the strong attackers have got."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]

_COLUMNS = (
    "setting",
    "parties",
    "attack",
    "got back",
    "identified",
    "median rank",
    "median SSIM",
    "public images",
    "seconds",
)


def tables(rows: Sequence[Row], order: Sequence[str]) -> str:
    """The rows as a table in Markdown; of each setting and number of parties the worst attacker comes first.

    Args:
        rows: of ``leakage.json``.
        order: of the settings.
    """
    chosen = sorted(
        rows,
        key=lambda row: (
            order.index(row["setting"]),
            row["parties"] or 0,
            -row["identified"] / row["images"],
            -(row["successes"] or 0) / row["images"],
        ),
    )
    head = [f"| {' | '.join(_COLUMNS)} |", f"| {' | '.join(['---'] * len(_COLUMNS))} |"]
    return "\n".join([*head, *(f"| {' | '.join(cells(row))} |" for row in chosen)])


def cells(row: Row) -> list[str]:
    """A row of the table, column by column."""

    def count(name: str) -> str:
        if row.get(name) is None:
            return ""
        low, high = row[f"interval_{name}"]
        return f"{row[name]} of {row['images']} ({100 * low:.0f} to {100 * high:.0f} %)"

    numbers = [str(row[name]) if row.get(name) is not None else "" for name in ("median_rank", "median_ssim")]
    return [
        row["setting"],
        str(row["parties"] or ""),
        row["attack"],
        count("successes"),
        count("identified"),
        *numbers,
        str(row["effort"]["public"]),
        str(row.get("seconds", "")),
    ]
