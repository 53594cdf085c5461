"""A party's rounds: train, where a step is due prune, average, take the average up.

They are generators of what the party exchanges with the server, see
:mod:`secretflow.security.aggregation.secagg.protocol`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from typing import TypeVar

import numpy as np

from secretflow.ml.nn.fl.plan import Round
from secretflow.ml.nn.fl.pruning import PruneSettings
from secretflow.ml.nn.fl.worker.training import LocalTraining, PartyFit
from secretflow.security.aggregation.secagg.client import Client
from secretflow.security.aggregation.secagg.errors import (
    AggregationError,
    DisagreementError,
    RoundLostError,
)
from secretflow.security.aggregation.secagg.protocol import (
    Exchanges,
    agree_on_support,
    average_into,
    average_updates_into,
    confirm,
    have_the_same,
)
from secretflow.security.aggregation.secagg.rounding import rounding_key
from secretflow.security.aggregation.secagg.support import Support
from secretflow.security.aggregation.secagg.updates import Updates
from secretflow.security.aggregation.secagg.weighing import WEIGHING_EXCHANGES, weigh, weigh_rounds
from secretflow.security.aggregation.secagg.weights import AggregationWeights

_Result = TypeVar("_Result")


def exchanges_of_start(settings: PruneSettings, rows_known: bool) -> int:
    """How many messages each party sends in :meth:`PartyRounds.start`."""
    return 3 + rows_known * WEIGHING_EXCHANGES + (settings.mask_scope == "local")


def exchanges_of(
    rounds: Sequence[Round], settings: PruneSettings, rows_known: bool, rounds_updates: bool = False
) -> int:
    """How many messages each party sends in :meth:`PartyRounds.rounds`."""
    agreements = sum(this.prunes for this in rounds) if settings.mask_scope == "local" else 0
    each = 1 + (not rows_known) * WEIGHING_EXCHANGES + rounds_updates
    return len(rounds) * each + agreements


def _until_not_lost(make: Callable[[], Exchanges[_Result]]) -> Exchanges[_Result]:
    """Makes exchanges again whose call was lost; what they carry tells no more the second time."""
    while True:
        try:
            return (yield from make())
        except RoundLostError:
            continue


class PartyRounds:
    """One party's side of a fit.

    Args:
        client: the party's side of the aggregation.
        training: its model and its training.
        settings: what the user chose about pruning.
        fit: what the user chose for this fit.
        rows: how many rows the party trains on in each round of an epoch; None if that is not known before.

    Attributes:
        epoch_is_over: whether the last round that was trained ended an epoch.
        ended: how many rounds of the fit have come to their end.
        lost: how many rounds have no average, for a party was lost in their last step.
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
        self._pruning = settings.over(fit.epochs_in_all)
        self._fit = fit
        self._rows = rows
        self._weights: list[AggregationWeights] | None = None
        self._uncounted = 0  # most parties that do not count in a round, if that is known before
        self._support: Support | None = None
        self._updates: Updates | None = None
        self._prunes_own = settings.mask_scope == "local"
        self.epoch_is_over = self._starts_late = False
        self.ended = self.lost = 0
        self._before: list[np.ndarray] = []  # the weights with which a round began

    def start(self, keeps_weights: bool = True) -> Exchanges[None]:
        """Gives all parties the average of their weights, under masks that they agree on.

        Args:
            keeps_weights: whether weights, or the last average, may stay, to the bit, if all have the same.

        Raises:
            AggregationError: the parties do not mean the same fit.
            ValueError: the average is not to be trained on, see :mod:`.incoming`.
        """
        yield from self.settle()
        arrays = self._training.arrays()
        if self._client.rules.upload_bits is not None:
            self._updates = self._training.begin_updates()
        same = have_the_same(self._client, arrays, self._support, self._updates)
        if keeps_weights and (yield from same):
            yield from confirm(self._client, b"the same weights")  # in the place of the next one
            self._client.usage.count_round(0)  # or its agreements would be the first round's
            self._training.check(arrays)  # from wherever all have them
            return
        if self._updates is not None:
            self._updates.begin_anew()
        before, equal = self._copies(arrays), self._client.weights_of(())
        if self._weights is not None and not self._fit.adds_noise:
            equal = equal.counting_as(self._weights[0])
        try:
            with self._tensors_named():
                yield from average_into(self._client, arrays, arrays, equal, self._support, self._updates)
                self._training.check(arrays)
        except RoundLostError:
            self._starts_late = True  # what was released is not uploaded again, and no update has a reference
            return
        except BaseException:
            self._training.take(before)
            raise
        self._training.take_back(arrays)

    def go_on(self, comes_in: bool, average: Sequence[np.ndarray] | None) -> None:
        """Goes on in the middle of a fit.

        Args:
            comes_in: whether the party has been given the last average.
            average: see :meth:`~secretflow.security.aggregation.secagg.updates.Updates.come_in`.
        """
        if self._client.rules.upload_bits is not None:
            self._updates = self._training.begin_updates()
            if comes_in:
                self._updates.come_in(average)

    def settle(self, also: bytes = b"") -> Exchanges[None]:
        """Settles what holds in all rounds: that the parties mean the same, their weights and what travels.

        Args:
            also: what the parties must have in common, too.

        Raises:
            AggregationError: the parties do not mean the same fit.
        """
        yield from _until_not_lost(lambda: self._confirm(also))
        if self._rows is not None:
            rows = self._rows
            self._weights = yield from _until_not_lost(lambda: weigh_rounds(self._client, rows))
            self._uncounted = max(weights.uncounted for weights in self._weights)
        arrays, mask = self._training.arrays(), self._training.mask_of_arrays()
        if self._prunes_own:
            self._support = yield from _until_not_lost(
                lambda: agree_on_support(self._client, arrays, mask, uncounted=self._uncounted)
            )
        else:
            self._support = self._client.shared_support(arrays, mask)

    def _confirm(self, also: bytes) -> Exchanges[None]:
        try:
            yield from confirm(self._client, self._common() + also)
        except DisagreementError:
            raise AggregationError(
                "all parties must begin a fit with the same model, settings, epochs trained and, with "
                "mask_scope='global', masks, got different ones; give all the same, or load the same "
                "checkpoint everywhere"
            ) from None

    @contextmanager
    def _tensors_named(self) -> Iterator[None]:
        """Has an error of the aggregation, which knows numbers of arrays, name the tensor of the model."""
        try:
            yield
        except AggregationError as error:
            found = re.match(r"data\[(\d+)\]", str(error))
            if found is None:
                raise
            name = self._training.names()[int(found[1])]
            raise AggregationError(name + str(error)[found.end() :]) from error

    def _common(self) -> bytes:
        """What all parties must have in common, as a hash."""
        mask = self._training.masked.mask
        # What was chosen stands for how: a function has another name in every process.
        settings = replace(self._settings, prunable=tuple(mask))
        state = sha256(repr((settings, self._fit.shared(), self._fit.adds_noise)).encode())
        if self._client.rules.upload_bits is not None:
            state.update(repr(self._training.updated()).encode())
        if not self._prunes_own:
            for entry in mask.values():
                state.update(entry.tobytes())
        return state.digest()

    def _copies(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Copies, in memory that is used again: fresh memory takes longer than copying."""
        if not self._before:
            self._before = [np.empty_like(array) for array in arrays]
        for kept, array in zip(self._before, arrays, strict=True):
            np.copyto(kept, array)
        return self._before

    def rounds(self, rounds: Sequence[Round]) -> Exchanges[None]:
        """Trains for some rounds, the last average taken up.

        Where a round has failed, here or at another party, weights and mask are those of its beginning. So
        nothing that it uploaded is uploaded again under other weights, nor what rests on a sum that the
        parties were not told alike.

        A round in which a party was lost too late for the others to go without it is thrown away: weights are
        those of its beginning, the mask too unless the parties have agreed on a new one, and training goes on
        with the next rows. The reason is in
        :mod:`secretflow.security.aggregation.secagg.dropouts.protocol`.
        """
        training = self._training
        for this in rounds:
            before, agreed = training.masked.mask, False
            start = self._copies(training.arrays())
            try:
                samples = training.train(this, self._fit)
                if this.prunes and self._prunes_own:
                    training.prune(self._pruning, this.passed)
                training.withhold()
                arrays = training.arrays()
                upload = training.noised(arrays, self._fit)
                if self._weights is not None:
                    weights = self._weights[this.number - 1]
                    if weights.weight != samples:
                        raise ValueError(
                            f"the batches of a round must have as many rows as their sampler says, "
                            f"{weights.weight}, got {samples}"
                        )
                else:
                    weights = yield from weigh(self._client, samples)
                if this.prunes and self._prunes_own:
                    # A mask that can only shrink is agreed on where something travels already.
                    within = None if self._settings.regrow_percent else self._support
                    self._support = yield from agree_on_support(
                        self._client, upload, training.mask_of_arrays(), within, self._uncounted
                    )
                    agreed = True
                # The account of the noise is one of equal parts.
                shares = None if self._fit.adds_noise else weights
                with self._tensors_named():
                    yield from self._average(this, arrays, upload, shares)
                training.check(arrays)
            except RoundLostError:
                if not agreed:
                    training.masked.use(before)
                training.take(start)
                self.epoch_is_over = this.ends_epoch
                self.lost += 1
                self.ended += 1
                continue
            except BaseException:
                training.masked.use(before)
                training.take(start)
                raise
            training.take_back(arrays)
            if this.prunes and not self._prunes_own:
                training.prune(self._pruning, this.passed)
                self._support = self._client.shared_support(training.arrays(), training.mask_of_arrays())
                if self._updates is not None:
                    self._updates.take_all(training.arrays())
            self.epoch_is_over = this.ends_epoch
            self.ended += 1

    def _average(
        self,
        this: Round,
        arrays: list[np.ndarray],
        upload: list[np.ndarray],
        weights: AggregationWeights | None,
    ) -> Exchanges[None]:
        """Averages what is uploaded into arrays of the model."""
        client, support = self._client, self._support
        if self._updates is None or support is None or self._starts_late:
            yield from average_into(client, arrays, upload, weights, support, updates=self._updates)
            self._starts_late = False
            return
        key = rounding_key(self._fit.random_seed, client.party, this.epoch, this.number)
        yield from average_updates_into(client, arrays, self._updates, weights, support, key)
