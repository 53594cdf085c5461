"""How ``FLModel`` gives the parties their data."""

from __future__ import annotations

from typing import Any

from secretflow._overlay import upstream
from secretflow.device import PYU
from secretflow.ml.nn.fl.dataset_builders import build_datasets, parts_of
from secretflow.ml.nn.fl.options import FitOptions

_ABOVE_ROUNDING = 1 + 2.0**-50

_UpstreamFLModel: Any = upstream("secretflow.ml.nn.fl.fl_model").FLModel


class WithTrainingData(_UpstreamFLModel):
    """Upstream's model, whose parties get every batch that there are rows for.

    Attributes:
        wp_strategy: whether the strategy prunes; other strategies get their data as upstream gives it.
    """

    wp_strategy: bool

    def _handle_data(
        self,
        train_x: Any,
        train_y: Any = None,
        *,
        batch_size: Any = 32,
        sampling_rate: float | None = None,
        sample_weight: Any = None,
        dataset_builder: dict[PYU, Any] | None = None,
        stage: str = "train",
        **how: Any,
    ) -> int:
        """Gives every worker its data as upstream does; returns the steps.

        Upstream's steps are ``ceil(1 / rate)``, and its batches ``floor(rows * rate)``. Where the division
        comes out even, float rounding makes one step too many, for which there are no rows; a rate larger
        by a few roundings gives the right numbers, and where it does not come out even the same ones. With a
        ``dataset_builder`` upstream goes by the batch size, whatever batches the builder makes.
        """
        if self.wp_strategy and dataset_builder:
            return build_datasets(
                self._workers, dataset_builder, parts_of(train_x, train_y, sample_weight), stage
            )
        if self.wp_strategy and sampling_rate is None:
            sampling_rate = max(
                (batch_size[device] if isinstance(batch_size, dict) else batch_size) / shape[0]
                for device, shape in train_x.partition_shape().items()
            )
        if self.wp_strategy and sampling_rate is not None:
            sampling_rate = min(1.0, sampling_rate * _ABOVE_ROUNDING) if sampling_rate > 0 else sampling_rate
        return super()._handle_data(
            train_x,
            train_y,
            batch_size=batch_size,
            sampling_rate=sampling_rate,
            sample_weight=sample_weight,
            dataset_builder=dataset_builder,
            stage=stage,
            **how,
        )

    def _handle_file(
        self, train_dict: Any, *args: Any, dataset_builder: Any = None, stage: str = "train", **how: Any
    ) -> int:
        """Gives every worker its file as upstream does; returns the steps."""
        if self.wp_strategy and dataset_builder:
            return build_datasets(self._workers, dataset_builder, [train_dict], stage)
        return super()._handle_file(train_dict, *args, dataset_builder=dataset_builder, stage=stage, **how)

    def _build_training_data(self, options: FitOptions) -> int:
        """Gives every worker its training data; returns the steps of an epoch."""
        common = {
            name: getattr(options, name)
            for name in ("batch_size", "shuffle", "random_seed", "epochs", "dataset_builder")
        }
        common["sampling_rate"] = options.batch_sampling_rate
        if options.from_files:
            of_files = ("label_decoder", "max_batch_size", "prefetch_buffer_size")
            common.update({name: getattr(options, name) for name in of_files})
            return self._handle_file(options.x, options.y, **common)
        of_arrays = ("sample_weight", "sampler_method")
        common.update({name: getattr(options, name) for name in of_arrays})
        return self._handle_data(options.x, options.y, **common)
