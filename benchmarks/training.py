"""Rounds of training beside upstream's: how long a round and a start take, and how both grow.

Every job is :mod:`benchmarks.training_job` in a process of its own, of upstream's environment or of this
one; the sides alternate. The first epoch of a job warms up and is not counted. ``docs/performance.md`` has
what was found and changed.

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
from benchmarks.jobs import Jobs, Report, Side, counted, summary
from benchmarks.upstream_environment import upstream_python
from experiments.data import load_images

SIDES: dict[str, dict[str, Any]] = {
    "upstream_secure": {"aggregator": "SecureAggregator", "strategy": "fed_avg_w"},
    "upstream_plain": {"aggregator": "PlainAggregator", "strategy": "fed_avg_w"},
    "fork": {"aggregator": "SecurePruneAggregator", "strategy": "fed_avg_w_prune"},
}
DENSE: dict[str, Any] = {"prune_end_rate": 1}
TO_A_TENTH: dict[str, Any] = {"prune_end_rate": 0.1, "prune_schedule": "cubic", "prune_end_epoch": 1}
PARTIES = (2, 4, 8, 16)
WEIGHTS = (10**4, 10**5, 10**6, 10**7)
TARGETS = {
    "round.ratio_vs_upstream_secure": 10.0,
    "start.ratio": 3.0,
    "prune_over_dense.convnet": 1.0,
    "prune_over_dense.cnn_aggregation": 0.2,
    "overhead.aggregate_freq_10": 0.25,
    "memory.growth_of_server": 0.05,
}
"""Ratios to upstream are to be at least, all others at most."""


def compare_rounds(jobs: Jobs, repeats: int, rounds: int, epochs: int) -> dict[str, Any]:
    """Round and start of all sides with the job of the experiment, one step a round.

    The median epoch leaves out those in which upstream's server stood still, because Ray had to start
    processes for its stateless calls. The start is that of a job of two rounds: from the start of its process
    until its only epoch is over.
    """
    reports = jobs.alternate(repeats, rounds=rounds, epochs=epochs)
    sides = {name: summary(done, rounds) for name, done in reports.items()}
    for name, done in jobs.alternate(repeats, rounds=2, epochs=1).items():
        sides[name]["start_seconds"] = [report["ended"] - report["began"] for report in done]
        sides[name]["start_median"] = statistics.median(sides[name]["start_seconds"])
    fork = sides["fork"]
    ratios = {
        f"ratio_vs_{side}": sides[side]["round_mean"] / fork["round_mean"] for side in sides if side != "fork"
    }
    medians = {
        f"ratio_of_medians_vs_{side}": sides[side]["round_median"] / fork["round_median"]
        for side in sides
        if side != "fork"
    }
    start = sides["upstream_secure"]["start_median"] / fork["start_median"]
    return {"round": {**ratios, **medians}, "start": {"ratio": start}, "sides": sides}


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
            options = DENSE if kind == "dense" else {"mask_scope": kind}
            seconds[kind] += counted(jobs.run("fork", rounds=750, epochs=10, options=options))
        for kind in kinds:
            options = DENSE if kind == "dense" else {**TO_A_TENTH, "mask_scope": kind}
            report = jobs.run(
                "fork", rounds=300, epochs=3, net="idle-FedAvgCNN", batch_size=1, options=options
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
    server = next((value for name, value in grown.items() if name.startswith("Adder")), None)
    return {"rounds": rounds, "growth": grown, "growth_of_server": server, "bytes": last}


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


def main() -> None:
    """Measures and writes the result and the plots."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one short run of each side, nothing else")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side (default 3)")
    parser.add_argument(
        "--upstream-python",
        type=Path,
        help="interpreter of an environment with plain upstream (default: .venv-upstream, made if missing)",
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks/results/latest.json", help="the result"
    )
    chosen = parser.parse_args()
    if chosen.repeats < 1:
        parser.error(f"--repeats {chosen.repeats} is not allowed: from 1 up")

    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images.npz"
        mnist = load_images()
        np.savez(images, x=mnist.x_train, y=mnist.y_train)
        upstream = chosen.upstream_python or upstream_python()
        sides = {
            name: Side(Path(sys.executable) if name == "fork" else upstream, settings=settings)
            for name, settings in SIDES.items()
        }
        jobs, slow = Jobs(images, sides), Jobs(images, sides, compiled=False)
        if chosen.quick:
            parts: list[Callable[[], Report]] = [lambda: compare_rounds(jobs, 1, rounds=100, epochs=2)]
        else:
            parts = [
                lambda: compare_rounds(jobs, chosen.repeats, rounds=200, epochs=3),
                lambda: {"prune_over_dense": compare_pruning(jobs, chosen.repeats)},
                # As many rounds an epoch as the experiment has.
                lambda: {"overhead": {"aggregate_freq_10": overhead(jobs, chosen.repeats, rounds=75)}},
                lambda: {"not_compiled": compare_rounds(slow, 1, rounds=200, epochs=3)},
                lambda: {"memory": memory(jobs, rounds=1100)},
                lambda: {"growth": growth(jobs, PARTIES, WEIGHTS)},
            ]
        result: Report = {"repeats": chosen.repeats, "quick": chosen.quick, "environment": describe()}
        for part in parts:
            result |= part()
            # After each part, so that what was measured for minutes outlives what comes next.
            write_json(chosen.out, {"targets": verdicts(result), **result})
    if "growth" in result:
        draw_growth(result["growth"], chosen.out.parent)
    for name, verdict in verdicts(result).items():
        outcome = "met" if verdict["met"] else "MISSED"
        print(f"{name}: {verdict['measured']} (target {verdict['target']}): {outcome}")
    print(f"round: {result['round']}")


if __name__ == "__main__":
    main()
