"""The mathematics of pruning."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from secretflow.ml.nn.fl.pruning import (
    PruneSettings,
    exchange,
    full_mask,
    living_rate,
    prune_by_magnitude,
    prune_over_layers,
    pruned_masks,
    removals,
    removals_to_rate,
)
from secretflow.ml.nn.fl.pruning.masks import smallest

WEIGHTS = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=4, max_side=6), elements=st.floats(-4, 4, width=32)
)


@st.composite
def layers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    weight = draw(WEIGHTS)
    mask = draw(hnp.arrays(np.uint8, weight.shape, elements=st.integers(0, 1)))
    return weight, mask


@given(layers(), st.integers(1, 300))
def test_exactly_as_many_live_as_asked_for_or_as_lived_before(
    layer: tuple[np.ndarray, np.ndarray], keep: int
) -> None:
    weight, mask = layer
    assert prune_by_magnitude(weight, mask, keep).sum() == min(keep, mask.sum())


@given(layers(), st.integers(1, 300))
def test_what_is_pruned_stays_pruned(layer: tuple[np.ndarray, np.ndarray], keep: int) -> None:
    weight, mask = layer
    assert (prune_by_magnitude(weight, mask, keep) <= mask).all()


@given(layers(), st.integers(1, 300))
def test_pruning_twice_to_the_same_number_changes_nothing(
    layer: tuple[np.ndarray, np.ndarray], keep: int
) -> None:
    weight, mask = layer
    once = prune_by_magnitude(weight, mask, keep)
    assert np.array_equal(prune_by_magnitude(weight, once, keep), once)


@given(layers(), st.integers(1, 300))
def test_no_survivor_is_smaller_than_a_removed_weight(
    layer: tuple[np.ndarray, np.ndarray], keep: int
) -> None:
    weight, mask = layer
    new = prune_by_magnitude(weight, mask, keep)
    removed, kept = np.abs(weight[(mask == 1) & (new == 0)]), np.abs(weight[new == 1])
    assert not removed.size or removed.max() <= kept.min(initial=np.inf)


def test_of_equal_magnitudes_the_first_go_first() -> None:
    mask = prune_by_magnitude(np.full((2, 3), -0.5, np.float32), np.ones((2, 3), np.uint8), 2)
    assert mask.tolist() == [[0, 0, 0], [0, 1, 1]]


def test_the_mask_given_is_left_as_it_is() -> None:
    mask = np.ones((2, 2), np.uint8)
    prune_by_magnitude(np.arange(4.0).reshape(2, 2), mask, 1)
    assert mask.all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_living_weight_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        prune_by_magnitude(np.array([[1.0, value]]), np.ones((1, 2), np.uint8), 1)


def test_a_pruned_weight_may_be_anything() -> None:
    mask = prune_by_magnitude(np.array([[1.0, np.nan]]), np.array([[1, 0]], np.uint8), 1)
    assert mask.tolist() == [[1, 0]]


def test_a_layer_cannot_die() -> None:
    with pytest.raises(ValueError, match=r"keep must be at least 1.*got 0"):
        prune_by_magnitude(np.ones((2, 2)), np.ones((2, 2), np.uint8), 0)
    assert removals([1, 1], 99, 0) == [0, 0]


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2, 2\)"):
        prune_by_magnitude(np.ones((2, 2)), np.ones((2, 3), np.uint8), 1)


LIVING = st.lists(st.integers(1, 5000), min_size=1, max_size=6)


def test_ten_steps_of_five_percent_leave_sixty_percent() -> None:
    living = [27, 1920]
    for _ in range(10):
        living = [count - gone for count, gone in zip(living, removals(living, 5, 195), strict=True)]
    assert living == [19, 1153]
    assert sum(living) / 1947 == pytest.approx(0.95**10, abs=0.004)


@given(LIVING, st.floats(0.5, 99))
def test_a_step_takes_no_more_than_its_percent_of_a_layer(living: list[int], percent: float) -> None:
    gone = removals(living, percent, 0)
    share = [part for part, count in zip(gone, living, strict=True) if part > count * percent / 100]
    assert not share or (sum(gone) == 1 and max(living) * percent < 100)


@given(LIVING, st.floats(0.5, 99), st.floats(0.01, 1))
def test_steps_land_exactly_on_the_floor(living: list[int], percent: float, rate: float) -> None:
    floor = max(len(living), round(sum(living) * rate))
    steps = 0
    while sum(living) > floor:
        gone = removals(living, percent, floor)
        assert sum(gone) > 0, "every step makes progress"
        living = [count - part for count, part in zip(living, gone, strict=True)]
        assert min(living) >= 1
        steps += 1
        assert steps < 10_000
    assert sum(living) == floor
    assert not any(removals(living, percent, floor))


def test_a_trimmed_step_takes_from_each_layer_in_proportion() -> None:
    assert removals([1000, 3000], 10, 3800) == [50, 150]


def test_the_living_rate_counts_prunable_weights_only() -> None:
    assert living_rate([np.array([[1, 0], [0, 0]], np.uint8), None]) == 0.25
    assert living_rate(full_mask([np.zeros((3, 2)), None])) == 1.0
    with pytest.raises(ValueError, match="no living rate"):
        living_rate([None])


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
        ("prune_percent", None, TypeError),
        ("mask_scope", "galaxy", ValueError),
        ("prune_scope", "local", ValueError),
        ("prune_schedule", "linear", ValueError),
        ("prune_start_epoch", -1, ValueError),
        ("prune_start_epoch", 1.5, ValueError),
        ("prune_end_epoch", 3, ValueError),  # only the cubic schedule has an end
        ("regrow_percent", 100, ValueError),
        ("regrow_percent", -1, ValueError),
        ("regrow_percent", "1", TypeError),
        ("withhold_percent", 100, ValueError),
        ("withhold_percent", -1, ValueError),
        ("withhold_percent", "1", TypeError),
    ],
)
def test_a_bad_setting_is_named_with_its_value(setting: str, value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"{setting} must be .*, got {value!r}"):
        PruneSettings(**{setting: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("end", [None, 2, 1, 2.5, True])
def test_the_cubic_schedule_needs_an_end_after_its_start(end: object) -> None:
    with pytest.raises(ValueError, match=f"prune_end_epoch must be an integer of at least 3, got {end!r}"):
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


def test_a_step_is_due_after_the_start_while_there_is_something_to_do() -> None:
    settings = PruneSettings(prune_end_rate=0.5, prune_start_epoch=2)
    assert [settings.step_due(epoch, 1.0) for epoch in (1, 2, 3)] == [False, False, True]
    assert not settings.step_due(3, 0.5)
    assert PruneSettings(prune_end_rate=0.5, regrow_percent=1).step_due(3, 0.5)


@given(st.integers(1, 60), st.integers(1, 80))
def test_a_step_may_end_each_so_many_rounds_and_always_the_last(rounds: int, freq: int) -> None:
    within, without = PruneSettings(prune_freq=freq), PruneSettings()
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


@pytest.mark.parametrize("freq", [0, -1, 2.0, True, "2"])
def test_a_bad_frequency_of_steps_is_named(freq: Any) -> None:
    with pytest.raises(
        ValueError, match=f"prune_freq must be an integer of at least 1 or None, got {freq!r}"
    ):
        PruneSettings(prune_freq=freq)


@st.composite
def nets(draw: st.DrawFn) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Weights, masks under which each layer lives, and gradients; many weights are equal."""
    values = st.floats(-2, 2, width=16) | st.just(0.5)
    weights = draw(
        st.lists(
            hnp.arrays(np.float32, hnp.array_shapes(max_side=8), elements=values), min_size=1, max_size=4
        )
    )
    masks = [draw(hnp.arrays(np.uint8, weight.shape, elements=st.integers(0, 1))) for weight in weights]
    for mask in masks:
        mask.reshape(-1)[draw(st.integers(0, mask.size - 1))] = 1
    gradients = [draw(hnp.arrays(np.float32, weight.shape, elements=values)) for weight in weights]
    return weights, masks, gradients


