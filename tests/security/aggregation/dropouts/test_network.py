"""Parties and server as processes that speak over gRPC: what becomes of a run when one is killed or stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from secretflow.party.address import Address
from secretflow.party.authority import make_authority, sign
from secretflow.party.keys import make_party
from secretflow.security.aggregation.secagg.dropouts.wire import Hello
from secretflow.security.aggregation.secagg.errors import AggregationError, ChannelClosedError
from secretflow.security.aggregation.secagg.transport.network.stream import PartyStream
from secretflow.security.aggregation.secagg.transport.network.tls import Tls
from tests.faults_table import Table, faults_table
from tests.party.clocks import put_authority_ahead

from .processes import Scene, lines_of, numbers_of
from .proxy import Link, Proxy

NAMES = ["alice", "bob", "carol", "davy"]
PROGRAM = Path(__file__).with_name("processes.py")
ROOT = PROGRAM.parents[4]
Lines = list[dict[str, object]]
KEPT_ALIVE = 20.0  # seconds, of a stream without a sign
PATIENCE = 240  # seconds, on a machine that is ten times slower


class Processes:
    """Those of one test; all that are left are killed at its end."""

    def __init__(self, scene: Scene) -> None:
        self._all: dict[str, subprocess.Popen[str]] = {}
        self.server = self._start("server", scene)
        assert self.server.stdout is not None and self.server.stderr is not None
        line = self.server.stdout.readline()
        assert line, self.server.stderr.read()
        self.scene = replace(scene, address=json.loads(line)["address"])

    def start(self, party: str, *fault: str, scene: Scene | None = None) -> subprocess.Popen[str]:
        return self._start(party, scene or self.scene, *fault)

    def _start(self, role: str, scene: Scene, *rest: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(PROGRAM), role, scene.as_json(), *rest]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "GRPC_VERBOSITY": "NONE"}
        self._all[role] = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        return self._all[role]

    def end(self) -> None:
        for process in self._all.values():
            process.kill()
            process.communicate()


def told(process: subprocess.Popen[str]) -> list[dict[str, object]]:
    """What a process has said when it has ended."""
    out, errors = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in errors, errors
    return list(lines_of(out))


def wait_for(process: subprocess.Popen[str], word: str) -> None:
    """Reads until a process says a word."""
    assert process.stdout is not None
    for line in process.stdout:
        if word in line:
            return
    raise AssertionError(f"{word} was not said")


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    """Written to the page that FAULTS_TABLE names, if it names one."""
    with faults_table("faults") as table:
        yield table


def seconds(fallen: Lines, word: str, lines: list[Lines], number: int | None = None) -> float:
    """From a fault until the last of the others has come to a round, or to its end."""
    (began,) = (line["at"] for line in fallen if word in line)
    key, value = ("end", None) if number is None else ("round", number)
    ends = [line["at"] for said in lines for line in said if key in line and value in (None, line[key])]
    return max(map(float, ends)) - float(began)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys and certificates of the parties and the server."""
    return certified(tmp_path_factory.mktemp("parties"))


def certified(home: Path) -> Path:
    make_authority(home / "authority")
    for k, party in enumerate((*NAMES, "server", "mallory")):
        address = Address("127.0.0.1", 9001 + k)
        make_party(home / party, party, address)
        sign(home / "authority", home / party / "request.pem", party, address, 1)
    return home


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Iterator[list[Processes]]:
    made: list[Processes] = []
    yield made
    for processes in made:
        processes.end()


def check(lines: list[dict[str, object]], survivors: dict[int, list[str]]) -> None:
    """Looks whether each round has given the average of those who were there."""
    found = {line["round"]: line for line in lines if "round" in line}
    assert {number: line["survivors"] for number, line in found.items()} == survivors
    for number, names in survivors.items():
        if names:
            values = [numbers_of(NAMES.index(name), number, 5) for name in names]
            np.testing.assert_allclose(found[number]["average"], np.mean(values, axis=0), atol=1e-5)
    assert lines[-1]["end"] == ""


