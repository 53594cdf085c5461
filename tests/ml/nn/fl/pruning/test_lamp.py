"""The criterion that compares layers by what is left of each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secretflow.ml.nn.fl.pruning import PruneSettings, full_mask, prune_by_magnitude, pruned_masks
from secretflow.ml.nn.fl.pruning.scores import lamp

from .strategies import nets


def test_a_score_is_the_part_of_a_square_in_all_that_are_not_below_it() -> None:
    weight = np.array([[1.0, -2.0], [3.0, 0.0]], np.float32)
    np.testing.assert_allclose(lamp(weight, None), [[1 / 14, 4 / 13], [1, 0]])


@given(nets(), st.integers(-20, 20))
def test_a_layers_scale_changes_no_score_and_within_it_magnitudes_decide(
    net: tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]], exponent: int
) -> None:
    weight, mask = net[0][0], net[1][0]
    score = lamp(weight, None)
    np.testing.assert_array_equal(lamp(weight.astype(np.float64) * 2.0**exponent, None), score)
    for keep in range(1, int(mask.sum()) + 1):
        np.testing.assert_array_equal(
            prune_by_magnitude(score, mask, keep), prune_by_magnitude(weight, mask, keep)
        )


def test_over_layers_one_of_small_weights_does_not_lose_them_all() -> None:
    rng = np.random.default_rng(0)
    weights = {"small": 1e-3 * rng.normal(size=(8, 8)), "large": rng.normal(size=(8, 8))}
    mask = full_mask({name: value.shape for name, value in weights.items()})
    kept = {}
    for criterion in ("magnitude", "lamp"):
        settings = PruneSettings(prune_end_rate=0.25, prune_criterion=criterion).over(2)
        kept[criterion] = int(pruned_masks(weights, mask, settings, 2)["small"].sum())
    assert kept["magnitude"] == 1 and 8 <= kept["lamp"] <= 24


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="weight must be finite where it lives, and so must its score"):
        pruned_masks({"a": np.array([[1.0, value]])}, full_mask({"a": (1, 2)}), PruneSettings().over(2), 2)
