"""A party is killed in mid training, without ``min_survivors``: the others end and say whose end it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.production.network import PARTIES
from tests.production.observed import in_mid_training

pytestmark = [pytest.mark.production, pytest.mark.slow, pytest.mark.faults]

PATIENCE, SECONDS = 20.0, 400.0


@pytest.mark.parametrize("killed", ["bob", "carol"])
def test_who_waits_for_a_party_that_was_killed_ends_and_names_it(tmp_path: Path, killed: str) -> None:
    with in_mid_training(tmp_path, PATIENCE) as programs:
        programs.going[killed].kill()
        left = [party for party in PARTIES if party != killed]
        assert [programs.going[party].wait(SECONDS) for party in left] == [1, 1]
        said = {party: (tmp_path / f"{party}.log").read_text(errors="replace") for party in left}
    assert any(f"{killed} must send a value to {party}" in said[party] for party in left), said
    assert programs.left_over == {}
