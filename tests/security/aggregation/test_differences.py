"""Two calls together tell no more than each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import secretflow as sf
from secretflow.device import PYUObject, proxy
from secretflow.security.aggregation.secagg.errors import AggregationError
from secretflow.security.aggregation.secagg.participant import Participant

RNG = np.random.default_rng(7)
DATA = [[RNG.normal(size=600)] for _ in range(4)]


def masks_but(party: int | None, left: slice) -> list[list[np.ndarray]]:
    """Full masks, but for one party's, which has left some elements."""
    masks = [[np.ones(600)] for _ in DATA]
    if party is not None:
        masks[party][0][left] = 0
    return masks


@pytest.mark.parametrize("first", ["masked", "dense", "sum"])
def test_a_mask_shrunk_by_one_party_gives_none_of_its_numbers_away(consortium: Any, first: str) -> None:
    """The attack: the sums with and without a party differ by its numbers, exactly."""
    left = slice(0, 500)

    def difference(aggregator: Any) -> np.ndarray:
        data = consortium.held(DATA)
        if first == "sum":
            before = sf.reveal(aggregator.sum(data, axis=0))[0] / 4
        else:
            masks = consortium.held(masks_but(None, left)) if first == "masked" else None
            before = sf.reveal(aggregator.average(data, 0, prune_mask=masks))[0]
        after = sf.reveal(aggregator.average(data, 0, prune_mask=consortium.held(masks_but(2, left))))[0]
        assert np.count_nonzero(after[500:]) == 100, "the rest must travel"
        return 4 * before[left] - 3 * after[left]

    bare = difference(consortium.aggregator(4, fixed_contributors=False))
    np.testing.assert_allclose(bare, DATA[2][0][left], atol=1e-4)
    protected = difference(consortium.aggregator(4))
    np.testing.assert_allclose(protected, 4 * np.mean([x[0][left] for x in DATA], axis=0), atol=1e-4)


def test_a_party_that_takes_up_an_element_again_gives_none_of_its_numbers_away(consortium: Any) -> None:
    aggregator, left = consortium.aggregator(4), slice(0, 500)
    before = sf.reveal(
        aggregator.average(consortium.held(DATA), 0, prune_mask=consortium.held(masks_but(2, left)))
    )[0]
    after = sf.reveal(
        aggregator.average(consortium.held(DATA), 0, prune_mask=consortium.held(masks_but(None, left)))
    )[0]
    np.testing.assert_array_equal(before[left], after[left])
    with pytest.raises(AggregationError, match="averaged without this party before"):
        sf.reveal(aggregator.average(consortium.held(DATA), 0))


@pytest.mark.parametrize("at_parties", [False, True])
def test_a_party_of_a_small_weight_stays_in_the_next_sum(consortium: Any, at_parties: bool) -> None:
    """The attack: masks are agreed on again; left out then, its numbers were the difference."""
    aggregator, data = consortium.aggregator(5), [*DATA, [RNG.normal(size=600)]]

    def average(masks: list[list[np.ndarray]]) -> np.ndarray:
        weights = [1000, 1000, 1000, 1000, 7]
        given = consortium.held(weights) if at_parties else weights
        own = consortium.held(data), given, consortium.held(masks)
        return sf.reveal(aggregator.average_at_parties(*own))[consortium.parties[0]][0]

    full, left = [[np.ones(600)] for _ in data], slice(0, 500)
    before = average(full)
    np.testing.assert_array_equal(average(full), before)
    fewer = [[mask.copy()] for (mask,) in full]
    fewer[4][0][left] = 0
    after = average(fewer)
    np.testing.assert_array_equal(after[left], data[0][0][left])  # the own: nothing of it has travelled
    np.testing.assert_array_equal(after[500:], before[500:])


@pytest.mark.parametrize("and_back", [False, True])
def test_what_was_averaged_is_known_though_another_model_takes_the_clients_in(
    consortium: Any, and_back: bool
) -> None:
    aggregator, left = consortium.aggregator(4), slice(0, 500)

    def hosts() -> dict[Any, Any]:
        return {party: proxy(PYUObject)(Participant)(device=party) for party in consortium.parties[:4]}

    first = hosts()
    aggregator.host_at(first)
    before = sf.reveal(aggregator.average(consortium.held(DATA), 0))[0]
    aggregator.host_at(hosts())
    if and_back:
        aggregator.host_at(first)
    shrunk = sf.reveal(
        aggregator.average(consortium.held(DATA), 0, prune_mask=consortium.held(masks_but(2, left)))
    )
    np.testing.assert_allclose(shrunk[0], np.where(np.arange(600) < 500, 0, before), atol=1e-4)
    with pytest.raises(AggregationError, match="must be new under new weights"):
        sf.reveal(aggregator.average(consortium.held(DATA), 0, [1, 2, 3, 4]))


ELSEWHERE: dict[str, Callable[[np.ndarray, np.ndarray], Any]] = {
    "another shape": lambda x, y: [x.reshape(20, 30), y],
    "another order": lambda x, y: [y, x],
    "one array more": lambda x, y: [x, y, np.ones_like(y)],
    "no list": lambda x, _: x,
}


