"""Numbers whose pads were released are never opened with other parties."""

from __future__ import annotations

import hypothesis.extra.numpy as npst
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from secretflow.security.aggregation.secagg.dropouts.protocol import with_survivors
from secretflow.security.aggregation.secagg.dropouts.rules import SurvivorRules
from secretflow.security.aggregation.secagg.dropouts.server import Step, SurvivorServer
from secretflow.security.aggregation.secagg.dropouts.spent import Spent
from secretflow.security.aggregation.secagg.errors import RoundLostError
from secretflow.security.aggregation.secagg.protocol import Exchanges

from .network import Network, openable
from .parties import averaged, clients_of, names_of, numbers_of

NAMES = names_of(4)
RULES = SurvivorRules.make(4, 3, 2)


def twice(client, name: str, log: list[object]) -> Exchanges[None]:  # type: ignore[no-untyped-def]
    """Averages the same numbers two times, whatever becomes of the first."""
    for _ in range(2):
        try:
            log.append((yield from averaged(client, numbers_of(name, 0))))
        except RoundLostError as error:
            log.append(error)


def running(log: dict[str, list[object]]) -> Network:
    clients = clients_of(NAMES, RULES)
    return Network(
        SurvivorServer(NAMES, RULES),
        {
            name: with_survivors(client, twice(client, name, log[name]))
            for name, client in zip(NAMES, clients, strict=True)
        },
        log,
    )


def test_the_same_numbers_may_be_averaged_again_with_the_same_parties() -> None:
    log: dict[str, list[object]] = {name: [] for name in NAMES}
    network = running(log)
    network.drain()
    assert set(network.ended.values()) == {None}


@pytest.mark.parametrize("step", [Step.RELEASES, Step.UPLOADS])
def test_after_a_party_is_lost_the_same_numbers_are_not_uploaded_again(step: Step) -> None:
    """It is lost before its release, so that the sum could come late, or before the second upload."""
    log: dict[str, list[object]] = {name: [] for name in NAMES}
    network = running(log)
    while network.server.step is not Step.RELEASES:
        for name in NAMES:
            network.up[name] and network.deliver_up(name)
        for name in NAMES:
            if network.down[name] and network.server.step is not Step.RELEASES:
                network.deliver_down(name)
    if step is Step.UPLOADS:
        while network.server.step is not Step.UPLOADS:
            for name in NAMES:
                network.down[name] and network.deliver_down(name)
            for name in NAMES:
                network.up[name] and network.deliver_up(name)
    network.cut(NAMES[3])
    network.drain()
    for name in NAMES[:3]:
        assert "data must be new after parties have dropped out" in str(network.ended[name])
    assert [len(parts) for parts in openable(network.said).values()][1:] in ([], [0])


@given(
    npst.arrays(
        np.float32, st.sampled_from([(3,), (2049,), (64, 65), (100, 50)]), elements=st.floats(-1, 1, width=32)
    ),
    st.integers(0, 10**6),
)
def test_a_fingerprint_tells_numbers_apart(array: np.ndarray, place: int) -> None:
    fingerprint, changed = Spent().fingerprint, array.copy()
    changed.flat[place % array.size] += 1
    assert fingerprint([array]) == fingerprint([array.copy()])
    assert fingerprint([array]) != fingerprint([changed])
    assert fingerprint([array]) != fingerprint([array.astype(np.float64)])


def test_a_fingerprint_goes_by_the_places_of_numbers() -> None:
    fingerprint = Spent().fingerprint
    array = np.random.default_rng(0).normal(size=(128, 1024))
    for other in (array[::-1], array[:, ::-1], array[np.r_[1, 0, 2:128]], array.reshape(1024, 128)):
        assert fingerprint([array]) != fingerprint([other])
