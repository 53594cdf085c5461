"""The scene of docs/production.md: one of three parties is killed in mid training, and comes back."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from secretflow.ml.nn.fl.backend.torch.checkpoint import read_checkpoint
from secretflow.security.aggregation.secagg.dropouts.opened_sums import NAME
from tests.production.network import PARTIES, Network, free_ports, loopback, namespaces, processes
from tests.production.observed import (
    GUIDE,
    HERE,
    commands,
    environment,
    in_guide,
    party_of,
    set_up,
    wait_until,
)

pytestmark = [pytest.mark.production, pytest.mark.slow, pytest.mark.faults]

SECONDS = 1200.0
POINTS, LAST = 0.3, 5  # accuracies may differ by, of the mean of the last epochs
STREAMS = "10.0.0.3:20002"


class Scene:
    """Three parties by the commands of the guide.

    Args:
        home: their folder.
        network: where they are.
        train: module of the training, beside this one.
        changed: settings that are not those of the guide, for there is less time.
    """

    def __init__(self, home: Path, network: Network, train: str = "own_survivors", **changed: object) -> None:
        self.home, self._network = home, network
        self._going: dict[str, subprocess.Popen[bytes]] = {}
        self._marks: list[str] = []
        set_up(home, network)
        host = network.addresses["carol"].rpartition(":")[0]
        streams = f"{host}:20002" if network.namespaces else f"{host}:{free_ports(1)[0]}"
        found = re.findall(r"```json\n(.*?)```", GUIDE, flags=re.DOTALL)[1]
        cluster = json.loads(in_guide(network, found.replace(STREAMS, streams)))
        known = json.loads((home / "cluster.json").read_text())
        cluster["parties"] = known["parties"]
        cluster["settings"] |= changed
        cluster["train"] = f"{train}:train"  # what the guide's does, and says what its driver is told
        shutil.copy(HERE / f"{train}.py", home)
        (home / "cluster.json").write_text(json.dumps(cluster))

    def start(self, party: str) -> None:
        (line,) = [line for line in commands("run", self._network) if party_of(line) == party]
        mark = f"{party}-{uuid.uuid4()}"
        self._marks.append(mark)
        with (self.home / f"{party}.log").open("ab") as log:
            self._going[party] = subprocess.Popen(
                self._network.inside(party, [sys.executable, *line[1:]]),
                cwd=self.home,
                env=environment(mark),
                stdout=log,
                stderr=log,
            )

    def kill(self, party: str) -> None:
        self._going[party].kill()
        self.end(party)

    def processes(self, party: str) -> dict[int, str]:
        """Command lines, by number, of a party's processes."""
        return processes([mark for mark in self._marks if mark.startswith(party)][-1])

    def end(self, party: str) -> int:
        """Waits until a party's program has ended, and all its processes; returns the status."""
        status = self._going[party].wait(SECONDS)
        end = time.monotonic() + 60
        while found := self.processes(party):  # its Ray goes with it, so that the port is free
            assert time.monotonic() < end, found
            time.sleep(0.2)
        return status

    def wait_for(self, text: str, party: str) -> None:
        """Waits until a party has said something."""
        wait_until(lambda: text in self.said(party), lambda: self.alive([party]), SECONDS)

    def alive(self, parties: Sequence[str]) -> bool:
        """Whether the programs of parties have not ended."""
        return all(self._going[party].poll() is None for party in parties)

    def said(self, party: str) -> str:
        path = self.home / f"{party}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def ends(self) -> dict[str, int]:
        return {party: process.wait(SECONDS) for party, process in self._going.items()}

    def history(self, party: str) -> dict[str, list[float]]:
        told: dict[str, list[float]] = json.loads((self.home / party / "history.json").read_text())
        return told

    def accuracies(self, party: str) -> list[float]:
        """Of the last epochs; from one to the next it still goes up and down."""
        return self.history(party)["val_multiclassaccuracy"][-LAST:]

    def told(self, party: str) -> dict[str, list[str]]:
        """The columns of a party's history, of all together and of single parties."""
        found: dict[str, list[str]] = json.loads((self.home / party / "told.json").read_text())
        return found

    def participants(self, party: str) -> list[list[str]]:
        """Who took part in each round, as the party prints it."""
        lines = [line for line in self.said(party).splitlines() if line.startswith('{"participants"')]
        epochs = json.loads(lines[-1])["participants"]
        return [names for epoch in epochs for names in epoch]

    def close(self) -> None:
        for party, process in self._going.items():
            process.kill()
            process.wait()
            print(f"--- {party}\n{self.said(party)[-3000:]}")
        for mark in self._marks:
            for pid in processes(mark):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(params=["loopback", pytest.param("namespaces", marks=pytest.mark.namespaces)])
def network(request: pytest.FixtureRequest) -> Iterator[Network]:
    with ExitStack() as stack:
        if request.param == "loopback":
            yield loopback()
            return
        try:
            found = stack.enter_context(namespaces())
        except PermissionError as error:
            pytest.skip(str(error))
        yield found


