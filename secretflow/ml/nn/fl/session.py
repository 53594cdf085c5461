"""One call of ``FLModel.fit`` with pruning, from the driver's side.

The rounds are planned beforehand (:mod:`.plan`), the parties run them (:mod:`.worker.rounds`), and a
transport carries what they exchange with the server. What is left to the driver is in :meth:`FitSession.run`:
epochs, validation, history and callbacks.
"""

from __future__ import annotations

import logging
import math
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from secretflow.device import PYU, PYUObject, reveal
from secretflow.distributed import DISTRIBUTION_MODE, get_distribution_mode
from secretflow.errors import StateError
from secretflow.ml.nn.callbacks.callbacklist import CallbackList
from secretflow.ml.nn.fl.audience import Audience
from secretflow.ml.nn.fl.callbacks import needs_model_each_round
from secretflow.ml.nn.fl.epoch_reports import (
    Measured,
    Report,
    columns_of,
    overall_columns,
    own_measures,
    total_columns,
)
from secretflow.ml.nn.fl.history import History
from secretflow.ml.nn.fl.numbers_of import numbers_of
from secretflow.ml.nn.fl.options import FitOptions
from secretflow.ml.nn.fl.plan import Round, plan_epochs, warn_of_another_end
from secretflow.ml.nn.fl.pruning import PruneSettings
from secretflow.ml.nn.fl.totals import Totals
from secretflow.ml.nn.fl.worker.rounds import exchanges_of, exchanges_of_start
from secretflow.ml.nn.fl.worker.training import PartyFit
from secretflow.ml.nn.metrics import Metric
from secretflow.security.aggregation import SecurePruneAggregator

_in_use: weakref.WeakKeyDictionary[SecurePruneAggregator, Mapping[PYU, Any]] = weakref.WeakKeyDictionary()
"""The workers of each fit that is running, by its aggregator."""


def refuse_within_a_fit(
    call: str, aggregator: SecurePruneAggregator, workers: Mapping[PYU, Any] | None = None
) -> None:
    """Refuses what a callback of a fit calls with its aggregator: it would change what the fit goes on with.

    Args:
        call: what was called.
        aggregator: with what.
        workers: whose own fit does not matter.

    Raises:
        RuntimeError: a fit with this aggregator is running.
    """
    if aggregator in _in_use and _in_use[aggregator] is not workers:
        raise StateError(
            f"{call} must be called when the last fit with its aggregator is over, got a call within"
        )


def log_privacy(this: Round, frequency: int | None, dp_strategy: Any) -> None:
    """Logs, for debugging, the privacy spent every ``frequency`` rounds, as upstream does."""
    if frequency is not None and dp_strategy is not None and not this.in_all % frequency:
        logging.debug("privacy spent: %s", dp_strategy.get_privacy_spent(this.in_all))


