"""What a party's worker does in a fit that goes on with those who are there."""

from __future__ import annotations

import time
from typing import Any

from secretflow.ml.nn.fl.epoch_reports import Measured, SurvivorReport
from secretflow.ml.nn.fl.pruning import PruneSettings
from secretflow.ml.nn.fl.worker.data import rows_by_round
from secretflow.ml.nn.fl.worker.generators import reseed
from secretflow.ml.nn.fl.worker.progress import Progress
from secretflow.ml.nn.fl.worker.repeated_updates import check_updates_differ
from secretflow.ml.nn.fl.worker.surviving import SurvivingFit
from secretflow.ml.nn.fl.worker.training import LocalTraining, PartyFit
from secretflow.security.aggregation.secagg.dropouts.measured_sums import MeasuringClient
from secretflow.security.aggregation.secagg.dropouts.survival import Streams, Survival
from secretflow.security.aggregation.secagg.participant import Participant

_ALL = 2**62  # batches: an evaluation ends with the last one


class SurvivingParty(Participant):
    """A base of a party's worker that goes on with those who are there."""

    _training: LocalTraining
    _settings: PruneSettings
    _party: str
    train_set: Any
    _surviving: SurvivingFit | None = None
    _rounds_told = 0
    epoch: list[int]

    def begin_surviving_fit(
        self, survival: Survival, streams: Streams, fit: PartyFit, validation_freq: int, adds_up: bool
    ) -> None:
        """Begins a fit, for arguments see :class:`SurvivingFit`.

        Raises:
            ValueError: one batch has all rows, and not all is told to one driver anyway.
        """
        self.leave_fit()
        before = getattr(self, "_client", None)
        if adds_up:
            check_updates_differ(self.train_set, fit.ends_of_rounds(self._party), self._party)
        reseed(fit)
        self._rounds_told = 0
        self._surviving = SurvivingFit(
            self,  # type: ignore[arg-type]  # the worker is one, by its other bases
            self._party,
            self._training,
            self._settings,
            survival,
            streams,
            fit,
            validation_freq,
            adds_up,
            before if isinstance(before, MeasuringClient) else None,
        )

    def go_on(self, until: int) -> Progress:
        """Goes on with the fit, see :meth:`SurvivingFit.go_on`."""
        if self._surviving is None:
            raise RuntimeError("begin_surviving_fit must be called before go_on, got a call without")
        return self._surviving.go_on(until)

    def leave_fit(self) -> None:
        """Ends the fit for this party, see :meth:`SurvivingFit.leave`."""
        fit, self._surviving = self._surviving, None
        if fit is not None:
            fit.leave()

    def rows_of_rounds(self, fit: PartyFit) -> list[int] | None:
        """Rows of each round of an epoch; None if only dealing them out would tell."""
        return rows_by_round(self.train_set, fit.ends_of_rounds(self._party))

    def skip_batches(self, count: int) -> None:
        """Passes over the next batches of training."""
        worker: Any = self
        counted = worker._rows_counted
        for _ in range(count):
            worker.next_batch()
        worker._rows_counted = counted

    def report_of_epoch(self, evaluates: bool) -> SurvivorReport:
        """Ends an epoch; returns what the party has measured in it.

        Args:
            evaluates: whether the model is evaluated.
        """
        worker: Any = self
        worker.end_epoch()
        started = time.perf_counter()
        if evaluates:
            worker.evaluate(_ALL)
        seconds = time.perf_counter() - started if evaluates else 0.0
        sizes = self._client.usage.round_bytes(self._rounds_told)
        self._rounds_told += len(sizes)
        measured: Measured = worker.measured()
        return {**measured, "round_bytes": sizes, "evaluate_seconds": seconds}

    def count_from_here(self) -> None:
        """Leaves what was uploaded and measured before out of the next report."""
        self._rounds_told = len(self._client.usage.round_bytes(0))
        self._client.usage.take_seconds()
        self._training.take_seconds()

    def take_epochs(self, trained: int) -> None:
        """Has the model pass for one that was trained for so many epochs."""
        self.epoch = list(range(trained))

    def use_client(self, client: MeasuringClient) -> None:
        """Makes a client the party's own."""
        self._client = client