@pytest.fixture
def scenes(network: Network, tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    """Makes scenes, ``full`` names a party whose disk is too small; ends all that is left of them."""
    made: list[Scene] = []
    stack = ExitStack()

    def make(full: str = "", **changed: object) -> Scene:
        made.append(Scene(tmp_path / str(len(made)), network, **changed))
        if full:
            stack.enter_context(small_disk(made[-1].home / full))
        for party in PARTIES:
            made[-1].start(party)
        return made[-1]

    with stack:
        yield make
        for scene in made:
            scene.close()


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of 64 kB, less than a checkpoint, which only root may make."""
    folder.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a small file system could not be mounted")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_one_of_three_parties_is_killed_and_comes_back(scenes: Callable[..., Scene]) -> None:
    undisturbed = scenes()
    assert undisturbed.ends() == dict.fromkeys(PARTIES, 0)
    assert all(names == list(PARTIES) for names in undisturbed.participants("alice"))
    scene = scenes()
    scene.wait_for("Epoch 3/", "bob")
    scene.kill("bob")
    scene.start("bob")
    assert scene.ends() == dict.fromkeys(PARTIES, 0)
    taken = scene.participants("alice")
    assert taken[0] == taken[-1] == list(PARTIES)
    assert ["alice", "carol"] in taken
    assert scene.participants("carol") == taken
    accuracies, before = scene.accuracies("alice"), undisturbed.accuracies("alice")
    without = taken.count(["alice", "carol"])
    print(f"accuracies {accuracies}, undisturbed {before}; {without} of {len(taken)} rounds without bob")
    assert min(before) > 0.93  # all classes are learned, and it has converged
    assert abs(sum(accuracies) - sum(before)) / LAST <= POINTS / 100
    assert scene.accuracies("bob") == accuracies


def test_updates_of_a_few_bits_go_on_without_a_party_and_with_it_again(
    scenes: Callable[..., Scene],
) -> None:
    rounds, prunable, whole = 10, 1947, 13
    scene = scenes(rows=32 * rounds, batch_size=32, upload_bits=8)
    scene.wait_for("Epoch 3/", "bob")
    scene.kill("bob")
    scene.start("bob")
    assert scene.ends() == dict.fromkeys(PARTIES, 0)
    taken = scene.participants("alice")
    assert taken[0] == taken[-1] == list(PARTIES) and ["alice", "carol"] in taken
    assert scene.participants("carol") == taken
    for party in PARTIES:
        assert scene.accuracies(party)[-1] == scene.accuracies("alice")[-1] > 0.5
    history = scene.history("alice")
    living = prunable * history["density"][-1] + whole
    assert history["payload_bytes"][-1] < 2 * living * rounds * len(PARTIES)  # whole ones have four bytes


def test_the_server_is_killed_and_started_again(scenes: Callable[..., Scene]) -> None:
    scene = scenes(rows=640, batch_size=32, epochs=8)
    scene.wait_for("Epoch 3/", "alice")
    scene.kill("carol")
    scene.start("carol")
    assert scene.ends() == dict.fromkeys(PARTIES, 0)
    taken = scene.participants("alice")
    assert taken[-1] == list(PARTIES)
    assert len(taken) == 8 * (640 // 32)
    for party in PARTIES:
        losses = scene.history(party)["loss"]  # of the server from when it was started again
        assert losses == scene.history("alice")["loss"][-len(losses) :]
        assert {name.split("_")[0] for name in scene.told(party)["local_history"]} == {party}
        names = {"loss", "density", "multiclassaccuracy", "val_multiclassaccuracy", "payload_bytes"}
        assert names <= set(scene.told(party)["global_history"])
        kept = scene.home / party / NAME
        assert json.loads(kept.read_text()) == [list(PARTIES)] and kept.stat().st_mode & 0o077 == 0


def test_too_few_end_the_run_at_all_with_the_name_of_who_is_gone(scenes: Callable[..., Scene]) -> None:
    scene = scenes(rows=640, batch_size=32, epochs=8, min_survivors=3)
    scene.wait_for("Epoch 3/", "alice")
    scene.kill("bob")
    status = scene.ends()
    assert status["alice"] == status["carol"] == 1
    for party in ("alice", "carol"):
        assert "at least 3 parties must be there, got 2; gone: bob" in scene.said(party)
        assert (scene.home / party / "model").exists()


def test_a_party_whose_disk_is_full_ends_and_the_others_go_on(scenes: Callable[..., Scene]) -> None:
    scene = scenes(full="bob", rows=640, batch_size=32, epochs=8)
    status = scene.ends()
    assert status == {"alice": 0, "bob": 1, "carol": 0}
    assert "No space left on device" in scene.said("bob")
    left = {path.name: path for path in (scene.home / "bob").iterdir()}  # nothing half-written
    assert left.keys() <= {"model", "model.previous", NAME}
    for name in left.keys() - {NAME}:
        assert read_checkpoint(left[name])["epoch"] < 8
    taken = scene.participants("alice")
    assert taken[0] == list(PARTIES) and taken[-1] == ["alice", "carol"]
    assert len(taken) == 8 * (640 // 32)
