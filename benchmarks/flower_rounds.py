"""What a job of Flower's is to do, round by round; needs neither Flower nor torch."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class FlowerJob:
    """What to run; what it shares with :class:`~benchmarks.training_job.Job` has the same meaning there.

    Attributes:
        images: path of an ``.npz`` with ``x`` and ``y``.
        secure: whether averages are Flower's SecAgg+, else its FedAvg in the clear.
        learning_rate: of Adam.
        parties: how many train, at least 2.
        rounds: rounds of an epoch, at least 2; each is one step of every party.
        epochs: epochs, at least 2; the first one warms up.
        batch_size: rows of each party's batch.
        poll: seconds between two looks for messages and for answers; 0 leaves Flower's own 0.1.

    Raises:
        ValueError: a number is too small.
    """

    images: str
    secure: bool = False
    learning_rate: float = 1e-2
    parties: int = 2
    rounds: int = 40
    epochs: int = 3
    batch_size: int = 32
    poll: float = 0.0

    def __post_init__(self) -> None:
        for name, least in (("parties", 2), ("rounds", 2), ("epochs", 2), ("batch_size", 1), ("poll", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")

    @property
    def rows(self) -> int:
        """Rows of each party: an epoch's."""
        return self.rounds * self.batch_size

    def batch(self, server_round: int) -> slice:
        """A party's rows of one round: every epoch goes through all of them in their order.

        Args:
            server_round: from 1 on, as Flower counts.
        """
        first = (server_round - 1) % self.rounds * self.batch_size
        return slice(first, first + self.batch_size)

    def secagg_settings(self) -> dict[str, Any]:
        """Arguments of Flower's SecAgg+.

        Every party gets a share of every other's secrets and all shares are needed, so no smaller group can
        open anything, nor can the fork's parties. The largest weight of a party is its batch, which leaves
        the finest steps to its numbers; the ranges are Flower's defaults.
        """
        return {
            "num_shares": 1.0,  # of the parties, as are the shares needed
            "reconstruction_threshold": 1.0,
            "max_weight": float(self.batch_size),
            "clipping_range": 8.0,
            "quantization_range": 2**22,
            "modulus_range": 2**32,
        }

    def by_epoch(self, by_round: Sequence[float]) -> list[float]:
        """Mean of each epoch.

        Raises:
            RuntimeError: there is not one value for each round, as when Flower has given up a round.
        """
        expected = self.rounds * self.epochs
        if len(by_round) != expected:
            raise RuntimeError(f"{len(by_round)} rounds came to an average instead of {expected}")
        return [statistics.fmean(by_round[k : k + self.rounds]) for k in range(0, len(by_round), self.rounds)]
