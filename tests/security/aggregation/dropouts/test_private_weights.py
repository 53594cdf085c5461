"""Weights stay at their parties: the sum of those of the survivors travels beside an average, padded."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from secretflow.security.aggregation.secagg.call import Call, Operation
from secretflow.security.aggregation.secagg.dropouts.client import SurvivingClient
from secretflow.security.aggregation.secagg.dropouts.protocol import with_survivors
from secretflow.security.aggregation.secagg.dropouts.rules import SurvivorRules
from secretflow.security.aggregation.secagg.dropouts.server import Step, SurvivorServer
from secretflow.security.aggregation.secagg.dropouts.wire import Upload
from secretflow.security.aggregation.secagg.errors import AggregationError, DisagreementError
from secretflow.security.aggregation.secagg.protocol import Exchanges
from secretflow.security.aggregation.secagg.weighing import WEIGHING_EXCHANGES, weigh

from .network import Network
from .parties import averaged, clients_of, names_of

NAMES = names_of(5)
STEPS_OF_A_CALL = 3


class Run:
    """Each party weighs itself and averages floats and integers.

    Attributes:
        totals: by party the weight of all who were weighed.
        averages: by party what has come out.
    """

    def __init__(self, own_weights: Sequence[float], min_contributors: int = 2) -> None:
        rng = np.random.default_rng(0)
        self.weights = own_weights
        self.numbers = [[rng.normal(size=7), rng.integers(-100, 100, 3)] for _ in NAMES]
        self.totals: dict[str, list[float]] = {name: [] for name in NAMES}
        self.averages: dict[str, list[list[np.ndarray]]] = {name: [] for name in NAMES}
        rules = SurvivorRules.make(5, 3, min_contributors)
        self.clients = clients_of(NAMES, rules, min_contributors=min_contributors)
        self.network = Network(
            SurvivorServer(NAMES, rules),
            {
                name: with_survivors(client, self.run(client, k))
                for k, (name, client) in enumerate(zip(NAMES, self.clients, strict=True))
            },
            self.averages,
        )

    def run(self, client: SurvivingClient, k: int) -> Exchanges[None]:
        weights = yield from weigh(client, self.weights[k])
        self.totals[client.party].append(float(weights.total))
        self.averages[client.party].append((yield from averaged(client, self.numbers[k], weights)))

    def until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            for name in NAMES:
                if self.network.up[name] and not reached():
                    self.network.deliver_up(name)
            for name in NAMES:
                if self.network.down[name] and not reached():
                    self.network.deliver_down(name)


@pytest.mark.parametrize("own_weights", [[10, 20, 30, 40, 50], [0.5, 1.25, 2.0, 0.75, 1.5]])
@pytest.mark.parametrize("calls_before", range(WEIGHING_EXCHANGES + 1))
@pytest.mark.parametrize("step", [Step.UPLOADS, Step.ANSWERS])
def test_an_average_is_weighted_by_those_who_are_there_whenever_one_is_lost(
    own_weights: list[float], calls_before: int, step: Step
) -> None:
    run = Run(own_weights)
    server = run.network.server
    run.until(lambda: server.steps >= STEPS_OF_A_CALL * calls_before and server.step is step)
    run.network.cut(NAMES[4])
    run.network.drain()
    assert all(run.network.ended[name] is None for name in NAMES[:4])
    there = range(5 if calls_before else 4)
    for name in NAMES[:4]:
        assert run.totals[name] == [sum(own_weights[k] for k in there)]
        for k, got in enumerate(run.averages[name][0]):
            expected = np.average([run.numbers[j][k] for j in range(4)], axis=0, weights=own_weights[:4])
            np.testing.assert_allclose(got, expected, atol=1e-4)


def test_averages_of_integers_stay_exact_without_a_party() -> None:
    run = Run([10, 20, 30, 40, 50])
    server = run.network.server
    run.until(lambda: server.steps >= STEPS_OF_A_CALL * WEIGHING_EXCHANGES and server.step is Step.ANSWERS)
    run.network.cut(NAMES[4])
    run.network.drain()
    whole = sum(weight * run.numbers[k][1] for k, weight in enumerate([10, 20, 30, 40]))
    for name in NAMES[:4]:
        np.testing.assert_array_equal(run.averages[name][0][1], whole / 100)


@pytest.mark.parametrize("step", [Step.UPLOADS, Step.ANSWERS])
def test_nothing_is_opened_where_too_few_of_the_survivors_count_by_their_weight(step: Step) -> None:
    """Three of five count; who is lost is taken to be one of them, whoever it is."""
    run = Run([1000, 1000, 1000, 5, 5], min_contributors=3)
    server = run.network.server
    run.until(lambda: server.steps >= STEPS_OF_A_CALL * WEIGHING_EXCHANGES and server.step is step)
    run.network.cut(NAMES[4])
    run.network.drain()
    assert not any(run.averages.values())
    errors = [str(run.network.ended[name]) for name in NAMES[:4]]
    assert any(
        "at least min_contributors=3 parties that count by their weight must be there, got 2" in e
        for e in errors
    )


def test_the_weight_in_an_upload_is_padded() -> None:
    """Two uploads of one weight share nothing, and theirs add up only with the pads that are released."""
    run = Run([7] * 5)
    server = run.network.server
    run.until(lambda: server.steps >= STEPS_OF_A_CALL * WEIGHING_EXCHANGES)
    uploads = [said.message for _, said in run.network.said if isinstance(said, Upload)]
    elements = [int(m["body"][-2][0]) for m in uploads if m["encoding"].startswith("average")]
    assert len({*elements, 7}) == len(elements) + 1


def test_a_weight_of_survivors_that_is_none_is_refused() -> None:
    client = clients_of(NAMES, SurvivorRules.make(5, 3, 2))[0]
    message = client.upload(Call(1, Operation.AVERAGE), [np.ones(3)])
    opening = client.opening()
    zeros = [np.zeros_like(part) for part in message["body"]]
    for weight in (0, 6):
        zeros[-2][:] = weight
        with pytest.raises(DisagreementError):
            opening.open({**message, "body": zeros})
    zeros[-2][:] = 5
    assert not opening.open({**message, "body": zeros})[0].any()


@pytest.mark.parametrize("released", [False, True])
def test_what_a_party_contributes_to_is_taken_down_when_it_releases(released: bool) -> None:
    """With fixed contributors it may not leave the sums that it is in; a call given up was none."""
    clients = clients_of(NAMES, SurvivorRules.make(5, 3, 2))
    data, everybody = [np.arange(40.0)], tuple(NAMES)
    for client in clients:
        client.begin(client.upload(Call(1, Operation.AVERAGE), data))
    codes = {client.party: client.answer(1, everybody) for client in clients}
    first = clients[0]
    if released:
        first.release(1, {name: said.codes[NAMES[0]] for name, said in codes.items() if name != NAMES[0]})  # type: ignore[union-attr]
    else:
        first.lose(everybody[:4])
    without = first.weights_of([0, 1, 1, 1, 1])
    if released:
        with pytest.raises(AggregationError, match="weights must let this party count where it did before"):
            first.upload(Call(2, Operation.AVERAGE, without), [np.arange(40.0) + 1])
    else:
        first.upload(Call(2, Operation.AVERAGE, without), [np.arange(40.0) + 1])


def test_weights_that_are_arrays_are_refused() -> None:
    client = clients_of(NAMES, SurvivorRules.make(5, 3, 2))[0]
    weights = client.weights_of([np.ones(3)] * 5)
    with pytest.raises(AggregationError, match="weights must be one number for each party"):
        client.upload(Call(1, Operation.AVERAGE, weights), [np.ones(3)])


def test_a_call_may_not_end_with_fewer_than_must_contribute() -> None:
    with pytest.raises(AggregationError, match="min_survivors must be at least min_contributors=4, got 3"):
        clients_of(NAMES, SurvivorRules.make(5, 3, 2), min_contributors=4)
