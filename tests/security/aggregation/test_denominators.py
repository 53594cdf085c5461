"""Averages divide by the weights of those who keep an element, asked for once."""

from __future__ import annotations

from typing import Any

import numpy as np

import secretflow as sf


def test_other_weights_and_other_masks_bring_other_denominators(consortium: Any) -> None:
    data = [[np.array([8.0, 8.0])], [np.array([4.0, 4.0])], [np.array([0.0, 1.0])]]
    held = consortium.held(data)
    first, second = (
        consortium.held([[np.array(mask)] for mask in masks])
        for masks in ([[1, 1], [1, 0], [0, 1]], [[0, 1], [1, 1], [1, 1]])
    )
    aggregator = consortium.aggregator(3, min_contributors=2, fixed_contributors=False)
    rounds = [
        (first, [1, 1, 1], [6.0, 4.5]),
        (first, [1, 3, 1], [5.0, 4.5]),
        (first, [1, 1, 1], [6.0, 4.5]),
        (second, [1, 1, 1], [2.0, 13 / 3]),
        (first, [1, 1, 1], [6.0, 4.5]),
        (first, None, [6.0, 4.5]),
        (first, [1, 1, 6], [6.0, 2.0]),
    ]
    for masks, weights, expected in rounds:
        for result in sf.reveal(aggregator.average_at_parties(held, weights, masks)).values():
            np.testing.assert_allclose(result[0], expected, atol=2e-5)
        result = sf.reveal(aggregator.average(held, 0, weights, masks))
        np.testing.assert_allclose(result[0], expected, atol=2e-5)


def test_denominators_travel_once_for_the_same_masks_and_weights(consortium: Any) -> None:
    masks = consortium.held([[np.array([1, 1, 1, 0])], [np.array([1, 1, 0, 0])], [np.array([1, 0, 0, 0])]])
    data = consortium.held([[np.ones(4)]] * 3)
    aggregator = consortium.aggregator(3, min_contributors=2)
    uploaded = []
    for _ in range(3):
        aggregator.average_at_parties(data, prune_mask=masks)
        uploaded.append(sf.reveal(aggregator.payload_bytes())[consortium.parties[0]])
    # A mask of 4 bytes; two living numbers and one denominator of 4 bytes each; then the numbers alone.
    assert uploaded == [4 + 12, 16 + 8, 24 + 8]
