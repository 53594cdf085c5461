"""A run of three parties by the commands of docs/production.md, and what is seen of it from all sides."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.production.network import PARTIES, Network, listening, loopback, processes

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
GUIDE = (ROOT / "docs/production.md").read_text(encoding="utf-8")
IN_GUIDE = {"10.0.0.1:20001": "alice", "10.0.0.2:20001": "bob", "10.0.0.3:20001": "carol"}
SETTINGS = {"rows": 96, "epochs": 2, "prune_percent": 40, "prune_end_rate": 0.5}
SECONDS = 400.0


@dataclass
class Seen:
    """What has been seen of a run."""

    home: Path
    network: Network
    why_not: str = ""
    output: dict[str, str] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    listening: dict[str, dict[tuple[str, int], str]] = field(default_factory=dict)
    attacks: dict[str, str] = field(default_factory=dict)
    poisoned: dict[str, str] = field(default_factory=dict)
    reached: dict[str, list[int]] = field(default_factory=dict)
    secrets: list[bytes] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    open_files: list[str] = field(default_factory=list)
    left_over: dict[int, str] = field(default_factory=dict)


def commands(name: str, network: Network) -> list[list[str]]:
    """The guide's lines with one command, as printed but for addresses, without a user's own function."""
    found = re.findall(rf"^ *(python -m secretflow\.party {name} .*)$", GUIDE, flags=re.MULTILINE)
    lines = [shlex.split(in_guide(network, line)) for line in found]
    scene = [line for line in lines if "--train" not in line]
    assert scene
    return scene


def in_guide(network: Network, text: str) -> str:
    for address, party in IN_GUIDE.items():
        text = text.replace(address, network.addresses[party])
    return text


def party_of(command: list[str]) -> str:
    return command[command.index("--party") + 1]


def wait_until(condition: Callable[[], bool], alive: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Waits for what happens while others are alive, some seconds at most."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end and alive()
        time.sleep(0.1)


def environment(mark: str = "") -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "MARK_OF_TEST": mark}


def set_up(home: Path, network: Network, **changes: object) -> dict[str, str]:
    """Makes keys, certificates and cluster file as the guide says, and checks them.

    Args:
        home: a folder.
        network: where the parties are.
        **changes: of the cluster file.

    Returns:
        What the commands have said.
    """
    output: dict[str, str] = {}

    def call(command: list[str]) -> str:
        done = subprocess.run(
            [sys.executable, *command[1:]], cwd=home, env=environment(), capture_output=True, text=True
        )
        output[f"{command[3]} {party_of(command) if '--party' in command else ''}"] = (
            done.stdout + done.stderr
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    home.mkdir(exist_ok=True)
    identities = {party_of(line): call(line).split()[-1] for line in commands("init", network)}
    for name in ("authority", "sign"):
        for line in commands(name, network):
            call(line)
    found = re.search(r"```json\n(.*?)```", GUIDE, flags=re.DOTALL)
    assert found
    cluster = json.loads(in_guide(network, found[1]))
    assert cluster["train"] == "experiments.production:train"
    for party, identity in identities.items():
        cluster["parties"][party]["identity"] = identity
    (home / "cluster.json").write_text(json.dumps(cluster | changes))
    fingerprints = {call(line).splitlines()[0] for line in commands("check", network)}
    assert len(fingerprints) == 1
    return output


def _set_up(run: Seen) -> None:
    # The server trains as well, so that three parties pad for each other.
    run.output |= set_up(
        run.home, run.network, trainers=list(PARTIES), train="own_training:train", settings=SETTINGS
    )
    shutil.copy(HERE / "own_training.py", run.home)
    for path in (*run.home.glob("*/key.pem"), *run.home.glob("*/identity.pem")):
        run.secrets += path.read_bytes().splitlines()[1:-1]
    assert len(run.secrets) >= 7


@dataclass
class Started:
    """Programs of parties.

    Attributes:
        marks: of each party a word in the environment of all its processes.
        going: the programs.
        left_over: what was still there of them after the end, with command lines; it has been ended.
    """

    marks: dict[str, str]
    going: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    left_over: dict[int, str] = field(default_factory=dict)

    def alive(self) -> bool:
        """Whether no program has ended."""
        return all(process.poll() is None for process in self.going.values())


@contextmanager
def started(home: Path, network: Network, lines: Mapping[str, list[str]]) -> Iterator[Started]:
    """Programs of parties, each in the folder with a log in ``PARTY.log``; at last none is left.

    Args:
        home: the folder.
        network: where the parties are.
        lines: of each party, without the interpreter.
    """
    run = Started({party: f"{party}-{uuid.uuid4()}" for party in lines})
    try:
        for party, line in lines.items():
            with (home / f"{party}.log").open("wb") as log:
                run.going[party] = subprocess.Popen(
                    network.inside(party, [sys.executable, *line]),
                    cwd=home,
                    env=environment(run.marks[party]),
                    stdout=log,
                    stderr=log,
                )
        yield run
    finally:
        for party, process in run.going.items():
            process.kill()
            process.wait()
            print(f"--- {party}\n{(home / f'{party}.log').read_text(errors='replace')[-3000:]}")
        end = time.monotonic() + 20
        while time.monotonic() < end and any(map(processes, run.marks.values())):
            time.sleep(0.2)
        run.left_over = {pid: line for mark in run.marks.values() for pid, line in processes(mark).items()}
        for pid in run.left_over:
            os.kill(pid, signal.SIGKILL)


@contextmanager
def in_mid_training(home: Path, patience: float) -> Iterator[Started]:
    """Programs of the guide's parties on loopback in a long training without ``min_survivors``, one epoch in.

    Args:
        home: a folder.
        patience: seconds for which each waits for one that is not reached.
    """
    network = loopback()
    set_up(home, network, settings={"rows": 500, "epochs": 3000})
    lines = {party_of(line): [*line[1:], "--wait", f"{patience:g}"] for line in commands("run", network)}
    with started(home, network, lines) as programs:
        log = home / "alice.log"
        wait_until(lambda: "Epoch 2/" in log.read_text(errors="replace"), programs.alive)
        yield programs


def _run(run: Seen) -> None:
    """Runs the parties, looks at them when they have trained, and waits for their end."""
    until = ["--option", f"until={run.home / 'until'}"]
    lines = {party_of(line): [*line[1:], *until] for line in commands("run", run.network)}
    assert set(lines) == set(PARTIES)
    with started(run.home, run.network, lines) as programs:
        wait_until(
            lambda: all((run.home / party / "sums.json").exists() for party in PARTIES),
            programs.alive,
        )
        _look(run, programs.marks)
        (run.home / "until").touch()
        for party, process in programs.going.items():
            run.status[party] = process.wait(SECONDS)
    run.left_over = programs.left_over
    run.output |= {party: (run.home / f"{party}.log").read_text(errors="replace") for party in PARTIES}


def _look(run: Seen, marks: dict[str, str]) -> None:
    for party, mark in marks.items():
        own = list(processes(mark))
        run.listening[party] = listening(own, all_of_namespace=bool(run.network.namespaces))
        ray_folders = {_ray_folder(pid) for pid in own} - {None}
        for folder in ray_folders:
            assert folder is not None
            run.secrets += (folder / "key.pem").read_bytes().splitlines()[1:-1]
            run.leaks += leaks(run, [path for path in folder.rglob("*") if path.name != "key.pem"])
            run.open_files += [] if folder.stat().st_mode & 0o077 == 0 else [str(folder)]
        assert len(ray_folders) == 1
    _reach(run)
    _poison(run)
    _join(run, marks["alice"])


def _ray_folder(pid: int) -> Path | None:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    found = re.search(rb"RAY_TLS_SERVER_KEY=([^\0]+)/key.pem", environment)
    return Path(os.fsdecode(found[1])) if found else None


def _as_stranger(run: Seen, program: str, *arguments: str) -> str:
    command = run.network.inside("stranger", [sys.executable, str(HERE / "stranger.py"), program, *arguments])
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _reach(run: Seen) -> None:
    """A stranger tries all the ports of each party at the address that it has in the network."""
    for party, found in run.listening.items():
        host, _ = run.network.addresses[party].split(":")
        ports = sorted({str(port) for _, port in found})
        run.reached[party] = [int(port) for port in _as_stranger(run, "reach", host, *ports).split()]


def _poison(run: Seen) -> None:
    """Somebody without a certificate, and an insider with one, send alice what makes a file if unpickled."""
    keys, address = run.home / "carol-keys", run.network.addresses["alice"]
    for name in ("plain", "without", "with"):
        made = run.home / f"made-by-poison-{name}"
        answer = _as_stranger(run, "poison", address, str(made), str(keys), name)
        run.poisoned[name] = f"{answer}, {'made' if made.exists() else 'nothing'}"


def _join(run: Seen, mark: str) -> None:
    """A stranger on alice's machine tries to join her Ray. With her key he gets in: the try is good."""
    host, port = next(place for place, name in run.listening["alice"].items() if name == "gcs_server")
    own = next(iter(filter(None, map(_ray_folder, processes(mark)))))
    key = {"RAY_USE_TLS": "1", "RAY_TLS_SERVER_KEY": f"{own}/key.pem"}
    key |= dict.fromkeys(("RAY_TLS_SERVER_CERT", "RAY_TLS_CA_CERT"), f"{own}/cert.pem")
    made = run.home / "made-by-stranger"
    for name, arguments, extra in (("without", [str(made)], {}), ("with", [], key)):
        program = [sys.executable, str(HERE / "foreign.py"), f"{host}:{port}", *arguments]
        done = subprocess.run(
            run.network.inside("alice", program),
            env={**environment(), **extra},
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        run.attacks[name] = f"{done.stdout.strip() or 'refused'}, {'made' if made.exists() else 'nothing'}"


def leaks(run: Seen, paths: list[Path]) -> list[str]:
    """Files that hold a line of a private key."""
    return [
        str(path)
        for path in paths
        if path.is_file() and any(line in path.read_bytes() for line in run.secrets)
    ]


def observe(home: Path, network: Network, why_not: str) -> Seen:
    """Runs three parties in a folder; they wait after their training and are looked at."""
    run = Seen(home, network, why_not)
    _set_up(run)
    _run(run)
    return run
