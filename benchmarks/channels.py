"""The channel from party to server beside what could be bought: ``multiprocessing.connection`` and gRPC.

A message goes to another process and comes back, as a party's does in a round; each side has a process of its
own, and the sides alternate. The messages are those of a small net, and of the evaluation's CNN at a tenth
living and dense. A round of each is trained in the same run: the channel is kept only as long as it saves
at least a tenth of the round of one of them over each of the others.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.channel_sides import CHANNELS, Echo
from benchmarks.environment import ROOT, describe, write_json
from benchmarks.internals import Message
from benchmarks.jobs import Jobs, Side, counted
from benchmarks.rounds import SIDES
from benchmarks.training import DENSE, TO_A_TENTH
from experiments.data import load_images

CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "convnet": (1_960, {"rounds": 200, "epochs": 3}),
    "cnn_a_tenth": (166_300, {"net": "FedAvgCNN", "rounds": 8, "epochs": 4, "options": TO_A_TENTH}),
    "cnn_dense": (1_663_370, {"net": "FedAvgCNN", "rounds": 8, "epochs": 3, "options": DENSE}),
}
"""Ring elements of 4 bytes that a party uploads, and the job whose round that belongs to."""

LEAST_SAVED = 0.1
"""Of a round, for the hand-written channel to be kept."""


def message_of(elements: int) -> Message:
    """A message as a party sends it: ring elements, and no integers."""
    ring = np.random.default_rng(elements).integers(1 << 32, size=elements, dtype=np.uint32)
    encoding = "average ring=32 fxp=20 exact=True denominators=0 session=" + 64 * "0"
    return Message(call=1, layout=64 * "0", encoding=encoding, body=[ring, np.empty(0, "<u8")])


def seconds_of_echo(echo: Echo, message: Message) -> float:
    """How long a message is away.

    Raises:
        RuntimeError: what comes back is another one.
    """
    began = time.perf_counter()
    back = echo(message)
    taken = time.perf_counter() - began
    same = back["encoding"] == message["encoding"] and np.array_equal(back["body"][0], message["body"][0])
    if not same:
        raise RuntimeError("the echo must be the message that was sent, got another one")
    return taken


def measure(elements: int, repeats: int) -> dict[str, float]:
    """Median seconds of an echo of each channel; three before the clock starts are not counted."""
    message = message_of(elements)
    taken: dict[str, list[float]] = {name: [] for name in CHANNELS}
    with ExitStack() as running:
        echoes = {name: running.enter_context(channel()) for name, channel in CHANNELS.items()}
        for _ in range(repeats + 3):
            for name, echo in echoes.items():
                taken[name].append(seconds_of_echo(echo, message))
    return {name: statistics.median(values[3:]) for name, values in taken.items()}


def saved(echoes: dict[str, float], round_seconds: float) -> dict[str, float]:
    """Of a round, what the hand-written channel saves over each other one, if a round waits for one echo.

    The two parties' echoes overlap but for the server's work, so a round waits for one to two of them.
    """
    own = echoes["hand_written"]
    return {name: (other - own) / round_seconds for name, other in echoes.items() if name != "hand_written"}


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=100, help="echoes of each channel (default 100)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/channels.json")
    chosen = parser.parse_args()
    if chosen.repeats < 1:
        parser.error(f"argument --repeats: must be at least 1, got {chosen.repeats}")

    environment = describe()
    cases: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images.npz"
        mnist = load_images()
        np.savez(images, x=mnist.x_train, y=mnist.y_train)
        jobs = Jobs(images, {"fork": Side(Path(sys.executable), settings=SIDES["fork"])})
        for name, (elements, job) in CASES.items():
            echoes = measure(elements, chosen.repeats)
            round_seconds = counted(jobs.run("fork", **job))[-1] / job["rounds"]
            cases[name] = {
                "bytes": 4 * elements,
                "echo_seconds": echoes,
                "round_seconds": round_seconds,
                "saved_of_a_round": saved(echoes, round_seconds),
            }
    least = {name: min(case["saved_of_a_round"].values()) for name, case in cases.items()}
    keep = max(least.values()) >= LEAST_SAVED
    verdict = {"least_saved": least, "target": LEAST_SAVED, "keep_hand_written": keep}
    write_json(chosen.out, {**verdict, "cases": cases, "repeats": chosen.repeats, "environment": environment})
    for name, case in cases.items():
        times = ", ".join(f"{side} {1e3 * value:.3f}" for side, value in case["echo_seconds"].items())
        shares = ", ".join(f"{side} {value:.1%}" for side, value in case["saved_of_a_round"].items())
        print(f"{name}, {case['bytes']} bytes: echo {times} ms; a round {1e3 * case['round_seconds']:.2f} ms")
        print(f"    saved of a round: {shares}")
    print(verdict)


if __name__ == "__main__":
    main()
