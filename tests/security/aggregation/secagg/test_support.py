"""What a party keeps between calls: where it is absent, what is private, which denominators it knows."""

from __future__ import annotations

import numpy as np

from secretflow.security.aggregation.secagg.ballot import Ballot
from secretflow.security.aggregation.secagg.layout import Layout
from secretflow.security.aggregation.secagg.ring import Ring
from secretflow.security.aggregation.secagg.rules import Rules
from secretflow.security.aggregation.secagg.stages import Proposed
from secretflow.security.aggregation.secagg.support import Support
from secretflow.security.aggregation.secagg.weights import AggregationWeights

ARRAYS = [np.array([9.0]), np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])]
LIVING = np.array([True, True, False, False, True, True])
COUNTS = np.array([3, 1, 2, 0, 2, 1], np.uint8)


def state() -> Support:
    layout = Layout.dense(ARRAYS, True).narrowed([None, COUNTS], parties=3, at_least=2)
    return Support(layout, [None, LIVING])


def test_a_party_is_absent_where_an_element_travels_that_it_has_pruned() -> None:
    # Elements 0, 2 and 4 travel, to places 1, 2 and 3 behind the bias; the own mask has pruned 2.
    assert {k: positions.tolist() for k, positions in state().absent.items()} == {1: [1]}
    # Of the others the elements 2 and 4 are not kept by all.
    assert state().has_partial.tolist() == [False, True]


def test_private_are_the_elements_it_keeps_but_too_few_others_do() -> None:
    opened = [np.zeros(1), np.zeros(6)]
    state().keep_private(opened, ARRAYS)
    assert opened[0].tolist() == [0] and opened[1].tolist() == [0, 2, 0, 0, 0, 6]


def test_denominators_are_known_for_the_weights_they_came_with_only() -> None:
    sparse, denominators = state(), np.array([0.5, 0.25])
    rules = Rules(Ring(32, 20), 1)
    light, heavy = (AggregationWeights.make(weights, 0, 3, rules) for weights in ([1, 1, 2], [1, 2, 1]))
    assert sparse.denominators_for(light) is None
    sparse.remember_denominators(light, denominators)
    assert sparse.denominators_for(light) is denominators
    assert sparse.denominators_for(heavy) is None


def test_counts_of_more_than_255_parties_are_whole_in_the_agreement_after() -> None:
    layout, living = Layout.dense([np.zeros(3)], True), [np.ones(3, bool)]
    among = Support(layout, living)
    among.counts = [np.array([300, 299, 258], np.uint16)]
    ballot = Ballot(300, counting=False, leaving=True)
    nobody_leaves = ballot.cast(living, [np.zeros(3, bool)])
    (counts,) = Proposed(1, layout, living, living, ballot, among).counts(nobody_leaves)
    assert counts is not None and counts.tolist() == [300, 299, 258]