SETTINGS = st.builds(
    PruneSettings,
    prune_end_rate=st.floats(0.01, 1),
    prune_percent=st.floats(0.5, 99),
    prune_scope=st.sampled_from(["layer", "global"]),
    regrow_percent=st.sampled_from([0.0, 0.0, 10.0, 60.0]),
    prune_criterion=st.sampled_from(["magnitude", "snip"]),
) | st.builds(
    PruneSettings,
    prune_end_rate=st.floats(0.01, 1),
    prune_scope=st.sampled_from(["layer", "global"]),
    prune_schedule=st.just("cubic"),
    prune_start_epoch=st.just(1),
    prune_end_epoch=st.integers(2, 6),
    prune_criterion=st.sampled_from(["magnitude", "snip"]),
)


@given(nets(), SETTINGS)
def test_steps_lead_every_net_to_the_end_rate_and_no_layer_dies(
    net: tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]], settings: PruneSettings
) -> None:
    weights, masks, gradients = net
    size, before = sum(mask.size for mask in masks), sum(int(mask.sum()) for mask in masks)
    end = min(before, max(len(masks), int(np.floor(settings.prune_end_rate * size + 1e-9))))
    epoch = settings.prune_start_epoch
    for _ in range(600):
        epoch += 1
        new = pruned_masks(weights, masks, settings, epoch, gradients)
        living = sum(int(mask.sum()) for mask in new)
        assert all(mask.sum() >= 1 and mask.shape == old.shape for mask, old in zip(new, masks, strict=True))
        assert end <= living <= before
        if not settings.regrow_percent:
            assert all((mask <= old).all() for mask, old in zip(new, masks, strict=True))
        if living == end:
            return
        assert settings.prune_schedule == "cubic" or living < before, "every step makes progress"
        masks, before = new, living
    raise AssertionError("never came to the end")


