"""After a party has dropped out no element is opened behind which too few of the others stand."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from secretflow.security.aggregation.secagg.dropouts.client import SurvivingClient
from secretflow.security.aggregation.secagg.dropouts.protocol import with_survivors
from secretflow.security.aggregation.secagg.dropouts.rules import SurvivorRules
from secretflow.security.aggregation.secagg.dropouts.server import Step, SurvivorServer
from secretflow.security.aggregation.secagg.errors import RoundLostError
from secretflow.security.aggregation.secagg.protocol import Exchanges, agree_on_support

from .network import Network
from .parties import averaged, clients_of, names_of

NAMES = names_of(5)
WEIGHTS = [1, 2, 3, 4, 5]
# A row for each party, a column for each element; the lost one, the last, may be one of two keepers or not.
KEPT_BY = np.array(
    [
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0, 1],
        [1, 1, 0, 1, 0, 0],
        [1, 1, 0, 1, 1, 0],
        [1, 0, 1, 0, 1, 1],
    ],
    np.uint8,
)


class Run:
    """One agreement about masks, then averages of new numbers each.

    Attributes:
        averages: by party of each average the survivors and their average; None for one that was lost.
    """

    def __init__(
        self, kept_by: np.ndarray, averages: int, min_contributors: int = 2, uncounted: int = 0
    ) -> None:
        self.kept_by = kept_by
        self.uncounted = uncounted
        self.numbers = np.random.default_rng(0).normal(size=(averages, *kept_by.shape)).astype(np.float32)
        rules = SurvivorRules.make(5, 3, min_contributors)
        self.averages: dict[str, list[tuple[list[int], np.ndarray] | None]] = {name: [] for name in NAMES}
        clients = clients_of(NAMES, rules, min_contributors=min_contributors)
        self.network = Network(
            SurvivorServer(NAMES, rules),
            {
                name: with_survivors(client, self.rounds(client, k))
                for k, (name, client) in enumerate(zip(NAMES, clients, strict=True))
            },
            self.averages,
        )

    def rounds(self, client: SurvivingClient, k: int) -> Exchanges[None]:
        mask = [self.kept_by[k : k + 1]]
        data = [self.numbers[0][k : k + 1]]
        support = yield from agree_on_support(client, data, mask, uncounted=self.uncounted)
        for numbers in self.numbers:
            own = [numbers[k : k + 1]]
            try:
                (average,) = yield from averaged(client, own, client.weights_of(WEIGHTS), support)
            except RoundLostError:
                self.averages[NAMES[k]].append(None)
            else:
                survivors = [NAMES.index(name) for name in client.survivors]
                self.averages[NAMES[k]].append((survivors, average[0]))

    def until(self, reached: Callable[[Network], bool]) -> None:
        while not reached(self.network):
            for name in NAMES:
                if self.network.up[name] and not reached(self.network):
                    self.network.deliver_up(name)
            for name in NAMES:
                if self.network.down[name] and not reached(self.network):
                    self.network.deliver_down(name)

    def keepers(self, survivors: list[int], place: int) -> list[int]:
        return [k for k in survivors if self.kept_by[k, place]]

    def expected(self, number: int, survivors: list[int], place: int) -> float:
        """The average of an element over those who keep it."""
        keepers = self.keepers(survivors, place)
        values = [self.numbers[number, k, place] for k in keepers]
        return pytest.approx(np.average(values, weights=[WEIGHTS[k] for k in keepers]), abs=1e-4)

    def check(self, number: int, survivors: list[int], travelling: np.ndarray) -> None:
        """Looks whether elements that travel are averages of those who keep them, and all others are own."""
        for k in survivors:
            outcome = self.averages[NAMES[k]][number]
            assert outcome is not None and outcome[0] == survivors
            for place, travels in enumerate(travelling):
                own = self.numbers[number, k, place] * self.kept_by[k, place]
                assert outcome[1][place] == (self.expected(number, survivors, place) if travels else own)


def test_known_denominators_are_those_of_the_survivors() -> None:
    """Enough keep every element, so but for the denominators the lost party's upload need not be repeated."""
    kept_by = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 0], [1, 0, 1], [1, 1, 1]], np.uint8)
    run = Run(kept_by, 2, min_contributors=2)
    run.until(
        lambda network: (
            network.server.step is Step.ANSWERS and all(len(v) == 1 for v in run.averages.values())
        )
    )
    run.network.cut(NAMES[4])
    run.network.drain()
    run.check(0, [0, 1, 2, 3, 4], np.ones(3, bool))
    run.check(1, [0, 1, 2, 3], np.ones(3, bool))


@pytest.mark.parametrize("averages_before", [0, 1])
@pytest.mark.parametrize("step", [Step.UPLOADS, Step.ANSWERS])
def test_what_a_lost_party_may_have_kept_needs_one_keeper_more(averages_before: int, step: Step) -> None:
    """The elements 2 to 5 are kept by three or two of five, the lost one among them or not."""
    run = Run(KEPT_BY, averages_before + 2)
    run.until(
        lambda network: (
            network.server.step is step
            and all(len(v) == averages_before for v in run.averages.values())
            and network.server.steps > 2
        )
    )
    run.network.cut(NAMES[4])
    run.network.drain()
    counts = KEPT_BY.sum(axis=0)
    for number in range(averages_before):
        run.check(number, [0, 1, 2, 3, 4], counts >= 2)
    for number in range(averages_before, averages_before + 2):
        run.check(number, [0, 1, 2, 3], counts - 1 >= 2)


def test_where_a_party_does_not_count_an_element_needs_one_keeper_more() -> None:
    """Which one does not count is not known; who is lost is not taken to be it."""
    run = Run(KEPT_BY, 2, uncounted=1)
    run.until(
        lambda network: (
            network.server.step is Step.UPLOADS and all(len(v) == 1 for v in run.averages.values())
        )
    )
    run.network.cut(NAMES[4])
    run.network.drain()
    counts = KEPT_BY.sum(axis=0)
    run.check(0, [0, 1, 2, 3, 4], counts >= 3)
    run.check(1, [0, 1, 2, 3], counts - 1 >= 3)


@settings(max_examples=60)
@given(st.data())
def test_no_element_of_too_few_survivors_is_opened(data: st.DataObject) -> None:
    """Whatever the masks, whoever drops out and whenever."""
    rows = st.lists(st.lists(st.integers(0, 1), min_size=8, max_size=8), min_size=5, max_size=5)
    least = data.draw(st.integers(2, 3))
    run = Run(np.array(data.draw(rows), np.uint8), 3, least)
    first = data.draw(st.integers(1, 9))  # steps: three of the agreement, then three of each average
    run.until(lambda network: network.server.steps >= first)
    for k in data.draw(st.sets(st.integers(0, 4), max_size=2)):
        run.network.cut(NAMES[k])
    run.network.drain()
    for k, name in enumerate(NAMES):
        for number, outcome in enumerate(run.averages[name]):
            for place in range(8):
                own = run.numbers[number, k, place] * run.kept_by[k, place]
                if outcome is not None and outcome[1][place] != own:
                    survivors, average = outcome
                    assert len(run.keepers(survivors, place)) >= least
                    assert average[place] == run.expected(number, survivors, place)