class FitSession:
    """One fit, in which all parties must be there: trains the workers and records what they measure.

    Args:
        workers: at each party its model, see
            :class:`~secretflow.ml.nn.fl.backend.torch.strategy.fed_avg_w_prune.FedAvgWPrune`. They have their
            data and the parties' clients of the aggregation.
        aggregator: averages them.
        settings: what the user chose about pruning.
        options: the arguments of ``fit``.
        fit: what the parties are told of it.
        audience: whose drivers are told what the parties measure.
        totals: of all parties, where a driver is not told everything.
        validate: given the number of an epoch of this fit, evaluates the workers and returns the metrics by
            name.
    """

    def __init__(
        self,
        workers: Mapping[PYU, Any],
        aggregator: SecurePruneAggregator,
        settings: PruneSettings,
        options: FitOptions,
        fit: PartyFit,
        audience: Audience,
        totals: Totals,
        *,
        validate: Callable[[int], dict[str, Metric]],
    ) -> None:
        self._workers = workers
        self._aggregator = aggregator
        self._settings = settings
        self._options = options
        self._fit = fit
        self._audience = audience
        self._totals = totals
        self._validate = validate
        self._history = History(global_history={}, local_history={})
        self._callbacks = CallbackList(
            callbacks=options.own_callbacks,
            workers=workers,
            device_y=None,
            epochs=options.epochs,
            verbose=options.verbose,
            steps=fit.steps,
            history=self._history,
        )
        self._told = 0  # rounds of this fit that callbacks have heard of
        self._round_by_round = any(map(needs_model_each_round, options.own_callbacks))
        self._rounds_updates = aggregator.upload_bits is not None
        self._transport = aggregator.transport(options.wait_steps)

    def run(self) -> History:
        """Trains for the epochs asked for, or until a callback stops it; returns what was recorded."""
        _in_use[self._aggregator] = self._workers
        try:
            return self._run()
        finally:
            del _in_use[self._aggregator]

    def _run(self) -> History:
        options, callbacks = self._options, self._callbacks
        plan = self._begin()
        reveal([worker.count_from_here() for worker in self._workers.values()])
        callbacks.on_train_begin()
        for epoch, rounds in enumerate(plan):
            started = time.perf_counter()
            callbacks.on_epoch_begin(epoch=epoch)
            title = f"Epoch {epoch + 1}/{options.epochs}"
            with tqdm(total=len(rounds), desc=title, unit="round", disable=not options.verbose) as progress:
                before = reveal(self._aggregator.round_bytes())
                self._train_epoch(rounds, progress)
                uploaded = reveal(
                    self._aggregator.round_bytes({party: len(sizes) for party, sizes in before.items()})
                )
                evaluate_seconds = self._evaluate(epoch) if options.validates(epoch) else 0.0
                seconds = {
                    "evaluate_seconds": evaluate_seconds,
                    "seconds": time.perf_counter() - started,
                }
                self._record(uploaded, seconds)
                callbacks.on_epoch_end(epoch=epoch)
                progress.set_postfix(_shown(self._history.global_history))
            # What they go by is not the same at all drivers, and one that stops alone leaves the others
            # waiting.
            if self._audience.decided(lambda: callbacks.stop_training[0]):
                break
        callbacks.on_train_end()
        return self._history

    def _begin(self) -> Iterator[list[Round]]:
        """Gives all parties the same weights, their average; returns the rounds of each epoch."""
        states = reveal([worker.party_state(self._fit.steps) for worker in self._workers.values()])
        self._rows_known = all(state["rows_known"] for state in states)
        self._transport.run(
            lambda party, start: self._workers[party].begin_fit(start, self._fit, self._rows_known),
            exchanges_of_start(self._settings, self._rows_known),
        )
        # After a round that failed at one party, another may have taken a step of pruning more. Steps go on
        # until all have come to the end.
        furthest_behind = max(states, key=lambda state: sum(state["living"]))
        warn_of_another_end(
            self._settings,
            furthest_behind["sizes"],
            furthest_behind["living"],
            trained=self._fit.epochs_trained,
            epochs=self._options.epochs,
            rounds=math.ceil(self._fit.steps / self._fit.aggregate_freq),
        )
        return plan_epochs(
            self._settings,
            furthest_behind["sizes"],
            furthest_behind["living"],
            trained=self._fit.epochs_trained,
            epochs=self._options.epochs,
            steps=self._fit.steps,
            aggregate_freq=self._fit.aggregate_freq,
        )

    def _train_epoch(self, rounds: Sequence[Round], progress: tqdm) -> None:
        """Trains one epoch, some rounds at a time."""
        callbacks = self._callbacks
        while rounds:
            count = 1 if self._round_by_round else self._transport.rounds_at_once()
            now, rounds = rounds[:count], rounds[count:]
            callbacks.on_train_batch_begin(batch=now[0].first_step)
            try:
                self._train(now)
            except Exception:
                self._tell(now[: self._ended_before_error()])
                raise
            if now[-1].ends_epoch:
                # Before callbacks hear of the last round, for what they evaluate would pass for metrics of
                # training; and of all at once, for after a failure all must have trained as many epochs.
                reveal([worker.end_epoch() for worker in self._workers.values()])
            self._tell(now)
            progress.update(len(now))

    def _tell(self, rounds: Sequence[Round]) -> None:
        """Has callbacks hear of rounds that were run together; they know already that the first has begun."""
        for this in rounds:
            if this is not rounds[0]:
                self._callbacks.on_train_batch_begin(batch=this.first_step)
            log_privacy(this, self._options.dp_spent_step_freq, self._fit.dp_strategy)
            self._told += 1
            self._callbacks.on_train_batch_end(batch=this.first_step)

    def _ended_before_error(self) -> int:
        """How many rounds callbacks have not heard of that ended at all parties before one failed.

        Over the network drivers may meet an error at different places, where a question would find no answer.
        """
        if get_distribution_mode() not in (DISTRIBUTION_MODE.SIMULATION, DISTRIBUTION_MODE.DEBUG):
            return 0
        try:
            ended = reveal([worker.rounds_ended() for worker in self._workers.values()])
        except Exception as error:  # a party's process is gone, which the user is told anyway
            logging.debug("how many rounds ended is not known: %r", error)
            return 0
        return max(0, min(ended) - self._told)

    def _train(self, rounds: Sequence[Round]) -> None:
        def begin(party: PYU, start: int) -> PYUObject:
            return self._workers[party].begin_rounds(start, rounds)

        exchanges = exchanges_of(rounds, self._settings, self._rows_known, self._rounds_updates)
        self._transport.run(begin, exchanges, rounds=len(rounds))

    def _evaluate(self, epoch: int) -> float:
        """Evaluates every party's pruned model on the validation data; returns the seconds that it took."""
        started = time.perf_counter()
        self._callbacks.on_test_begin()
        metrics = self._validate(epoch)
        self._callbacks.on_test_end({name: metric.result().numpy() for name, metric in metrics.items()})
        return time.perf_counter() - started

    def _record(self, uploaded: dict[PYU, list[int]], seconds: dict[str, float]) -> None:
        """Adds an epoch to the history: what this driver is told.

        Args:
            uploaded: bytes of each party in each round.
            seconds: what the driver has measured.
        """
        measured = {device: worker.measured() for device, worker in self._workers.items()}
        told: dict[PYU, Measured] = self._audience.own(measured)
        reports: dict[PYU, Report] = {
            device: {**report, "round_bytes": uploaded[device]} for device, report in told.items()
        }
        if self._audience.tells_all:
            overall = overall_columns(list(reports.values()))
        else:
            own = {device: device(own_measures)(report) for device, report in measured.items()}
            overall = total_columns(self._totals.of(own))
        for device, report in reports.items():
            for name, value in columns_of(report).items():
                self._history.local_history.setdefault(f"{device}_{name}", []).append(value)
        overall.update(seconds, payload_bytes=sum(sum(sizes) for sizes in uploaded.values()))
        for name, value in overall.items():
            self._history.global_history.setdefault(name, []).append(value)


def _shown(columns: dict[str, list[Any]]) -> dict[str, Any]:
    """What the progress bar shows of an epoch: the density, and the metrics that are one number."""
    return {
        name: values[-1]
        for name, values in columns.items()
        if not name.endswith(("bytes", "seconds")) and numbers_of(values[-1], dimensions=0)
    }