@given(nets(), st.integers(0, 300))
def test_over_layers_the_smallest_go_but_the_largest_of_each_layer_stays(
    net: tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]], keep: int
) -> None:
    weights, masks, _ = net
    living = sum(int(mask.sum()) for mask in masks)
    new = prune_over_layers(weights, masks, keep)
    assert sum(int(mask.sum()) for mask in new) == max(len(masks), min(keep, living))
    removed, spared = [], []
    for weight, old, mask in zip(weights, masks, new, strict=True):
        magnitudes = np.abs(weight)
        assert magnitudes[mask == 1].max() == magnitudes[old == 1].max()
        removed += magnitudes[(old == 1) & (mask == 0)].tolist()
        spared += np.sort(magnitudes[mask == 1])[:-1].tolist()
    assert not removed or not spared or max(removed) <= min(spared)


def test_over_layers_a_small_layer_of_large_weights_is_spared() -> None:
    small, large = np.full((2, 2), 5.0), np.linspace(0.1, 1, 100).reshape(10, 10)
    masks = prune_over_layers([small, large], full_mask([small, large]), 14)  # type: ignore[arg-type]
    assert masks[0].all() and masks[1].sum() == 10 and masks[1].ravel()[-10:].all()


@given(st.lists(st.integers(1, 400), min_size=1, max_size=5), st.floats(0.01, 1))
def test_every_layer_comes_to_the_same_rate_but_for_rounding(sizes: list[int], rate: float) -> None:
    floor = int(np.floor(rate * sum(sizes) + 1e-9))
    kept = [
        size - gone for size, gone in zip(sizes, removals_to_rate(sizes, sizes, rate, floor), strict=True)
    ]
    assert sum(kept) == max(floor, len(sizes)) or min(kept) == 1
    largest = int(np.argmax(sizes))
    for k, (count, size) in enumerate(zip(kept, sizes, strict=True)):
        assert abs(count - rate * size) <= (len(sizes) + 1 if k == largest else 1)


@given(layers(), st.floats(0, 99), st.integers(0, 2**32 - 1))
def test_an_exchange_keeps_the_number_and_revives_the_largest_gradients(
    layer: tuple[np.ndarray, np.ndarray], percent: float, seed: int
) -> None:
    weight, mask = layer
    mask.reshape(-1)[0] = 1
    gradient = np.random.default_rng(seed).permutation(weight.size).reshape(weight.shape).astype("f4")
    new = exchange(weight, mask, gradient, percent)
    assert new.sum() == mask.sum()
    revived, left = gradient[(mask == 0) & (new == 1)], gradient[new == 0]
    assert not revived.size or not left.size or revived.min() > left.max()


def test_an_exchange_takes_the_smallest_out() -> None:
    weight, mask = np.array([[3.0, 1.0, 2.0, 0.0]]), np.array([[1, 1, 1, 0]], np.uint8)
    gradient = np.array([[0.0, 0.1, 0.0, -9.0]])
    assert exchange(weight, mask, gradient, 34).tolist() == [[1, 0, 1, 1]]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="gradient is NaN or infinite"):
        exchange(np.ones((1, 2)), np.ones((1, 2), np.uint8), np.array([[1.0, value]]), 10)


def test_regrowing_needs_gradients() -> None:
    with pytest.raises(ValueError, match="needs gradients"):
        pruned_masks([np.ones((2, 2))], [np.ones((2, 2), np.uint8)], PruneSettings(regrow_percent=10), 1)


def test_snip_prunes_what_changes_the_loss_least() -> None:
    weight, gradient = np.array([[4.0, -1.0], [3.0, -2.0]]), np.array([[0.1, -5.0], [-1.0, 0.0]])
    new = pruned_masks(
        [weight],
        [np.ones((2, 2), np.uint8)],
        PruneSettings(prune_criterion="snip", prune_percent=50),
        1,
        [gradient],
    )
    assert new[0].tolist() == [[0, 1], [1, 0]]  # |w g| is 0.4, 5, 3 and 0; by magnitude -1 and -2 would go


def test_a_criterion_of_gradients_is_refused_where_there_are_none_or_all_prune_alike() -> None:
    snip = PruneSettings(prune_criterion="snip")
    ones = np.ones((2, 2), np.uint8)
    with pytest.raises(ValueError, match="prune_criterion='snip' needs gradients"):
        pruned_masks([np.ones((2, 2))], [ones], snip, 1)
    with pytest.raises(ValueError, match=r"shape \(2, 2\), got \(2, 3\)"):
        pruned_masks([np.ones((2, 2))], [ones], snip, 1, [np.ones((2, 3))])
    with pytest.raises(
        ValueError, match=r"prune_criterion must be .* with mask_scope='global', .*got 'snip'"
    ):
        PruneSettings(prune_criterion="snip", mask_scope="global")


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, float("inf")]), max_size=40), st.integers(-1, 45))
def test_the_smallest_are_those_that_a_stable_sort_puts_first(values: list[float], count: int) -> None:
    array = np.array(values)
    expected = np.argsort(array, kind="stable")[: max(0, count)]
    assert sorted(smallest(array, count)) == sorted(expected)
