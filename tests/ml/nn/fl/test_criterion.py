"""Training with another criterion of pruning than magnitude."""

from __future__ import annotations

import numpy as np
import pytest

from secretflow.device import reveal

from .conftest import Task

PRUNABLE = 66
"""Weights of the net's layers without their biases."""


def test_snip_comes_to_the_exact_density_of_magnitude_under_other_masks(task: Task) -> None:
    supports = {}
    for criterion in ("magnitude", "snip"):
        model = task.make_model(prune_criterion=criterion, prune_end_rate=0.3)
        history = model.fit(task.x, task.y, epochs=4, batch_size=8, verbose=0, random_seed=5)
        assert history.global_history["density"][-1] == int(0.3 * PRUNABLE) / PRUNABLE
        arrays = reveal(next(iter(model._workers.values())).get_weights())
        supports[criterion] = np.concatenate([array.ravel() != 0 for array in arrays if array.ndim > 1])
        assert supports[criterion].size == PRUNABLE
        assert supports[criterion].sum() == int(0.3 * PRUNABLE)
    assert not np.array_equal(supports["magnitude"], supports["snip"])


def test_snip_is_refused_with_a_mask_for_all(task: Task) -> None:
    with pytest.raises(ValueError, match=r"prune_criterion must be .* mask_scope='global'"):
        task.make_model(prune_criterion="snip", mask_scope="global")
