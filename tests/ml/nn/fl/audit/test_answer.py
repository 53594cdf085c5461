"""What a report says and shows first."""

from __future__ import annotations

from typing import Any

import pytest

from secretflow.ml.nn.fl.audit.answer import most_telling
from secretflow.ml.nn.fl.audit.intervals import wilson_interval


def attacker(name: str, successes: int | None, identified: int) -> dict[str, Any]:
    row: dict[str, Any] = {"attack": name, "images": 20}
    for score, count in (("successes", successes), ("identified", identified)):
        row |= {score: count, f"interval_{score}": None if count is None else wilson_interval(count, 20)}
    return row


@pytest.mark.parametrize(("rebuilt", "shown"), [(0, "picks"), (3, "rebuilds")])
def test_who_picks_rows_is_shown_where_nobody_rebuilds_one(rebuilt: int, shown: str) -> None:
    rows = [attacker("rebuilds", rebuilt, 5), attacker("picks", None, 18), attacker("poor", 0, 0)]
    found = most_telling(rows)
    assert found is not None and found["attack"] == shown


def test_nobody_is_shown_where_nobody_attacked() -> None:
    assert most_telling([]) is None
