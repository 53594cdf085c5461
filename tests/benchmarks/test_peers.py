"""The scoreboard of secure averages: what is counted for whom, and a row of a right average."""

from __future__ import annotations

import pytest

from benchmarks.peers import fork
from benchmarks.peers.__main__ import table
from benchmarks.peers.score import SHAPES, Clock, Score, largest_error, numbers


def test_the_server_has_what_is_left_of_the_work_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 2.0, 3.0, 6.0, 10.0])
    monkeypatch.setattr("benchmarks.peers.score.time.perf_counter", lambda: next(now))
    clock, score = Clock(), Score()
    with clock.of("all"):
        for party in (1, 2):
            with clock.of(party):
                pass
    clock.end(score)
    assert (score.server_seconds, score.client_seconds) == ([6.0], [3.0])


def test_the_first_average_is_not_counted() -> None:
    row = Score([9.0, 1.0, 2.0, 3.0], [9.0, 1.0, 1.0, 1.0], [9, 4, 4, 4], [9, 5, 5, 5]).row()
    assert (row["client_seconds"], row["server_seconds"], row["up"], row["down"]) == (2.0, 1.0, 4, 5)


def test_an_error_is_the_largest_of_all_numbers() -> None:
    own = [numbers(0), numbers(0)]
    average = numbers(0)
    assert largest_error(average, own) < 1e-7
    average[3][7] += 0.5
    assert largest_error(average, own) == pytest.approx(0.5)
    assert [array.shape for array in average] == list(SHAPES)


def test_this_project_sends_what_lives_and_averages_it() -> None:
    row = fork.measure(4, 2, density=0.1, bits=None).row()
    assert row["largest_error"] < 1e-5
    assert row["up"] < 0.11 * 4 * 1_663_370
    assert row["one_lost"].startswith("the others' average")
    assert "| fork |" in table({"fork": row})
