"""Parties with real clients, what they upload, and what the plain weighted average of some of them is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from secretflow.security.aggregation.secagg.call import Call, Operation
from secretflow.security.aggregation.secagg.dropouts.client import SurvivingClient
from secretflow.security.aggregation.secagg.dropouts.protocol import Steps, with_survivors
from secretflow.security.aggregation.secagg.dropouts.rules import SurvivorRules
from secretflow.security.aggregation.secagg.errors import RoundLostError
from secretflow.security.aggregation.secagg.keyring import agree_all
from secretflow.security.aggregation.secagg.protocol import Exchanges, agree_on_support
from secretflow.security.aggregation.secagg.ring import Ring
from secretflow.security.aggregation.secagg.rules import Rules
from secretflow.security.aggregation.secagg.support import Support
from secretflow.security.aggregation.secagg.weights import AggregationWeights

SHAPES = ((3, 4), (5,))


@dataclass(frozen=True)
class Outcome:
    """What one round has given one party.

    Attributes:
        agreed: who was there when the masks were agreed on; empty without masks.
        survivors: whose average it is; empty if the round was lost.
        average: arrays; empty if the round was lost.
    """

    agreed: tuple[str, ...] = ()
    survivors: tuple[str, ...] = ()
    average: list[np.ndarray] = field(default_factory=list)


def names_of(parties: int) -> list[str]:
    return [f"party{k:02d}" for k in range(parties)]


def numbers_of(name: str, number: int) -> list[np.ndarray]:
    """What a party uploads in a round."""
    rng = np.random.default_rng([int(name[5:]), number])
    return [rng.normal(size=shape).astype(np.float32) for shape in SHAPES]


def weights_of(names: Sequence[str]) -> list[int]:
    return [100 + 37 * int(name[5:]) for name in names]


def mask_of(name: str, number: int) -> list[np.ndarray]:
    """What a party keeps in a round: some elements are kept by nearly all, some by few."""
    rng = np.random.default_rng([int(name[5:]), number, 1])
    kept_by_part = np.random.default_rng(number).choice([0.3, 0.7, 1.0], SHAPES[0])
    return [(rng.random(SHAPES[0]) < kept_by_part).astype(np.uint8)]


def clients_of(
    names: Sequence[str],
    survivor_rules: SurvivorRules,
    ring: Ring | None = None,
    blind: bool = False,
    min_contributors: int = 2,
    fixed_contributors: bool = True,
    max_colluders: float | None = None,
    upload_bits: int | None = None,
) -> list[SurvivingClient]:
    """Clients that have agreed on keys."""
    rules = Rules.make(
        ring or Ring.make(32, None, len(names)),
        len(names),
        min_contributors,
        fixed_contributors=fixed_contributors,
        server_blind=blind,
        max_colluders=max_colluders,
        upload_bits=upload_bits,
        dropped=survivor_rules.parties - survivor_rules.min_survivors,
    )
    clients = [SurvivingClient(name, names, rules, survivor_rules) for name in names]
    agree_all([client.keys for client in clients])
    return clients


def averaged(
    client: SurvivingClient,
    numbers: list[np.ndarray],
    weights: AggregationWeights | None = None,
    support: Support | None = None,
) -> Exchanges[list[np.ndarray]]:
    """The average in arrays of its own; what does not travel is the own number if the own mask keeps it."""
    message = client.upload(Call(client.next_call(), Operation.AVERAGE, weights, support), numbers)
    opened: list[np.ndarray] = client.open((yield message), numbers)
    return opened


def rounds(
    client: SurvivingClient, name: str, count: int, masked: bool, outcomes: list[Outcome]
) -> Exchanges[None]:
    """Some averages of new numbers each; the outcomes are told as they come."""
    weights = client.weights_of(weights_of(client.names))
    for number in range(count):
        numbers, support = numbers_of(name, number), None
        agreed: tuple[str, ...] = ()
        try:
            if masked:
                support = yield from agree_on_support(client, numbers, mask_of(name, number))
                agreed = client.survivors
            average = yield from averaged(client, numbers, weights, support)
        except RoundLostError:
            outcomes.append(Outcome())
        else:
            outcomes.append(Outcome(agreed, client.survivors, average))


def steps(
    client: SurvivingClient, name: str, count: int, masked: bool, outcomes: list[Outcome]
) -> Steps[None]:
    return with_survivors(client, rounds(client, name, count, masked, outcomes))


def plain_average(
    names: Sequence[str], survivors: Sequence[str], number: int, ring: Ring
) -> list[np.ndarray]:
    """The survivors' weighted average in the fixed point of the ring, without a pad."""
    weights = dict(zip(names, weights_of(names), strict=True))
    total = sum(weights.values())
    share = sum(weights[name] for name in survivors) / total
    averages = []
    for k, shape in enumerate(SHAPES):
        units = np.zeros(shape)
        for name in survivors:
            units += np.rint(
                numbers_of(name, number)[k].astype(np.float64) * (ring.one * (weights[name] / total))
            )
        averages.append((units / ring.one / share).astype(np.float32))
    return averages


def check_masked(
    names: Sequence[str], outcome: Outcome, name: str, number: int, ring: Ring, min_contributors: int
) -> int:
    """Looks whether an average under masks is that of those survivors who keep each element.

    Returns:
        How many elements of the masked array it has opened.
    """
    weights = dict(zip(names, weights_of(names), strict=True))
    total, one_share = sum(weights.values()), 2.0 ** (ring.bits - 2)
    masks = {other: mask_of(other, number)[0] != 0 for other in names}
    opened = 0
    for place in np.ndindex(SHAPES[0]):
        keepers = [other for other in outcome.survivors if masks[other][place]]
        got = outcome.average[0][place]
        own = numbers_of(name, number)[0][place] if masks[name][place] else np.float32(0)
        if got == own:  # it has not travelled
            continue
        opened += 1
        assert len(keepers) >= min_contributors
        units = sum(
            np.rint(np.float64(numbers_of(o, number)[0][place]) * (ring.one * (weights[o] / total)))
            for o in keepers
        )
        if all(masks[other][place] for other in outcome.agreed):
            share = sum(weights[o] for o in outcome.survivors) / total
        else:
            share = sum(np.rint(weights[o] / total * one_share) for o in keepers) / one_share
        assert got == np.float32(units / ring.one / share)
    return opened
