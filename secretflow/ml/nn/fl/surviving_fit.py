"""How ``FLModel`` trains with those parties who are there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from secretflow.device import PYU
from secretflow.ml.nn.fl.checks import check_privacy
from secretflow.ml.nn.fl.crew import answers_within, be_patient, over_a_network
from secretflow.ml.nn.fl.history import History
from secretflow.ml.nn.fl.model_files import same_epochs
from secretflow.ml.nn.fl.options import FitOptions
from secretflow.ml.nn.fl.surviving_session import SurvivingSession
from secretflow.ml.nn.fl.survivor_checks import check_all_there, check_surviving_fit
from secretflow.ml.nn.fl.training_data import WithTrainingData
from secretflow.ml.nn.fl.worker.training import PartyFit
from secretflow.security.aggregation.secagg.dropouts.survival import streams_here

_SECONDS_OF_A_START = 60.0  # of a worker that was made just now


class WithSurvivors(WithTrainingData):
    """A model whose aggregator may have ``min_survivors``."""

    def _fit_with_survivors(self, options: FitOptions) -> History:
        """Trains with those who are there; :class:`SurvivingSession` says how."""
        check_surviving_fit(options, over_a_network())
        be_patient(self._workers, self._seconds_to_begin())
        try:
            fit = self._ready_to_fit(options)
        finally:
            be_patient(self._workers, None)
        return SurvivingSession(self._workers, self._aggregator, options, fit).run()

    def _ready_to_fit(self, options: FitOptions) -> PartyFit:
        """Gives all who are here their data; returns what they are told of the fit."""
        told = self._of_all({device: worker.epochs_trained() for device, worker in self._workers.items()})
        trained = same_epochs(list(told.values())) if told else 0  # over a network the server has none
        if not over_a_network():
            options.check_rows(self._rows(options.x))
        fewest = self._aggregator.survival.survivors.min_survivors
        parties, bits = len(self._parties), self._aggregator.upload_bits
        check_privacy(self.dp_strategy, self._prune_settings, parties, bits, fewest)
        if self._gradient_capture:
            self._of_all({device: worker.check_capture() for device, worker in self._workers.items()})
        steps, own_steps = self._build_training_data(options)
        self._give_validation_data(options)
        return options.for_parties(steps, own_steps, trained, self.dp_strategy)

    def _of_all(self, told: Mapping[PYU, Any]) -> dict[PYU, Any]:
        """What all workers that this driver moves tell before a fit.

        Raises:
            ValueError: one has died, or does not answer in time.
        """
        found = answers_within(self._seconds_to_begin(), told)
        check_all_there(set(told) if over_a_network() else self._parties, set(found))
        return found

    def _wait_for_data(self, taken: Mapping[PYU, Any]) -> None:
        """Waits for data as :meth:`WithTrainingData._wait_for_data` does; a party that is late drops out."""
        if self.wp_strategy and self._aggregator.survival:
            answers_within(self._seconds_to_begin(), taken)
        else:
            super()._wait_for_data(taken)

    def _seconds_to_begin(self) -> float:
        """How long a worker may take for what comes before the first round."""
        here = streams_here()
        wait = here.wait if here is not None and over_a_network() else 0.0
        return _SECONDS_OF_A_START + wait + float(self._aggregator.survival.round_deadline)
