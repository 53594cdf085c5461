"""Numbers whose pads were released are never opened with other parties."""

from __future__ import annotations

import hypothesis.extra.numpy as npst
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from secretflow.security.aggregation.secagg.call import Call, Operation
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


SPENT = Spent()


def fingerprint(array: np.ndarray) -> bytes:
    return SPENT.fingerprint([array]).digest()


@given(
    npst.arrays(
        np.float32, st.sampled_from([(3,), (2049,), (64, 65), (100, 50)]), elements=st.floats(-1, 1, width=32)
    ),
    st.integers(0, 10**6),
)
def test_a_fingerprint_tells_numbers_apart(array: np.ndarray, place: int) -> None:
    changed = array.copy()
    changed.flat[place % array.size] += 1
    assert fingerprint(array) == fingerprint(array.copy())
    assert fingerprint(array) != fingerprint(changed)
    assert fingerprint(array) != fingerprint(array.astype(np.float64))


def test_a_fingerprint_goes_by_the_places_of_numbers() -> None:
    array = np.random.default_rng(0).normal(size=(128, 1024))
    for other in (array[::-1], array[:, ::-1], array[np.r_[1, 0, 2:128]], array.reshape(1024, 128)):
        assert fingerprint(array) != fingerprint(other)


@given(st.sampled_from(["f2", "f4", "f8"]), st.lists(st.integers(0, 40_000), max_size=4), st.booleans())
def test_a_fingerprint_is_the_same_however_its_numbers_are_read(
    dtype: str, cuts: list[int], to_the_end: bool
) -> None:
    arrays = [np.arange(40_000, dtype=dtype), np.arange(3, dtype=dtype)]
    read = SPENT.fingerprint(arrays)
    reader = read.reader(0)
    assert reader is not None and read.reader(1) is None
    for piece in np.split(arrays[0], sorted(cuts))[: None if to_the_end else -1]:
        reader(piece)
    assert read.digest() == SPENT.fingerprint(arrays).digest()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_large_array_has_its_fingerprint_when_it_is_encoded(dtype: str) -> None:
    """Whatever lies in memory as it is; one that is not encoded as it lies is read for the name."""
    array = np.random.default_rng(0).normal(size=(300, 500)).astype(dtype)
    for data in (array, array.T, array[::2], array.astype(array.dtype.newbyteorder())):
        client = clients_of(NAMES, RULES)[0]
        client.upload(Call(client.next_call(), Operation.AVERAGE), [data])
        assert client._numbers == client._spent.fingerprint([data]).digest()
