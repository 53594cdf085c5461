"""What a server that may know sums is told at the end of an epoch."""

from __future__ import annotations

from typing import Any

from secretflow.ml.nn.fl.worker.epoch_end import end_epoch
from secretflow.party.messages import unpack
from secretflow.security.aggregation.secagg.dropouts.keys import as_told
from secretflow.security.aggregation.secagg.dropouts.measured_sums import MeasuringClient
from secretflow.security.aggregation.secagg.dropouts.protocol import Steps
from secretflow.security.aggregation.secagg.dropouts.rules import SurvivorRules
from secretflow.security.aggregation.secagg.dropouts.server import SurvivorServer
from secretflow.security.aggregation.secagg.dropouts.wire import Report
from secretflow.security.aggregation.secagg.keyring import agree_all
from secretflow.security.aggregation.secagg.ring import Ring
from secretflow.security.aggregation.secagg.rules import Rules
from tests.security.aggregation.dropouts.network import Network

NAMES = ["alice", "bob", "carol"]


def report_of(loss: float | None) -> dict[str, Any]:
    return {
        "metrics": [],
        "loss": loss,
        "rows": 8,
        "densities": {"": 0.5},
        "train_seconds": 1.0,
        "aggregate_seconds": 2.0,
        "clipped": None,
        "round_bytes": [16],
    }


def test_the_server_is_not_told_which_party_has_measured_nothing() -> None:
    """The others leave out what they have alone, so the names of it would say."""
    rules, survivors = Rules.make(Ring.make(32, None, 3), 3, 2), SurvivorRules(3, 3)
    clients = [MeasuringClient(name, NAMES, rules, survivors) for name in NAMES]
    agree_all([client.keys for client in clients])
    told: dict[str, list[list[Any]]] = {name: [] for name in NAMES}

    def epoch(client: MeasuringClient) -> Steps[None]:
        client.number_calls(1)
        own = report_of(None if client.party == "alice" else 0.25)
        told[client.party] += (yield from end_epoch(client, own, True, True)) or []

    network = Network(
        SurvivorServer(NAMES, survivors), {client.party: epoch(client) for client in clients}, told
    )
    network.drain()
    assert set(network.ended.values()) == {None}
    left_out = {name: there[1] for name, there in told.items()}
    assert left_out == {"alice": [], "bob": ["loss"], "carol": ["loss"]}  # a party's own driver is told
    bodies = [message.body for _, message in network.said if isinstance(message, Report)]
    at_server = [body["totals"] for body in map(unpack, map(as_told, bodies)) if body]
    assert len(at_server) == len(NAMES)
    for totals, nothing in at_server:
        assert [metric.name for metric in totals] == [
            "density",
            "train_seconds",
            "aggregate_seconds",
            "payload_bytes",
        ]
        assert nothing == []
