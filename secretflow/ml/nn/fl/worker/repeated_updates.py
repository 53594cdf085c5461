"""Updates that come out the same, or nearly, when they are made again from the same weights.

A fit that may lose parties must not upload them: a server that has it made again without a party would see
that party's update in the difference, see :mod:`secretflow.security.aggregation.secagg.dropouts.protocol`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from secretflow.errors import ArgumentError
from secretflow.ml.nn.fl.worker.data import rows_by_round


def check_updates_differ(loader: Any, ends: Sequence[int], party: str) -> None:
    """Refuses batches of all rows, and warns of rounds that go through all rows.

    Args:
        loader: what the batches come from.
        ends: how many batches of an epoch have been trained on at the end of each round, at least 1.
        party: whose rows they are.

    Raises:
        ValueError: one batch has all rows.
    """
    batches, rounds = (rows_by_round(loader, last) for last in ([1], ends))
    if batches is None or rounds is None:
        return
    rows = len(loader.dataset)
    if max(batches) >= rows:
        raise ArgumentError(
            f"batch_size must be less than the rows of {party}, {rows}, with min_survivors over a network, "
            "for an update with all rows comes out the same when a fit is made again, and without it shows "
            f"in the difference, got {max(batches)}"
        )
    if max(rounds) >= rows:
        logging.warning(
            "%s: a round goes through all of its rows, so an update that is made again is nearly the same, "
            "and with min_survivors a server that lies could see it by a difference; fewer batches a round "
            "(aggregate_freq) prevent that, and so does server_blind if the server colludes with nobody",
            party,
        )
