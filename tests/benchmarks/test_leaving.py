"""What the server makes of the averages before and after a party leaves a weight."""

from __future__ import annotations

import numpy as np

from benchmarks.internals import Uploads
from benchmarks.leaving import PARTIES, estimate

NUMBERS, LEFT, LEAVER = 6, 2, 1


def rounds(goes_on: bool) -> tuple[list[Uploads], np.ndarray]:
    """Averages of parties that move by the same steps in each round, and the steps."""
    rng = np.random.default_rng(0)
    steps, shares = rng.normal(size=(PARTIES, NUMBERS)), rng.dirichlet(np.ones(PARTIES))
    numbers, found = np.zeros((PARTIES, NUMBERS)), []
    for number in range(3):
        contributes = np.ones((PARTIES, NUMBERS), bool)
        if number == 2:
            contributes[LEAVER if goes_on else slice(None), LEFT] = False
        found.append(Uploads(numbers, contributes, shares))
        numbers = found[-1].average() + steps
    return found, steps


def test_the_update_of_one_who_leaves_is_read_off_if_the_others_move_as_before() -> None:
    uploads, steps = rounds(goes_on=True)
    found = estimate(uploads)
    assert found.followed.tolist() == [True]
    np.testing.assert_allclose(found.real, steps[LEAVER, LEFT])
    np.testing.assert_allclose(found.best, steps[LEAVER, LEFT])
    assert abs(found.alone[0] - found.real[0]) > 0.1


def test_where_the_weight_does_not_go_on_the_average_before_is_all_there_is() -> None:
    uploads, steps = rounds(goes_on=False)
    found = estimate(uploads)
    assert not found.followed.any() and found.real.size == PARTIES
    np.testing.assert_allclose(found.real, steps[:, LEFT])
    np.testing.assert_array_equal(found.best, found.alone)
