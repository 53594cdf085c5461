"""Mistakes are refused as upstream's SecureAggregator refuses them, and settings out of range by name."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import secretflow as sf
from secretflow.security.aggregation import SecureAggregator, SecurePruneAggregator

Mistake = Callable[[Any, Any], Any]
MISTAKES: dict[str, tuple[Mistake, str]] = {
    "no data": (lambda a, c: a.sum([]), "The data should not be None or empty"),
    "no data for the average": (lambda a, c: a.average(None), "The data should not be None or empty"),
    "a missing party": (
        lambda a, c: a.sum(c.held([np.ones(1)] * 2)),
        "Length of the data not equals devices: 2 vs 3",
    ),
    "a party too many": (
        lambda a, c: a.average(c.held([np.ones(1)] * 4)),
        "Length of the data not equals devices: 4 vs 3",
    ),
    "a foreign party": (
        lambda a, c: a.sum(c.held([np.ones(1)] * 4)[1:]),
        "Devices of the data must be corresponding with this aggregator",
    ),
    "a party twice": (
        lambda a, c: a.sum([*c.held([np.ones(1)] * 2), *c.held([np.ones(1)])]),
        "Devices of the data must be corresponding with this aggregator",
    ),
    "text": (lambda a, c: a.sum(c.held(["a"] * 3)), "Accept ndarray or dataframe/series only but got"),
    "numbers without an array": (
        lambda a, c: a.sum(c.held([1.0] * 3)),
        "Accept ndarray or dataframe/series only but got",
    ),
    "an array of text": (
        lambda a, c: a.sum(c.held([np.array(["a"])] * 3)),
        "Data type are neither integer nor float",
    ),
    "too few weights": (
        lambda a, c: a.average(c.held([np.ones(1)] * 3), weights=[1, 2]),
        "Length of the weights not equals data: 2 vs 3",
    ),
    "a weight on another device": (
        lambda a, c: a.average(c.held([np.ones(1)] * 3), weights=c.held([1, 2, 3])[::-1]),
        "Device of weight is not same with the corresponding data",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_the_same_error_as_upstreams(both: Any, consortium: Any, name: str) -> None:
    act, message = MISTAKES[name]
    for aggregator in both:
        with pytest.raises(AssertionError, match=message):
            act(aggregator, consortium)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([np.ones(2), np.ones(2), np.ones(2, "f4")], "differ in layout.*shapes, types"),
        ([np.ones(2), np.ones(2), np.ones(2, "i8")], "differ in layout.*shapes, types"),
        ([np.ones(2), np.ones(2), np.ones(3)], "differ in layout.*shapes, types"),
        ([np.ones(2), np.ones(2), [np.ones(2)]], "differ in layout.*shapes, types"),
        ([[np.ones(2)] * 2, [np.ones(2)] * 2, [np.ones(2)]], "differ in layout.*shapes, types"),
    ],
)
def test_mixed_types_shapes_and_lists_are_refused(
    both: Any, consortium: Any, data: Any, message: str
) -> None:
    ours, theirs = both
    with pytest.raises(AssertionError, match=message):
        ours.average(consortium.held(data), axis=0)
    with pytest.raises((AssertionError, ValueError, TypeError, IndexError)):  # upstream: whatever numpy says
        sf.reveal(theirs.average(consortium.held(data), axis=0))


def test_a_device_twice_among_the_participants_is_refused_as_upstream_does(consortium: Any) -> None:
    alice, bob = consortium.parties[:2]
    for aggregator in (SecurePruneAggregator, SecureAggregator):
        with pytest.raises(AssertionError, match="Should not have duplicated devices"):
            aggregator(consortium.server, [alice, bob, alice])


def test_settings_out_of_range_are_refused(consortium: Any) -> None:
    for parties, options, message in (
        (1, {}, "from 2 to 1000 parties"),
        (0, {}, "from 2 to 1000 parties"),
        (3, {"min_contributors": 0}, "min_contributors must be an integer from 1 to 3, got 0"),
        (3, {"min_contributors": 4}, "min_contributors must be an integer from 1 to 3, got 4"),
        (3, {"ring_bits": 16}, "ring_bits must be one of 32, 64, got 16"),
        (3, {"fxp_bits": 31}, "fxp_bits must be an integer from 1 to 28 .*, got 31"),
    ):
        with pytest.raises(ValueError, match=message):
            consortium.aggregator(parties, **options)


def test_another_axis_is_refused(consortium: Any) -> None:
    data = consortium.held([np.ones((2, 2))] * 3)
    for act in (consortium.aggregator(3).sum, consortium.aggregator(3).average):
        with pytest.raises(AssertionError, match="axis must be 0 or None, got 1"):
            act(data, axis=1)


def test_in_blind_mode_the_server_has_no_result_to_give(consortium: Any) -> None:
    aggregator = consortium.aggregator(3, server_blind=True)
    data = consortium.held([np.ones(2)] * 3)
    for act in (aggregator.sum, aggregator.average):
        with pytest.raises(AssertionError, match="average_at_parties"):
            act(data, axis=0)
    for result in sf.reveal(aggregator.average_at_parties(data)).values():
        np.testing.assert_allclose(result, [1, 1], atol=3 * 2.0**-21)


def test_a_blind_server_cannot_be_a_participant(devices: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="is a participant and has the key"):
        SecurePruneAggregator(devices.alice, [devices.alice, devices.bob], server_blind=True)


@pytest.mark.parametrize("min_survivors", [1, 2, 5, 2.5])
def test_fewer_survivors_than_half_or_than_must_contribute_are_refused(
    devices: SimpleNamespace, min_survivors: object
) -> None:
    parties = [devices.alice, devices.bob, devices.carol, devices.davy]
    with pytest.raises((ValueError, TypeError), match="min_survivors must be"):
        SecurePruneAggregator(devices.carol, parties, min_survivors=min_survivors)  # type: ignore[arg-type]


def test_a_deadline_that_is_none_is_refused(devices: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="round_deadline must be"):
        SecurePruneAggregator(devices.carol, [devices.alice, devices.bob], round_deadline=0)
