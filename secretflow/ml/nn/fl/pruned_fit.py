"""One call of ``FLModel.fit`` with pruning, from the driver's side.

A round reads from top to bottom in :meth:`PrunedFit._train_epoch`: train, where a step is due prune, average,
apply.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from tqdm import tqdm

from secretflow.device import PYU, PYUObject, reveal
from secretflow.ml.nn.callbacks.callback import Callback
from secretflow.ml.nn.callbacks.callbacklist import CallbackList
from secretflow.ml.nn.callbacks.history import History as MetricsHistory
from secretflow.ml.nn.fl.history import History
from secretflow.ml.nn.fl.pruning import PruneSettings
from secretflow.ml.nn.fl.rounds import Round, rounds_before_pruning, rounds_of_epoch
from secretflow.security.aggregation import SecurePruneAggregator

_SECONDS_AWAY = 0.5
"""So long the parties go on by themselves, for the progress bar to move and errors to come soon."""

_FIRST_ROUNDS_AWAY = 8


class PrunedFit:
    """Trains the workers.

    Args:
        workers: at each party its model, see
            :class:`~secretflow.ml.nn.fl.backend.torch.strategy.fed_avg_w_prune.FedAvgWPrune`. They have their
            data, the parties' ends of the aggregation, and the same weights.
        aggregator: averages them.
        settings: what the user chose about pruning.
        masks: the parties' masks.
        rates: the parties' living rates.
        epochs_trained: of the workers before.
        steps: batches of an epoch.
        dp_strategy: adds noise to uploads; None does not.
        options: the arguments of ``fit``.
        validate: given the number of an epoch of this fit, evaluates the workers and returns the metrics by
            name.
    """

    def __init__(
        self,
        workers: Mapping[PYU, Any],
        aggregator: SecurePruneAggregator,
        settings: PruneSettings,
        *,
        masks: Sequence[PYUObject],
        rates: Sequence[PYUObject],
        epochs_trained: int,
        steps: int,
        dp_strategy: Any,
        options: SimpleNamespace,
        validate: Callable[[int], dict[str, Any]],
    ) -> None:
        self._workers = workers
        self._aggregator = aggregator
        self._settings = settings
        # While no step of pruning is due these stay the same objects, so that the aggregator does not agree
        # on the masks again.
        self._masks = list(masks)
        self._rates = list(rates)
        self._known_rates: list[float] = reveal(self._rates)
        self._trained = epochs_trained
        self._steps = steps
        self._dp_strategy = dp_strategy
        self._options = options
        self._validate = validate
        self._same_mask = settings.mask_scope == "global"
        # Those that the fit begins with have been settled with the average that it begins with.
        self._masks_shrink = not settings.regrow_percent
        self._history = History(global_history={}, local_history={})
        own = [] if options.callbacks is None else options.callbacks
        own = list(own) if isinstance(own, (list, tuple)) else [own]
        self._callbacks = CallbackList(
            # First, so that the user's callbacks find the epoch in the history.
            callbacks=[MetricsHistory(history=self._history), *own],
            workers=workers,
            device_y=None,
            epochs=options.epochs,
            verbose=options.verbose,
            steps=steps,
            history=self._history,
        )
        self._is_watched = any(map(_watches_rounds, own))
        self._rounds_away = _FIRST_ROUNDS_AWAY

    def run(self) -> History:
        """Trains for the epochs asked for, or until a callback stops it; returns what was recorded."""
        options, callbacks = self._options, self._callbacks
        self._rows_known = self._exchange_rows()
        rounds_before = {k: len(sizes) for k, sizes in reveal(self._aggregator.round_bytes()).items()}
        self._take_seconds()
        callbacks.on_train_begin()
        for epoch in range(options.epochs):
            started = time.perf_counter()
            callbacks.on_epoch_begin(epoch=epoch)
            rounds = rounds_of_epoch(
                self._trained + epoch, self._steps, options.aggregate_freq, self._settings
            )
            title = f"Epoch {epoch + 1}/{options.epochs}"
            with tqdm(total=len(rounds), desc=title, unit="round", disable=not options.verbose) as progress:
                self._train_epoch(rounds, progress)
                seconds = {"evaluate_seconds": 0.0}
                if options.validation_data is not None and epoch % options.validation_freq == 0:
                    seconds["evaluate_seconds"] = self._evaluate(epoch)
                self._catch_up()  # or only what was asked of the workers would be timed
                seconds["seconds"] = time.perf_counter() - started
                self._record(rounds_before, seconds)
                rounds_before = {k: before + len(rounds) for k, before in rounds_before.items()}
                callbacks.on_epoch_end(epoch=epoch)
                progress.set_postfix(_shown(self._history.global_history))
            if callbacks.stop_training[0]:
                break
        callbacks.on_train_end()
        return self._history

    def _train_epoch(self, rounds: Sequence[Round], progress: tqdm) -> None:
        """Trains one epoch. A round: train (and prune where a step is due), then average and apply.

        Where everything is settled beforehand a round takes one message to each party and one back, and
        where parties and server are processes of one machine, rounds go without the driver.

        Args:
            rounds: its rounds.
            progress: moved on by every round.
        """
        # Of the last round, at the server; None goes on from the own weights.
        average: PYUObject | None = None
        while rounds:
            this, options = rounds[0], self._options
            self._callbacks.on_train_batch_begin(batch=this.first_step)
            plain = rounds_before_pruning(rounds, self._known_rates, self._settings)
            ahead = rounds[: min(plain + 1, self._rounds_away)]  # one that prunes is the last of them
            done = rounds[:1]
            settled = self._rows_known and self._is_settled()
            worthwhile = (len(ahead) > 1 or not plain) and not self._is_watched
            if settled and worthwhile and self._aggregator.connect():
                done = ahead
                average = self._rounds_without_driver(average, done, due=len(done) > plain)
            elif settled and plain:
                average = self._hosted_round(average, this)
            else:
                average = self._round(average, this, due=plain == 0)
            if len(done) > plain:
                if self._same_mask:
                    weights, average = self._opened(average), None
                    self._take_masks(
                        worker.prune_average(weights[device], done[-1].passed)
                        for device, worker in self._workers.items()
                    )
                    self._aggregator.hosts_settled(self._masks, same_mask=True)
                self._known_rates = reveal(self._rates)
            if done[-1].ends_epoch:
                self._end_epoch(average)
            for finished in done:
                self._log_privacy(finished)
            if this.number % options.wait_steps == 0:
                self._catch_up()
            self._callbacks.on_train_batch_end(batch=done[-1].first_step)
            progress.update(len(done))
            rounds = rounds[len(done) :]

    def _end_epoch(self, average: PYUObject | None) -> None:
        """Has all take up the last average and then count the epoch.

        Not one by one, for after a failure all must have trained for as many epochs; and before callbacks
        hear of the last round, for what they evaluate would pass for metrics of training.
        """
        if average is not None:
            reveal(list(self._opened(average).values()))
        reveal([worker.end_epoch() for worker in self._workers.values()])

    def _round(self, average: PYUObject | None, this: Round, due: bool) -> PYUObject:
        """One round in which the driver moves uploads and masks are agreed on; returns the average."""
        weights = self._opened(average)
        trained, samples = [], []
        for k, (device, worker) in enumerate(self._workers.items()):
            if due:
                upload, size, mask, rate = worker.train_step_with_prune(
                    weights[device],
                    prune_current_mask=self._masks[k],
                    prune_current_rate=self._rates[k],
                    is_update_mask=True,
                    epoch=this.passed,
                    **self._how(this),
                )
                if not self._same_mask:
                    self._masks[k], self._rates[k] = mask, rate
            else:
                upload, size = worker.train_step(weights[device], **self._how(this))
            trained.append(upload)
            samples.append(size)
        return self._aggregator.sealed_average(
            trained,
            weights=samples,
            prune_mask=self._masks,
            same_mask=self._same_mask,
            shrunk_masks=self._masks_shrink,
        )

    def _hosted_round(self, average: PYUObject | None, this: Round) -> PYUObject:
        """One round in which every party opens the last average, trains and seals; returns the new one."""
        how = self._how(this)
        return self._aggregator.hosted_average(
            lambda device, call: self._workers[device].train_and_seal(
                average and average.to(device), call, this.number - 1, how
            )
        )

    def _take_masks(self, states: Iterable[tuple[PYUObject, PYUObject]]) -> None:
        masks, rates = zip(*states, strict=True)
        self._masks, self._rates = list(masks), list(rates)

    def _rounds_without_driver(
        self, average: PYUObject | None, rounds: Sequence[Round], due: bool
    ) -> PYUObject:
        """The same for several rounds over channels from party to server; returns the last average.

        Masks of the parties' own that a step of pruning changes in the last round are agreed on there, too.
        """
        started = time.perf_counter()
        # Whatever has failed until here must not leave the others waiting for one that never begins. Before
        # the first round of an epoch everything has been waited for.
        reveal(list(self._opened(average).values()))
        how = [self._how(this) for this in rounds]
        agrees = due and not self._same_mask

        def train(device: PYU, calls: list[int]) -> PYUObject:
            prune = None
            if agrees:
                prune = {"call": calls.pop(-2), "epoch": rounds[-1].passed, "shrunk": self._masks_shrink}
            return self._workers[device].train_rounds(calls, rounds[0].number - 1, how, prune)

        average = self._aggregator.hosted_rounds(len(rounds) + agrees, train)
        if agrees:
            self._take_masks(worker.prune_state() for worker in self._workers.values())
            self._aggregator.hosts_settled(self._masks)
        a_round = (time.perf_counter() - started) / len(rounds)
        self._rounds_away = max(1, round(_SECONDS_AWAY / a_round))
        return average

    def _how(self, this: Round) -> dict[str, Any]:
        """Arguments of the workers' ``train_step`` but the weights."""
        return {
            "cur_steps": this.epoch * self._steps + this.first_step,
            "train_steps": this.steps,
            "refresh_data": this.number == 1,
            "random_seed": self._options.random_seed,
            "is_last_round": this.ends_epoch and this.epoch + 1 == self._trained + self._options.epochs,
            "dp_strategy": self._dp_strategy,
        }

    def _is_settled(self) -> bool:
        return self._aggregator.has_settled(self._masks, same_mask=self._same_mask)

    def _opened(self, average: PYUObject | None) -> dict[PYU, PYUObject | None]:
        """Has every party take the average up; None before the first round of an epoch changes nothing.

        What a party returns stands for its having done so: what comes next depends on it, and fails with it.
        """
        return {
            device: None if average is None else worker.open_average(average.to(device))
            for device, worker in self._workers.items()
        }

    def _exchange_rows(self) -> bool:
        """Tells every party how many rows everybody trains on in each round, if all know it beforehand.

        Returns:
            Whether they do; then nothing needs to be said between training and sealing.
        """
        rows, known = zip(
            *(
                worker.rows_by_round(self._steps, self._options.aggregate_freq)
                for worker in self._workers.values()
            ),
            strict=True,
        )
        if not all(reveal(list(known))):
            return False
        by_party = dict(zip(self._workers, rows, strict=True))
        reveal(
            [
                worker.expect_rows(*(by_party[party].to(device) for party in self._aggregator.participants))
                for device, worker in self._workers.items()
            ]
        )
        return True

    def _log_privacy(self, this: Round) -> None:
        """Logs, for debugging, the privacy spent every ``dp_spent_step_freq`` rounds, as upstream does."""
        frequency = self._options.dp_spent_step_freq
        if frequency is None or self._dp_strategy is None or this.in_all % frequency:
            return
        logging.debug("privacy spent: %s", self._dp_strategy.get_privacy_spent(this.in_all))

    def _catch_up(self) -> None:
        """Waits until the workers have done what was asked of them, so that the queue stays short.

        An actor answers in order, so any answer will do.
        """
        reveal([worker.get_stop_training() for worker in self._workers.values()])

    def _evaluate(self, epoch: int) -> float:
        """Evaluates every party's pruned model on the validation data; returns the seconds that it took."""
        self._catch_up()  # training asked for but not yet done is not evaluation
        started = time.perf_counter()
        self._callbacks.on_test_begin()
        metrics = self._validate(epoch)
        self._callbacks.on_test_end({name: metric.result().numpy() for name, metric in metrics.items()})
        return time.perf_counter() - started

    def _record(self, rounds_before: dict[PYU, int], seconds: dict[str, float]) -> None:
        """Adds the columns of pruning to the history: living rates, uploaded bytes and seconds of this epoch.

        Args:
            rounds_before: of each party's end, how many rounds it had counted before the epoch; of one that
                has failed not all count it.
            seconds: what the driver has measured.
        """
        living = reveal({device: worker.living_rates() for device, worker in self._workers.items()})
        uploaded = reveal(self._aggregator.round_bytes(rounds_before))
        spent = self._take_seconds()
        for device, rates in living.items():
            columns: dict[str, Any] = {
                "payload_bytes": sum(uploaded[device]),
                "round_payload_bytes": uploaded[device],
                **spent[device],
                **{f"living_rate.{layer}".rstrip("."): rate for layer, rate in rates.items()},
            }
            for name, value in columns.items():
                self._history.local_history.setdefault(f"{device}_{name}", []).append(value)
        means = {"living_rate": [rates[""] for rates in living.values()]}
        for name in ("train_seconds", "aggregate_seconds"):
            means[name] = [columns[name] for columns in spent.values()]
        overall = {name: sum(values) / len(values) for name, values in means.items()}
        overall.update(seconds, payload_bytes=sum(sum(sizes) for sizes in uploaded.values()))
        for name, value in overall.items():
            self._history.global_history.setdefault(name, []).append(value)

    def _take_seconds(self) -> dict[PYU, dict[str, float]]:
        """Seconds of work at each party since this was asked last: training, and sealing and opening."""
        training = {device: worker.take_seconds() for device, worker in self._workers.items()}
        train, aggregate = reveal(training), reveal(self._aggregator.take_seconds())
        return {
            device: {"train_seconds": train[device], "aggregate_seconds": aggregate[device]}
            for device in self._workers
        }


def _watches_rounds(callback: Any) -> bool:
    """Whether a callback does something before or after a round."""
    return any(
        getattr(type(callback), name, None) is not getattr(Callback, name)
        for name in ("on_train_batch_begin", "on_train_batch_end")
    )


def _shown(columns: dict[str, list[Any]]) -> dict[str, Any]:
    """What the progress bar shows of an epoch: the metrics and the living rate."""
    return {name: values[-1] for name, values in columns.items() if not name.endswith(("bytes", "seconds"))}
