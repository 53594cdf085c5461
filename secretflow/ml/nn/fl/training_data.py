"""How ``FLModel`` gives the parties their data."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from ray.exceptions import RayActorError

from secretflow import _validate
from secretflow._overlay import upstream
from secretflow.data.horizontal import HDataFrame
from secretflow.data.ndarray import FedNdarray
from secretflow.device import PYU, reveal
from secretflow.distributed import DISTRIBUTION_MODE, get_distribution_mode
from secretflow.errors import ArgumentError
from secretflow.ml.nn.fl.audience import Audience
from secretflow.ml.nn.fl.dataset_builders import build_datasets, parts_of
from secretflow.ml.nn.fl.options import ALL_ROWS, DEFAULT_BATCH_SIZE, PATHS_ALONE, FitOptions, check_parties

_ABOVE_ROUNDING = 1 + 2.0**-50
_ALL_BATCHES = sys.maxsize  # a party's own end before
_LARGE_BATCH = 1024  # upstream's limit

_UpstreamFLModel: Any = upstream("secretflow.ml.nn.fl.fl_model").FLModel


class WithTrainingData(_UpstreamFLModel):
    """Upstream's model, whose parties get every row.

    Attributes:
        wp_strategy: whether the strategy prunes; other strategies train on what upstream gives them.
    """

    wp_strategy: bool
    _audience: Audience
    _parties: set[PYU]  # those that train, whether their workers are here or not

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
        """Gives every worker its data; returns the steps, of which a party may have fewer in evaluation.

        With a ``dataset_builder`` upstream goes by the batch size, whatever batches the builder makes.
        """
        _validate.instance("x", train_x, (HDataFrame, FedNdarray), "an HDataFrame or a FedNdarray")
        for name, data in (("x", train_x), ("y", train_y), ("sample_weight", sample_weight)):
            check_parties(name, data, self._parties)
        if stage == "eval" and self.backend == "torch" and sample_weight is not None:
            reveal([worker.check_evaluation_weights() for worker in self._workers.values()])
        if self.wp_strategy and dataset_builder:
            return build_datasets(
                self._workers,
                dataset_builder,
                parts_of(train_x, train_y, sample_weight),
                stage,
                self._audience,
            )
        if stage == "eval" and self.backend == "torch" and not dataset_builder:
            return self._handle_evaluation(train_x, train_y, batch_size, sample_weight)
        if self.wp_strategy:
            return self._handle_training(train_x, train_y, batch_size, sampling_rate, sample_weight, **how)
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

    def _handle_evaluation(self, x: Any, y: Any, batch_size: Any, sample_weight: Any) -> int:
        """Gives every worker all its rows, in order, in batches of its own size; returns the most batches.

        A common rate, as upstream has it, leaves rows out where parties are of unequal size.
        """
        sizes = {device: _batch_size(batch_size, device) for device in self._workers}
        rows, taken = {} if self.wp_strategy else self._rows(x), {}
        for device, worker in self._workers.items():
            parts = [_part(data, device) for data in (x, y, sample_weight)]
            if self.wp_strategy:
                taken[device] = worker.build_dataset(*parts, batch_size=sizes[device], stage="eval")
            else:
                sizes[device] = min(sizes[device], rows[device])
                rate = min(1.0, sizes[device] / rows[device] * _ABOVE_ROUNDING)
                worker.build_dataset(*parts, sampling_rate=rate, random_seed=None, stage="eval")
        self._wait_for_data(taken)
        return max((math.ceil(rows[device] / sizes[device]) for device in rows), default=_ALL_BATCHES)

    def _rows(self, x: HDataFrame | FedNdarray) -> dict[PYU, int]:
        """How many rows each party has whose rows this driver is told of."""
        return self._audience.own(
            {device: device(_row_count)(part) for device, part in _values(x).partitions.items()}
        )

    def _batch_counts(self, x: HDataFrame | FedNdarray, sizes: Mapping[PYU, int]) -> dict[PYU, int]:
        """How many batches of its own size each party's rows make.

        The parties' drivers are told no more of each other's rows, and that of a server that does not train
        no more than the smallest number, which it is given for all.
        """
        parts = _values(x).partitions
        counts = {device: device(_batch_count)(parts[device], size) for device, size in sizes.items()}
        told = self._audience.told(counts)
        fewest = self._audience.decided(lambda: min((told or {}).values()))
        return told or dict.fromkeys(sizes, fewest)

    def _handle_training(
        self,
        x: Any,
        y: Any,
        batch_size: Any,
        sampling_rate: float | None,
        sample_weight: Any,
        *,
        shuffle: bool = False,
        random_seed: int | None = None,
        class_weight: Mapping[int, float] | None = None,
        sampler_method: str = "batch",
        epochs: int = 1,
        own_steps: Mapping[PYU, int] | None = None,
        cycle: bool = False,
    ) -> int:
        """Gives every worker its rows in batches; returns how many the party with the fewest has.

        A batch is the same part of the rows at every party, as upstream has it: at least ``batch_size`` rows.
        Where ``floor(rows * rate)`` rows a batch would leave some out, batches are of equal size instead, as
        near as can be. Upstream's steps are ``ceil(1 / rate)``; where the division comes out even, float
        rounding makes one too many, for which there are no rows. A rate larger by a few roundings gives the
        right numbers. Over the network, where nobody knows the rate that the smallest party's rows ask for, a
        party that has more batches of ``batch_size`` has them of equal size instead. With ``own_steps``, how
        many batches each party has, a batch has at most ``batch_size`` rows, with ``cycle`` as many.

        Raises:
            ValueError: a party would have a batch that is much larger than asked for, or none.
        """
        asked = {device: _batch_size(batch_size, device) for device in self._workers}
        steps, sizes, rate = own_steps, asked, None
        if not steps:
            rows = self._rows(x)
            if sampling_rate is not None or self._audience.tells_all:
                rate = _rate(rows, asked, sampling_rate)
                # A driver says for its own party how large batches are, so it needs no other one's rows.
                sizes = {**asked, **{device: math.floor(own * rate) for device, own in rows.items()}}
            else:
                rate = _ABOVE_ROUNDING / min(self._batch_counts(x, asked).values())
            self._audience.checked(lambda: _check_batches(rows, asked, rate, sampling_rate))
            steps = dict.fromkeys(self._workers, math.ceil(1 / rate))
        # A last batch of few rows might not count in its round, where the ones before did.
        even = bool(own_steps) and not cycle
        taken = {}
        for device, worker in self._workers.items():
            taken[device] = worker.build_dataset(
                *(_part(data, device) for data in (x, y, sample_weight)),
                batch_size=sizes[device],
                batches=steps[device],
                cycle=cycle,
                even=even,
                shuffle=shuffle,
                random_seed=random_seed,
                class_weight=class_weight,
                poisson_rate=rate if sampler_method == "poisson" else None,
            )
        self._wait_for_data(taken)
        return min(steps.values())

    def _give_validation_data(self, options: FitOptions) -> None:
        """Gives every worker its validation data, for it to evaluate by itself."""
        if options.validation_data is None:
            return
        x, y = options.validation_pair()
        taken = {}
        for device, worker in self._workers.items():
            batch_size = _batch_size(options.batch_size, device)
            parts = _part(x, device), _part(y, device)
            taken[device] = worker.build_dataset(*parts, batch_size=batch_size, stage="eval")
        self._wait_for_data(taken)

    def _wait_for_data(self, taken: Mapping[PYU, Any]) -> None:
        """Waits for all data, where all workers are here: an error of what comes next would hide theirs.

        Args:
            taken: by party what its worker has returned when it was given data.
        """
        if get_distribution_mode() in (DISTRIBUTION_MODE.SIMULATION, DISTRIBUTION_MODE.DEBUG):
            with suppress(RayActorError):  # a party that has ended is told of later
                reveal(list(taken.values()))

    def _handle_file(
        self, train_dict: Any, *args: Any, dataset_builder: Any = None, stage: str = "train", **how: Any
    ) -> int:
        """Gives every worker its file as upstream does; returns the steps."""
        check_parties("x", train_dict, self._parties)
        if self.wp_strategy and dataset_builder:
            return build_datasets(self._workers, dataset_builder, [train_dict], stage, self._audience)
        if self.backend == "torch" and not dataset_builder:
            raise ArgumentError(PATHS_ALONE)  # upstream's workers would say it, and nobody would hear it
        return super()._handle_file(train_dict, *args, dataset_builder=dataset_builder, stage=stage, **how)

    def _build_training_data(self, options: FitOptions) -> tuple[int, dict[PYU, int]]:
        """Gives every worker its training data.

        Returns:
            The fewest steps of an epoch at a party, and those of each where ``steps_per_epoch`` is given.
        """
        common = {
            name: getattr(options, name)
            for name in ("batch_size", "shuffle", "random_seed", "epochs", "dataset_builder")
        }
        common["sampling_rate"] = options.batch_sampling_rate
        if options.from_files:
            of_files = ("label_decoder", "max_batch_size", "prefetch_buffer_size")
            common.update({name: getattr(options, name) for name in of_files})
            return self._handle_file(options.x, options.y, **common), {}
        of_arrays = ("sample_weight", "class_weight", "sampler_method")
        own_steps, all_rows = options.own_steps(), options.steps_per_epoch == ALL_ROWS
        if all_rows:
            x: Any = options.x
            sizes = {device: options.batch_size_of(device) for device in self._workers}
            own_steps = self._batch_counts(x, sizes)
        common.update(own_steps=own_steps, cycle=bool(own_steps) and not all_rows)
        common.update({name: getattr(options, name) for name in of_arrays})
        return self._handle_data(options.x, options.y, **common), own_steps


def _rate(rows: Mapping[PYU, int], asked: Mapping[PYU, int], rate: float | None) -> float:
    """The part of its rows that is a batch at every party."""
    if rate is None:
        rate = max(asked[device] / own for device, own in rows.items())
    return min(1.0, rate * _ABOVE_ROUNDING)


def _check_batches(
    rows: Mapping[PYU, int], asked: Mapping[PYU, int], rate: float, sampling_rate: float | None
) -> None:
    """Looks whether a part of its rows is a fit batch at every party.

    Args:
        rows: of each party that this driver is told of.
        asked: rows of a batch of each party.
        rate: the part.
        sampling_rate: what the user has asked for; None goes by ``asked``.

    Raises:
        ValueError: a party would have a batch that is much larger than asked for, or none.
    """
    for device, own in rows.items():
        batch = math.floor(own * rate)
        if batch == 0:
            raise ArgumentError(
                f"batch_sampling_rate must be at least {1 / own:.2g}, for {device.party} has {own} rows, got "
                f"{sampling_rate!r}"
            )
        if sampling_rate is None and batch >= max(_LARGE_BATCH, 2 * asked[device]):
            raise ArgumentError(
                f"batch_size must be a smaller part of the smallest party's rows, got {asked[device]}, of "
                f"which parties have as many batches: {batch} rows each at {device.party}; "
                f"steps_per_epoch={ALL_ROWS!r} makes them {asked[device]} at every party"
            )


def _batch_count(part: Any, size: int) -> int:
    return -(-len(part) // size)


def _row_count(part: Any) -> int:
    return len(part)


def _values(data: HDataFrame | FedNdarray) -> FedNdarray:
    return data.values if isinstance(data, HDataFrame) else data


def _part(data: HDataFrame | FedNdarray | None, device: PYU) -> Any:
    return None if data is None else _values(data).partitions[device]


def _batch_size(batch_size: Any, device: PYU) -> int:
    """Rows of a party's batch; None is upstream's default."""
    size = batch_size.get(device) if isinstance(batch_size, Mapping) else batch_size
    _validate.integer("batch_size", int(size) if isinstance(size, np.integer) else size, 1, optional=True)
    return DEFAULT_BATCH_SIZE if size is None else size
