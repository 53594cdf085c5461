"""FLModel: upstream's, and the strategy ``fed_avg_w_prune``, whose fit is in :mod:`.session`."""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from typing import Any

import torch

from secretflow import _validate
from secretflow.device import PYU, PYUObject, reveal
from secretflow.device.shared_process import SharedProcesses
from secretflow.distributed import DISTRIBUTION_MODE, get_distribution_mode
from secretflow.ml.nn.fl.audience import Audience
from secretflow.ml.nn.fl.checks import (
    PRUNE_STRATEGY,
    check_aggregator,
    check_backend,
    check_capture,
    check_choices,
    check_gpus,
    check_privacy,
    check_server_agg_method,
    check_strategy,
    check_worker_processes,
    refuse_pruning,
    upstreams_fit,
)
from secretflow.ml.nn.fl.crew import own_workers
from secretflow.ml.nn.fl.evaluation import WithEvaluation
from secretflow.ml.nn.fl.exports import WithExports
from secretflow.ml.nn.fl.history import History
from secretflow.ml.nn.fl.keywords import check_fit_keywords, check_keywords
from secretflow.ml.nn.fl.model_checks import check_model
from secretflow.ml.nn.fl.model_files import WithModelFiles
from secretflow.ml.nn.fl.options import FitOptions
from secretflow.ml.nn.fl.pruning import PruneSettings
from secretflow.ml.nn.fl.session import FitSession, refuse_within_a_fit
from secretflow.ml.nn.fl.signature import takes_arguments_of
from secretflow.ml.nn.fl.strategy_dispatcher import dispatch_strategy
from secretflow.ml.nn.fl.surviving_fit import WithSurvivors
from secretflow.ml.nn.fl.survivor_checks import check_survivors
from secretflow.ml.nn.fl.totals import Totals
from secretflow.ml.nn.fl.worker.capture import GradientCapture
from secretflow.ml.nn.fl.worker.trainer import LocalObjective
from secretflow.security.aggregation.secagg.arguments import by_party


