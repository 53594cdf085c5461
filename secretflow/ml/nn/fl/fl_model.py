"""FLModel: upstream's, and the strategy ``fed_avg_w_prune``.

One round of pruned training reads from top to bottom in :meth:`FLModel._train_epoch`: train, where a step
is due prune, average, apply.
"""

from __future__ import annotations

import inspect
import logging
import math
import time
from functools import wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tqdm import tqdm

from secretflow._overlay import upstream
from secretflow.device import PYU, PYUObject, reveal, wait
from secretflow.ml.nn.callbacks.callbacklist import CallbackList
from secretflow.ml.nn.callbacks.history import History as MetricsHistory
from secretflow.ml.nn.fl.attacks.capture import GradientCapture
from secretflow.ml.nn.fl.checks import (
    PRUNE_STRATEGY,
    check_aggregator,
    check_backend,
    check_capture,
    check_fit,
    check_model,
)
from secretflow.ml.nn.fl.pruning import PruneSettings
from secretflow.ml.nn.fl.strategy_dispatcher import dispatch_strategy
from secretflow.utils.random import global_random

_ABOVE_ROUNDING = 1 + 2.0**-50

_UpstreamFLModel = upstream(__name__).FLModel


class History(dict[str, Any]):
    """What a training run recorded: upstream's dictionary, readable as attributes too.

    Attributes:
        global_history: for each metric of all parties together its value after each epoch.
        local_history: the same for each party's own, under ``<party>_<metric>``.
    """

    @property
    def global_history(self) -> dict[str, list[Any]]:
        return self["global_history"]

    @property
    def local_history(self) -> dict[str, list[Any]]:
        return self["local_history"]


