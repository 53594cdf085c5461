"""Parties whose updates travel as a few bits, and the average of some of them, without pad or lane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from secretflow.security.aggregation.secagg.dropouts.client import SurvivingClient
from secretflow.security.aggregation.secagg.dropouts.protocol import Steps, with_survivors
from secretflow.security.aggregation.secagg.errors import RoundLostError
from secretflow.security.aggregation.secagg.protocol import Exchanges, average_updates_into
from secretflow.security.aggregation.secagg.rounding import rounding_key
from secretflow.security.aggregation.secagg.updates import Updates

from .parties import SHAPES, Outcome, numbers_of, weights_of

Arrays = list[np.ndarray]


@dataclass(frozen=True)
class Before:
    """What a party has when it begins a round.

    Attributes:
        references: the last average.
        rests: what was rounded off.
        numbers: its weights.
    """

    references: Arrays
    rests: Arrays
    numbers: Arrays


class RoundedParty:
    """A party that makes some averages of updates.

    Args:
        client: of the party.

    Attributes:
        befores: what it had at the beginning of each round.
        bounding: for each round whose updates gave the bounds, empty if they were lost.
        updates: what it knows of averages.
    """

    def __init__(self, client: SurvivingClient) -> None:
        self.client = client
        self.befores: list[Before] = []
        self.bounding: list[tuple[str, ...]] = []
        self.updates = Updates([np.zeros(shape, np.float32) for shape in SHAPES], range(len(SHAPES)))

    def steps(self, count: int, outcomes: list[Outcome]) -> Steps[None]:
        return with_survivors(self.client, self._rounds(count, outcomes))

    def _rounds(self, count: int, outcomes: list[Outcome]) -> Exchanges[None]:
        client, updates = self.client, self.updates
        weights = client.weights_of(weights_of(client.names))
        for number in range(count):
            references, rests = copies(updates.references), copies(updates.rests)
            trained = zip(references, numbers_of(client.party, number), strict=True)
            arrays = [reference + update for reference, update in trained]
            self.befores.append(Before(references, rests, [array.copy() for array in arrays]))
            self.bounding.append(())
            support = client.shared_support(arrays, [None] * len(arrays))
            key = rounding_key(0, client.party, 0, number)
            try:
                averaging = average_updates_into(client, arrays, updates, weights, support, key)
                message = next(averaging)  # for the bounds
                message = averaging.send((yield message))
                self.bounding[-1] = client.survivors
                try:
                    averaging.send((yield message))
                except StopIteration:
                    outcomes.append(Outcome((), client.survivors, arrays))
            except RoundLostError:
                outcomes.append(Outcome())


def copies(arrays: dict[int, np.ndarray]) -> Arrays:
    return [arrays[k].copy() for k in sorted(arrays)]


def check_rounded(parties: dict[str, RoundedParty], outcomes: Sequence[Outcome], name: str) -> None:
    """Looks whether each average is that of its survivors, to the bit; of a lost round nothing is kept."""
    own = parties[name]
    for number, outcome in enumerate(outcomes):
        after = own.befores[number + 1] if number + 1 < len(own.befores) else None
        before = own.befores[number]
        if not outcome.survivors:
            expected, rests = before.references, before.rests
        else:
            for other in outcome.survivors:
                for one, mine in zip(
                    parties[other].befores[number].references, before.references, strict=True
                ):
                    np.testing.assert_array_equal(one, mine)
                assert parties[other].bounding[number] in (own.bounding[number], ())
            expected, rests = expected_of(parties, number, own.bounding[number], outcome.survivors, name)
            for array, number_of_all in zip(outcome.average, expected, strict=True):
                np.testing.assert_array_equal(array, number_of_all)
        if after is not None:
            for kept, found in ((after.references, expected), (after.rests, rests)):
                for one, mine in zip(kept, found, strict=True):
                    np.testing.assert_array_equal(one, mine)


def expected_of(
    parties: dict[str, RoundedParty],
    number: int,
    bounding: Sequence[str],
    survivors: Sequence[str],
    name: str,
) -> tuple[Arrays, Arrays]:
    """The survivors' average in a round, and what one of them has rounded off.

    Args:
        parties: all, by name.
        number: of the round.
        bounding: whose largest updates give the bounds.
        survivors: whose updates are in the sum.
        name: whose rests are returned.
    """
    weights, rounding = (
        dict(zip(parties, weights_of(list(parties)), strict=True)),
        parties[name].client.rounding,
    )
    total = sum(weights.values())
    averages, rests = [], []
    for k in range(len(SHAPES)):
        updates = {}
        for other in {*bounding, *survivors}:
            before = parties[other].befores[number]
            updates[other] = (before.numbers[k] - before.references[k] + before.rests[k]).ravel()
        mean = sum(int(np.ceil(float(np.abs(updates[o]).max()) * 2.0**40)) for o in bounding) / len(bounding)
        bound = rounding.bound(mean / 2.0**40)
        steps = np.zeros(updates[name].size, np.int64)
        for other in survivors:
            rounded = np.empty(steps.size, np.int16)
            key = rounding_key(0, other, 0, number)
            rounding.round_off(rounded, updates[other], bound, weights[other] / total, key, k)
            steps += rounded
        average = steps * rounding.step(bound) / (sum(weights[other] for other in survivors) / total)
        reference = parties[name].befores[number].references[k]
        averages.append((average.reshape(reference.shape) + reference).astype(np.float32))
        rests.append(updates[name].reshape(reference.shape))
    return averages, rests
