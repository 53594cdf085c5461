"""Settings of pruning: their ranges, and when a step is due to which rate."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secretflow.ml.nn.fl.pruning import (
    PruneSettings,
)


@pytest.mark.parametrize(
    ("setting", "value", "error"),
    [
        ("prune_end_rate", 0, ValueError),
        ("prune_end_rate", 1.1, ValueError),
        ("prune_end_rate", -0.1, ValueError),
        ("prune_end_rate", float("nan"), ValueError),
        ("prune_end_rate", "0.1", TypeError),
        ("prune_end_rate", True, TypeError),
        ("prune_percent", 0, ValueError),
        ("prune_percent", 100, ValueError),
        ("prune_percent", "5", TypeError),
        ("prune_preset", "galaxy", ValueError),
        ("prune_preset", {}, ValueError),
        ("mask_scope", "galaxy", ValueError),
        ("prune_scope", "local", ValueError),
        ("prune_schedule", "linear", ValueError),
        ("prune_start_epoch", -1, ValueError),
        ("prune_start_epoch", 1.5, ValueError),
        ("prune_end_epoch", 0, ValueError),
        ("regrow_percent", 100, ValueError),
        ("regrow_percent", -1, ValueError),
        ("regrow_percent", "1", TypeError),
        ("withhold_percent", 100, ValueError),
        ("withhold_percent", -1, ValueError),
        ("withhold_percent", "1", TypeError),
        ("step_power", -0.1, ValueError),
        ("step_power", 1.5, ValueError),
        ("step_power", "1", TypeError),
    ],
)
def test_a_bad_setting_is_named_with_its_value(setting: str, value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"{setting} must be .*, got {value!r}"):
        PruneSettings(**{setting: value})  # type: ignore[arg-type]


def test_steps_are_not_scaled_where_whole_units_go() -> None:
    with pytest.raises(ValueError, match=r"step_power must be 0 with prune_structure, .*, got 1\.0"):
        PruneSettings(step_power=1.0, prune_structure="filter")


def test_the_geometric_schedule_has_no_end() -> None:
    with pytest.raises(ValueError, match="prune_end_epoch must be None with prune_schedule='geometric'"):
        PruneSettings(prune_schedule="geometric", prune_end_epoch=3)


LOTTERY = {
    "prune_percent": 5,
    "mask_scope": "local",
    "prune_scope": "layer",
    "prune_schedule": "geometric",
    "prune_freq": 0,
    "prune_criterion": "magnitude",
    "step_power": 0,
}


@pytest.mark.parametrize(
    "given",
    [
        {"prune_percent": 5},
        {"regrow_percent": 20.0},
        {"prune_criterion": "snip"},
        {"prune_structure": "unit"},
        {"prune_schedule": "cubic", "prune_percent": 7, "prune_freq": 3, "step_power": 0.2},
    ],
)
def test_what_belongs_to_the_first_versions_settings_gets_the_rest_of_them(given: dict[str, Any]) -> None:
    chosen = PruneSettings(**given)
    assert chosen.prune_preset == "lottery"
    for name, value in {**LOTTERY, **given}.items():
        assert getattr(chosen, name) == value
    assert PruneSettings(**given, prune_preset="lottery") == chosen


def test_one_mask_is_what_one_gets_who_sets_nothing() -> None:
    chosen = PruneSettings()
    assert (chosen.prune_preset, chosen.mask_scope, chosen.prune_scope) == ("shared", "global", "global")
    assert (chosen.prune_criterion, chosen.step_power) == ("lamp", 0.5)
    assert (chosen.prune_schedule, chosen.prune_end_epoch) == ("cubic-geometric", None)
    assert PruneSettings(prune_preset="shared", prune_percent=7).mask_scope == "global"
    assert dataclasses.replace(chosen, prune_end_rate=0.2) == PruneSettings(prune_end_rate=0.2)


def test_a_named_preset_can_be_changed_in_parts() -> None:
    chosen = PruneSettings(prune_preset="lottery", mask_scope="global")
    assert {name: getattr(chosen, name) for name in LOTTERY} == {**LOTTERY, "mask_scope": "global"}


@given(st.integers(1, 60))
def test_an_epoch_has_four_steps_as_even_as_its_rounds_allow(rounds: int) -> None:
    may = [number for number in range(1, rounds + 1) if PruneSettings().step_may_end(number, rounds)]
    assert may[-1] == rounds and len(may) == min(4, rounds)
    gaps = np.diff([0, *may])
    assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("end", [2, 1, 2.5, True])
def test_the_cubic_schedule_needs_an_end_after_its_start(end: object) -> None:
    with pytest.raises(
        ValueError, match=f"prune_end_epoch must be an integer of at least 3 or None, got {end!r}"
    ):
        PruneSettings(prune_schedule="cubic", prune_start_epoch=2, prune_end_epoch=end)  # type: ignore[arg-type]


def test_a_mask_for_all_cannot_regrow_by_gradients_of_one() -> None:
    with pytest.raises(ValueError, match=r"regrow_percent must be 0 with mask_scope='global', .*, got 5"):
        PruneSettings(mask_scope="global", regrow_percent=5)


def test_the_cubic_schedule_is_that_of_zhu_and_gupta() -> None:
    settings = PruneSettings(
        prune_end_rate=0.1, prune_schedule="cubic", prune_start_epoch=2, prune_end_epoch=6
    )
    # Sparsity s_f + (s_i - s_f)(1 - (t - t_0) / (n dt))^3 with s_i = 0, s_f = 0.9, in units of epochs.
    sparsity = [0.9 - 0.9 * (1 - step / 4) ** 3 for step in (1, 2, 3, 4, 4)]
    assert [settings.rate_after(epoch) for epoch in (3, 4, 5, 6, 9)] == pytest.approx(
        [1 - dead for dead in sparsity]
    )


@pytest.mark.parametrize(
    ("start", "epochs", "end"),
    [(0, 20, 15), (0, 1, 2), (0, 3, 2), (0, 4, 3), (0, 10, 7), (4, 20, 16), (4, 2, 6)],
)
def test_pruning_ends_after_three_quarters_of_a_fit_and_at_least_two_epochs(
    start: int, epochs: int, end: int
) -> None:
    assert PruneSettings(prune_start_epoch=start).over(epochs).prune_end_epoch == end


def test_what_has_an_end_or_none_keeps_it_in_every_fit() -> None:
    for chosen in (
        PruneSettings(prune_end_epoch=7),
        PruneSettings(prune_schedule="cubic"),
        PruneSettings(prune_schedule="geometric"),
    ):
        assert chosen.over(100) == chosen
    assert PruneSettings(prune_schedule="cubic", prune_start_epoch=3).prune_end_epoch == 5


def test_a_density_that_depends_on_the_fit_is_not_given_without_one() -> None:
    with pytest.raises(ValueError, match="prune_end_epoch must be known for a density"):
        PruneSettings().rate_after(1)


@given(st.floats(0.001, 1), st.integers(0, 3), st.integers(3, 40))
def test_the_second_half_of_the_way_in_factors_goes_in_equal_ones(
    end_rate: float, start: int, end: int
) -> None:
    settings = PruneSettings(prune_end_rate=end_rate, prune_start_epoch=start, prune_end_epoch=start + end)
    rates = [settings.rate_after(start + epoch) for epoch in range(1, end + 3)]
    assert all(before >= after for before, after in zip([1.0, *rates], rates, strict=False))
    assert rates[end - 1 :] == [end_rate] * 3
    slow = np.array(rates[:end])  # after an epoch the cubic has ended
    assert slow[:-1] / slow[1:] == pytest.approx(end_rate ** (-1 / 2 / end))
    assert slow[0] == pytest.approx(end_rate ** (1 / 2) * end_rate ** (1 / 2 / end))


def test_a_step_is_due_after_the_start_while_there_is_something_to_do() -> None:
    settings = PruneSettings(prune_end_rate=0.5, prune_start_epoch=2)
    assert [settings.step_due(epoch, 1.0) for epoch in (1, 2, 3)] == [False, False, True]
    assert not settings.step_due(3, 0.5)
    assert PruneSettings(prune_end_rate=0.5, regrow_percent=1).step_due(3, 0.5)


@given(st.integers(1, 60), st.integers(1, 80))
def test_a_step_may_end_each_so_many_rounds_and_always_the_last(rounds: int, freq: int) -> None:
    within, without = PruneSettings(prune_freq=freq), PruneSettings(prune_freq=0)
    may = [number for number in range(1, rounds + 1) if within.step_may_end(number, rounds)]
    assert may[-1] == rounds and len(may) == -(-rounds // freq)
    assert np.diff([0, *may[:-1]]).tolist() == [freq] * (len(may) - 1)
    assert [number for number in range(1, rounds + 1) if without.step_may_end(number, rounds)] == [rounds]


@given(st.integers(0, 3), st.integers(1, 4), st.integers(1, 50), st.floats(0.01, 1))
def test_within_epochs_the_cubic_curve_falls_on_and_meets_that_of_whole_epochs(
    start: int, epochs: int, rounds: int, end_rate: float
) -> None:
    settings = PruneSettings(
        prune_end_rate=end_rate,
        prune_schedule="cubic",
        prune_start_epoch=start,
        prune_end_epoch=start + epochs,
        prune_freq=1,
    )
    whole = dataclasses.replace(settings, prune_freq=None)
    passed = [start + epoch + number / rounds for epoch in range(epochs) for number in range(1, rounds + 1)]
    rates = [settings.rate_after(part) for part in passed]
    assert all(before >= after for before, after in zip([1.0, *rates], rates, strict=False))
    assert rates[rounds - 1 :: rounds] == [whole.rate_after(start + epoch + 1) for epoch in range(epochs)]
    assert rates[-1] == end_rate
    assert settings.step_due(passed[0], 1.0) == (end_rate < 1) and not settings.step_due(start, 1.0)


@pytest.mark.parametrize("freq", [-1, 2.0, True, "2"])
def test_a_bad_frequency_of_steps_is_named(freq: Any) -> None:
    with pytest.raises(
        ValueError, match=f"prune_freq must be an integer of at least 0 or None, got {freq!r}"
    ):
        PruneSettings(prune_freq=freq)
