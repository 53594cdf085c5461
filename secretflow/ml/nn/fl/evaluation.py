"""How ``FLModel`` evaluates."""

from __future__ import annotations

from collections.abc import Mapping
from os import fspath
from typing import Any

from secretflow import _validate
from secretflow.data.horizontal import HDataFrame
from secretflow.data.ndarray import FedNdarray
from secretflow.device import PYU
from secretflow.ml.nn.fl.audience import Audience
from secretflow.ml.nn.fl.options import FitOptions
from secretflow.ml.nn.fl.session import refuse_within_a_fit
from secretflow.ml.nn.fl.totals import Totals
from secretflow.ml.nn.metrics import Metric, aggregate_metrics


class WithEvaluation:
    """Evaluation whose metrics are told to an audience; a base in front of upstream's.

    Attributes:
        wp_strategy: whether the strategy prunes; others evaluate as upstream does.
    """

    wp_strategy: bool
    _workers: dict[PYU, Any]
    _aggregator: Any
    _audience: Audience
    _totals: Totals

    def evaluate(
        self,
        x: HDataFrame | FedNdarray | Mapping[PYU, str],
        y: HDataFrame | FedNdarray | str | None = None,
        batch_size: int | Mapping[PYU, int] = 32,
        sample_weight: HDataFrame | FedNdarray | None = None,
        label_decoder: Any = None,
        return_dict: bool = False,
        sampler_method: str = "batch",
        random_seed: int | None = None,
        dataset_builder: Mapping[PYU, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """The metrics of the parties' rows.

        Args:
            x: features, or a path of each party.
            y: labels; with paths the name of their column.
            batch_size: rows of a batch, one number or one for each party.
            sample_weight: weight of each row.
            label_decoder: upstream's, for files.
            return_dict: whether metrics come by name, instead of as a list.
            sampler_method: upstream's, without effect on a strategy that prunes.
            random_seed: upstream's, likewise.
            dataset_builder: of each party a function that builds its batches.

        Returns:
            The metrics over all rows, and by the name of each party its own. Over the network a driver is
            told those over all rows that add up, and its own party's; that of a blind server neither.

        Raises:
            RuntimeError: over the network, a fit of another model with the aggregator is running.
            TypeError: ``x`` or ``y`` is of another type.
        """
        if not self.wp_strategy:
            return super().evaluate(  # type: ignore[misc]
                x,
                y,
                batch_size,
                sample_weight,
                label_decoder,
                return_dict,
                sampler_method,
                random_seed,
                dataset_builder,
            )
        labelled = dataset_builder is not None and y is None
        kinds = (HDataFrame, FedNdarray, str)
        what = "an HDataFrame, a FedNdarray, or with paths the name of a column"
        _validate.check(labelled or isinstance(y, kinds), "y", y, what, TypeError)
        how = {"batch_size": batch_size, "dataset_builder": dataset_builder, "stage": "eval", "epochs": 1}
        model: Any = self
        if isinstance(x, Mapping):
            steps = model._handle_file(x, y, label_decoder=label_decoder, **how)
        else:
            steps = model._handle_data(x, y, sample_weight=sample_weight, **how)
        everybodys, own = self._evaluated(steps)
        if not return_dict:
            return everybodys, own
        return _by_name(everybodys), {party: _by_name(metrics) for party, metrics in own.items()}

    def _evaluated(self, steps: int) -> tuple[list[Metric], dict[str, list[Metric]]]:
        """Evaluates every party's model; returns what this driver is told, of all and by party."""
        tells_all = self._audience.tells_all
        if not tells_all:
            refuse_within_a_fit("evaluate", self._aggregator, self._workers)
            self._aggregator.host_at(self._workers)
        evaluated = {party: worker.evaluate(steps) for party, worker in self._workers.items()}
        own = {party.party: metrics for party, metrics in self._audience.own(evaluated).items()}
        return (aggregate_metrics(own.values()) if tells_all else self._totals.of(evaluated)), own

    def _validate(self, epoch: int, options: FitOptions) -> dict[str, Metric]:
        """Evaluates every party's pruned model on the validation data; returns the metrics by name."""
        x, y = options.validation_pair()
        metrics, _ = self.evaluate(
            x,
            y,
            batch_size=options.batch_size,
            return_dict=True,
            label_decoder=options.label_decoder,
            random_seed=options.random_seed,
            dataset_builder=options.dataset_builder,
        )
        for worker in self._workers.values():
            worker.set_validation_metrics(metrics)
        if options.audit_log_dir is not None:
            model: Any = self
            model.save_model(f"{fspath(options.audit_log_dir)}/base_model/{epoch}", is_test=model.simulation)
        return metrics


def _by_name(metrics: list[Metric]) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}
