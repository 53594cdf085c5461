"""The aggregator over Ray, one process for each party and one for the server."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray

import secretflow as sf
from secretflow.device import PYU, PYUObject, proxy
from secretflow.security.aggregation import SecurePruneAggregator
from secretflow.security.aggregation.secagg.errors import AggregationError
from secretflow.security.aggregation.secagg.participant import Participant

MASKS = [np.array([1, 1, 1, 0]), np.array([1, 1, 0, 0]), np.array([1, 0, 0, 0])]
MATRICES = [np.array([1.0, 2.0, 3.0, 4.0]), np.array([4.0, 6.0, 9.0, 9.0]), np.array([7.0, 9.0, 9.0, 9.0])]
WEIGHTS = [1, 1, 2]
AT_THE_SERVER = [[4.75, 4.0, 0.0, 0.0]]  # (1 + 4 + 2 * 7) / 4, (2 + 6) / 2, one contributor, none
COUNTERS = 8.0  # (10 + 10 + 2 * 6) / 4


def held(parties: list[Any], values: list[Any]) -> list[Any]:
    return [party(lambda v=value: v)() for party, value in zip(parties, values, strict=True)]


@pytest.fixture
def parties(ray_devices: SimpleNamespace) -> list[Any]:
    return [ray_devices.alice, ray_devices.bob, ray_devices.carol]


def test_averages_over_processes_are_right_at_the_server_and_at_the_parties(
    ray_devices: SimpleNamespace, parties: list[Any]
) -> None:
    aggregator = SecurePruneAggregator(ray_devices.davy, parties, min_contributors=2)
    data = held(parties, [[x.reshape(1, 4), np.array(k)] for x, k in zip(MATRICES, (10, 10, 6), strict=True)])
    masks = held(parties, [[mask.reshape(1, 4)] for mask in MASKS])
    weights = held(parties, WEIGHTS)
    server = sf.reveal(aggregator.average(data, axis=0, weights=weights, prune_mask=masks))
    np.testing.assert_allclose(server[0], AT_THE_SERVER, atol=1e-5)
    assert server[1] == COUNTERS
    for _ in range(2):  # the second time the denominators come from the cache
        at_parties = sf.reveal(aggregator.average_at_parties(data, weights, masks))
        np.testing.assert_allclose(at_parties[parties[0]][0], [[4.75, 4, 3, 0]], atol=1e-5)  # 3: its own
        for party in parties[1:]:
            np.testing.assert_allclose(at_parties[party][0], AT_THE_SERVER, atol=1e-5)
        assert all(result[1] == COUNTERS for result in at_parties.values())
    blind = SecurePruneAggregator(ray_devices.davy, parties, min_contributors=2, server_blind=True)
    for result in sf.reveal(blind.average_at_parties(data, weights, masks)).values():
        np.testing.assert_allclose(result[0][:, :2], [[4.75, 4]], atol=1e-5)


def test_an_error_at_one_party_names_it_and_the_next_call_is_right(
    ray_devices: SimpleNamespace, parties: list[Any]
) -> None:
    # The same data come under other weights and masks.
    free = {"min_contributors": 2, "fixed_contributors": False}
    aggregator = SecurePruneAggregator(ray_devices.davy, parties, **free)
    good = held(parties, [[x] for x in MATRICES])
    broken = held(parties, [[MATRICES[0]], [MATRICES[1] * 1e6], [MATRICES[2]]])
    masks, wrong = (held(parties, [[mask[:size]] for mask in MASKS]) for size in (4, 3))
    for act, largest in (
        (lambda: aggregator.average_at_parties(broken), r"9e\+06"),
        (lambda: aggregator.average_at_parties(broken, WEIGHTS, masks), r"6e\+06"),  # of what travels
        (lambda: aggregator.average(broken, axis=0), r"9e\+06"),
    ):
        with pytest.raises(
            Exception, match=rf"data\[0\] of bob does not fit.*largest magnitude is {largest}"
        ):
            sf.reveal(act())
        plain = sf.reveal(aggregator.average(good, axis=0))
        np.testing.assert_allclose(plain[0], np.mean(MATRICES, axis=0), atol=1e-5)
    # The driver saw no error when the masks were agreed on; no party goes on with the old ones.
    for reason in (r"prune_mask\[0\] must have the shape", "give new mask objects"):
        with pytest.raises(Exception, match=reason):
            sf.reveal(aggregator.average_at_parties(good, WEIGHTS, wrong))
    right = sf.reveal(aggregator.average(good, 0, WEIGHTS, masks))
    np.testing.assert_allclose(right[0], AT_THE_SERVER[0], atol=1e-5)


def hosts_at(parties: list[PYU]) -> dict[PYU, Any]:
    """Actors as a model has them."""
    return {party: proxy(PYUObject)(Participant)(device=party) for party in parties}


def test_what_was_averaged_is_known_to_the_actors_of_another_model(
    ray_devices: SimpleNamespace, parties: list[PYU]
) -> None:
    """It goes from one process of a party to another, and is gone with the one that had it last."""
    aggregator = SecurePruneAggregator(ray_devices.davy, parties)
    data = held(parties, [[np.arange(40.0) + k] for k in range(3)])
    aggregator.average(data, axis=0)
    hosts = hosts_at(parties)
    aggregator.host_at(hosts)
    left = held(parties, [[np.ones(40)], [np.ones(40)], [np.arange(40) >= 20]])
    after = sf.reveal(aggregator.average(data, axis=0, prune_mask=left))[0]
    np.testing.assert_allclose(after, np.where(np.arange(40) >= 20, np.arange(40) + 1, 0), atol=1e-5)
    with pytest.raises(Exception, match="must be new under new weights"):
        sf.reveal(aggregator.average(data, axis=0, weights=[1, 2, 3]))
    ray.kill(hosts[parties[0]].data)
    with pytest.raises(AggregationError, match=r"process has gone.*make a new aggregator"):
        aggregator.host_at(hosts_at(parties))