@pytest.mark.parametrize("blind", [False, pytest.param(True, marks=pytest.mark.faults)])
def test_parties_that_speak_over_tls_have_their_average(
    folder: Path, run: list[Processes], blind: bool
) -> None:
    run.append(processes := Processes(Scene(NAMES, folder=str(folder), blind=blind, size=300_000)))
    parties = [processes.start(name) for name in NAMES]
    lines = [told(party) for party in parties]
    for said in lines:
        check(said, dict.fromkeys(range(3), NAMES))
    assert len({str(said[0]["joined"]) for said in lines}) == 1
    assert told(processes.server)[-1]["end"] == ""


@pytest.mark.faults
def test_parties_whose_clocks_are_an_hour_behind_the_authoritys_speak_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: list[Processes], table: Table
) -> None:
    with monkeypatch.context() as patch:
        put_authority_ahead(patch, hours=1)
        folder = certified(tmp_path)
    run.append(processes := Processes(Scene(NAMES, folder=str(folder))))
    for party in [processes.start(name) for name in NAMES]:
        check(told(party), dict.fromkeys(range(3), NAMES))
    table.add("the authority", "its clock is an hour ahead", "any", "the average of all", 0.0, 60.0)


STAGES = [
    pytest.param(stage, fault, marks=[] if (stage, fault) == ("agreement", "SIGKILL") else pytest.mark.faults)
    for stage in ("upload", "agreement", "release")
    for fault in ("SIGKILL", "SIGSTOP")
]


@pytest.mark.parametrize(("stage", "fault"), STAGES)
def test_the_others_go_on_when_a_party_is_killed_or_stopped(
    folder: Path, run: list[Processes], table: Table, stage: str, fault: str
) -> None:
    """In the second of three rounds, before what ends the stage."""
    deadline = 5.0 if fault == "SIGSTOP" else 60.0  # a killed one need not be waited for
    run.append(processes := Processes(Scene(NAMES, folder=str(folder), deadline=deadline)))
    failing = processes.start(NAMES[-1], stage, fault)
    parties = [processes.start(name) for name in NAMES[:-1]]
    left = NAMES[:-1]
    lost: list[str] = [] if stage == "release" else left
    lines = [told(party) for party in parties]
    for said in lines:
        check(said, {0: NAMES, 1: lost, 2: left})
    if fault == "SIGSTOP":
        failing.send_signal(signal.SIGCONT)
    own = told(failing)
    if fault == "SIGSTOP":
        assert own[-1]["kind"] in ("DroppedOutError", "ChannelClosedError", "TooFewSurvivorsError")
    seen = "no average; the next is the others'" if stage == "release" else "the others' average"
    table.add("a party", fault, f"before its {stage}", seen, seconds(own, "fault", lines, 1), deadline)


@pytest.mark.faults
def test_too_few_survivors_end_the_run_at_all_parties_with_an_error_that_names_who_is_gone(
    folder: Path, run: list[Processes], table: Table
) -> None:
    run.append(processes := Processes(Scene(NAMES, folder=str(folder), min_survivors=4)))
    failing = processes.start(NAMES[-1], "upload", "SIGKILL")
    lines = [told(party) for party in [processes.start(name) for name in NAMES[:-1]]]
    for said in lines:
        assert said[-1]["kind"] == "TooFewSurvivorsError"
        assert "gone: davy" in str(said[-1]["end"])
    seen = "too few are left: all end with `TooFewSurvivorsError`, which names who is gone"
    table.add("a party", "SIGKILL", "before its upload", seen, seconds(told(failing), "fault", lines), 60.0)


