"""How ``FLModel`` trains with those parties who are there."""

from __future__ import annotations

from secretflow.device import reveal
from secretflow.ml.nn.fl.checks import check_privacy
from secretflow.ml.nn.fl.crew import answers_within, over_a_network
from secretflow.ml.nn.fl.history import History
from secretflow.ml.nn.fl.options import FitOptions
from secretflow.ml.nn.fl.surviving_session import SurvivingSession
from secretflow.ml.nn.fl.survivor_checks import check_all_there, check_surviving_fit
from secretflow.ml.nn.fl.training_data import WithTrainingData

_SECONDS_OF_A_START = 60.0  # of a worker that was made just now


class WithSurvivors(WithTrainingData):
    """A model whose aggregator may have ``min_survivors``."""

    def _fit_with_survivors(self, options: FitOptions) -> History:
        """Trains with those who are there; :class:`SurvivingSession` says how."""
        check_surviving_fit(options, over_a_network())
        if not over_a_network():
            asked = {device: worker.epochs_trained() for device, worker in self._workers.items()}
            seconds = _SECONDS_OF_A_START + self._aggregator.survival.round_deadline
            check_all_there(self._parties, set(answers_within(seconds, asked)))
            options.check_rows(self._rows(options.x))
        survival = self._aggregator.survival
        fewest = survival.survivors.min_survivors
        parties, bits = len(self._parties), self._aggregator.upload_bits
        check_privacy(self.dp_strategy, self._prune_settings, parties, bits, fewest)
        if self._gradient_capture:
            reveal([worker.check_capture() for worker in self._workers.values()])
        steps, own_steps = self._build_training_data(options)
        self._give_validation_data(options)
        trained = self.epochs_trained() if self._workers else 0  # over a network the server has none
        fit = options.for_parties(steps, own_steps, trained, self.dp_strategy)
        return SurvivingSession(self._workers, self._aggregator, options, fit).run()
