"""What a fit that goes on with those who are there needs of a party's worker."""

from __future__ import annotations

from typing import Protocol

from secretflow.ml.nn.fl.epoch_reports import SurvivorReport
from secretflow.ml.nn.fl.plan import PartyState
from secretflow.ml.nn.fl.worker.training import PartyFit
from secretflow.security.aggregation.secagg.dropouts.measured_sums import MeasuringClient


class Party(Protocol):
    """A party's worker, as :class:`~.surviving.SurvivingFit` uses it."""

    def party_state(self, steps: int) -> PartyState:
        """What a plan needs to know."""

    def rows_of_rounds(self, fit: PartyFit) -> list[int] | None:
        """Rows of each round of an epoch, if that is known before."""

    def skip_batches(self, count: int) -> None:
        """Passes over the next batches."""

    def report_of_epoch(self, evaluates: bool) -> SurvivorReport:
        """Ends an epoch; what the party has measured in it."""

    def count_from_here(self) -> None:
        """Leaves what was uploaded and measured before out of the next report."""

    def epochs_trained(self) -> int:
        """How many epochs the model has been trained for."""

    def take_epochs(self, trained: int) -> None:
        """Has the model pass for one that was trained for so many epochs."""

    def use_client(self, client: MeasuringClient) -> None:
        """Makes a client the party's own."""
