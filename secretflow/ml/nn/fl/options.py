"""The arguments of ``FLModel.fit`` as one value, checked before any worker has something to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np

from secretflow import _validate
from secretflow.data.horizontal import HDataFrame
from secretflow.data.ndarray import FedNdarray
from secretflow.device import PYU
from secretflow.errors import ArgumentError, WrongTypeError
from secretflow.ml.nn.callbacks import Callback
from secretflow.ml.nn.fl.worker.training import PartyFit

ALL_ROWS = "all"  # as ``steps_per_epoch``
DEFAULT_BATCH_SIZE = 32


PATHS_ALONE = (
    "dataset_builder must be given with paths, to make batches of a party's file, got None; "
    "secretflow.data.horizontal.read_csv takes the same paths of CSV files, and gives x and y"
)
"""What is said where it is not."""


@dataclass(frozen=True, eq=False)
class FitOptions:
    """What a user chooses for one fit. The names and the defaults are upstream's.

    Attributes:
        x: features: an ``HDataFrame``, a ``FedNdarray``, or a path of each party.
        y: labels; with paths the name of their column.
        batch_size: rows of a batch, one number or one for each party. All parties have as many batches, in
            which every row is seen once an epoch: a party with more rows than the smallest has larger ones,
            unless ``steps_per_epoch`` is given. For that the parties' drivers are told, over the network,
            how many batches of its ``batch_size`` each party's rows make, the server's the smallest number.
        batch_sampling_rate: part of the rows in a batch, in (0, 1]; None goes by ``batch_size``.
        steps_per_epoch: "all": as many batches of exactly ``batch_size`` rows as a party's rows make, of
            which the last may have fewer. Or a number, one for all parties or one for each: rows are drawn
            without repetition until a party has seen all of them, then anew; needs ``shuffle``. An epoch has
            as many rounds as the party with the fewest batches needs; another party trains on the same part
            of its own batches in a round. A party counts in the average by the rows that it trained on. With
            numbers nobody is told of another one's rows over the network; with "all", what is told without.
            None: see ``batch_size``.
        epochs: how often all rows are seen.
        verbose: 0 shows no progress bar.
        callbacks: a callback, or a list of them.
        validation_data: features and labels; with paths a path of each party.
        shuffle: whether rows are shuffled.
        class_weight: for each class by its number its weight, times which a row's loss counts; a class
            without has 1. A ``training_step`` of the model's own gets it as part of ``sample_weight``.
        sample_weight: weight of each row, times which its loss counts; a ``training_step`` of the model's own
            gets those of its batch as an argument.
        validation_freq: epochs from one validation to the next.
        aggregate_freq: batches of a round, of the party with the fewest batches.
        label_decoder: upstream's, for files.
        max_batch_size: upstream's, for files.
        prefetch_buffer_size: upstream's, for files.
        sampler_method: "batch" deals every row out once an epoch; "poisson" draws each row into each batch by
            itself, with the probability ``batch_sampling_rate``.
        random_seed: of all that torch draws: the order of rows, dropout, noise of a ``training_step`` of the
            model's own. All parties know it, and whoever does knows these. None has each party draw its own;
            over a network ``min_survivors`` needs that.
        dp_spent_step_freq: rounds from one word on the privacy spent to the next.
        audit_log_dir: where to save the model after each validation.
        dataset_builder: of each party a function that builds its batches.
        wait_steps: rounds that are run together where the driver carries their messages.

    Raises:
        TypeError: features and labels are of different types.
        ValueError: a count is out of its range.
    """

    x: HDataFrame | FedNdarray | Mapping[PYU, str]
    y: HDataFrame | FedNdarray | str | None
    batch_size: int | Mapping[PYU, int] = DEFAULT_BATCH_SIZE
    batch_sampling_rate: float | None = None
    epochs: int = 1
    verbose: int = 1
    callbacks: Any = None
    validation_data: Any = None
    shuffle: bool = False
    class_weight: Any = None
    sample_weight: HDataFrame | FedNdarray | None = None
    validation_freq: int = 1
    aggregate_freq: int = 1
    label_decoder: Any = None
    max_batch_size: int = 20000
    prefetch_buffer_size: int | None = None
    sampler_method: str = "batch"
    random_seed: int | None = None
    dp_spent_step_freq: int | None = None
    audit_log_dir: str | PathLike[str] | None = None
    dataset_builder: Mapping[PYU, Any] | None = None
    wait_steps: int = 100
    steps_per_epoch: int | str | Mapping[PYU, int] | None = None

    def __post_init__(self) -> None:
        _validate.plain_fields(self)
        for name in ("epochs", "aggregate_freq", "validation_freq", "wait_steps"):
            _validate.integer(name, getattr(self, name), 1)
        _validate.one_of("sampler_method", self.sampler_method, ("batch", "poisson"))
        _validate.number("batch_sampling_rate", self.batch_sampling_rate, above=0, at_most=1, optional=True)
        self._check_types()
        if self.class_weight is not None:
            self._check_class_weight()
        self._check_steps_per_epoch()
        _validate.integer("dp_spent_step_freq", self.dp_spent_step_freq, 1, optional=True)
        if self.from_files and not self.dataset_builder:
            raise ArgumentError(PATHS_ALONE)
        if not self.from_files and type(self.x) is not type(self.y):
            raise WrongTypeError(f"y must be of the type of x, {type(self.x)}, got {type(self.y)}")

    def _check_steps_per_epoch(self) -> None:
        asked = self.steps_per_epoch
        if asked is None:
            return
        for steps in asked.values() if isinstance(asked, Mapping) else [asked]:
            whole = isinstance(steps, (int, np.integer)) and not isinstance(steps, bool) and steps > 0
            what = "an integer of at least 1, one for each party, 'all' or None"
            _validate.check(whole or asked == ALL_ROWS, "steps_per_epoch", steps, what)
        if asked != ALL_ROWS and not self.shuffle:
            raise ArgumentError(
                "shuffle must be True with steps_per_epoch, or some rows would never be seen, got False"
            )
        by_other_means = self.batch_sampling_rate is not None or self.sampler_method != "batch"
        if by_other_means or self.from_files or self.dataset_builder:
            raise ArgumentError(
                "steps_per_epoch must be None with batch_sampling_rate, sampler_method='poisson', files or a "
                f"dataset_builder, which say how many steps there are, got {asked!r}"
            )

    def _check_types(self) -> None:
        held = (HDataFrame, FedNdarray)
        _validate.instance("x", self.x, (*held, dict), "an HDataFrame, a FedNdarray or a path of each party")
        _validate.instance("sample_weight", self.sample_weight, (*held, type(None)), "as x is, or None")
        by_party = isinstance(self.batch_size, Mapping)
        sizes = self.batch_size.values() if by_party else [self.batch_size]  # type: ignore[union-attr]
        for size in sizes:
            _validate.integer("batch_size", size, 1, optional=True)
        _validate.flag("shuffle", self.shuffle)
        _validate.integer("random_seed", self.random_seed, 0, 2**32 - 1, optional=True)
        _validate.integer("max_batch_size", self.max_batch_size, 1)
        _validate.integer("prefetch_buffer_size", self.prefetch_buffer_size, 1, optional=True)
        called = all(isinstance(callback, Callback) for callback in self.own_callbacks)
        _validate.check(called, "callbacks", self.callbacks, "a Callback, or a list of them", TypeError)
        validation = self.validation_data
        pair = validation is None or isinstance(validation, dict)
        pair |= isinstance(validation, (tuple, list)) and len(validation) == 2
        what = "features and labels, or a path of each party"
        _validate.check(pair, "validation_data", validation, what, TypeError)
        _validate.instance("audit_log_dir", self.audit_log_dir, (str, PathLike, type(None)), "a path or None")
        kinds = (Mapping, type(None))
        _validate.instance(
            "dataset_builder", self.dataset_builder, kinds, "a function of each party, or None"
        )

    def _check_class_weight(self) -> None:
        weights = self.class_weight
        if not isinstance(weights, Mapping) or self.from_files or self.dataset_builder:
            raise ArgumentError(
                "class_weight must be a dictionary from the number of a class to its weight, and rows in "
                f"arrays, got {weights!r}"
            )
        for number, weight in weights.items():
            _validate.integer("class_weight's keys", number, 0)
            _validate.number(f"class_weight[{number!r}]", weight, at_least=0)

    @property
    def from_files(self) -> bool:
        """Whether the parties' rows are in files."""
        return isinstance(self.x, dict)

    @property
    def own_callbacks(self) -> list[Any]:
        """The user's callbacks."""
        if self.callbacks is None:
            return []
        return list(self.callbacks) if isinstance(self.callbacks, (list, tuple)) else [self.callbacks]

    def batch_size_of(self, device: PYU) -> int:
        """Rows of a party's batch; None is upstream's default."""
        size = self.batch_size[device] if isinstance(self.batch_size, Mapping) else self.batch_size
        return DEFAULT_BATCH_SIZE if size is None else int(size)

    def own_steps(self) -> dict[PYU, int]:
        """Batches of an epoch of each party, where ``steps_per_epoch`` has numbers; else empty."""
        asked, rows = self.steps_per_epoch, self.x
        if asked is None or isinstance(asked, str) or isinstance(rows, Mapping):
            return {}
        if isinstance(asked, Mapping):
            return {device: int(steps) for device, steps in asked.items()}
        return dict.fromkeys(rows.partitions, int(asked))

    def validates(self, epoch: int) -> bool:
        """Whether an epoch of the fit, from 0, ends with a validation."""
        return self.validation_data is not None and epoch % self.validation_freq == 0

    def validation_pair(self) -> tuple[Any, Any]:
        """Validation features and labels; with files the label is a column, the same as in training."""
        if self.from_files:
            return self.validation_data, self.y
        return self.validation_data[0], self.validation_data[1]

    def for_parties(
        self, steps: int, own_steps: Mapping[PYU, int], epochs_trained: int, dp_strategy: Any
    ) -> PartyFit:
        """What the parties are told of the fit, for arguments see :class:`PartyFit`."""
        by_name = tuple((device.party, own) for device, own in own_steps.items())
        return PartyFit(
            steps, self.aggregate_freq, self.random_seed, dp_strategy, epochs_trained, self.epochs, by_name
        )

    def check_parties(self, parties: set[PYU]) -> None:
        """Looks whether everything with an entry for each party is of those that train.

        Args:
            parties: who trains.

        Raises:
            ValueError: an argument is of other parties.
        """
        validation = self.validation_data
        parts = validation if isinstance(validation, (list, tuple)) else [validation]
        for name, held in {
            "x": self.x,
            "y": self.y,
            "sample_weight": self.sample_weight,
            "batch_size": self.batch_size,
            "steps_per_epoch": self.steps_per_epoch,
            "dataset_builder": self.dataset_builder,
            **{f"validation_data[{k}]": part for k, part in enumerate(parts)},
        }.items():
            check_parties(name, held, parties)

    def check_rows(self, rows: Mapping[PYU, int]) -> None:
        """Looks whether every party has enough rows for a batch.

        Args:
            rows: of each party.

        Raises:
            ValueError: one has too few.
        """
        for device, own in rows.items():
            if own == 0:
                raise ArgumentError(
                    f"x must have rows at every party, got none at {device}; leave it out of device_list"
                )
            batch_size = self.batch_size_of(device)
            any_size = self.steps_per_epoch == ALL_ROWS or self.batch_sampling_rate or self.dataset_builder
            if not any_size and own < batch_size:
                raise ArgumentError(
                    f"batch_size must be at most {own}, the rows of {device}, got {batch_size}; with "
                    f"steps_per_epoch={ALL_ROWS!r} a batch may have fewer rows"
                )


def check_parties(name: str, held: Any, parties: set[PYU]) -> None:
    """Refuses an argument with an entry for each party whose parties are not those that train."""
    if isinstance(held, dict):
        found = set(held)
    elif isinstance(held, (HDataFrame, FedNdarray)):
        found = set(held.partitions)
    else:
        return
    if found != parties:
        raise ArgumentError(
            f"{name} must be of the parties of device_list, {sorted(device.party for device in parties)}, "
            f"got {sorted(device.party for device in found)}"
        )