@pytest.mark.parametrize("elsewhere", ELSEWHERE)
@pytest.mark.parametrize("joins", [False, True])
def test_a_mask_changed_in_other_arrays_gives_none_of_a_partys_numbers_away(
    consortium: Any, elsewhere: str, joins: bool
) -> None:
    """The attack: the same numbers in other arrays, whose elements have no contributors from before."""
    aggregator, full = consortium.aggregator(4), np.ones(600)
    others = [np.full(600, 2.0 + k) for k in range(4)]
    arranged = ELSEWHERE[elsewhere]

    def average(masks: list[list[np.ndarray]], arrange: Callable[[np.ndarray, np.ndarray], Any]) -> Any:
        data = [arrange(x, y) for (x,), y in zip(DATA, others, strict=True)]
        given: Any = [arrange(mask, full) for (mask,) in masks]
        given = [mask if isinstance(mask, list) else [mask] for mask in given]
        return sf.reveal(aggregator.average(consortium.held(data), 0, prune_mask=consortium.held(given)))

    before, after = masks_but(None, slice(0)), masks_but(2, slice(0, 500))
    if joins:
        before, after = after, before
    average(before, lambda x, y: [x, y])
    with pytest.raises(AggregationError, match="must be new under a new mask in arrays of other shapes"):
        average(after, arranged)
    if elsewhere != "another order":  # in which each array has the other's contributors
        average(before, arranged)  # of the same parties, it tells nothing new


def test_a_call_that_has_failed_makes_nobody_forget_the_calls_before(consortium: Any) -> None:
    """The attack: a party that was left out goes on in other arrays, where a call fails at another party."""
    aggregator, left = consortium.aggregator(4), slice(0, 500)

    def average(masks: list[list[np.ndarray]], at: int = 0) -> None:
        data = [[x, np.full(600, 2.0 + k)] if at else [x] for k, (x,) in enumerate(DATA)]
        given = [[mask, np.ones(600)] if at else [mask] for (mask,) in masks]
        sf.reveal(aggregator.average(consortium.held(data), 0, prune_mask=consortium.held(given)))

    average(masks_but(2, left))
    fewer = [masks_but(2, left)[2]] * 4
    for masks in (fewer, masks_but(None, left), fewer, masks_but(None, left)):
        with pytest.raises(AggregationError, match="must be new under a new mask in arrays of other shapes"):
            average(masks, at=1)


@pytest.mark.parametrize("at_parties", [False, True])
def test_the_same_data_under_other_weights_are_refused(consortium: Any, at_parties: bool) -> None:
    aggregator = consortium.aggregator(4)

    def average(data: Any, weights: list[int]) -> Any:
        given = consortium.held(weights) if at_parties else weights
        return sf.reveal(aggregator.average(consortium.held(data), 0, given))

    average(DATA, [1, 2, 3, 4])
    average(DATA, [2, 4, 6, 8])  # the same average
    other = [[np.arange(3.0)] for _ in DATA]
    for data in (DATA, [[np.ones(3), x[0]] for x in DATA]):
        with pytest.raises(AggregationError, match="must be new under new weights"):
            average(data, [1, 2, 4, 4])
    average(other, [4, 3, 2, 1])
    with pytest.raises(AggregationError, match="must be new under new weights"):
        average(other, [1, 2, 3, 4])


SPREAD = [np.linspace(0.5, 1.5, 20), np.linspace(2.0, 1.0, 20), np.ones(20)]


@pytest.mark.parametrize(
    ("first", "second"),
    [(((20, 20), (20, 1)), ((20, 20), (1, 20))), (((20, 20), (20, 1)), ((2, 10, 20), (20,)))],
)
def test_the_same_weights_spread_over_other_elements_are_refused(
    consortium: Any, first: tuple[Any, Any], second: tuple[Any, Any]
) -> None:
    """The attack: as many ways to spread weights as parties, and every number is told."""
    aggregator = consortium.aggregator(3)

    def average(shape: tuple[int, ...], of_weights: tuple[int, ...]) -> None:
        data = [x[0][:400].reshape(shape) for x in DATA[:3]]
        sf.reveal(aggregator.average(consortium.held(data), 0, [own.reshape(of_weights) for own in SPREAD]))

    average(*first)
    average(*first)
    with pytest.raises(AggregationError, match="must be new under new weights"):
        average(*second)


def test_the_same_data_twice_in_one_call_under_two_masks_are_refused(consortium: Any) -> None:
    aggregator, full, left = consortium.aggregator(4), masks_but(None, slice(0)), masks_but(2, slice(0, 500))

    def average(masks: list[list[np.ndarray]]) -> Any:
        twice = consortium.held([[x, x] for (x,) in DATA])
        return sf.reveal(aggregator.average(twice, 0, prune_mask=consortium.held(masks)))

    with pytest.raises(AggregationError, match="must be new under a new mask in arrays of other shapes"):
        average([[one, other] for (one,), (other,) in zip(full, left, strict=True)])
    first, second = average([[mask, mask] for (mask,) in left])
    np.testing.assert_array_equal(first, second)


def test_a_result_with_values_of_ones_own_in_it_is_not_taken_for_public(consortium: Any) -> None:
    aggregator = consortium.aggregator(4)
    left = masks_but(2, slice(0, 500))
    left[3] = left[2]  # so the other two keep these to themselves
    masks = consortium.held(left)
    results = list(sf.reveal(aggregator.average_at_parties(consortium.held(DATA), None, masks)).values())
    aggregator.average_at_parties(consortium.held(results), [1, 2, 3, 4], masks)
    with pytest.raises(AggregationError, match="must be new under new weights"):
        aggregator.average_at_parties(consortium.held(results), [4, 3, 2, 1], masks)


def test_a_result_may_be_averaged_under_any_weights(consortium: Any) -> None:
    """Layers that are not trained: all parties have the same numbers, which everybody knows."""
    aggregator = consortium.aggregator(4)
    data = [[x[0].astype("f4")] for x in DATA]
    for weights in ([1, 2, 3, 4], [4, 3, 2, 1], [1, 1, 1, 1]):
        opened = sf.reveal(aggregator.average_at_parties(consortium.held(data), weights))
        data = list(opened.values())
        aggregator.average_at_parties(consortium.held(data), weights)
