"""Processes of a party die or stand still in mid training, or its program is told to end, over a network."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.production.network import PARTIES, loopback, processes
from tests.production.observed import in_mid_training, wait_until
from tests.production.own_signals import FREE
from tests.production.test_survivors import Scene

pytestmark = [pytest.mark.production, pytest.mark.slow, pytest.mark.faults]

SEED = 27
EPOCHS = 300  # of two seconds: more than all faults take
DEADLINE, LONG, PATIENCE = 10.0, 25.0, 20.0  # seconds; after 20 without a sign a stream has broken
SECONDS = 1200.0
OTHERS = ["alice", "carol"]
PROCESSES = {  # a word of the command line, and what the program says when such a process is killed
    "program": ("secretflow.party run", ""),
    "worker": ("ray::ActorPYU", "The actor died unexpectedly"),
    "raylet": ("/raylet/raylet", "raylet, a process of this party's Ray, has ended (status -9)"),
    "gcs_server": ("/gcs_server", "gcs_server, a process of this party's Ray, has ended (status -9)"),
    "server": ("ray::ActorHost", "carol must serve, but its process has ended"),
}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(
        tmp_path, loopback(), "own_signals", rows=64, batch_size=32, epochs=EPOCHS, round_deadline=DEADLINE
    )
    try:
        for party in PARTIES:
            made.start(party)
        yield made
    finally:
        made.close()


def rounds(scene: Scene, party: str) -> list[list[str]]:
    """Who took part in the last round of each epoch, as a party says it."""
    lines = scene.said(party).splitlines(keepends=True)
    return [json.loads(line)["last"] for line in lines if line.startswith('{"last"') and line.endswith("\n")]


def wait_for_round(scene: Scene, of: list[str]) -> None:
    """Waits until those who took part say that there was a further epoch with nobody else."""
    before = {party: len(rounds(scene, party)) for party in of}
    wait_until(
        lambda: all(of in rounds(scene, party)[before[party] :] for party in of),
        lambda: scene.alive(of),
        SECONDS,
    )


def process(found: dict[int, str], kind: str) -> int:
    return min(pid for pid, line in found.items() if PROCESSES[kind][0] in line)


def interrupt(found: dict[int, str]) -> None:
    """Ctrl-C in a terminal goes to all processes that are not in a session of their own."""
    group = os.getpgid(process(found, "program"))
    for pid in found:
        if os.getpgid(pid) == group:
            os.kill(pid, signal.SIGINT)


def test_the_others_go_on_whatever_process_of_a_party_stands_still_or_dies(scene: Scene) -> None:
    drawn = random.Random(SEED)
    wait_for_round(scene, list(PARTIES))
    pid = process(scene.processes("bob"), drawn.choice(["program", "worker"]))
    os.kill(pid, signal.SIGSTOP)
    wait_for_round(scene, OTHERS)
    os.kill(pid, signal.SIGCONT)
    wait_for_round(scene, list(PARTIES))
    for kind in drawn.sample(["program", "worker", "raylet", "gcs_server"], 2):
        os.kill(process(scene.processes("bob"), kind), signal.SIGKILL)
        wait_for_round(scene, OTHERS)
        assert scene.end("bob") != 0
        assert PROCESSES[kind][1] in scene.said("bob")
        scene.start("bob")
        wait_for_round(scene, list(PARTIES))
    interrupt(scene.processes("bob"))
    assert scene.end("bob") == 128 + signal.SIGINT
    assert "told to end by SIGINT" in scene.said("bob")
    (scene.home / FREE).touch()
    assert scene.end("alice") == scene.end("carol") == 0
    assert scene.participants("alice")[-1] == scene.participants("carol")[-1] == OTHERS


def test_parties_wait_for_a_server_that_stands_still_or_is_killed_and_started_again(scene: Scene) -> None:
    wait_for_round(scene, list(PARTIES))
    pid = process(scene.processes("carol"), "server")
    os.kill(pid, signal.SIGSTOP)
    time.sleep(LONG)
    os.kill(pid, signal.SIGCONT)
    wait_for_round(scene, list(PARTIES))
    os.kill(pid, signal.SIGKILL)
    assert scene.end("carol") == 1
    assert PROCESSES["server"][1] in scene.said("carol")
    scene.start("carol")
    wait_for_round(scene, list(PARTIES))
    os.kill(process(scene.processes("bob"), "program"), signal.SIGTERM)
    assert scene.end("bob") == 128 + signal.SIGTERM
    (scene.home / FREE).touch()
    assert scene.end("alice") == scene.end("carol") == 0
    assert scene.participants("alice")[-1] == scene.participants("carol")[-1] == OTHERS


def kill_one(found: dict[int, str]) -> None:
    os.kill(process(found, random.Random(SEED).choice(["worker", "raylet", "gcs_server"])), signal.SIGKILL)


@pytest.mark.parametrize(("fault", "status"), [(interrupt, 128 + signal.SIGINT), (kill_one, 1)])
def test_without_min_survivors_all_end(
    tmp_path: Path, fault: Callable[[dict[int, str]], None], status: int
) -> None:
    with in_mid_training(tmp_path, PATIENCE) as programs:
        fault(processes(programs.marks["bob"]))
        assert programs.going["bob"].wait(SECONDS) == status
        assert [programs.going[party].wait(SECONDS) for party in OTHERS] == [1, 1]
    assert programs.left_over == {}
