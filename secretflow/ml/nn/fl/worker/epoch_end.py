"""What parties who can be lost tell each other at the end of an epoch."""

from __future__ import annotations

from secretflow.ml.nn.fl.epoch_reports import Report, survivors_measures
from secretflow.ml.nn.fl.worker.totals import Told, told_of, total_of_those_there
from secretflow.party.messages import pack
from secretflow.security.aggregation.secagg.dropouts.measured_sums import MeasuringClient
from secretflow.security.aggregation.secagg.dropouts.protocol import Steps, tell, with_survivors


def end_epoch(
    client: MeasuringClient, report: Report, adds_up: bool, server_is_told: bool
) -> Steps[Told | None]:
    """Finds out who is there, and adds up what those have measured.

    Args:
        client: of this party.
        report: what it has measured.
        adds_up: whether something is added up; not where one driver is told all reports.
        server_is_told: whether the server is told the sums.

    Returns:
        The sums, and the names of metrics that do not add up; None where nothing was added up.
    """
    yield from tell(client, pack({}))  # who was lost since the last round is in no sum
    if not adds_up:
        return None
    own = survivors_measures(report)
    totals = yield from with_survivors(client, total_of_those_there(client, own))
    told = None if totals is None else told_of(own, totals)
    if server_is_told:
        # Not what has no total, which shows what this party has not.
        yield from tell(client, pack({"totals": told and [told[0], []]}))
    return told
