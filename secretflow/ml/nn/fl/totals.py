"""What the drivers of a network are told of all parties together."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from secretflow.device import PYU, PYUObject
from secretflow.ml.nn.fl.audience import Audience
from secretflow.ml.nn.fl.worker.totals import TOTALS_EXCHANGES
from secretflow.ml.nn.metrics import Metric
from secretflow.security.aggregation import SecurePruneAggregator


class LeftOut:
    """Says of metrics, once of each, that they have no total."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def warn(self, names: Iterable[str]) -> None:
        """Warns of those of which it was not said before."""
        if new := sorted(set(names) - self._said):
            self._said.update(new)
            logging.warning(
                "%s of all parties together: not told over the network, for what parties count of it is no "
                "sum; each party's driver is told its own, in local_history and by evaluate",
                ", ".join(new),
            )


class Totals:
    """Metrics over all parties' rows, from secure sums of what each party has counted.

    The sums are those of the aggregator, with its pads: neither the server nor another party learns what one
    party adds, unless all others pool what they know; of two parties each learns the other's by subtraction.
    With a blind server only the parties learn the sums. No noise of ``dp_strategy`` is in them.

    Args:
        workers: at each party its model; they have the parties' clients of the aggregation.
        aggregator: adds up.
        audience: whose drivers are told.
    """

    def __init__(
        self, workers: Mapping[PYU, Any], aggregator: SecurePruneAggregator, audience: Audience
    ) -> None:
        self._workers = workers
        self._aggregator = aggregator
        self._audience = audience
        self._left_out = LeftOut()

    def of(self, own: Mapping[PYU, PYUObject]) -> list[Metric]:
        """The metrics over all parties' rows, as far as they add up; empty at the driver of a blind server.

        Args:
            own: at each party a list of its metrics, with None for one that it has not.
        """
        self._aggregator.transport(1).run(
            lambda party, start: self._workers[party].begin_totals(start, own[party]), TOTALS_EXCHANGES
        )
        told = self._audience.common({party: worker.take_totals() for party, worker in self._workers.items()})
        if told is None:
            return []
        totals, left_out = told
        self._left_out.warn(left_out)
        return list(totals)
