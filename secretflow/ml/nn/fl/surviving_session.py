"""One call of ``FLModel.fit`` that goes on with those parties who are there, from the driver's side.

The parties' workers hold streams to the server's (:mod:`.worker.surviving`), over which everything goes that
they tell each other, sums of what they measure in an epoch included. So a driver asks only workers that are
here: in a simulation all, over a network those of its own party, whose measurements alone it is told.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import RayActorError
from tqdm import tqdm

from secretflow.device import PYU, PYUObject, proxy
from secretflow.ml.nn.callbacks.callbacklist import CallbackList
from secretflow.ml.nn.fl.callbacks import Checkpoint, needs_model_each_round
from secretflow.ml.nn.fl.crew import (
    SECONDS_OF_A_LOOK,
    Crew,
    be_patient,
    over_a_network,
    reference_of,
    value_within,
)
from secretflow.ml.nn.fl.epoch_reports import (
    SurvivorReport,
    record_epoch,
    sums_columns,
    survivors_columns,
)
from secretflow.ml.nn.fl.history import History
from secretflow.ml.nn.fl.options import FitOptions
from secretflow.ml.nn.fl.session import log_privacy
from secretflow.ml.nn.fl.totals import LeftOut
from secretflow.ml.nn.fl.worker.progress import Taken
from secretflow.ml.nn.fl.worker.totals import Told
from secretflow.ml.nn.fl.worker.training import PartyFit
from secretflow.party.messages import unpack
from secretflow.security.aggregation import SecurePruneAggregator
from secretflow.security.aggregation.secagg.dropouts.host import Host
from secretflow.security.aggregation.secagg.dropouts.keys import as_told
from secretflow.security.aggregation.secagg.dropouts.survival import Streams, Survival, streams_here
from secretflow.security.aggregation.secagg.errors import AggregationError, TooFewSurvivorsError

_SECONDS_AT_ONCE = 0.5  # see LocalTransport
_SECONDS_OF_A_START = 300.0  # of a process, on a machine that is busy


class SurvivingSession:
    """One fit that goes on with those who are there: trains the workers that this driver moves.

    Args:
        workers: by party, changed in place as parties are lost and come back.
        aggregator: averages them; it has ``min_survivors``.
        options: the arguments of ``fit``.
        fit: what the parties are told of it.
    """

    def __init__(
        self,
        workers: dict[PYU, Any],
        aggregator: SecurePruneAggregator,
        options: FitOptions,
        fit: PartyFit,
    ) -> None:
        assert aggregator.survival is not None  # as FLModel asks before
        self._survival: Survival = aggregator.survival
        self._workers = workers
        self._server = PYU(self._survival.server)
        self._host: Any = proxy(PYUObject)(Host)(device=self._server)
        self._options = options
        self._fit = fit
        self._of_epoch = math.ceil(fit.steps / fit.aggregate_freq) + 1  # rounds, and the end
        self._history = History(global_history={}, local_history={}, participants=[])
        self._callbacks = CallbackList(
            callbacks=options.own_callbacks,
            workers=workers,
            device_y=None,
            epochs=options.epochs,
            verbose=options.verbose,
            steps=fit.steps,
            history=self._history,
            round_deadline=self._survival.round_deadline,
        )
        self._sign: ray.ObjectRef | None = None  # of life, that the server's process was asked for
        self._serves_until = math.inf
        self._round_by_round = any(map(needs_model_each_round, options.own_callbacks))
        self._at_once = 1
        self._epochs = 0  # that were recorded
        self._left_out = LeftOut()

    def run(self) -> History:
        """Trains for the epochs asked for, or until a callback stops it; returns what was recorded.

        Raises:
            TooFewSurvivorsError: too few parties are left; what is here was saved if a callback saves.
        """
        streams, serves = self._open()
        try:
            if self._workers:
                self._train(streams, serves)
            if serves:
                self._serve(waits=not self._workers)
        finally:
            if serves:
                ray.wait([reference_of(self._host.close())], timeout=self._survival.round_deadline)
        return self._history

    def _open(self) -> tuple[Streams, bool]:
        """Has the server serve, if it is here; returns where the streams run, and whether it is."""
        survival, here = self._survival, streams_here()
        names, rules, deadline = survival.names, survival.survivors, survival.round_deadline
        if not over_a_network():
            opened = self._host.open(
                names, rules, address=None, tls=None, round_deadline=deadline, wait=deadline
            )
            address = self._answer_within(_SECONDS_OF_A_START, opened)
            return Streams("", address, address, self._server.party, None, deadline), True
        if here is None:
            raise AggregationError(
                "the cluster file must say with min_survivors at which host and port the server has streams, "
                "got none"
            )
        if serves := self._server.party == here.own:
            opened = self._host.open(
                names, rules, address=here.listen, tls=here.tls, round_deadline=deadline, wait=here.wait
            )
            self._answer_within(_SECONDS_OF_A_START, opened)
        return here, serves

    def _answer_within(self, seconds: float, answer: PYUObject) -> Any:
        """What the server's worker answers; one that has not in so many seconds stands still."""
        try:
            return value_within(seconds, reference_of(answer), self._server.party)
        except RayActorError:
            message = f"{self._server.party} must answer, but its process has ended"
            raise AggregationError(message) from None

    def _train(self, streams: Streams, serves: bool) -> None:
        options, survival, callbacks = self._options, self._survival, self._callbacks
        freq = 0 if options.validation_data is None else options.validation_freq
        patience = streams.wait + 9 * survival.round_deadline
        be_patient(self._workers, patience)
        for worker in self._workers.values():
            worker.begin_surviving_fit(survival, streams, self._fit, freq, over_a_network())
        # In a simulation the parties themselves wait no longer than a round for a server.
        look = self._look_at_server if serves and over_a_network() else (lambda: None)
        crew = Crew(self._workers, survival.round_deadline, patience, look)
        try:
            crew.go_on(0)
            callbacks.on_train_begin()
            while crew.passed < crew.planned and not callbacks.stop_training[0]:
                self._train_epoch(crew)
            callbacks.on_train_end()
        except TooFewSurvivorsError:
            for callback in options.own_callbacks:
                if isinstance(callback, Checkpoint):
                    callback.save()
            raise
        finally:
            crew.leave()
            be_patient(self._workers, None)

    def _look_at_server(self) -> None:
        """Whether there is a server: the parties would wait for one that nobody but this program can start.

        Raises:
            AggregationError: its process has ended, or it has served to an end that nobody here was told of.
        """
        self._sign = self._sign or reference_of(self._host.wait(0.0))
        if not ray.wait([self._sign], timeout=0)[0]:
            return  # it may stand still, and go on
        sign, self._sign, why = self._sign, None, "its process has ended"
        try:
            if not ray.get(sign):
                return
        except RayActorError:
            self._serves_until = 0.0
        except AggregationError as error:
            why = f"it has ended: {error}"
        # Who was told of an end says so within a round.
        self._serves_until = min(self._serves_until, time.monotonic() + self._survival.round_deadline)
        if time.monotonic() > self._serves_until:
            raise AggregationError(f"{self._server.party} must serve, but {why}")

    def _train_epoch(self, crew: Crew) -> None:
        """Goes on to the end of an epoch, some rounds at a time."""
        options, callbacks, started = self._options, self._callbacks, time.perf_counter()
        epoch = crew.passed // self._of_epoch
        end = (epoch + 1) * self._of_epoch
        callbacks.on_epoch_begin(epoch=epoch)
        taken: list[Taken] = []
        title = f"Epoch {epoch + 1}/{crew.planned // self._of_epoch}"
        with tqdm(
            total=self._of_epoch - 1, desc=title, unit="round", disable=not options.verbose
        ) as progress:
            while crew.passed < end:
                until = crew.passed + (1 if self._round_by_round else self._at_once)
                began = time.perf_counter()
                crew.go_on(end if until >= end - 1 else until)
                now = [crew.taken.pop(place) for place in sorted(crew.taken)]
                if now:
                    seconds = (time.perf_counter() - began) / len(now)
                    self._at_once = max(1, round(_SECONDS_AT_ONCE / seconds))
                for this in now:
                    callbacks.on_train_batch_begin(batch=this.round.first_step)
                    log_privacy(this.round, options.dp_spent_step_freq, self._fit.dp_strategy)
                    callbacks.on_train_batch_end(batch=this.round.first_step)
                taken += now
                progress.update(len(now))
        for number in sorted(crew.reports):
            reports, totals = crew.reports.pop(number), crew.totals.pop(number, None)
            if number < self._epochs:  # of who was behind the others
                continue
            rounds = [this for this in taken if this.round.epoch == crew.trained + number]
            self._end_epoch(number, reports, totals, rounds, time.perf_counter() - started)
            callbacks.on_epoch_end(epoch=number)

    def _end_epoch(
        self,
        number: int,
        reports: Mapping[str, SurvivorReport],
        totals: Told | None,
        rounds: list[Taken],
        seconds: float,
    ) -> None:
        """Records an epoch, and tells callbacks of its validation."""
        names, there = self._survival.names, list(reports.values())
        overall = self._columns_of(totals) if over_a_network() else survivors_columns(there)
        validation = {name: value for name, value in overall.items() if name.startswith("val_")}
        overall["seconds"] = seconds
        overall["evaluate_seconds"] = max(report["evaluate_seconds"] for report in there)
        record_epoch(self._history, overall, reports, names, [list(this.parties) for this in rounds])
        self._epochs = number + 1
        if self._options.validates(number):
            self._callbacks.on_test_begin()
            self._callbacks.on_test_end(validation)

    def _columns_of(self, told: Told | None) -> dict[str, Any]:
        """The columns of an epoch of which nothing but sums is told; none where nothing was added up."""
        totals, left_out = told or ([], [])
        self._left_out.warn(left_out)
        return sums_columns(totals)

    def _serve(self, waits: bool) -> None:
        """Waits for the end at the server, and records what it may read."""
        end = time.monotonic() + self._survival.round_deadline
        while waits or time.monotonic() < end:
            seconds = self._survival.round_deadline
            try:
                looks = self._host.wait(SECONDS_OF_A_LOOK)
                over = self._answer_within(SECONDS_OF_A_LOOK + seconds, looks)
            except AggregationError:
                if waits:
                    raise
                return  # the parties here have trained to the end without it
            if waits and not self._survival.rules.server_blind:
                self._read(self._answer_within(seconds, self._host.take_reports()))
            if over:
                return

    def _read(self, told: list[dict[str, bytes]]) -> None:
        """Records the epochs whose sums parties have told, at a server that may know them."""
        for bodies in told:
            first = unpack(as_told(next(iter(bodies.values()))))
            if "totals" in first:
                record_epoch(self._history, self._columns_of(first["totals"]), {}, self._survival.names, [])
