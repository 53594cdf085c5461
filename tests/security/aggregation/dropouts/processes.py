"""A server and parties as processes of their own, with a fault that a party brings upon itself.

Run as a program: ``python processes.py ROLE JSON``. A party prints one line of JSON for each round, then how
it ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from secretflow.security.aggregation.secagg.dropouts.client import SurvivingClient
from secretflow.security.aggregation.secagg.dropouts.joining import Session, join
from secretflow.security.aggregation.secagg.dropouts.protocol import Steps, tell, with_survivors
from secretflow.security.aggregation.secagg.dropouts.rules import SurvivorRules
from secretflow.security.aggregation.secagg.dropouts.wire import Bye, Codes, Release, ToServer, Upload
from secretflow.security.aggregation.secagg.errors import (
    AggregationError,
    ChannelClosedError,
    DroppedOutError,
    RegroupError,
    RoundLostError,
)
from secretflow.security.aggregation.secagg.protocol import Exchanges, average_into
from secretflow.security.aggregation.secagg.ring import Ring
from secretflow.security.aggregation.secagg.rules import Rules
from secretflow.security.aggregation.secagg.transport.network.hub import Hub
from secretflow.security.aggregation.secagg.transport.network.stream import PartyStream, drive
from secretflow.security.aggregation.secagg.transport.network.tls import Tls

STAGES: dict[str, type[ToServer]] = {"upload": Upload, "agreement": Codes, "release": Release}


@dataclass(frozen=True)
class Scene:
    """What all processes of a test have in common.

    Attributes:
        names: of the parties.
        rounds: how many averages.
        size: floats of each.
        min_survivors: see :class:`SurvivorRules`.
        deadline: seconds of a step.
        wait: seconds in which parties may come.
        address: of the server.
        folder: of certificates, a folder for each party and the server; empty without TLS.
        blind: whether the server is.
        fault_in: number of the round in which a party's fault comes.
        pause: seconds before each upload, in place of training.
    """

    names: list[str]
    rounds: int = 3
    size: int = 1000
    min_survivors: int = 3
    deadline: float = 60.0
    wait: float = 60.0
    address: str = "127.0.0.1:0"
    folder: str = ""
    blind: bool = False
    fault_in: int = 1
    pause: float = 0.0

    def tls(self, party: str) -> Tls | None:
        home = Path(self.folder, party)
        return Tls(home / "key.pem", home / "cert.pem", home / "ca.pem") if self.folder else None

    def rules(self) -> Rules:
        parties = len(self.names)
        return Rules.make(Ring.make(32, None, parties), parties, 2, server_blind=self.blind)

    def survivor_rules(self) -> SurvivorRules:
        return SurvivorRules.make(len(self.names), self.min_survivors, 2)

    def as_json(self) -> str:
        return json.dumps(asdict(self))


def say(**what: object) -> None:
    print(json.dumps({"at": time.monotonic(), **what}), flush=True)


def serve(scene: Scene) -> None:
    hub = Hub(
        scene.address,
        scene.names,
        Session(scene.names, scene.survivor_rules(), sums_ahead=True),
        scene.tls("server"),
        round_deadline=scene.deadline,
        wait=scene.wait,
    )
    say(address=hub.address)
    hub.serve()
    say(end="")


def numbers_of(party: int, number: int, size: int) -> np.ndarray:
    """What a party uploads in a round."""
    return ((7 * party + 3 * number + np.arange(size)) % 101 / 64).astype(np.float32)


def rounds(scene: Scene, client: SurvivingClient, party: str) -> Exchanges[None]:
    for number in range(scene.rounds):
        time.sleep(scene.pause)
        own = [numbers_of(scene.names.index(party), number, scene.size)]
        try:
            yield from average_into(client, [average := np.empty_like(own[0])], own)
        except RoundLostError:
            say(round=number, survivors=[], average=[])
        else:
            say(round=number, survivors=client.survivors, average=average[:5].astype(float).tolist())


def failing(steps: Steps[None], scene: Scene, stage: str, fault: str) -> Steps[None]:
    """Lets a party kill or stop itself before it sends what ends a stage."""
    kind, left = STAGES[stage], scene.fault_in + 1
    answer = None
    try:
        while True:
            message = steps.send(answer)  # type: ignore[arg-type]
            left -= isinstance(message, kind)
            if not left:
                left = -1
                say(fault=fault)
                os.kill(os.getpid(), getattr(signal, fault))
            answer = yield message
    except StopIteration:
        return


def take_part(scene: Scene, party: str, stage: str = "", fault: str = "") -> None:
    patience = scene.wait + 3 * scene.deadline
    try:
        with PartyStream(
            scene.address, party, "server", scene.tls(party), connect_seconds=scene.wait
        ) as stream:
            client, _ = drive(
                join(
                    lambda names: SurvivingClient(party, names, scene.rules(), scene.survivor_rules()), party
                ),
                stream,
                patience,
            )
            say(joined=client.keys.fingerprint())
            steps = with_survivors(client, rounds(scene, client, party))
            drive(failing(steps, scene, stage, fault) if fault else steps, stream, 3 * scene.deadline)
    except AggregationError as error:
        say(end=str(error), kind=type(error).__name__)
    else:
        say(end="")


def returning(scene: Scene, party: str) -> None:
    """Takes part, and comes back whenever the others or the server are lost, if within ``scene.wait``."""
    client: SurvivingClient | None = None
    passed = held = 0
    end = time.monotonic() + scene.wait
    while passed <= scene.rounds and time.monotonic() < end:
        try:
            with PartyStream(
                scene.address, party, "server", scene.tls(party), connect_seconds=scene.wait
            ) as stream:
                while passed <= scene.rounds:
                    client, passed, held = meet(scene, party, stream, client, (passed, held))
                    while passed <= scene.rounds and not client.comers:
                        number, passed = passed - 1, passed + 1
                        drive(
                            with_survivors(client, one_round(scene, client, party, number)),
                            stream,
                            3 * scene.deadline,
                        )
                        held, end = passed, time.monotonic() + scene.wait
                stream.send(Bye())
                with contextlib.suppress(AggregationError):
                    stream.receive(scene.deadline)
        except (ChannelClosedError, DroppedOutError, RegroupError):
            time.sleep(0.2)
    say(end="")


def meet(
    scene: Scene, party: str, stream: PartyStream, before: SurvivingClient | None, come: tuple[int, int]
) -> tuple[SurvivingClient, int, int]:
    """Agrees on keys with those who are there; returns how far they are, and of what they have averages."""
    patience = scene.wait + 3 * scene.deadline
    make = lambda names: SurvivingClient(party, names, scene.rules(), scene.survivor_rules())  # noqa: E731
    client, members = drive(join(make, party, *come), stream, patience)
    client.number_calls(1)
    client.transcript.begin(anew=True)
    if before is not None:
        client.remember(before, fresh=party in members.behind)
    told = drive(tell(client, str(come[1]).encode()), stream, patience)
    return client, max(members.passed, 1), max(1, *map(int, told.values()))


def one_round(scene: Scene, client: SurvivingClient, party: str, number: int) -> Exchanges[None]:
    time.sleep(scene.pause)
    own = [numbers_of(scene.names.index(party), number, scene.size)]
    average = np.empty_like(own[0])
    with contextlib.suppress(RoundLostError):
        yield from average_into(client, [average], own)
        say(round=number, survivors=client.survivors, average=average[:5].astype(float).tolist())


def lines_of(text: str) -> Iterator[dict[str, object]]:
    for line in text.splitlines():
        if line.startswith("{"):
            yield json.loads(line)


if __name__ == "__main__":
    role, given, *rest = sys.argv[1:]
    scene = Scene(**json.loads(given))
    if role == "server":
        serve(scene)
    elif rest == ["returns"]:
        returning(scene, role)
    else:
        take_part(scene, role, *rest)
    os._exit(0)  # threads of gRPC may be at work still
