"""What happens between two rounds: dense training, and the strategy as it ships."""

from __future__ import annotations

from abc import ABC, abstractmethod

from experiments.sparse.job import NUMBER, Job
from experiments.sparse.selection import keep_largest, keep_largest_over_layers, lamp
from secretflow.ml.nn.fl.plan import Round
from secretflow.ml.nn.fl.pruning import PruneSettings, living_after_step


class Method(ABC):
    """One run's method.

    Attributes:
        exponent: see :meth:`~experiments.sparse.stack.Stack.reparametrise`.
        step_power: see :class:`~secretflow.ml.nn.fl.pruning.PruneSettings`.
    """

    exponent = 1.0
    step_power = 0.0

    def start(self, job: Job, rounds: int) -> None:  # noqa: B027 - most have nothing to begin
        """Begins, before the first round.

        Args:
            job: the run.
            rounds: how many there will be.
        """

    def notes(self) -> dict[str, float]:
        """What is worth a place in the row of the results, after the last round."""
        return {}

    @abstractmethod
    def end_round(self, job: Job, this: Round) -> None:
        """Ends a round: prunes, averages, counts bytes.

        Args:
            job: the run, its parties trained.
            this: the round.
        """


class Dense(Method):
    """Federated averaging; everything travels."""

    def end_round(self, job: Job, this: Round) -> None:
        """Averages."""
        job.average_shared()


class Product(Method):
    """``fed_avg_w_prune`` as it ships, without what looks at gradients.

    Args:
        settings: the user's.
        at_least: ``min_contributors`` of the aggregator.
        upload_bits: of the aggregator; with one mask for all only.
    """

    def __init__(
        self,
        settings: PruneSettings,
        at_least: int = 2,
        upload_bits: int | None = None,
    ) -> None:
        self._settings, self._at_least, self._upload_bits = settings, at_least, upload_bits
        self.step_power = settings.step_power

    def start(self, job: Job, rounds: int) -> None:
        """Settles when pruning ends, and how updates travel."""
        self._settings = self._settings.over(job.epochs)
        if self._upload_bits is not None:
            job.round_updates(self._upload_bits)

    def end_round(self, job: Job, this: Round) -> None:
        """As :mod:`secretflow.ml.nn.fl.worker.rounds` does."""
        due = this.prunes
        if self._settings.mask_scope == "local":
            if due:
                job.agree(self._at_least)
                self._prune(job, this.passed)
            job.average_living(self._at_least)
        else:
            job.average_shared()
            if due:
                self._prune(job, this.passed)

    def _prune(self, job: Job, epoch: float) -> None:
        kept = living_after_step(self._settings, job.sizes, job.living(), epoch)
        weights = [job.flat(name) for name in job.masks]
        masks = job.flat_masks()
        if self._settings.mask_scope == "global":  # all rows are alike
            weights, masks = [each[:1] for each in weights], [each[:1] for each in masks]
        by_lamp = self._settings.prune_criterion == "lamp"
        scores = [lamp(each) if by_lamp else each.abs() for each in weights]
        if self._settings.prune_scope == "global":
            job.use(keep_largest_over_layers(scores, masks, sum(kept)))
        else:
            job.use(
                [
                    keep_largest(score, mask, count)
                    for score, mask, count in zip(scores, masks, kept, strict=True)
                ]
            )


def mask_bytes(job: Job) -> float:
    """Bytes of a bitmap of all prunable weights."""
    return job.size / 8


def numbers(count: float) -> float:
    """Bytes of so many weights on the wire."""
    return NUMBER * count