class FLModel(WithExports, WithModelFiles, WithEvaluation, WithSurvivors):
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
        prune_percent: see there; giving it chooses ``prune_preset="lottery"``.
        mask_scope: see there, as well as ``prune_preset``, ``prune_scope``, ``prune_schedule``,
            ``prune_freq``, ``prune_start_epoch``, ``prune_end_epoch``, ``regrow_percent``,
            ``withhold_percent``, ``prune_criterion``, ``step_power``, ``prunable`` and ``prune_structure``.
        local_objective: what a party minimises, see
            :class:`~secretflow.ml.nn.fl.worker.trainer.LocalObjective`; None is "prox" where ``mu`` is given
            and "plain" otherwise.
        mu: weight of FedProx's proximal term, see there.
        gradient_capture: gradients that a party shall write to its own disk for the leakage audit; only
            with ``fed_avg_w_prune``, off by default.
        worker_processes: processes that the parties of a simulation share, for many parties on few cores:
            each party is an object in one of them, with the numbers that it would have in a process of its
            own. Only with ``fed_avg_w_prune``. None gives each party a process of its own.
        accept_degenerate_layers: trains on weights of an average or a file that sort rows into bins, with a
            warning. By default they are an error, for the next average would give rows away, however many
            parties there are. Only with ``fed_avg_w_prune``.
        consensus_num: upstream's.
        backend: "torch" for ``fed_avg_w_prune``.
        random_seed: seed of the initial weights, the same at all parties. None draws one with torch, at the
            first party with a network; the average of weights that each party has drawn by itself is smaller,
            by the root of the number of parties, and trains badly. ``min_survivors`` over a network needs a
            number.
        skip_bn: leaves batch normalisation layers out of the aggregation.
        **kwargs: upstream's further arguments (``dp_strategy``, ``num_gpus``, ``simulation`` and others).

    Raises:
        TypeError: the aggregator of ``fed_avg_w_prune`` cannot take masks, or there is no argument of that
            name.
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
        worker_processes: int | None = None,
        accept_degenerate_layers: bool = False,
        **kwargs: Any,
    ) -> None:
        chosen = {name: kwargs.pop(name) for name in PruneSettings.names() if name in kwargs}
        self.wp_strategy = strategy == PRUNE_STRATEGY
        if self.wp_strategy:
            upstreams = {name: kwargs[name] for name in ("dp_strategy", "simulation") if name in kwargs}
            check_choices(server, random_seed, skip_bn, wp_strategy, consensus_num, **upstreams)
            self._prune_settings = PruneSettings(**chosen)
            self._objective = LocalObjective.chosen(
                kwargs.pop("local_objective", None), kwargs.pop("mu", 0.0)
            )
            check_keywords(kwargs, strategy)
            self._gradient_capture = gradient_capture
            check_aggregator(aggregator, device_list)
            if aggregator.survival:
                check_survivors(self._prune_settings, worker_processes, random_seed)
            check_backend(backend)
            check_capture(gradient_capture, device_list)
            check_worker_processes(worker_processes)
            self._worker_processes = worker_processes
            _validate.flag("accept_degenerate_layers", accept_degenerate_layers)
            self._accept_degenerate_layers = accept_degenerate_layers
            check_model(model, self._prune_settings)
        else:
            others = {
                "wp_strategy": wp_strategy,
                "gradient_capture": gradient_capture,
                "worker_processes": worker_processes,
                "accept_degenerate_layers": accept_degenerate_layers,
            }
            refuse_pruning(strategy, {**chosen, **{name: value for name, value in others.items() if value}})
            check_keywords(kwargs, strategy)
            check_server_agg_method(aggregator, kwargs.get("server_agg_method"))
        self._parties = set(device_list)
        blind = self.wp_strategy and aggregator.server_blind
        # Upstream's tell all drivers everything; with survivors a driver asks its own party alone.
        tells_all = not self.wp_strategy or bool(aggregator.survival)
        self._audience = Audience(device_list, server, server_blind=blind, tells_all=tells_all)
        if self.wp_strategy and random_seed is None:
            random_seed = self._audience.decided(lambda: int(torch.randint(2**31, ())))
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
        if self.wp_strategy and aggregator.survival:
            self._workers = own_workers(self._workers)
        elif self.wp_strategy:
            self._aggregator.host_at(self._workers)
            self._totals = Totals(self._workers, self._aggregator, self._audience)

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
        check_strategy(strategy, backend)
        processes = self._worker_processes if self.wp_strategy else None
        check_gpus(num_gpus, device_list, processes)
        if not self.wp_strategy:
            super().init_workers(model, device_list, strategy, backend, random_seed, num_gpus, skip_bn)
            return
        place = partial(dispatch_strategy, strategy, backend, num_gpus=num_gpus)
        if processes is not None and get_distribution_mode() is DISTRIBUTION_MODE.SIMULATION:
            from secretflow.ml.nn.fl.backend.torch.strategy import PYUFedAvgWPrune

            shared = SharedProcesses(min(processes, len(device_list)), num_gpus)
            place = partial(shared.place, PYUFedAvgWPrune, use_gpu=num_gpus > 0)
        self._workers = {
            device: place(
                builder_base=model,
                device=device,
                random_seed=random_seed,
                skip_bn=skip_bn,
                settings=self._prune_settings,
                objective=self._objective,
                gradient_capture=self._gradient_capture,
                party=device.party,
                accept_degenerate_layers=self._accept_degenerate_layers,
            )
            for device in device_list
        }

    def initialize_masks_prune_rates(self) -> tuple[list[PYUObject], list[PYUObject]]:
        """The parties' current masks and densities, in the order of ``device_list``."""
        states = [worker.prune_state() for worker in self._workers.values()]
        return [mask for mask, _ in states], [rate for _, rate in states]

    def initialize_weights(self, init_mask: list[PYUObject] | None = None) -> Any:
        """Gives all parties the average of their weights, in which all count alike.

        A fit does not need it, for parties begin with equal weights. After it a party of so few rows that it
        would not count in ``fit`` (``min_share`` of the aggregator) is refused there: whatever it has put
        into this average, the next one without it would tell. Nobody knows the rows yet, so this call
        cannot leave it out.

        Args:
            init_mask: the parties' masks; None averages as upstream does.

        Returns:
            The average, at each party if there are masks.

        Raises:
            AggregationError: the masks are not one at each party.
        """
        if init_mask is None:
            return super().initialize_weights()
        by_party(init_mask, "init_mask", list(self._workers))
        average = self._aggregator.average_at_parties(
            [worker.get_weights() for worker in self._workers.values()],
            prune_mask=init_mask,
            same_mask=self._prune_settings.mask_scope == "global",
        )
        # Or whoever failed would train on from weights of its own.
        reveal([worker.set_weights(average[device]) for device, worker in self._workers.items()])
        return average

    @takes_arguments_of(FitOptions)
    def fit(self, *args: Any, **kwargs: Any) -> History:
        """Trains with the arguments of :class:`~secretflow.ml.nn.fl.options.FitOptions`.

        Returns:
            Losses, metrics and measurements of each epoch.

        Raises:
            TypeError: features and labels are of different types or are no numbers.
            ValueError: an argument is out of its range or of other parties than those that train.
        """
        check_fit_keywords(args, kwargs, [field.name for field in fields(FitOptions)])
        if not self.wp_strategy:
            return History(super().fit(**upstreams_fit(self.strategy, super().fit, args, kwargs)))
        return self._fit_pruned(FitOptions(*args, **kwargs))

    def _fit_pruned(self, options: FitOptions) -> History:
        """Trains with upstream's options and callbacks; :class:`FitSession` says how."""
        refuse_within_a_fit("fit", self._aggregator)
        options.check_parties(self._parties)
        if self._aggregator.survival:
            return self._fit_with_survivors(options)
        if not options.from_files:
            rows = self._rows(options.x)
            self._audience.checked(lambda: options.check_rows(rows))
        check_privacy(
            self.dp_strategy, self._prune_settings, len(self._workers), self._aggregator.upload_bits
        )
        if self._gradient_capture:
            reveal([worker.check_capture() for worker in self._workers.values()])
        # Another model may have taken the parties' clients in since.
        self._aggregator.host_at(self._workers)
        steps, own_steps = self._build_training_data(options)
        if all(reveal([worker.epoch_is_over() for worker in self._workers.values()])):
            # The last fit was stopped when all had trained an epoch, and it had not been counted.
            reveal([worker.end_epoch() for worker in self._workers.values()])
        return FitSession(
            self._workers,
            self._aggregator,
            self._prune_settings,
            options,
            options.for_parties(steps, own_steps, self.epochs_trained(), self.dp_strategy),
            self._audience,
            self._totals,
            validate=partial(self._validate, options=options),
        ).run()
