"""A fit that is made again without a party: how much of that party's update the difference tells."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from secretflow.security.aggregation.secagg.dropouts.server import Step

from .test_survivors import Federation, flat, watched

SEED = 3


@pytest.mark.parametrize("random_seed", [SEED, None])
def test_without_a_seed_the_same_fit_twice_does_not_show_the_update_of_who_is_left_out(
    devices: SimpleNamespace, random_seed: int | None
) -> None:
    """With one it does, so ``fit`` refuses it over a network; the rows are as many at each party."""
    first, again = (Federation(devices, "global", shuffle=True, random_seed=random_seed) for _ in range(2))
    uploads = watched(first, "davy")
    first.network.drain()
    again.until(lambda: again.in_average(1, Step.UPLOADS))
    again.network.cut("davy")
    again.network.drain()
    start, average = (flat(first.ended["alice"][number]) for number in (0, 1))
    without = flat(again.ended["alice"][1])
    np.testing.assert_array_equal(flat(again.ended["alice"][0]), start)
    estimate, update = 4 * average - 3 * without - start, flat(uploads[0]) - start
    error = np.linalg.norm(estimate - update) / np.linalg.norm(update)
    print(f"seed {random_seed}: off by {error:.2g} of the update's length")
    assert error < 0.01 if random_seed is not None else error > 0.1
