"""The plan of a fit: all its rounds, and which of them a step of pruning ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secretflow.ml.nn.fl.plan import Round, plan_epochs
from secretflow.ml.nn.fl.pruning import (
    PRUNE_SCHEDULES,
    PruneSettings,
    density,
    living_after_step,
    pruned_masks,
)

SIZES = [30, 12]


def planned(chosen: PruneSettings, epochs: int = 1, trained: int = 0, **options: Any) -> list[list[Round]]:
    how = {"steps": 7, "aggregate_freq": 1, "sizes": SIZES, "living": SIZES, **options}
    return list(plan_epochs(chosen, trained=trained, epochs=epochs, **how))


@given(st.integers(0, 9), st.integers(1, 50), st.integers(1, 60))
def test_the_rounds_of_an_epoch_have_all_its_steps_in_order(trained: int, steps: int, frequency: int) -> None:
    first, last = planned(PruneSettings(), 2, trained, steps=steps, aggregate_freq=frequency)
    for epoch, rounds in enumerate((first, last), start=trained):
        done = [step for this in rounds for step in range(this.first_step, this.first_step + this.steps)]
        assert done == list(range(steps))
        assert all(this.steps == frequency for this in rounds[:-1])
        assert [this.number for this in rounds] == list(range(1, len(rounds) + 1))
        assert [this.in_all for this in rounds] == [epoch * len(rounds) + this.number for this in rounds]
        assert [this.ends_epoch for this in rounds] == [False] * (len(rounds) - 1) + [True]
        assert rounds[-1].passed == epoch + 1
        assert all(epoch < this.passed < epoch + 1 for this in rounds[:-1])
    assert [this.ends_fit for this in (*first, *last)] == [False] * (len(first) + len(last) - 1) + [True]


def pruning(rounds: list[Round]) -> list[int]:
    return [this.number for this in rounds if this.prunes]


def test_with_a_percentage_alone_the_last_round_of_an_epoch_prunes_until_the_end_rate_is_reached() -> None:
    epochs = planned(PruneSettings(prune_end_rate=0.5, prune_percent=30), epochs=4)
    assert [pruning(rounds) for rounds in epochs] == [[7], [7], [7], []]
    (rounds,) = planned(PruneSettings(prune_end_rate=0.5), living=[15, 6])
    assert not pruning(rounds)


def test_before_the_start_epoch_nothing_prunes() -> None:
    first, second = planned(PruneSettings(prune_start_epoch=1, prune_freq=2), epochs=2)
    assert (pruning(first), pruning(second)) == ([], [2, 4, 6, 7])


def test_regrowth_goes_on_at_the_end_rate() -> None:
    (rounds,) = planned(PruneSettings(prune_end_rate=0.5, regrow_percent=10, prune_freq=3), living=[15, 6])
    assert pruning(rounds) == [3, 6, 7]


@st.composite
def choices(draw: st.DrawFn) -> PruneSettings:
    schedule = draw(st.sampled_from(PRUNE_SCHEDULES))
    ends = schedule == "cubic" or (schedule == "cubic-geometric" and draw(st.booleans()))
    start = draw(st.integers(0, 2))
    return PruneSettings(
        prune_end_rate=draw(st.floats(0.01, 1)),
        prune_percent=draw(st.floats(0.5, 80)),
        prune_scope=draw(st.sampled_from(["layer", "global"])),
        prune_schedule=schedule,
        prune_freq=draw(st.none() | st.integers(1, 3)),
        prune_start_epoch=start,
        prune_end_epoch=start + draw(st.integers(1, 4)) if ends else None,
        regrow_percent=draw(st.sampled_from([0.0, 15.0])),
    )


@settings(deadline=None)
@given(
    choices(),
    st.lists(st.integers(1, 60), min_size=1, max_size=4),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1.0, 1e-3, 0.0]),
)
def test_how_many_weights_live_follows_from_settings_and_sizes_alone(
    chosen: PruneSettings, sizes: list[int], seed: int, scale: float
) -> None:
    """Whatever the weights are, ties and zeros included, each step goes as it was planned."""
    rng = np.random.default_rng(seed)
    masks = {str(k): np.ones(size, np.uint8) for k, size in enumerate(sizes)}
    counts = list(sizes)
    of_fit = chosen.over(5)
    for this in (
        one
        for epoch in plan_epochs(chosen, sizes, sizes, trained=0, epochs=5, steps=4, aggregate_freq=1)
        for one in epoch
    ):
        # What a party decides from its own mask is what the plan says.
        due = chosen.step_may_end(this.number, 4) and chosen.step_due(this.passed, density(masks))
        assert this.prunes == due
        if not this.prunes:
            continue
        weights = {name: (rng.normal(size=mask.size) * scale).round(1) for name, mask in masks.items()}
        gradients = {name: rng.normal(size=mask.size) for name, mask in masks.items()}
        masks = pruned_masks(weights, masks, of_fit, this.passed, gradients)
        counts = living_after_step(of_fit, sizes, counts, this.passed)
        living = [int(mask.sum()) for mask in masks.values()]
        assert sum(living) == sum(counts)
        if chosen.prune_scope == "layer":
            assert living == counts


@pytest.mark.parametrize("prune_scope", ["layer", "global"])
def test_no_layer_dies(prune_scope: str) -> None:
    chosen = PruneSettings(prune_end_rate=0.01, prune_percent=90, prune_scope=prune_scope)
    assert living_after_step(chosen, [1, 1, 3], [1, 1, 1], 1.0) == [1, 1, 1]
