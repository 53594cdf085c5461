"""What it costs that a call may end with those who are there: rounds of 32 parties, all in this process.

A round is the parties' and the server's work with nothing of the network's: encoding, padding, adding, taking
pads off, opening. The sides alternate. In a round that loses a third the lost ones have uploaded nothing, and
the others learn of it in that round, so all pads shared with them are taken off. :mod:`.dropouts_link` adds
the network. The random schedules are those of ``make test-faults``.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.dropouts_link import measure_link
from benchmarks.environment import ROOT, describe, write_json
from benchmarks.internals import Survivors, average_into, plain_clients

RESULTS = ROOT / "benchmarks" / "results" / "dropouts.json"
PARTIES = 32
SCHEDULES = 1000
PARTS = ("rounds", "link", "schedules")
_TESTS = "tests/security/aggregation/dropouts"
_SUITES = (
    f"{_TESTS}/test_schedules.py",
    f"{_TESTS}/test_coming_back.py",
    f"{_TESTS}/test_active_server.py",
)
"""Each with one test of as many runs."""


def seconds_of_plain_round(numbers: list[list[np.ndarray]]) -> Callable[[], float]:
    """A round without the option: all upload, the server adds, all open."""
    clients, server = plain_clients(PARTIES)
    opened = [list(map(np.empty_like, own)) for own in numbers]

    def one() -> float:
        began = time.perf_counter()
        steps = [average_into(*party) for party in zip(clients, opened, numbers, strict=True)]
        total = server.add(*[next(step) for step in steps])
        for step in steps:
            with suppress(StopIteration):
                step.send(total)
        return time.perf_counter() - began

    return one


def seconds_of_surviving_round(numbers: list[list[np.ndarray]]) -> Callable[[], float]:
    """A round with the option, in which nobody is lost."""
    survivors = Survivors(PARTIES, numbers)

    def one() -> float:
        began = time.perf_counter()
        survivors.round(lost=0)
        return time.perf_counter() - began

    return one


def seconds_of_losing_round(numbers: list[list[np.ndarray]]) -> Callable[[], float]:
    """The second round of a session, in which a third of the parties is lost before the upload."""

    def one() -> float:
        survivors = Survivors(PARTIES, numbers)
        survivors.round(lost=0)
        change(numbers)
        began = time.perf_counter()
        survivors.round(lost=PARTIES // 3)
        return time.perf_counter() - began

    return one


def change(numbers: list[list[np.ndarray]]) -> None:
    """Has every party have other numbers, as after a round of training."""
    for own in numbers:
        own[0][0] += 1


def measure(size: int, repeats: int) -> dict[str, float]:
    """Median seconds of a round of each side; the first round of each is not counted."""
    rng = np.random.default_rng(0)
    numbers = [[rng.normal(size=size).astype(np.float32)] for _ in range(PARTIES)]
    sides = {
        "plain": seconds_of_plain_round(numbers),
        "none_lost": seconds_of_surviving_round(numbers),
        "third_lost": seconds_of_losing_round(numbers),
    }
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats + 1):
        for name, one in sides.items():
            change(numbers)
            taken[name].append(one())
    return {name: statistics.median(values[1:]) for name, values in taken.items()}


def run_schedules() -> dict[str, int]:
    """Runs the random schedules and the servers that lie; the first of a suite that fails ends it."""
    found = {"run": 0, "hung": 0, "wrong": 0}
    for suite in _SUITES:
        command = [sys.executable, "-m", "pytest", "-q", "-m", "faults", suite]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            found["run"] += SCHEDULES
        else:
            found["hung" if "a run without an end" in done.stdout else "wrong"] += 1
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=200_000, help="floats that a party uploads")
    parser.add_argument("--repeats", type=int, default=45, help="rounds of each side that are counted")
    parser.add_argument("--link-repeats", type=int, default=7, help="the same, over a link")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure; the rest stays in the file"
    )
    options = parser.parse_args(arguments)
    logging.disable(logging.INFO)
    results: dict[str, Any] = {}
    if set(options.parts) < set(PARTS):
        results = json.loads(options.out.read_text(encoding="utf-8"))
    results.update(environment=describe(), parties=PARTIES, floats=options.size)
    if "rounds" in options.parts:
        seconds = measure(options.size, options.repeats)
        results.update(
            seconds=seconds,
            none_lost_over_plain=seconds["none_lost"] / seconds["plain"],
            third_lost_over_plain=seconds["third_lost"] / seconds["plain"],
        )
    if "link" in options.parts:
        results["link"] = measure_link(options.size, options.link_repeats)
    if "schedules" in options.parts:
        results["schedules"] = run_schedules()
    write_json(options.out, results)
    for name in ("none_lost_over_plain", "third_lost_over_plain", "link", "schedules"):
        print(name, results[name])


if __name__ == "__main__":
    main()
