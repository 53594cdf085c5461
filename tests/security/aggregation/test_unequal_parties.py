"""A party of few rows beside one of very many: its numbers arrive, or it is an error that says what to do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import secretflow as sf
from secretflow.security.aggregation.secagg.errors import AggregationError

ROWS = [[1, 1, 10**6], [100, 100, 10**8], [1, 10**3, 10**6], [100, 100, 10**7]]
KINDS = ["plain", "at the parties", "arrays"]


def weighed(consortium: Any, rows: list[int], kind: str) -> Any:
    if kind == "arrays":
        return [np.array([1, count]) for count in rows]
    return consortium.held(rows) if kind == "at the parties" else rows


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("kind", KINDS)
def test_next_to_one_party_the_others_do_not_hide_it(consortium: Any, rows: list[int], kind: str) -> None:
    data = consortium.held([np.ones(2)] * 3)
    with pytest.raises(AggregationError, match="at least min_contributors=3 parties"):
        sf.reveal(consortium.aggregator(3, ring_bits=64).average(data, 0, weighed(consortium, rows, kind)))


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_small_share_is_refused_in_the_ring_of_32_bits_and_kept_in_that_of_64(
    consortium: Any, rows: list[int], kind: str
) -> None:
    """All have agreed that the large party is not hidden; then the small ones' numbers must arrive."""
    numbers = [np.array([1.25, 3.0]), np.array([-7.5, 2e3]), np.array([0.0, 0.0])]
    data, weights = consortium.held(numbers), weighed(consortium, rows, kind)
    options = {"min_share": 1e-9}
    with pytest.raises(AggregationError, match=r"or its numbers are rounded away.*ring_bits=64\) has room"):
        sf.reveal(consortium.aggregator(3, **options).average(data, 0, weights))
    result = sf.reveal(consortium.aggregator(3, ring_bits=64, **options).average(data, 0, weights))
    spread = [
        np.broadcast_to(np.asarray(w if kind == "arrays" else c, float), 2)
        for w, c in zip(weights if kind == "arrays" else rows, rows, strict=True)
    ]
    expected = np.average(numbers, axis=0, weights=spread)
    # The small parties' numbers are all there is: they arrive to three digits.
    np.testing.assert_allclose(result, expected, rtol=1e-3)


def test_what_only_small_parties_keep_arrives_as_well(consortium: Any) -> None:
    masks = consortium.held([[np.ones(2)], [np.ones(2)], [np.array([1, 0])]])
    data = consortium.held([[np.array([1.0, 1.25])], [np.array([1.0, -7.0])], [np.array([1.0, 0.0])]])
    aggregator = consortium.aggregator(3, ring_bits=64, min_contributors=1, min_share=1e-9)
    result = sf.reveal(aggregator.average(data, 0, [100, 100, 10**8], masks))[0]
    np.testing.assert_allclose(result, [1.0, -2.875], rtol=1e-4)


def test_integers_lose_nothing_whatever_the_weights(consortium: Any) -> None:
    data = consortium.held([np.array([7]), np.array([5]), np.array([11])])
    aggregator = consortium.aggregator(3, min_share=1e-9)
    result = sf.reveal(aggregator.average(data, 0, [1, 1, 10**8]))
    assert result[0] == (7 + 5 + 11 * 10**8) / (10**8 + 2)
