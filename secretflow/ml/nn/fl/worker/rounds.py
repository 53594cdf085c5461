"""A party's rounds: train, where a step is due prune, average, take the average up.

They are generators of what the party exchanges with the server, see
:mod:`secretflow.security.aggregation.secagg.protocol`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

import numpy as np

from secretflow.ml.nn.fl.plan import Round
from secretflow.ml.nn.fl.pruning import PruneSettings
from secretflow.ml.nn.fl.worker.training import LocalTraining, PartyFit
from secretflow.security.aggregation.secagg.client import Client
from secretflow.security.aggregation.secagg.dropouts.client import SurvivingClient
from secretflow.security.aggregation.secagg.errors import AggregationError, RoundLostError
from secretflow.security.aggregation.secagg.protocol import (
    Exchanges,
    agree_on_support,
    average_into,
    gather,
)
from secretflow.security.aggregation.secagg.support import Support


def exchanges_of_start(settings: PruneSettings, rows_known: bool) -> int:
    """How many messages each party sends in :meth:`PartyRounds.start`."""
    return 2 + rows_known + (settings.mask_scope == "local")


def exchanges_of(rounds: Sequence[Round], settings: PruneSettings, rows_known: bool) -> int:
    """How many messages each party sends in :meth:`PartyRounds.rounds`."""
    agreements = sum(this.prunes for this in rounds) if settings.mask_scope == "local" else 0
    return len(rounds) * (1 if rows_known else 2) + agreements


class PartyRounds:
    """One party's side of a fit.

    Args:
        client: the party's side of the aggregation.
        training: its model and its training.
        settings: what the user chose about pruning.
        fit: what the user chose for this fit.
        rows: how many rows the party trains on in each round of an epoch; None if that is not known before.
    """

    def __init__(
        self,
        client: Client,
        training: LocalTraining,
        settings: PruneSettings,
        fit: PartyFit,
        rows: Sequence[int] | None,
    ) -> None:
        self._client = client
        self._training = training
        self._settings = settings
        self._fit = fit
        self._rows = rows
        self._weights: np.ndarray | None = None
        self._support: Support | None = None
        self._may_lose_rounds = isinstance(client, SurvivingClient)
        self._prunes_own = settings.mask_scope == "local"

    def start(self) -> Exchanges[None]:
        """Gives all parties the average of their weights, under masks that they agree on.

        Raises:
            AggregationError: the parties do not mean the same fit.
        """
        told = yield from gather(self._client, np.array(self._digest()))
        if len(set(told[self._present()].tolist())) > 1:
            raise AggregationError(
                "all parties must begin a fit with the same settings, epochs trained and, with "
                "mask_scope='global', masks, got different ones; give all the same, or load the same "
                "checkpoint everywhere"
            )
        if self._rows is not None:
            # One row for each round: everybody's sample counts.
            self._weights = (yield from self._sample_counts(np.array(self._rows))).T
        arrays, mask = self._training.arrays(), self._training.mask_of_arrays()
        if self._prunes_own:
            self._support = yield from agree_on_support(self._client, arrays, mask)
        else:
            self._support = self._client.shared_support(arrays, mask)
        yield from average_into(self._client, arrays, arrays, support=self._support)
        self._training.take_back(arrays)

    def _digest(self) -> int:
        """What all parties must have in common, in 48 bits, so that the sum of all parties' fits."""
        mask = self._training.masked.mask
        # What was chosen stands for how: a function has another name in every process.
        settings = replace(self._settings, prunable=tuple(mask))
        state = sha256(repr((settings, self._fit.shared())).encode())
        if not self._prunes_own:
            for entry in mask.values():
                state.update(entry.tobytes())
        return int.from_bytes(state.digest()[:6], "big")

    def _present(self) -> list[int]:
        """The positions of those whose numbers are in the last sum."""
        client = self._client
        return client.present() if isinstance(client, SurvivingClient) else list(range(client.parties))

    def _sample_counts(self, own: np.ndarray) -> Exchanges[np.ndarray]:
        """Everybody's sample counts; 1 of who is not there, whose part of the weight is taken out anyway."""
        counts = yield from gather(self._client, own)
        absent = np.ones(len(counts), bool)
        absent[self._present()] = False
        counts[absent] = 1
        return counts

    def rounds(self, rounds: Sequence[Round]) -> Exchanges[None]:
        """Trains for some rounds, the last average taken up.

        Where a round has failed, here or at another party, the mask is that of its beginning; so are the
        weights if it prunes, or if uploads get noise: the next fit begins with an upload without any.

        A round in which a party was lost too late for the others to go without it is thrown away: weights and
        mask are those of its beginning, and training goes on with the next rows. The reason is in
        :mod:`secretflow.security.aggregation.secagg.dropouts.protocol`.
        """
        training = self._training
        for this in rounds:
            before = training.masked.mask
            undoable = self._may_lose_rounds or self._fit.adds_noise or this.prunes
            start = [array.copy() for array in training.arrays()] if undoable else None
            try:
                samples = training.train(this, self._fit)
                if this.prunes and self._prunes_own:
                    training.prune(this.passed)
                training.withhold()
                arrays = training.arrays()
                upload = training.noised(arrays, self._fit)
                if self._weights is not None:
                    weights = self._weights[this.number - 1]
                    if weights[self._client.position] != samples:
                        raise ValueError(
                            f"the batches of a round must have as many rows as their sampler says, "
                            f"{weights[self._client.position]}, got {samples}"
                        )
                else:
                    weights = yield from self._sample_counts(np.array(samples))
                if this.prunes and self._prunes_own:
                    # A mask that can only shrink is agreed on where something travels already.
                    within = None if self._settings.regrow_percent else self._support
                    self._support = yield from agree_on_support(
                        self._client, upload, training.mask_of_arrays(), within
                    )
                yield from average_into(self._client, arrays, upload, weights, self._support)
            except BaseException as error:
                training.masked.use(before)
                if start is not None:
                    training.take(start)
                if isinstance(error, RoundLostError):
                    continue
                raise
            training.take_back(arrays)
            if this.prunes and not self._prunes_own:
                training.prune(this.passed)
                self._support = self._client.shared_support(training.arrays(), training.mask_of_arrays())
