"""Averages of rounded updates: exactly the sum of what each party has rounded, on every path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from secretflow.security.aggregation.secagg.client import Client
from secretflow.security.aggregation.secagg.dropouts.client import SurvivingClient
from secretflow.security.aggregation.secagg.dropouts.protocol import with_survivors
from secretflow.security.aggregation.secagg.dropouts.rules import SurvivorRules
from secretflow.security.aggregation.secagg.dropouts.server import SurvivorServer
from secretflow.security.aggregation.secagg.errors import AggregationError
from secretflow.security.aggregation.secagg.keyring import agree_all
from secretflow.security.aggregation.secagg.message import PACKED, Message
from secretflow.security.aggregation.secagg.protocol import (
    Exchanges,
    agree_on_support,
    are_everybodys,
    average_into,
    average_updates_into,
)
from secretflow.security.aggregation.secagg.ring import Ring
from secretflow.security.aggregation.secagg.rounding import UPLOAD_BITS, rounding_key
from secretflow.security.aggregation.secagg.rules import Rules
from secretflow.security.aggregation.secagg.support import Support
from secretflow.security.aggregation.secagg.updates import Updates
from secretflow.security.aggregation.secagg.weighing import weigh

from .dropouts.network import Network
from .lockstep import together

SHAPES = ((30, 20), (20,), (3,))
WHICH = (0, 1)
Arrays = list[np.ndarray]


@dataclass(eq=False)
class Party:
    """One party of a fit without training.

    Attributes:
        client: of the party.
        arrays: its model.
        mask: its own.
        updates: what it knows of averages.
        weight: its own.
        support: what was agreed on last.
    """

    client: Client
    arrays: Arrays
    mask: list[np.ndarray | None]
    updates: Updates
    weight: int
    support: Support | None = None

    def start(self) -> Exchanges[None]:
        self.support = yield from agree_on_support(self.client, self.arrays, self.mask)
        yield from average_into(
            self.client, self.arrays, self.arrays, support=self.support, updates=self.updates
        )

    def agree(self, within: Support | None) -> Exchanges[None]:
        self.support = yield from agree_on_support(self.client, self.arrays, self.mask, within)

    def round(self, number: int) -> Exchanges[None]:
        assert self.support is not None
        weights = yield from weigh(self.client, self.weight)
        key = rounding_key(0, self.client.party, 0, number)
        yield from average_updates_into(self.client, self.arrays, self.updates, weights, self.support, key)

    def train(self, rng: np.random.Generator, size: float = 0.1) -> None:
        for array in self.arrays:
            array += rng.normal(size=array.shape).astype(array.dtype) * size
        for array, mask in zip(self.arrays, self.mask, strict=True):
            if mask is not None:
                array *= mask


def make_parties(
    parties: int,
    bits: int,
    masks: list[np.ndarray] | None = None,
    survivors: bool = False,
    weights: list[int] | None = None,
    **options: Any,
) -> list[Party]:
    names = [f"party{k:02d}" for k in range(parties)]
    rules = Rules.make(Ring.make(32, None, parties), parties, upload_bits=bits, **options)
    made = []
    for k, name in enumerate(names):
        client = (
            SurvivingClient(name, names, rules, SurvivorRules.make(parties, parties // 2 + 1, 2))
            if survivors
            else Client(name, names, rules)
        )
        rng = np.random.default_rng(k)
        arrays = [rng.normal(size=shape).astype("f4") for shape in SHAPES]
        mask = None if masks is None else masks[k]
        if mask is not None:
            arrays[0] *= mask
        weight = 1 if weights is None else weights[k]
        made.append(Party(client, arrays, [mask, None, None], Updates(arrays, WHICH), weight))
    agree_all([party.client.keys for party in made])
    return made


def expected_of(
    parties: list[Party],
    number: int,
    befores: list[Updates],
    *,
    weighed: list[Party] | None = None,
    bounding: list[Party] | None = None,
    adding: list[Party] | None = None,
) -> list[np.ndarray]:
    """The reference and the sum of the parties' rounded updates, computed without a pad or a lane.

    Args:
        parties: all.
        number: of the round.
        befores: what they know of averages.
        weighed: those among whom the weight is shared; all by default, as of the next ones.
        bounding: those whose updates give the bounds.
        adding: those whose updates are in the sum.
    """
    rounding = parties[0].client.rounding
    total = sum(party.weight for party in weighed or parties)
    there = sum(party.weight for party in adding or parties) / total
    found = []
    for k in WHICH:
        keeps = [np.ones(SHAPES[k], bool) if p.mask[k] is None else p.mask[k] != 0 for p in parties]
        differences = [
            np.where(keep, p.arrays[k] - before.references[k] + before.rests[k], np.float32(0))
            for p, before, keep in zip(parties, befores, keeps, strict=True)
        ]
        support = parties[0].support
        assert support is not None
        index = support.layout.support[k]
        index = np.arange(differences[0].size) if index is None else index
        largest = [
            float(np.abs(d.ravel()[index]).max())
            for d, party in zip(differences, parties, strict=True)
            if party in (bounding or parties)
        ]
        mean = sum(int(np.ceil(x * 2.0**40)) for x in largest) / (2.0**40 * len(largest))
        bound = rounding.bound(mean)
        steps = np.zeros(index.size)
        share = np.zeros(index.size)
        for party, difference, keep in zip(parties, differences, keeps, strict=True):
            if party not in (adding or parties):
                continue
            rest = difference.ravel()[index].copy()
            own = party.weight / total
            key = rounding_key(0, party.client.party, 0, number)
            rounded = np.empty(rest.size, np.int16)
            rounding.round_off(rounded, rest, bound, own, key, k)
            steps += rounded
            share += keep.ravel()[index] * np.rint(own * 2.0**30)
        average = steps * rounding.step(bound)
        partial = share < there * 2.0**30 - len(parties)
        average[partial] /= share[partial] / 2.0**30
        average[~partial] /= there
        whole = befores[0].references[k].ravel().astype(np.float64)
        whole[index] += average
        found.append(whole.astype("f4").reshape(SHAPES[k]))
    return found


def copy_of(party: Party) -> Updates:
    copy = Updates(party.arrays, WHICH)
    copy.go_on(party.updates.references, party.updates.rests)
    return copy


def check_rounds(parties: list[Party], rounds: int = 3, sums: list[Message] | None = None) -> None:
    rng = np.random.default_rng(99)
    for number in range(rounds):
        for party in parties:
            party.train(rng)
        befores = [copy_of(party) for party in parties]
        expected = expected_of(parties, number, befores)
        own = [[array.copy() for array in party.arrays] for party in parties]
        together([party.round(number) for party in parties], sums)
        for party, before in zip(parties, own, strict=True):
            assert party.support is not None
            for k in WHICH:
                index = party.support.layout.support[k]
                np.testing.assert_array_equal(party.updates.references[k], expected[k])
                travels = np.ones(expected[k].shape, bool)
                if index is not None:
                    travels[:] = False
                    travels.flat[index] = True
                keeps = np.ones_like(travels) if party.mask[k] is None else party.mask[k] != 0
                opened = np.where(travels, np.where(keeps, expected[k], 0), before[k])
                np.testing.assert_array_equal(party.arrays[k], opened)
        for party in parties[1:]:
            np.testing.assert_array_equal(party.arrays[2], parties[0].arrays[2])


@pytest.mark.parametrize("bits", UPLOAD_BITS)
@pytest.mark.parametrize("parties", [2, 3, 5, 16])
def test_the_average_is_the_sum_of_the_rounded_updates(bits: int, parties: int) -> None:
    made = make_parties(parties, bits)
    together([party.start() for party in made])
    check_rounds(made)


@pytest.mark.parametrize("bits", UPLOAD_BITS)
def test_so_it_is_under_unequal_weights(bits: int) -> None:
    made = make_parties(4, bits, weights=[5, 40, 333, 1000])
    together([party.start() for party in made])
    check_rounds(made)


@pytest.mark.parametrize("blind", [False, True])
@pytest.mark.parametrize("fixed", [False, True])
def test_so_it_is_under_masks_of_the_parties_own(fixed: bool, blind: bool) -> None:
    """Without fixed contributors elements travel that some have pruned; with them only what all keep."""
    rng = np.random.default_rng(5)
    masks = [(rng.random(SHAPES[0]) < 0.8).astype("f4") for _ in range(5)]
    made = make_parties(
        5, 8, masks, weights=[1, 2, 3, 4, 5], fixed_contributors=fixed, server_blind=blind, min_contributors=3
    )
    together([party.start() for party in made])
    check_rounds(made)
    within = made[0].support
    assert within is not None and 0 < within.layout.sizes[0] < masks[0].size
    for party in made:
        mask = party.mask[0]
        assert mask is not None
        mask[rng.random(mask.shape) < 0.1] = 0
        party.arrays[0] *= mask
    together([party.agree(party.support) for party in made])
    after = made[0].support
    assert after is not None and 0 < after.layout.sizes[0] < within.layout.sizes[0]
    kept = np.sum([party.mask[0] != 0 for party in made], axis=0).ravel()
    assert kept[after.layout.support[0]].min() >= 3, "the rule on contributors stays in force"
    check_rounds(made)


@pytest.mark.parametrize("exchange", ["weights", "bounds", "updates"])
def test_a_party_may_be_lost_and_the_others_have_their_average(exchange: str) -> None:
    """Lanes are whole words then; the sum of those who are there is divided by their part of the weight."""
    made = make_parties(5, 4, survivors=True, weights=[5, 7, 11, 13, 17], min_contributors=2)
    names, there, rng = [party.client.party for party in made], made[:-1], np.random.default_rng(3)
    server = SurvivorServer(names, SurvivorRules.make(5, 3, 2))

    def run(exchanges: list[Exchanges[None]]) -> None:
        steps = [with_survivors(surviving(party), own) for party, own in zip(made, exchanges, strict=True)]
        network = Network(server, dict(zip(names, steps, strict=True)), {name: [] for name in names})
        network.drain()
        assert network.ended == dict.fromkeys(names)

    def leaving(exchanges: Exchanges[None], messages: int) -> Exchanges[None]:
        message = next(exchanges)
        for _ in range(messages):
            message = exchanges.send((yield message))

    run([party.start() for party in made])
    for party in made:
        party.train(rng)
    expected = expected_of(
        made,
        0,
        [copy_of(party) for party in made],
        weighed=there if exchange == "weights" else made,
        bounding=made if exchange == "updates" else there,
        adding=there,
    )
    sends = {"weights": 0, "bounds": 2, "updates": 3}[exchange]
    run([*(party.round(0) for party in there), leaving(made[-1].round(0), sends)])
    assert not made[0].client.rounding.lanes.is_packed
    for party in there:
        for k in WHICH:
            np.testing.assert_array_equal(party.arrays[k], expected[k])


def surviving(party: Party) -> SurvivingClient:
    assert isinstance(party.client, SurvivingClient)
    return party.client


def test_what_is_rounded_off_or_clipped_comes_with_the_next_updates() -> None:
    """With two bits far more is left behind in a round than travels; over rounds nothing is lost."""
    made = make_parties(3, 2)
    together([party.start() for party in made])
    start = made[0].updates.references[0].copy()
    rng = np.random.default_rng(0)
    aims = [rng.normal(size=SHAPES[0]).astype("f4") for _ in made]
    for party, aim in zip(made, aims, strict=True):
        party.arrays[0] += aim
    for number in range(60):
        together([party.round(number) for party in made])
    left = np.mean([party.updates.rests[0] for party in made], axis=0)
    moved = made[0].arrays[0] - start
    np.testing.assert_allclose(moved + left, np.mean(aims, axis=0), atol=1e-4)
    assert np.abs(left).max() < 0.25 * np.abs(aims).max()


def test_an_upload_takes_less_than_its_bits_and_so_does_the_sum() -> None:
    made = make_parties(16, 8)
    together([party.start() for party in made])
    sums: list[Message] = []
    check_rounds(made, 1, sums)
    lanes = -(-(600 + 20) // 5)
    assert sums[-1]["lane_bits"] == 59
    assert sums[-1]["body"][2].nbytes == 8 * -(-lanes * 59 // 64)
    whole = 4 * SHAPES[2][0]
    assert made[0].client.usage.round_bytes(1) == [8 * -(-lanes * 59 // 64) + whole + 2 * 4 * 8]


def test_no_upload_tells_anything_of_its_updates(looks_uniform: Callable[..., bool]) -> None:
    made = make_parties(2, 8)
    together([party.start() for party in made])
    seen = []

    def watched(exchanges: Exchanges[None]) -> Exchanges[None]:
        message = next(exchanges)
        while True:
            total = yield message
            try:
                message = exchanges.send(total)
            except StopIteration:
                seen.append(message["body"][PACKED][:-1])
                return

    for number in range(150):
        together([watched(made[0].round(number)), made[1].round(number)])
    assert looks_uniform([np.concatenate(seen)])


@pytest.mark.parametrize(("number", "what"), [(np.nan, "NaN"), (np.inf, "infinity"), (1e4, "8192|8,192")])
def test_numbers_that_cannot_be_rounded_are_named(number: float, what: str) -> None:
    made = make_parties(2, 8)
    together([party.start() for party in made])
    made[0].arrays[1][3] = number
    exchanges = [party.round(0) for party in made]
    with pytest.raises(AggregationError, match=rf"data\[1\] of party00 must .*({what})"):
        together(exchanges)


def test_all_have_the_last_average_or_learn_that_not_all_do() -> None:
    made = make_parties(3, 8)
    together([party.start() for party in made])

    def asked() -> list[bool]:
        def ask(party: Party) -> Exchanges[bool]:
            assert party.support is not None
            digest = party.updates.digest(party.arrays, party.support)
            [same] = yield from are_everybodys(party.client, [digest])
            return bool(same)

        return together([ask(party) for party in made])

    assert asked() == [True] * 3
    made[1].arrays[0][0, 0] += 1
    assert asked() == [False] * 3
    together([party.round(0) for party in made])
    assert asked() == [True] * 3
    for party, zero in zip(made, (0.0, -0.0, -0.0), strict=True):
        party.arrays[0][0, 0] = zero  # as one mask for all leaves behind where a weight was negative
        party.updates.take_all(party.arrays)
    assert asked() == [True] * 3
    made[2].updates.references[0][0, 0] += 1
    assert asked() == [False] * 3


def test_who_comes_in_goes_on_from_the_others_average_and_nothing_that_it_has_rounded_off() -> None:
    made = make_parties(3, 4)
    together([party.start() for party in made])
    check_rounds(made, 1)
    comer, other = made[0].updates, made[1].updates
    comer.references[0] += 1
    comer.come_in([other.references[0].copy(), other.references[1].copy(), made[1].arrays[2]])
    for k in WHICH:
        np.testing.assert_array_equal(comer.references[k], other.references[k])
        assert not comer.rests[k].any()
    for mine, others in zip(made[0].arrays, made[1].arrays, strict=True):
        mine[...] = others
    check_rounds(made)
    comer.come_in(None)
    assert not any(array.any() for kept in (comer.references, comer.rests) for array in kept.values())


def test_other_bits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"upload_bits must be .*got 16"):
        make_parties(2, 16)
