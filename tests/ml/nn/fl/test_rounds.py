"""Which rounds an epoch has, and how many of them pass before a step of pruning."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from secretflow.ml.nn.fl.pruning import PruneSettings
from secretflow.ml.nn.fl.rounds import is_due, rounds_before_pruning, rounds_of_epoch


@given(st.integers(0, 9), st.integers(1, 50), st.integers(1, 60))
def test_the_rounds_of_an_epoch_have_all_its_steps_in_order(epoch: int, steps: int, frequency: int) -> None:
    rounds = rounds_of_epoch(epoch, steps, frequency, PruneSettings())
    trained = [step for this in rounds for step in range(this.first_step, this.first_step + this.steps)]
    assert trained == list(range(steps))
    assert all(this.steps == frequency for this in rounds[:-1])
    assert [this.number for this in rounds] == list(range(1, len(rounds) + 1))
    assert [this.in_all for this in rounds] == [epoch * len(rounds) + this.number for this in rounds]
    assert [this.ends_epoch for this in rounds] == [False] * (len(rounds) - 1) + [True]
    assert rounds[-1].passed == epoch + 1
    assert all(epoch < this.passed < epoch + 1 for this in rounds[:-1])


def test_without_a_frequency_only_the_last_round_of_an_epoch_is_due_and_only_above_the_end_rate() -> None:
    settings = PruneSettings(prune_end_rate=0.5)
    rounds = rounds_of_epoch(0, 7, 2, settings)
    assert [is_due(this, [1.0, 1.0], settings) for this in rounds] == [False, False, False, True]
    assert not any(is_due(this, [0.5, 0.5], settings) for this in rounds)
    assert is_due(rounds[-1], [0.5, 0.6], settings), "one party above the end rate is enough"


def test_before_the_start_epoch_nothing_is_due() -> None:
    settings = PruneSettings(prune_start_epoch=1, prune_freq=2)
    assert not any(is_due(this, [1.0], settings) for this in rounds_of_epoch(0, 6, 1, settings))
    assert [is_due(this, [1.0], settings) for this in rounds_of_epoch(1, 6, 1, settings)] == [
        False,
        True,
        False,
        True,
        False,
        True,
    ]


def test_rounds_go_on_until_a_step_is_due_or_the_epoch_is_over() -> None:
    settings = PruneSettings(prune_end_rate=0.5, prune_freq=4)
    rounds = rounds_of_epoch(0, 10, 1, settings)
    assert rounds_before_pruning(rounds, [1.0], settings) == 3
    assert rounds_before_pruning(rounds[3:], [1.0], settings) == 0
    assert rounds_before_pruning(rounds[4:], [1.0], settings) == 3
    assert rounds_before_pruning(rounds[8:], [1.0], settings) == 1, "a step may always end an epoch"
    assert rounds_before_pruning(rounds, [0.5], settings) == 10
    assert rounds_before_pruning([], [1.0], settings) == 0
