"""Memory is used again, but never while somebody holds it."""

from __future__ import annotations

import numpy as np

from secretflow.security.aggregation.secagg.memory import Recycled

U4 = np.dtype("<u4")


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_memory_that_was_given_back_is_used_again() -> None:
    memory = Recycled()
    first = memory.take(1000, U4)
    place = address(first)
    del first
    assert address(memory.take(1000, U4)) == place


def test_what_somebody_holds_is_left_alone() -> None:
    memory = Recycled()
    part = memory.take(1000, U4)[10:20]
    part[:] = 7
    memory.take(1000, U4)[:] = 9
    assert (part == 7).all()


def test_another_size_is_another_array() -> None:
    memory = Recycled()
    assert memory.take(1000, U4).size == 1000
    assert memory.take(1001, U4).size == 1001
