"""Structured pruning as mathematics: whole units go, the smallest first, and what is tied goes together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secretflow.ml.nn.fl.plan import plan_epochs
from secretflow.ml.nn.fl.pruning import (
    Mask,
    PruneSettings,
    Structure,
    carried_mask,
    check_whole_units,
    density,
    living_after_step,
    living_units,
    pruned_units,
)
from secretflow.ml.nn.fl.pruning.structure import Axis, UnitGroup, mask_of_units

from .strategies import chains


def fresh(rng: np.random.Generator, mask: Mask, scale: float = 1.0) -> dict[str, np.ndarray]:
    """Random weights under a mask, with ties."""
    return {name: (rng.normal(size=entry.shape) * scale).round(1) * entry for name, entry in mask.items()}


CHOICES = st.builds(
    PruneSettings,
    prune_structure=st.just("unit"),
    prune_end_rate=st.floats(0.01, 1),
    prune_percent=st.floats(0.5, 80),
    prune_scope=st.sampled_from(["layer", "global"]),
    prune_freq=st.none() | st.integers(1, 3),
    prune_criterion=st.sampled_from(["magnitude", "snip"]),
) | st.builds(
    PruneSettings,
    prune_structure=st.just("unit"),
    prune_end_rate=st.floats(0.01, 1),
    prune_scope=st.sampled_from(["layer", "global"]),
    prune_schedule=st.just("cubic"),
    prune_end_epoch=st.integers(1, 4),
)


@settings(deadline=None)
@given(chains(), CHOICES, st.integers(0, 2**32 - 1), st.sampled_from([1.0, 1e-3, 0.0]))
def test_how_many_units_live_follows_from_settings_and_sizes_alone(
    chain: tuple[Structure, Mask], chosen: PruneSettings, seed: int, scale: float
) -> None:
    structure, mask = chain
    rng = np.random.default_rng(seed)
    sizes = [group.size for group in structure]
    counts = list(sizes)
    for epoch in plan_epochs(chosen, sizes, sizes, trained=0, epochs=5, steps=4, aggregate_freq=1):
        for this in epoch:
            units = {group.name: u for group, u in zip(structure, living_units(structure, mask), strict=True)}
            due = chosen.step_may_end(this.number, 4) and chosen.step_due(this.passed, density(units))
            assert this.prunes == due
            if this.prunes:
                weights, gradients = fresh(rng, mask, scale), fresh(rng, mask)
                new = pruned_units(structure, weights, mask, chosen, this.passed, gradients)
                check_whole_units(structure, new)
                assert all((entry <= mask[name]).all() for name, entry in new.items())
                counts = living_after_step(chosen, sizes, counts, this.passed)
                mask = new
                living = [int(each.sum()) for each in living_units(structure, mask)]
                assert sum(living) == sum(counts) and min(living) >= 1
                assert living == counts or chosen.prune_scope == "global"


@given(chains(), st.integers(0, 2**32 - 1))
def test_masks_and_living_units_say_the_same(chain: tuple[Structure, Mask], seed: int) -> None:
    structure, full = chain
    rng = np.random.default_rng(seed)
    living = [rng.integers(0, 2, group.size).astype(np.uint8) for group in structure]
    for units in living:
        units[rng.integers(units.size)] = 1
    mask = mask_of_units(structure, {name: entry.shape for name, entry in full.items()}, living)
    assert all(np.array_equal(a, b) for a, b in zip(living_units(structure, mask), living, strict=True))
    check_whole_units(structure, mask)


def test_the_units_of_the_smallest_norms_go_with_all_that_reads_and_carries_them() -> None:
    two = np.array([0, 0, 1, 1, 2, 2])
    group = UnitGroup(
        "a", 3, (Axis("a", 0, np.arange(3)),), (Axis("b", 1, two),), (Axis("bias", 0, np.arange(3)),)
    )
    weights = {"a": np.array([[3.0, 4.0], [0.0, 4.5], [4.0, 4.0]]), "b": np.ones((2, 6))}
    full = {name: np.ones(value.shape, np.uint8) for name, value in weights.items()}
    chosen = PruneSettings(prune_structure="neuron", prune_percent=34, prune_end_rate=0.1)
    mask = pruned_units((group,), weights, full, chosen, 1)
    assert mask["a"].tolist() == [[1, 1], [0, 0], [1, 1]]
    assert mask["b"].tolist() == [[1, 1, 0, 0, 1, 1]] * 2
    assert carried_mask((group,), living_units((group,), mask))["bias"].tolist() == [1, 0, 1]


def test_tied_units_are_judged_together() -> None:
    tied = UnitGroup(
        "a",
        2,
        (Axis("a", 0, np.arange(2)), Axis("b", 0, np.arange(2))),
        (Axis("c", 1, np.arange(2)),),
        (),
    )
    weights = {"a": np.array([[1.0], [2.0]]), "b": np.array([[5.0], [1.0]]), "c": np.ones((3, 2))}
    full = {name: np.ones(value.shape, np.uint8) for name, value in weights.items()}
    chosen = PruneSettings(prune_structure="filter", prune_percent=50, prune_end_rate=0.1)
    mask = pruned_units((tied,), weights, full, chosen, 1)
    assert [mask[name].tolist() for name in "abc"] == [[[1], [0]], [[1], [0]], [[1, 0]] * 3]


def test_over_layers_scores_are_compared_relative_to_their_layer() -> None:
    """Otherwise a layer of few inputs would lose everything to one of many."""
    groups = tuple(
        UnitGroup(name, 4, (Axis(name, 0, np.arange(4)),), (Axis("out", 1, units),), ())
        for name, units in (("small", np.r_[0:4, [-1] * 4]), ("large", np.r_[[-1] * 4, 0:4]))
    )
    weights = {
        "small": np.array([[0.1], [0.2], [0.3], [0.4]]),
        "large": np.array([[10.0], [20.0], [30.0], [40.0]]),
        "out": np.ones((1, 8)),
    }
    full = {name: np.ones(value.shape, np.uint8) for name, value in weights.items()}
    chosen = PruneSettings(
        prune_structure="neuron", prune_scope="global", prune_percent=50, prune_end_rate=0.1
    )
    mask = pruned_units(groups, weights, full, chosen, 1)
    assert [units.tolist() for units in living_units(groups, mask)] == [[0, 0, 1, 1]] * 2


def test_a_mask_of_single_weights_is_refused_by_name() -> None:
    group = UnitGroup("a", 2, (Axis("a", 0, np.arange(2)),), (Axis("b", 1, np.arange(2)),), ())
    mask = {"a": np.array([[1, 0], [1, 1]], np.uint8), "b": np.ones((3, 2), np.uint8)}
    with pytest.raises(ValueError, match=r"mask must prune whole units .*, got one .* single weights of a"):
        check_whole_units((group,), mask)
    with pytest.raises(ValueError, match="mask must have an entry for b with prune_structure, got none"):
        check_whole_units((group,), {"a": mask["a"]})


def test_units_have_no_gradient_to_come_back_by() -> None:
    with pytest.raises(
        ValueError, match=r"regrow_percent must be 0 with prune_structure='filter', .*, got 5"
    ):
        PruneSettings(prune_structure="filter", regrow_percent=5)


@pytest.mark.parametrize("value", ["weight", "channel", 1])
def test_an_unknown_structure_is_refused(value: object) -> None:
    message = "prune_structure must be one of None, 'filter', 'neuron', 'unit', got"
    with pytest.raises(ValueError, match=message):
        PruneSettings(prune_structure=value)  # type: ignore[arg-type]