class FLModel(_UpstreamFLModel):  # type: ignore[misc,valid-type]
    """Horizontal federated learning.

    Every strategy of upstream's runs as it does there. With ``strategy="fed_avg_w_prune"`` every party
    prunes its model step by step, and ``SecurePruneAggregator`` averages what lives.

    Args:
        server: the PYU that aggregates.
        device_list: the parties.
        model: how a party builds its model.
        aggregator: how weights are averaged; ``fed_avg_w_prune`` needs a ``SecurePruneAggregator`` over
            the parties of ``device_list``.
        strategy: how a party trains.
        wp_strategy: prune weights; the same as choosing ``fed_avg_w_prune``, which is enough.
        prune_end_rate: see :class:`~secretflow.ml.nn.fl.pruning.PruneSettings`.
        prune_percent: see there.
        mask_scope: see there, as well as ``prune_scope``, ``prune_schedule``, ``prune_freq``,
            ``prune_start_epoch``, ``prune_end_epoch``, ``regrow_percent`` and ``withhold_percent``.
        gradient_capture: gradients that a party shall write to its own disk for the leakage audit; only
            with ``fed_avg_w_prune``, off by default.
        consensus_num: upstream's.
        backend: "torch" for ``fed_avg_w_prune``.
        random_seed: seed of the initial weights.
        skip_bn: leaves batch normalisation layers out of the aggregation.
        **kwargs: upstream's further arguments (``dp_strategy``, ``num_gpus``, ``simulation``,
            ``server_agg_method`` and others).

    Raises:
        TypeError: the aggregator of ``fed_avg_w_prune`` cannot take masks.
        ValueError: an argument is out of its range or does not go with the strategy.

    Examples:
        >>> model = FLModel(
        ...     server=carol,
        ...     device_list=[alice, bob],
        ...     model=model_def,
        ...     aggregator=SecurePruneAggregator(carol, [alice, bob]),
        ...     strategy="fed_avg_w_prune",
        ...     backend="torch",
        ...     prune_end_rate=0.1,
        ...     prune_percent=5,
        ... )
        >>> history = model.fit(x, y, validation_data=(x_test, y_test), epochs=10)
        >>> history.global_history["val_multiclassaccuracy"]
    """

    def __init__(
        self,
        server: PYU | None = None,
        device_list: list[PYU] = [],  # noqa: B006 - upstream's default
        model: Any = None,
        aggregator: Any = None,
        strategy: str = "fed_avg_w",
        consensus_num: int = 1,
        backend: str = "tensorflow",
        random_seed: int | None = None,
        skip_bn: bool = False,
        *,
        wp_strategy: bool | None = None,
        gradient_capture: GradientCapture | None = None,
        **kwargs: Any,
    ) -> None:
        chosen = {name: kwargs.pop(name) for name in PruneSettings.names() if name in kwargs}
        self.wp_strategy = strategy == PRUNE_STRATEGY
        if self.wp_strategy:
            if wp_strategy is False:
                raise ValueError(f"wp_strategy=False is not allowed with strategy={strategy!r}")
            self._prune_settings = PruneSettings(**chosen)
            self._gradient_capture = gradient_capture
            check_aggregator(aggregator, device_list)
            check_backend(backend)
            check_capture(gradient_capture, device_list)
            check_model(model)
        else:
            chosen.update({"wp_strategy": True} if wp_strategy else {})
            chosen.update({"gradient_capture": gradient_capture} if gradient_capture else {})
            for name, value in chosen.items():
                raise ValueError(
                    f"{name}={value!r} is not allowed with strategy={strategy!r}: "
                    f"only with {PRUNE_STRATEGY!r}"
                )
        super().__init__(
            server,
            device_list,
            model,
            aggregator,
            strategy,
            consensus_num=consensus_num,
            backend=backend,
            random_seed=random_seed,
            skip_bn=skip_bn,
            **kwargs,
        )
        if self.wp_strategy:
            self._aggregator.host_at(self._workers)

    def init_workers(
        self,
        model: Any,
        device_list: list[PYU],
        strategy: str,
        backend: str,
        random_seed: int | None,
        num_gpus: int,
        skip_bn: bool,
    ) -> None:
        """Makes one worker at each party."""
        if not self.wp_strategy:
            super().init_workers(model, device_list, strategy, backend, random_seed, num_gpus, skip_bn)
            return
        self._workers = {
            device: dispatch_strategy(
                strategy,
                backend,
                builder_base=model,
                device=device,
                random_seed=random_seed,
                num_gpus=num_gpus,
                skip_bn=skip_bn,
                settings=self._prune_settings,
                gradient_capture=self._gradient_capture,
                party=device.party,
            )
            for device in device_list
        }

    def initialize_masks_prune_rates(self) -> tuple[list[PYUObject], list[PYUObject]]:
        """The parties' current masks and living rates, in the order of ``device_list``."""
        states = [worker.prune_state() for worker in self._workers.values()]
        return [mask for mask, _ in states], [rate for _, rate in states]

    def initialize_weights(self, init_mask: list[PYUObject] | None = None) -> Any:
        """Gives all parties the average of their weights.

        Args:
            init_mask: the parties' masks; None averages as upstream does.

        Returns:
            The average, at each party if there are masks.
        """
        if init_mask is None:
            return super().initialize_weights()
        average = self._aggregator.average_at_parties(
            [worker.get_weights() for worker in self._workers.values()],
            prune_mask=init_mask,
            same_mask=self._prune_settings.mask_scope == "global",
        )
        for device, worker in self._workers.items():
            worker.set_weights(average[device])
        return average

    @wraps(_UpstreamFLModel.fit)
    def fit(self, *args: Any, **kwargs: Any) -> History:
        if not self.wp_strategy:
            return History(super().fit(*args, **kwargs))
        call = inspect.signature(_UpstreamFLModel.fit).bind(self, *args, **kwargs)
        call.apply_defaults()
        return self._fit_pruned(SimpleNamespace(**call.arguments))

    def export_sparse(self, path: str | dict[PYU, str], is_test: bool = False) -> None:
        """Has every party write the living weights of its model to its own disk.

        :func:`~secretflow.ml.nn.fl.sparse_model.load_sparse` reads them.

        Args:
            path: folder and name of the file, one for all parties or one for each.
            is_test: adds the party's name to the folder, for parties that share a disk.

        Raises:
            ValueError: the strategy does not prune.
        """
        if not self.wp_strategy:
            raise ValueError(f"export_sparse needs strategy={PRUNE_STRATEGY!r}")
        wait(
            [
                worker.export_sparse(_own_path(path, device, is_test))
                for device, worker in self._workers.items()
            ]
        )

    def load_model(self, model_path: str | dict[PYU, str], is_test: bool = False, **kwargs: Any) -> None:
        """Has every party load its model.

        A run that was stopped while its parties saved may have left some of them one checkpoint ahead. Those
        load the one before, which :class:`~secretflow.ml.nn.fl.callbacks.Checkpoint` keeps, so all go on
        from the same epoch.

        Args:
            model_path: folder and name of the file, one for all parties or one for each.
            is_test: adds the party's name to the folder, for parties that share a disk.
            **kwargs: upstream's.

        Raises:
            FileNotFoundError: a party has no such file.
            ValueError: a file is damaged, or the parties have no epoch in common.
        """
        if self.wp_strategy:
            saved = [
                worker.saved_epoch(_own_path(model_path, device, is_test))
                for device, worker in self._workers.items()
            ]
            kwargs["epoch"] = min(reveal(saved))
        super().load_model(model_path, is_test=is_test, **kwargs)

    def epochs_trained(self) -> int:
        """Epochs of this model with pruning so far, those before it was saved and loaded included.

        Raises:
            ValueError: they are not the same at all parties, or the strategy does not prune.
        """
        if not self.wp_strategy:
            raise ValueError(f"epochs_trained needs strategy={PRUNE_STRATEGY!r}")
        epochs = reveal([worker.epochs_trained() for worker in self._workers.values()])
        if len(set(epochs)) != 1:
            raise ValueError(
                f"the parties' models have been trained for {epochs} epochs: load the same epoch everywhere"
            )
        return epochs[0]

    def _fit_pruned(self, options: SimpleNamespace) -> History:
        """Trains with upstream's options and callbacks; see :meth:`_train_epoch` for what a round does."""
        check_fit(options, set(self._workers))
        if self._gradient_capture:
            reveal([worker.check_capture() for worker in self._workers.values()])
        if not options.random_seed:
            options.random_seed = global_random(next(iter(self._workers)), 100000)
        # Another model may have taken the parties' ends in since.
        self._aggregator.host_at(self._workers)
        steps = self._build_training_data(options)
        rows_known = self._exchange_rows(steps, options.aggregate_freq)
        history = History(global_history={}, local_history={})
        recorder = MetricsHistory(history=history)
        callbacks = CallbackList(
            # First, so that the user's callbacks find the epoch in the history.
            callbacks=[recorder, *_as_list(options.callbacks)],
            workers=self._workers,
            device_y=None,
            epochs=options.epochs,
            verbose=options.verbose,
            steps=steps,
            history=history,
        )
        trained = self.epochs_trained()
        masks, rates = self.initialize_masks_prune_rates()
        self.initialize_weights(masks)
        known_rates = reveal(rates)
        rounds, *_ = (len(sizes) for sizes in reveal(self._aggregator.round_bytes()).values())
        self._take_seconds()
        callbacks.on_train_begin()
        for epoch in range(options.epochs):
            started = time.perf_counter()
            callbacks.on_epoch_begin(epoch=epoch)
            title = f"Epoch {epoch + 1}/{options.epochs}"
            total = math.ceil(steps / options.aggregate_freq)
            with tqdm(total=total, desc=title, unit="round", disable=not options.verbose) as progress:
                is_last = epoch + 1 == options.epochs
                self._train_epoch(
                    trained + epoch,
                    steps,
                    rows_known,
                    known_rates,
                    is_last,
                    masks,
                    rates,
                    options,
                    callbacks,
                    progress,
                )
                seconds = {"evaluate_seconds": 0.0}
                if options.validation_data is not None and epoch % options.validation_freq == 0:
                    seconds["evaluate_seconds"] = self._validate(epoch, options, callbacks)
                self._catch_up()  # or only what was asked of the workers would be timed
                seconds["seconds"] = time.perf_counter() - started
                known_rates = self._record(history, rounds, seconds)
                rounds += total
                callbacks.on_epoch_end(epoch=epoch)
                progress.set_postfix(_shown(history.global_history))
            if callbacks.stop_training[0]:
                break
        callbacks.on_train_end()
        return history

    def _train_epoch(
        self,
        epoch: int,
        steps: int,
        rows_known: bool,
        known_rates: list[float],
        is_last: bool,
        masks: list[PYUObject],
        rates: list[PYUObject],
        options: SimpleNamespace,
        callbacks: CallbackList,
        progress: tqdm,
    ) -> None:
        """Trains one epoch. A round: train (and prune where a step is due), then average and apply.

        Args:
            epoch: number of the epoch since the model was made.
            steps: batches in it.
            rows_known: whether all parties know how many rows everybody trains on in each round; then a round
                takes one message to each party and one back.
            known_rates: the parties' living rates, which everybody knows, so that all parties' drivers
                decide the same about steps of pruning.
            is_last: whether it is the last of the fit.
            masks: the parties' masks, replaced in place by those after pruning. While no step is due they
                stay the same objects, so that the aggregator does not agree on them again.
            rates: the parties' living rates, likewise.
            options: the arguments of :meth:`fit`.
            callbacks: told of every round.
            progress: moved on by every round.
        """
        settings, rounds = self._prune_settings, math.ceil(steps / options.aggregate_freq)
        same_mask = settings.mask_scope == "global"
        average: PYUObject | None = (
            None  # of the last round, at the server; None goes on from the own weights
        )
        for number, step in enumerate(range(0, steps, options.aggregate_freq), start=1):
            callbacks.on_train_batch_begin(batch=step)
            length = min(options.aggregate_freq, steps - step)
            passed = epoch + number / rounds  # a whole number after the last round, also in floats
            due = settings.step_may_end(number, rounds) and any(
                settings.step_due(passed, rate) for rate in known_rates
            )
            plain = number < rounds and not due
            how = {
                "cur_steps": epoch * steps + step,
                "train_steps": length,
                "refresh_data": step == 0,
                "random_seed": options.random_seed,
                "is_last_round": is_last and number == rounds,
                "dp_strategy": self.dp_strategy,
            }
            if plain and rows_known and self._aggregator.has_settled(masks, same_mask=same_mask):
                average = self._hosted_round(average, number, how)
            else:
                weights = self._opened(average)
                trained, samples = [], []
                for k, (device, worker) in enumerate(self._workers.items()):
                    if plain:
                        upload, size = worker.train_step(weights[device], **how)
                    else:
                        upload, size, mask, rate = worker.train_step_with_prune(
                            weights[device],
                            prune_current_mask=masks[k],
                            prune_current_rate=rates[k],
                            is_update_mask=True,
                            epoch=passed,
                            **how,
                        )
                        if due and not same_mask:
                            masks[k], rates[k] = mask, rate
                    trained.append(upload)
                    samples.append(size)
                average = self._aggregator.sealed_average(
                    trained, weights=samples, prune_mask=masks, same_mask=same_mask
                )
            if due and same_mask:
                weights, average = self._opened(average), None
                for k, (device, worker) in enumerate(self._workers.items()):
                    masks[k], rates[k] = worker.prune_average(weights[device], passed)
            if due and number < rounds:
                known_rates = reveal(rates)
            self._log_privacy(epoch * rounds + number, options)
            if number % options.wait_steps == 0:
                self._catch_up()
            callbacks.on_train_batch_end(batch=step)
            progress.update()
        if average is not None:
            reveal(list(self._opened(average).values()))

    def _hosted_round(self, average: PYUObject | None, number: int, how: dict[str, Any]) -> PYUObject:
        """One round in which every party opens the last average, trains and seals; returns the new one.

        Args:
            average: of the last round, at the server.
            number: of the round in its epoch, from 1.
            how: arguments of the workers' ``train_step``.
        """
        return self._aggregator.hosted_average(
            lambda device, call: self._workers[device].train_and_seal(
                average and average.to(device), call, number - 1, how
            )
        )

    def _opened(self, average: PYUObject | None) -> dict[PYU, PYUObject | None]:
        """Has every party take the average up; None before the first round of an epoch changes nothing.

        What a party returns stands for its having done so: what comes next depends on it, and fails with it.
        """
        return {
            device: None if average is None else worker.open_average(average.to(device))
            for device, worker in self._workers.items()
        }

    def _exchange_rows(self, steps: int, aggregate_freq: int) -> bool:
        """Tells every party how many rows everybody trains on in each round, if all know it beforehand."""
        rows, known = zip(
            *(worker.rows_by_round(steps, aggregate_freq) for worker in self._workers.values()), strict=True
        )
        if not all(reveal(list(known))):
            return False
        by_party = dict(zip(self._workers, rows, strict=True))
        for device, worker in self._workers.items():
            worker.expect_rows(*(by_party[party].to(device) for party in self._aggregator.participants))
        return True

    def _log_privacy(self, rounds: int, options: SimpleNamespace) -> None:
        """Logs, for debugging, the privacy spent every ``dp_spent_step_freq`` rounds, as upstream does."""
        if options.dp_spent_step_freq is None or self.dp_strategy is None:
            return
        if rounds % options.dp_spent_step_freq == 0:
            logging.debug("privacy spent: %s", self.dp_strategy.get_privacy_spent(rounds))

    def _catch_up(self) -> None:
        """Waits until the workers have done what was asked of them, so that the queue stays short.

        An actor answers in order, so any answer will do.
        """
        reveal([worker.get_stop_training() for worker in self._workers.values()])

    def _validate(self, epoch: int, options: SimpleNamespace, callbacks: CallbackList) -> float:
        """Evaluates every party's pruned model on the validation data; returns the seconds that it took."""
        self._catch_up()  # training asked for but not yet done is not evaluation
        started = time.perf_counter()
        callbacks.on_test_begin()
        metrics, _ = self.evaluate(
            *_validation_pair(options),
            batch_size=options.batch_size,
            return_dict=True,
            label_decoder=options.label_decoder,
            random_seed=options.random_seed,
            sampler_method=options.sampler_method,
            dataset_builder=options.dataset_builder,
        )
        for worker in self._workers.values():
            worker.set_validation_metrics(metrics)
        if options.audit_log_dir is not None:
            self.save_model(f"{options.audit_log_dir}/base_model/{epoch}", is_test=self.simulation)
        callbacks.on_test_end({name: metric.result().numpy() for name, metric in metrics.items()})
        return time.perf_counter() - started

    def _record(self, history: History, first_round: int, seconds: dict[str, float]) -> list[float]:
        """Adds the columns of pruning to the history: living rates, uploaded bytes and seconds of this epoch.

        Args:
            history: has its ``local_history`` and ``global_history`` extended.
            first_round: number of the epoch's first round, counted by the aggregator.
            seconds: what the driver has measured.

        Returns:
            The living rate of each party.
        """
        living = reveal({device: worker.living_rates() for device, worker in self._workers.items()})
        uploaded = reveal(self._aggregator.round_bytes(first_round))
        spent = self._take_seconds()
        for device, rates in living.items():
            columns: dict[str, Any] = {
                "payload_bytes": sum(uploaded[device]),
                "round_payload_bytes": uploaded[device],
                **spent[device],
                **{f"living_rate.{layer}".rstrip("."): rate for layer, rate in rates.items()},
            }
            for name, value in columns.items():
                history.local_history.setdefault(f"{device}_{name}", []).append(value)
        means = {"living_rate": [rates[""] for rates in living.values()]}
        for name in ("train_seconds", "aggregate_seconds"):
            means[name] = [columns[name] for columns in spent.values()]
        overall = {name: sum(values) / len(values) for name, values in means.items()}
        overall.update(seconds, payload_bytes=sum(sum(sizes) for sizes in uploaded.values()))
        for name, value in overall.items():
            history.global_history.setdefault(name, []).append(value)
        return means["living_rate"]

    def _take_seconds(self) -> dict[PYU, dict[str, float]]:
        """Seconds of work at each party since this was asked last: training, and sealing and opening."""
        training = {device: worker.take_seconds() for device, worker in self._workers.items()}
        train, aggregate = reveal(training), reveal(self._aggregator.take_seconds())
        return {
            device: {"train_seconds": train[device], "aggregate_seconds": aggregate[device]}
            for device in self._workers
        }

    def _handle_data(
        self, train_x: Any, *args: Any, batch_size: Any = 32, sampling_rate: float | None = None, **how: Any
    ) -> int:
        """Gives every worker its data as upstream does; returns the steps.

        Upstream's steps are ``ceil(1 / rate)``, and its batches ``floor(rows * rate)``. Where the division
        comes out even, float rounding makes one step too many, for which there are no rows; a rate larger
        by a few roundings gives the right numbers, and where it does not come out even the same ones.
        """
        if self.wp_strategy and sampling_rate is None:
            sampling_rate = max(
                (batch_size[device] if isinstance(batch_size, dict) else batch_size) / shape[0]
                for device, shape in train_x.partition_shape().items()
            )
        if self.wp_strategy and sampling_rate is not None:
            sampling_rate = min(1.0, sampling_rate * _ABOVE_ROUNDING) if sampling_rate > 0 else sampling_rate
        return super()._handle_data(train_x, *args, batch_size=batch_size, sampling_rate=sampling_rate, **how)

    def _build_training_data(self, options: SimpleNamespace) -> int:
        """Gives every worker its training data; returns the steps of an epoch."""
        common = {
            name: getattr(options, name)
            for name in ("batch_size", "shuffle", "random_seed", "epochs", "dataset_builder")
        }
        common["sampling_rate"] = options.batch_sampling_rate
        if isinstance(options.x, dict):
            of_files = ("label_decoder", "max_batch_size", "prefetch_buffer_size")
            common.update({name: getattr(options, name) for name in of_files})
            return self._handle_file(options.x, options.y, **common)
        of_arrays = ("sample_weight", "sampler_method")
        common.update({name: getattr(options, name) for name in of_arrays})
        return self._handle_data(options.x, options.y, **common)


def _own_path(path: str | dict[PYU, str], device: PYU, is_test: bool) -> str:
    """A party's own file; with ``is_test`` in a folder of its name."""
    target = Path(path[device] if isinstance(path, dict) else path)
    return str(target.parent / device.party / target.name if is_test else target)


def _as_list(callbacks: Any) -> list[Any]:
    if callbacks is None:
        return []
    return list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]


def _shown(columns: dict[str, list[Any]]) -> dict[str, Any]:
    """What the progress bar shows of an epoch: the metrics and the living rate."""
    return {name: values[-1] for name, values in columns.items() if not name.endswith(("bytes", "seconds"))}


def _validation_pair(options: SimpleNamespace) -> tuple[Any, Any]:
    """Validation features and labels; with files the label is a column, the same as in training."""
    if isinstance(options.x, dict):
        return options.validation_data, options.y
    return options.validation_data[0], options.validation_data[1]
