"""A party's training: its masked model, its trainer, what it withholds and captures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from secretflow.ml.nn.fl.backend.torch.list_masks import ListMask
from secretflow.ml.nn.fl.backend.torch.withholding import Withholding
from secretflow.ml.nn.fl.plan import Round
from secretflow.ml.nn.fl.pruning import PruneSettings
from secretflow.ml.nn.fl.worker.capture import GradientCapture
from secretflow.ml.nn.fl.worker.captured_step import capturing
from secretflow.ml.nn.fl.worker.incoming import IncomingWeights
from secretflow.ml.nn.fl.worker.kept_updates import KeptUpdates
from secretflow.ml.nn.fl.worker.lone_rows import lone_row_named
from secretflow.ml.nn.fl.worker.masked import MaskedModel
from secretflow.ml.nn.fl.worker.optimizer_groups import Trained
from secretflow.ml.nn.fl.worker.trainer import Batch, Trainer
from secretflow.security.aggregation.secagg.updates import Updates

_SEED_STRIDE = 1_000_003  # far apart, so that neighbouring seeds do not share the order of an epoch


@dataclass(frozen=True)
class PartyFit:
    """What a party is told of a fit.

    Attributes:
        steps: batches of an epoch, of the party with the fewest.
        aggregate_freq: batches of a round, of that party; the last round of an epoch may have fewer.
        random_seed: gives each epoch what torch draws in it; None leaves torch's generator as it is.
        dp_strategy: adds noise to uploads; None does not.
        epochs_trained: before this fit.
        epochs: of this fit.
        own_steps: of each party by name the batches of an epoch, none less than ``steps``; empty where all
            have as many.
    """

    steps: int
    aggregate_freq: int = 1
    random_seed: int | None = None
    dp_strategy: Any = None
    epochs_trained: int = 0
    epochs: int = 1
    own_steps: tuple[tuple[str, int], ...] = ()

    @property
    def epochs_in_all(self) -> int:
        """How many epochs will have been trained after this fit."""
        return self.epochs_trained + self.epochs

    def steps_of(self, party: str, passed: int) -> int:
        """Batches a party has trained on when the one with the fewest has on ``passed``, in proportion."""
        return dict(self.own_steps).get(party, self.steps) * passed // self.steps

    def ends_of_rounds(self, party: str) -> list[int]:
        """How many of its batches of an epoch a party has trained on at the end of each round."""
        starts = range(0, self.steps, self.aggregate_freq)
        return [self.steps_of(party, min(first + self.aggregate_freq, self.steps)) for first in starts]

    @property
    def adds_noise(self) -> bool:
        """Whether uploads get noise."""
        return getattr(self.dp_strategy, "model_gdp", None) is not None

    def shared(self) -> tuple[object, ...]:
        """What all parties must have in common; what adds noise is a party's own object."""
        rounds = self.steps, self.aggregate_freq, self.epochs_trained, self.epochs, sorted(self.own_steps)
        return *rounds, self.random_seed


