"""Training beside upstream's: how long a round and a start take, what pruning saves, and how both grow.

Every job is a process of its own, :mod:`benchmarks.training_job` in upstream's environment or in this one
unless :mod:`benchmarks.rounds` says otherwise; the sides alternate. The first epoch of a job warms up and is
not counted. ``docs/performance.md`` has what was found and changed.

Packages are compiled on both sides, as pip installs them. Where they are not (uv does not unless it is told
to) and Python may not write what it compiles (many containers), every process compiles all that it imports:
one more run of each side measures that.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environment import ROOT, describe, write_json
from benchmarks.growth_plot import draw_growth, exponent
from benchmarks.internals import SERVER_ACTOR
from benchmarks.jobs import Jobs, Report, counted
from benchmarks.rounds import SIDES, all_sides, compare_large_starts, compare_rounds, compare_starts
from benchmarks.upstream_environment import upstream_python
from experiments.data import load_images

DENSE: dict[str, Any] = {"prune_end_rate": 1, "prune_preset": "lottery"}
TO_A_TENTH: dict[str, Any] = {
    "prune_end_rate": 0.1,
    "prune_preset": "lottery",
    "prune_schedule": "cubic",
    "prune_end_epoch": 1,
}
PARTIES = (2, 4, 8, 16)
WEIGHTS = (10**4, 10**5, 10**6, 10**7)
TARGETS = {
    "round.ratio_vs_upstream_secure": 10.0,
    "round.over_arithmetic": 1.6,
    "main_job.over_benchmark_round": 1.15,
    "start.ratio": 3.0,
    "start.large_model_over_upstream": 1.2,
    "prune_over_dense.convnet": 1.0,
    "prune_over_dense.cnn_aggregation": 0.2,
    "overhead.aggregate_freq_10": 0.25,
    "memory.growth_of_server": 0.05,
}
"""What has ``ratio`` in its name is to be at least that, all others at most."""


def compare_pruning(jobs: Jobs, repeats: int) -> dict[str, float]:
    """Pruned over dense training with the fork: whole epochs of a small net, the aggregation of a large one.

    Of the small net the median epoch of all runs counts, each as long as the experiment's and with the step
    of pruning that ends it: nine of each run, so that a burst of something else spoils few. The large net's
    aggregation is all of a round but the training, whose steps do nothing: sealing, sending, adding and
    opening, in the processes of parties and server. Sealing and opening at a party are told by themselves,
    too.
    """
    kinds = ("dense", "local", "global")
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    rounds: dict[str, list[float]] = {kind: [] for kind in kinds}
    sealing: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(repeats):
        for kind in kinds:
            options = DENSE if kind == "dense" else {"prune_preset": "lottery", "mask_scope": kind}
            seconds[kind] += counted(jobs.run("fork", rounds=750, epochs=10, options=options))
        for kind in kinds:
            options = DENSE if kind == "dense" else {**TO_A_TENTH, "mask_scope": kind}
            report = jobs.run(
                "fork", rounds=300, epochs=3, net="idle-FedAvgCNN", batch_sizes=[1], options=options
            )
            # In the second epoch masks may still be agreed on; the third has none of it.
            rounds[kind].append(report["epochs"][-1])
            sealing[kind].append(report["history"]["aggregate_seconds"][-1])
    ratios: dict[str, float] = {}
    for name, measured in (("convnet", seconds), ("cnn_aggregation", rounds), ("cnn_sealing", sealing)):
        dense, local, same = (statistics.median(measured[kind]) for kind in kinds)
        ratios |= {name: local / dense, f"{name}_global_masks": same / dense}
    return ratios


def overhead(jobs: Jobs, repeats: int, rounds: int) -> float:
    """Of ten local steps a round: seconds of an epoch that are not training, over those that are."""
    shares = []
    for _ in range(repeats):
        report = jobs.run("fork", rounds=rounds, epochs=3, aggregate_freq=10)
        training = report["history"]["train_seconds"][1:]
        shares += [whole / train - 1 for whole, train in zip(counted(report), training, strict=True)]
    return statistics.median(shares)


def growth(jobs: Jobs, parties: Sequence[int], weights: Sequence[int]) -> dict[str, Any]:
    """Seconds of a round, and of sealing and opening at one party, over parties and over weights.

    In one process, so that the number of cores does not matter: the parties work one after the other.
    """

    def row(**job: Any) -> dict[str, float]:
        rounds = 5
        report = jobs.run("fork", rounds=rounds, epochs=3, one_process=True, options=DENSE, **job)
        sealing = statistics.median(report["history"]["aggregate_seconds"][1:]) / rounds
        return {"round_seconds": statistics.median(counted(report)) / rounds, "sealing_seconds": sealing}

    series = {
        "parties": [{"parties": count, **row(parties=count, net="wide-100000")} for count in parties],
        "weights": [{"weights": count, **row(net=f"wide-{count}", learning_rate=1e-3)} for count in weights],
    }
    exponents = {
        f"exponent_of_{name}": {
            column: exponent(rows, name, column) for column in ("round_seconds", "sealing_seconds")
        }
        for name, rows in series.items()
    }
    return {**series, **exponents}


def memory(jobs: Jobs, rounds: int) -> dict[str, Any]:
    """Growth of each process's resident memory from its 100th round to its last, as a part of what it was."""
    report = jobs.run("fork", rounds=100, epochs=rounds // 100, options=DENSE)
    first, last = report["memory"][0], report["memory"][-1]
    grown = {name: last[name] / size - 1 for name, size in first.items() if name in last}
    server = [value for name, value in grown.items() if name.startswith(SERVER_ACTOR)]
    if len(server) != 1:
        raise RuntimeError(f"one process of the server must be named {SERVER_ACTOR}, got {sorted(grown)}")
    return {"rounds": rounds, "growth": grown, "growth_of_server": server[0], "bytes": last}


def verdicts(result: Report) -> dict[str, dict[str, Any]]:
    """Each target beside what was measured."""
    found = {}
    for name, target in TARGETS.items():
        part, key = name.split(".", 1)
        value = result.get(part, {}).get(key)
        if value is not None:
            met = value >= target if "ratio" in key else value <= target
            found[name] = {"measured": round(value, 3), "target": target, "met": met}
    return found


def judged(result: Report) -> Report:
    """Each target beside what was measured, and the names of those that were missed."""
    found = verdicts(result)
    return {"targets": found, "missed": [name for name, verdict in found.items() if not verdict["met"]]}


def starts(jobs: Jobs, repeats: int, names: Sequence[str]) -> Report:
    """Starts of a small job and of a large model."""
    return {"start": {**compare_starts(jobs, repeats, names), **compare_large_starts(jobs, repeats)}}


def not_compiled(jobs: Jobs) -> Report:
    """One run of each side where every process compiles what it imports."""
    return {**compare_rounds(jobs, 1, rounds=200, epochs=3), "start": compare_starts(jobs, 1, tuple(SIDES))}


def quick_parts(jobs: Jobs, repeats: int) -> list[Callable[[], Report]]:
    """Rounds and starts, in a few minutes."""
    return [
        lambda: compare_rounds(jobs, repeats, rounds=100, epochs=2),
        lambda: starts(jobs, repeats, ("upstream_secure", "fork")),
    ]


def all_parts(jobs: Jobs, repeats: int) -> list[Callable[[], Report]]:
    """All that is measured where packages are compiled."""
    return [
        lambda: compare_rounds(jobs, repeats, rounds=200, epochs=3),
        lambda: starts(jobs, repeats, tuple(SIDES)),
        lambda: {"prune_over_dense": compare_pruning(jobs, repeats)},
        # As many rounds an epoch as the experiment has.
        lambda: {"overhead": {"aggregate_freq_10": overhead(jobs, repeats, rounds=75)}},
        lambda: {"memory": memory(jobs, rounds=1100)},
        lambda: {"growth": growth(jobs, PARTIES, WEIGHTS)},
    ]


def main() -> None:
    """Measures and writes the result and the plots."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="rounds and starts only, with fewer rounds and without plain upstream",
    )
    parser.add_argument("--repeats", type=int, help="runs of each side (default 3, and 1 with --quick)")
    parser.add_argument(
        "--upstream-python",
        type=Path,
        help="interpreter of an environment with plain upstream (default: .venv-upstream, made if missing)",
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks/results/latest.json", help="the result"
    )
    chosen = parser.parse_args()
    repeats = (1 if chosen.quick else 3) if chosen.repeats is None else chosen.repeats
    if repeats < 1:
        parser.error(f"argument --repeats: must be at least 1, got {repeats}")

    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images.npz"
        mnist = load_images()
        np.savez(images, x=mnist.x_train, y=mnist.y_train)
        upstream = chosen.upstream_python or upstream_python()
        sides = all_sides(Path(sys.executable), upstream, plain=not chosen.quick)
        jobs = Jobs(images, sides)
        parts = quick_parts(jobs, repeats) if chosen.quick else all_parts(jobs, repeats)
        if not chosen.quick:
            training = {name: sides[name] for name in SIDES}
            parts.append(lambda: {"not_compiled": not_compiled(Jobs(images, training, compiled=False))})
        result: Report = {"repeats": repeats, "quick": chosen.quick, "environment": describe()}
        for part in parts:
            result |= part()
            # After each part, so that what was measured for minutes outlives what comes next.
            write_json(chosen.out, {**judged(result), **result})
    if "growth" in result:
        draw_growth(result["growth"], chosen.out.parent)
    for name, verdict in verdicts(result).items():
        outcome = "met" if verdict["met"] else "MISSED"
        print(f"{name}: {verdict['measured']} (target {verdict['target']}): {outcome}")
    print(f"round: {result['round']}")
    print(f"main job: {result['main_job']}")


if __name__ == "__main__":
    main()
