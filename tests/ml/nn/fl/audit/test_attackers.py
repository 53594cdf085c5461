"""The attackers of an audit: for which rows and views each is."""

from __future__ import annotations

from secretflow.ml.nn.fl.audit.attackers import ATTACKERS


def test_each_attacker_is_for_single_rows_or_for_several_or_says_why_not() -> None:
    for attacker in ATTACKERS:
        kind = attacker.kinds[0]
        assert None in (attacker.unfit(kind, 1), attacker.unfit(kind, 8))
    by_name = {attacker.name: attacker for attacker in ATTACKERS}
    assert by_name["rows read off"].unfit("table", 1) == "for several rows together"
    assert by_name["closed form"].unfit("table", 8) == "for one row alone"
    assert by_name["tokens"].unfit("images", 1) == "for tokens"