@pytest.mark.faults
@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_parties_do_not_wait_for_ever_for_a_server_that_has_gone(
    folder: Path, run: list[Processes], table: Table, fault: signal.Signals
) -> None:
    run.append(processes := Processes(Scene(NAMES, folder=str(folder), rounds=10**6, deadline=5.0)))
    parties = [processes.start(name) for name in NAMES]
    for party in parties:
        wait_for(party, "round")
    fallen = [{"at": time.monotonic(), "fault": fault.name}]
    processes.server.send_signal(fault)
    lines = [told(party) for party in parties]
    for said in lines:
        assert said[-1]["kind"] == "ChannelClosedError"
    seen = "all parties end with `ChannelClosedError`"
    table.add("the server", fault.name, "any", seen, seconds(fallen, "fault", lines), 5.0)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("who", "fault", "stopped"),
    [
        ("davy", "SIGKILL", 0.0),
        ("davy", "SIGSTOP", 5.0),  # longer than the deadline
        ("server", "SIGKILL", 0.0),
        ("server", "SIGSTOP", 5.0),
        ("server", "SIGSTOP", 25.0),  # so long that all streams have broken
    ],
)
def test_who_is_started_again_or_woken_up_is_in_again(
    folder: Path, run: list[Processes], table: Table, who: str, fault: str, stopped: float
) -> None:
    scene = Scene(NAMES, folder=str(folder), rounds=60, deadline=3.0, wait=60.0, pause=0.1)
    if stopped > KEPT_ALIVE:  # which parties wait for: three deadlines; and they are in the midst of a call
        scene = replace(scene, rounds=200, deadline=10.0, pause=0.0)
    run.append(processes := Processes(scene))
    parties = {name: processes.start(name, "returns") for name in NAMES}
    wait_for(parties["alice"], '"round": 5')
    fallen = processes.server if who == "server" else parties[who]
    fell = time.monotonic()
    fallen.send_signal(getattr(signal, fault))
    if fault == "SIGKILL":
        fallen.wait()
        again = processes.start(who, *([] if who == "server" else ["returns"]))
        parties |= {} if who == "server" else {who: again}
    else:
        time.sleep(stopped)
        fallen.send_signal(signal.SIGCONT)
    lines = {name: told(party) for name, party in parties.items()}
    for said in lines.values():
        rounds = [line for line in said if "round" in line]
        assert rounds[-1]["round"] == scene.rounds - 1 and rounds[-1]["survivors"] == NAMES
        for line in rounds:
            there = [NAMES.index(str(name)) for name in line["survivors"]]  # type: ignore[attr-defined]
            numbers = [numbers_of(k, int(str(line["round"])), 5) for k in there]
            np.testing.assert_allclose(np.mean(numbers, axis=0), line["average"], atol=1e-5)
    times = [float(str(line["at"])) for line in lines["alice"] if "round" in line]
    after = float(np.diff([fell, *(at for at in times if at > fell)]).max())
    what = f"{fault}, then {'started again' if fault == 'SIGKILL' else 'SIGCONT'}"
    if who == "server" and stopped < KEPT_ALIVE:
        table.add("the server", what, "any", "all wait for it, and go on", after, scene.deadline)
    elif who == "server":
        what = f"{what} after {stopped:g} seconds"
        table.add("the server", what, "any", "all come back to it, and go on", after, scene.deadline)
    else:
        seen = "the others go on; it is in again from the next round"
        table.add("a party", what, "any", seen, after, scene.deadline)


@pytest.fixture
def links() -> Iterator[list[Proxy]]:
    made: list[Proxy] = []
    yield made
    for proxy in made:
        proxy.close()


def behind(processes: Processes, links: list[Proxy], link: Link) -> Scene:
    """The scene of a party behind a link."""
    links.append(proxy := Proxy(processes.scene.address, link))
    return replace(processes.scene, address=proxy.address)


@pytest.mark.faults
@pytest.mark.parametrize("link", [Link(delay=0.05), Link(bits_per_second=64_000)], ids=str)
def test_a_party_behind_a_slow_link_takes_part_as_long_as_the_deadline_lets_it(
    folder: Path, run: list[Processes], links: list[Proxy], link: Link
) -> None:
    run.append(processes := Processes(Scene(NAMES, folder=str(folder), size=2000)))
    slow = processes.start(NAMES[-1], scene=behind(processes, links, link))
    for party in [slow, *(processes.start(name) for name in NAMES[:-1])]:
        check(told(party), dict.fromkeys(range(3), NAMES))


