"""Flower's SecAgg+, its workflow at the server and its modifier at the clients.

Both run in one process: messages go from the workflow straight to the clients' app. Their content is counted
as it is put into a protocol buffer, and not sent. Settings are the workflow's defaults, with a share of every
secret for every party, of which half are needed.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[2])
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

from flwr.client import Client, ClientApp, NumPyClient  # noqa: E402
from flwr.client.mod import secaggplus_mod  # noqa: E402
from flwr.common import (  # noqa: E402
    Context,
    Message,
    RecordDict,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.common.message import Error  # noqa: E402
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto  # noqa: E402
from flwr.common.typing import Run  # noqa: E402
from flwr.server import Grid, LegacyContext, ServerConfig  # noqa: E402
from flwr.server.strategy import FedAvg  # noqa: E402
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow  # noqa: E402

from benchmarks.peers.score import Clock, Score, largest_error, numbers, run_job  # noqa: E402

_COLLECTS, _UNMASKS = "collect_masked_vectors", "unmask"


class Here(Grid):
    """Brings messages to clients of this process.

    Args:
        parties: how many clients.
        score: gets what each round costs.
        loses: whether the last party answers no more when its numbers are asked for.
    """

    def __init__(self, parties: int, score: Score, loses: bool) -> None:
        self._contexts = {
            party + 1: Context(1, party + 1, {"partition-id": party}, RecordDict(), {})
            for party in range(parties)
        }
        self._app = ClientApp(client_fn=_client, mods=[secaggplus_mod])
        self._score, self._lost = score, parties if loses else None
        self.clock = Clock()
        self._up = self._down = 0

    def set_run(self, run: Run) -> None:
        """There is one run."""

    @property
    def run(self) -> Run:
        """The run."""
        return Run.create_empty(1)

    def create_message(self, *_: Any, **__: Any) -> Message:
        """Is for older workflows."""
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        """The clients."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Is not used."""
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Is not used."""
        raise NotImplementedError

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Has each client answer, and counts what goes to and from the first."""
        replies = []
        for message in messages:
            node = message.metadata.dst_node_id
            sent = recorddict_to_proto(message.content)
            with self.clock.of(node):
                # As it arrives, for clients take parts of what they are sent out of it.
                message = Message(recorddict_from_proto(sent), node, message.metadata.message_type)
                message.metadata.__dict__.update(_run_id=1, _src_node_id=0, _message_id=f"{node}")
                stage = message.content.config_records["secaggplus_configs"]["stage"]
                if node == self._lost and stage in (_COLLECTS, _UNMASKS):
                    reply = Message(Error(0, "lost"), reply_to=message)
                else:
                    reply = self._app(message, self._contexts[node])
                    answered = recorddict_to_proto(reply.content)
            reply.metadata.__dict__["_src_node_id"] = node
            replies.append(reply)
            if node == 1:
                self._up, self._down = self._up + answered.ByteSize(), self._down + sent.ByteSize()
        return replies

    def end_round(self) -> None:
        """Adds a round to the score."""
        self._score.up.append(self._up)
        self._score.down.append(self._down)
        self._up = self._down = 0


class Strategy(FedAvg):
    """Averages, and takes down what came out.

    Args:
        parties: how many clients.
        grid: told of each round.
    """

    def __init__(self, parties: int, grid: Here) -> None:
        start = ndarrays_to_parameters(numbers(parties))
        super().__init__(
            fraction_evaluate=0.0,
            min_fit_clients=parties,
            min_available_clients=parties,
            initial_parameters=start,
        )
        self._grid = grid
        self.averages: list[Any] = []

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        """Averages as the workflow has prepared it."""
        average = super().aggregate_fit(server_round, results, failures)
        if average[0] is not None:
            self.averages.append(parameters_to_ndarrays(average[0]))
        self._grid.end_round()
        return average


class Party(NumPyClient):
    """Has its numbers, and does not train."""

    def __init__(self, number: int) -> None:
        self._number = number

    def fit(self, parameters: Any, config: Any) -> tuple[Any, int, dict[str, Any]]:
        """Its numbers."""
        return numbers(self._number), 1, {}


def _client(context: Context) -> Client:
    return Party(int(context.node_config["partition-id"])).to_client()


def measure(parties: int, rounds: int) -> Score:
    """Averages some times, and once without the last party."""
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    own, score = [numbers(party) for party in range(parties)], Score()
    averages = _averages(parties, rounds, score, loses=False)
    score.largest_error = largest_error(averages[-1], own)
    found = _averages(parties, 1, Score(), loses=True)
    if not found:
        score.one_lost = "no average"
    else:
        error = largest_error(found[0], own[:-1])
        score.one_lost = f"the others' average, to {error:.1e}" if error < 1e-2 else "a wrong average"
    return score


def _averages(parties: int, rounds: int, score: Score, loses: bool) -> list[Any]:
    grid = Here(parties, score, loses)
    strategy = Strategy(parties, grid)
    context = Context(1, 0, {}, RecordDict(), {})
    secure = SecAggPlusWorkflow(num_shares=1.0, reconstruction_threshold=0.5, max_weight=1.0)

    def timed(*arguments: Any) -> None:
        with grid.clock.of("all"):
            secure(*arguments)
        grid.clock.end(score)

    DefaultWorkflow(fit_workflow=timed)(
        grid, LegacyContext(context=context, config=ServerConfig(num_rounds=rounds), strategy=strategy)
    )
    return strategy.averages


if __name__ == "__main__":
    run_job(measure, ["flwr", "numpy"])
