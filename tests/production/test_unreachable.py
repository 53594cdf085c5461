"""A party is killed in mid training, without ``min_survivors``: the others end and say whose end it was."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.production.network import PARTIES, loopback
from tests.production.observed import commands, party_of, set_up, started

pytestmark = [pytest.mark.production, pytest.mark.slow, pytest.mark.faults]

PATIENCE, SECONDS = 20.0, 400.0


def wait_for(text: str, log: Path) -> None:
    end = time.monotonic() + SECONDS
    while text not in log.read_text(errors="replace"):
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.parametrize("killed", ["bob", "carol"])
def test_who_waits_for_a_party_that_was_killed_ends_and_names_it(tmp_path: Path, killed: str) -> None:
    network = loopback()
    set_up(tmp_path, network, settings={"rows": 2000, "epochs": 500})
    lines = {party_of(line): [*line[1:], "--wait", f"{PATIENCE:g}"] for line in commands("run", network)}
    with started(tmp_path, network, lines) as programs:
        wait_for("Epoch 2/", tmp_path / "alice.log")
        programs.going[killed].kill()
        left = [party for party in PARTIES if party != killed]
        assert [programs.going[party].wait(SECONDS) for party in left] == [1, 1]
        said = {party: (tmp_path / f"{party}.log").read_text(errors="replace") for party in left}
    assert any(f"{killed} must send a value to {party}" in said[party] for party in left), said
    assert programs.left_over == {}