@pytest.mark.faults
def test_a_party_whose_link_is_too_slow_is_gone_after_the_deadline(
    folder: Path, run: list[Processes], links: list[Proxy], table: Table
) -> None:
    """Its upload of 800 kB would take 100 seconds, and the others are done in a moment."""
    run.append(processes := Processes(Scene(NAMES, folder=str(folder), size=200_000, deadline=8.0)))
    slow = processes.start(NAMES[-1], scene=behind(processes, links, Link(bits_per_second=64_000)))
    lines = [told(party) for party in [processes.start(name) for name in NAMES[:-1]]]
    for said in lines:
        check(said, dict.fromkeys(range(3), NAMES[:-1]))
    began = [line for line in lines[0] if "joined" in line]
    after = seconds(began, "joined", lines, 0)
    table.add("a link", "64 kbit/s", "upload of 800 kB", "the others' average", after, 8.0)
    assert told(slow)[-1]["end"]


@pytest.mark.faults
def test_the_others_go_on_when_a_link_breaks_in_the_middle_of_a_message(
    folder: Path, run: list[Processes], links: list[Proxy]
) -> None:
    """Each upload has 800 kB, so the second one breaks."""
    run.append(processes := Processes(Scene(NAMES, folder=str(folder), size=200_000)))
    failing = processes.start(NAMES[-1], scene=behind(processes, links, Link(breaks_after=1_200_000)))
    for party in [processes.start(name) for name in NAMES[:-1]]:
        check(told(party), {0: NAMES, 1: NAMES[:-1], 2: NAMES[:-1]})
    assert told(failing)[-1]["kind"] == "ChannelClosedError"


@pytest.mark.faults
def test_a_party_that_comes_late_is_waited_for(folder: Path, run: list[Processes]) -> None:
    run.append(processes := Processes(Scene(NAMES, folder=str(folder))))
    parties = [processes.start(name) for name in NAMES[:-1]]
    time.sleep(3)
    for party in [*parties, processes.start(NAMES[-1])]:
        check(told(party), dict.fromkeys(range(3), NAMES))


@pytest.mark.faults
def test_who_does_not_come_is_not_waited_for_longer_than_was_said(folder: Path, run: list[Processes]) -> None:
    scene = Scene(NAMES, folder=str(folder), wait=15.0)
    run.append(processes := Processes(scene))
    for party in [processes.start(name) for name in NAMES[:-1]]:
        check(told(party), dict.fromkeys(range(3), NAMES[:-1]))


def test_who_has_no_certificate_of_a_party_takes_no_part(folder: Path, run: list[Processes]) -> None:
    run.append(processes := Processes(Scene(NAMES, folder=str(folder))))
    keys = {path.name: path for path in (folder / "mallory").iterdir()}
    mallory = Tls(keys["key.pem"], keys["cert.pem"], keys["ca.pem"])
    with PartyStream(processes.scene.address, "alice", "server", mallory, connect_seconds=PATIENCE) as stream:
        stream.send(Hello())
        with pytest.raises(ChannelClosedError, match="a party of this aggregation must open the stream"):
            stream.receive(PATIENCE)


def test_a_server_whose_certificate_names_another_party_is_refused(
    folder: Path, run: list[Processes]
) -> None:
    run.append(processes := Processes(Scene(NAMES, folder=str(folder))))
    with pytest.raises(ChannelClosedError, match="mallory must take streams"):
        PartyStream(
            processes.scene.address, "alice", "mallory", processes.scene.tls("alice"), connect_seconds=3
        )


def test_without_tls_a_stream_stays_on_the_machine() -> None:
    with pytest.raises(AggregationError, match="tls must be given"):
        PartyStream("10.0.0.1:9", "alice", "server", None, connect_seconds=1)