class LocalTraining:
    """A party's model and what it does in a round, without a word to others.

    Args:
        masked: the model under its mask.
        trainer: trains it.
        averaged: gives what is averaged by name, sharing memory with the model.
        restart_data: begins the party's data anew, for an epoch.
        nan_in_data: says where the party's data are NaN.
        size_of_data: says how many rows they are and in what batches.
        settings: what the user chose about pruning.
        party: own name.
        capture: which gradients to write to this party's own disk; None for none.
        incoming: looks at weights that come from outside.
    """

    def __init__(
        self,
        masked: MaskedModel,
        trainer: Trainer,
        averaged: Callable[[], Mapping[str, torch.Tensor]],
        restart_data: Callable[[], None],
        nan_in_data: Callable[[], list[str]],
        size_of_data: Callable[[], str],
        settings: PruneSettings,
        party: str,
        capture: GradientCapture | None,
        incoming: IncomingWeights,
    ) -> None:
        self.masked = masked
        self.incoming = incoming
        self.trainer = trainer
        self.rounds_trained = 0
        self.mask_changed = False
        self.updates = KeptUpdates()
        self.built = Trained.of(trainer.model, trainer.model._optimizers)
        named = trainer.model.named_parameters(remove_duplicate=False)
        self._free = {name for name, parameter in named if parameter.requires_grad}
        self._averaged = averaged
        self._restart_data = restart_data
        self._nan_in_data = nan_in_data
        self._size_of_data = size_of_data
        self._party = party
        self._capture = capture if capture and capture.party == party else None
        self._seconds = 0.0
        self._shares_memory = all(value.device.type == "cpu" for value in averaged().values())
        part = settings.withhold_percent / 100
        self.withholding = Withholding(part, list(self._uploaded_parameters().values())) if part else None

    def train(self, this: Round, fit: PartyFit) -> int:
        """Trains for one round; returns how many rows on."""
        if this.number == 1:
            self.begin_epoch(this.epoch, fit.random_seed)
        passed = this.first_step, this.first_step + this.steps
        first, last = (fit.steps_of(self._party, steps) for steps in passed)
        before = this.epoch * fit.steps_of(self._party, fit.steps)
        return self.train_steps(before + first, last - first, this.ends_fit)

    def begin_epoch(self, epoch: int, random_seed: int | None) -> None:
        """Begins the data anew.

        Args:
            epoch: how many epochs have been trained before.
            random_seed: see :class:`PartyFit`.
        """
        if random_seed is not None:
            # Each epoch by itself, so that a run that was stopped and loaded goes on as it would have.
            torch.manual_seed(random_seed + _SEED_STRIDE * epoch)
        self.trainer.take_mean_loss()  # of an epoch that was broken off
        self._restart_data()

    def train_steps(self, first_step: int, steps: int, is_last: bool = False) -> int:
        """Trains on the next batches; returns how many rows.

        Args:
            first_step: number of the first step since training began.
            steps: how many batches.
            is_last: whether this is the last round of a fit, for captures.

        Raises:
            ValueError: the loss is NaN, or batch normalisation met a batch of one row.
        """
        started = time.perf_counter()
        self.trainer.model.train()
        self.trainer.begin_round()
        if self.withholding:
            self.withholding.begin(list(self._uploaded_parameters().values()))
            self.masked.zero_pruned()
        try:
            watching = self.incoming.watching(self.masked.mask)
            with lone_row_named(self._party, self._size_of_data), watching:
                samples = self.trainer.train(first_step, steps, self._watch(is_last), self.masked.zero_pruned)
            self._check_loss()
        except BaseException:
            self._give_up()
            raise
        finally:
            self._seconds += time.perf_counter() - started
        self.rounds_trained += 1
        return samples

    def prune(self, settings: PruneSettings, epoch: float) -> None:
        """Takes a step of pruning where one is due, see :meth:`MaskedModel.prune_if_due`."""
        try:
            self.mask_changed |= self.masked.prune_if_due(settings, epoch)
        except BaseException:
            self._give_up()
            raise

    def arrays(self) -> list[np.ndarray]:
        """What is averaged, without what is withheld; on the CPU it shares memory with the model."""
        return [value.numpy(force=True) for value in self._averaged().values()]

    def names(self) -> list[str]:
        """The names of :meth:`arrays`."""
        return list(self._averaged())

    def updated(self) -> list[str]:
        """The names of those of :meth:`arrays` that are trained, whose updates can travel instead of them.

        Running statistics of batch normalisation travel whole: a rounded variance could be negative.
        """
        parameters = dict(self.trainer.model.named_parameters(remove_duplicate=False))
        return [name for name in self.names() if name in parameters]

    def begin_updates(self) -> Updates:
        """Goes on, in a fit, with the updates that were kept."""
        return self.updates.begin(self.names(), self.arrays(), self.updated())

    def mask_of_arrays(self) -> ListMask:
        """The mask as it goes with :meth:`arrays`."""
        return self.masked.entries_for(self._averaged())

    def withhold(self) -> None:
        """Takes what is withheld out of the model, when a round has been trained."""
        if self.withholding:
            parameters = self._uploaded_parameters()
            self.withholding.end(list(parameters.values()), self.masked.living(parameters))

    def noised(self, arrays: list[np.ndarray], fit: PartyFit) -> list[np.ndarray]:
        """What is uploaded of :meth:`arrays`: a copy with noise, or themselves if there is none."""
        if not fit.adds_noise:
            return arrays
        # The aggregator takes no number that the own mask has pruned, so noise stays where weights live.
        return fit.dp_strategy.model_gdp([array.copy() for array in arrays])

    def check(self, arrays: Sequence[np.ndarray]) -> None:
        """Looks at weights that came from outside, see :mod:`.incoming`.

        Args:
            arrays: in the order of :meth:`arrays`.

        Raises:
            ValueError: they are not to be trained on.
        """
        self.incoming.check_arrays(self._averaged(), arrays)
        self.incoming.check_layers(dict(zip(self.names(), arrays, strict=True)), self.masked.mask)

    def take(self, arrays: list[np.ndarray]) -> None:
        """Takes up averaged weights; what the own mask has pruned stays zero.

        Args:
            arrays: in the order of :meth:`arrays`.
        """
        for own, value in zip(self._averaged().values(), arrays, strict=True):
            # What comes out of Ray's object store is read-only, which torch warns of.
            own.copy_(torch.as_tensor(value if value.flags.writeable else value.copy()))
        self.masked.zero_pruned()

    def take_back(self, arrays: list[np.ndarray]) -> None:
        """Takes up what was changed in :meth:`arrays`; on the CPU that was the model's own memory."""
        if not self._shares_memory:
            self.take(arrays)

    def take_seconds(self) -> float:
        """Seconds spent training since this was asked last."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def _check_loss(self) -> None:
        """Refuses a loss of NaN, for with it the weights are NaN, which no average gets rid of."""
        loss = self.trainer.last_loss()
        if loss is None or not math.isnan(loss):
            return
        places = self._nan_in_data()
        cause = f"NaN is in {' and '.join(places)}" if places else "a lower learning rate may help"
        raise ValueError(f"the loss of {self._party} must be a number, got NaN; {cause}")

    def _give_up(self) -> None:
        """Nothing that was withheld shall be left in the weights of a round that failed."""
        if self.withholding:
            self.withholding.give_up(list(self._uploaded_parameters().values()))

    def _uploaded_parameters(self) -> dict[str, torch.Tensor]:
        """What is trained from the beginning on and averaged; running statistics are not trained."""
        averaged = self._averaged()
        found: dict[int, tuple[str, torch.Tensor]] = {}
        for name, parameter in self.trainer.model.named_parameters(remove_duplicate=False):
            if name in averaged and name in self._free and not self.masked.holds_view(name):
                found.setdefault(id(parameter), (name, parameter.data))
        return dict(found.values())

    def _watch(self, is_last: bool) -> Callable[[Batch], Callable[[], None]] | None:
        """What captures the gradient of the first step, if it shall be."""
        changed, self.mask_changed = self.mask_changed, False
        if self._capture is None:
            return None
        folder = self._capture.folder(self._party, self.rounds_trained, is_last=is_last, mask_changed=changed)
        if not folder:
            return None
        number = self.rounds_trained
        return capturing(folder, self.trainer.model, self.masked, self._party, number)
