"""A party's side of metrics over all parties' rows, of which nobody is told another party's part."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from secretflow.ml.nn.fl.metric_sums import Sums
from secretflow.ml.nn.metrics import Mean, Metric
from secretflow.party.messages import pack
from secretflow.security.aggregation.secagg.client import Client
from secretflow.security.aggregation.secagg.digests import digest_of_bytes, digest_of_nothing
from secretflow.security.aggregation.secagg.dropouts.measured_sums import MeasuringClient
from secretflow.security.aggregation.secagg.errors import DisagreementError, RoundLostError
from secretflow.security.aggregation.secagg.participant import Participant
from secretflow.security.aggregation.secagg.protocol import (
    Exchanges,
    add_up_numbers,
    are_everybodys,
    can_be_added,
)

if TYPE_CHECKING:
    from secretflow.ml.nn.fl.worker.rounds import PartyRounds

TOTALS_EXCHANGES = 2
"""How many messages each party sends in :func:`total`."""

Told: TypeAlias = "tuple[list[Metric], list[str]]"
"""What a driver is told: the metrics of all parties together that there are, and the names of the others."""


def total(client: Client, own: Sequence[Metric | None]) -> Exchanges[list[Metric | None]]:
    """Adds metrics up with the other parties.

    Args:
        client: of this party.
        own: of this party's rows, as many at all parties; None for one that it has not.

    Returns:
        Each over all parties' rows; None where a party has none, or one of no rows, where it is no mean and
        no metric whose states add up, where a number of it is not finite, and where those of the parties are
        not of one kind. Nothing of such a metric is uploaded.
    """
    states = [_summed_states(metric) for metric in own]
    digests = [_digest(*each) for each in zip(own, states, strict=True)]
    common = yield from are_everybodys(client, digests)
    numbers = [number for k in np.flatnonzero(common) for number in (states[k] or {}).values()]
    flat = np.concatenate([np.empty(0), *(np.ravel(number) for number in numbers)])
    sums = yield from add_up_numbers(client, flat)
    parts = iter(np.split(sums, np.cumsum([number.size for number in numbers], dtype=np.int64)))
    return [
        _with_states(metric, {name: next(parts).reshape(state.shape) for name, state in (held or {}).items()})
        if everybodys
        else None
        for metric, held, everybodys in zip(own, states, common, strict=True)
    ]


def total_of_those_there(
    client: MeasuringClient, own: Sequence[Metric | None]
) -> Exchanges[list[Metric | None] | None]:
    """Adds metrics up with those parties who are there, where that tells nothing of few of them.

    Args:
        client: of this party; its ``measured`` says of whom a sum may be opened.
        own: as for :func:`total`.

    Returns:
        As :func:`total`; None where a sum of them may not be opened, or a party was lost in it.
    """
    if not client.measured.allow(client.roster):
        return None
    with client.measures():
        try:
            return (yield from total(client, own))
        except RoundLostError:
            return None


def told_of(own: Iterable[Metric | None], totals: Iterable[Metric | None]) -> Told:
    """What a driver is told: the totals that there are, and the names of the own metrics that have none."""
    left_out = [metric.name for metric, of_all in zip(own, totals, strict=True) if metric and of_all is None]
    return [metric for metric in totals if metric is not None], left_out


class PartyTotals(Participant):
    """A base of a party's worker that adds its metrics up with the others'."""

    _totals: Told
    _rounds: PartyRounds | None

    def begin_totals(self, start: int, own: Sequence[Metric | None]) -> None:
        """Begins what :func:`total` exchanges.

        Args:
            start: numbers the calls, see
                :meth:`~secretflow.security.aggregation.secagg.participant.Participant.begin_request`.
            own: see :func:`total`.
        """
        self._begin(start, self._total(own))

    def take_totals(self) -> Told:
        """What has come out: the metrics that there are, and the names of those that do not add up."""
        return self._totals

    def _total(self, own: Sequence[Metric | None]) -> Exchanges[None]:
        try:
            totals = yield from total(self._client, own)
        except DisagreementError:
            # It was said; or no call could be made any more. A fit that runs cannot go on, for a party may
            # have been told another average than others.
            self._client.transcript.begin(anew=True)
            self._rounds = None
            raise
        self._totals = told_of(own, totals)


def _summed_states(metric: Metric | None) -> dict[str, np.ndarray] | None:
    """The numbers that a metric over more rows has the sums of; None if it is no such metric.

    Neither is one of no rows, whose states are zero, for it would leave the sum to fewer parties, nor one
    with a number that cannot be added, for the sum would be that of the others.
    """
    if type(metric) is Mean:
        states = {"total": np.asarray(metric.total), "count": np.asarray(metric.count)}
    elif isinstance(metric, Sums) and set(metric.reductions.values()) == {"sum"}:
        states = metric.states
    else:
        return None
    adds_up = all(can_be_added(state) for state in states.values())
    return states if adds_up and any(np.any(state) for state in states.values()) else None


def _with_states(metric: Metric | None, sums: dict[str, np.ndarray]) -> Metric:
    if isinstance(metric, Sums):
        typed = {name: array.astype(metric.states[name].dtype) for name, array in sums.items()}
        return replace(metric, states=typed)
    assert isinstance(metric, Mean)  # as nothing else has summed states
    return Mean(metric.name, **sums)


def _digest(metric: Metric | None, states: dict[str, np.ndarray] | None) -> int:
    """Of what metrics must have in common to be added; of one that cannot be, what nobody else has."""
    if metric is None or states is None:
        return digest_of_nothing()
    kind = [metric.kind, metric.settings] if isinstance(metric, Sums) else []
    shapes = [[name, list(state.shape)] for name, state in states.items()]
    return digest_of_bytes(pack([metric.name, kind, shapes]))
