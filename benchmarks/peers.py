"""What one secure round costs here and with others: the same net, rows and machine.

FedAvg's CNN of 1.66 million weights, four parties, MNIST, Adam, one batch of 32 rows a round. Every job is a
process of its own, the sides alternate, and the first epoch is not counted; Flower's sides do not wait for
its polling (:mod:`benchmarks.flower` says what is the same and what differs). Of those that were not measured
the result says why not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environment import ROOT, describe, write_json
from benchmarks.flower import DIFFERS, POLL, SAME
from benchmarks.flower_environment import FLOWER, flower_python
from benchmarks.jobs import Jobs, Report, Side, summary
from benchmarks.rounds import SIDES
from benchmarks.training import DENSE, TO_A_TENTH
from experiments.data import load_images

RESULTS = ROOT / "benchmarks" / "results" / "peers.json"
NET, PARTIES, ROUNDS, EPOCHS = "FedAvgCNN", 4, 4, 3
WEIGHTS = 1_663_370
NOT_MEASURED: dict[str, str] = {}
"""Of those that were looked at and not measured, why."""


def row(reports: list[Report]) -> dict[str, Any]:
    """Seconds and bytes of one side."""
    figures = summary(reports, ROUNDS)
    last = reports[-1]
    if "bytes" in last:
        up, down = last["bytes"]["up"], last["bytes"]["down"]
    else:  # the sum that comes back has as many elements as what went up
        up = down = last["history"]["payload_bytes"][-1] / ROUNDS / PARTIES
    return {
        "seconds_per_round": figures["round_median"],
        "bytes_up_of_a_party": up,
        "bytes_down_of_a_party": down,
        "bytes_up_per_weight": up / WEIGHTS,
        "accuracy": figures["metrics"]["multiclassaccuracy"],
        "secagg": last.get("secagg"),
    }


def main(arguments: list[str] | None = None) -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=2, help="runs of each side (default 2)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the result")
    chosen = parser.parse_args(arguments)
    flower = Side(flower_python(), ROOT / "benchmarks/flower_job.py", {"poll": POLL})
    fork = Side(Path(sys.executable), settings=SIDES["fork"])
    sides = {
        "flower_clear": flower,
        "flower_secagg": flower.with_settings(secure=True),
        "fork_dense": fork.with_settings(options=DENSE),
        "fork_at_density_0.1": fork.with_settings(options={**TO_A_TENTH, "mask_scope": "global"}),
    }
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images.npz"
        mnist = load_images()
        np.savez(images, x=mnist.x_train, y=mnist.y_train)
        reports = Jobs(images, sides).alternate(
            chosen.repeats, net=NET, parties=PARTIES, rounds=ROUNDS, epochs=EPOCHS, learning_rate=1e-3
        )
    result: dict[str, Any] = {
        "net": NET,
        "weights": WEIGHTS,
        "parties": PARTIES,
        "environment": describe(),
        "requirement": FLOWER,
        "same": SAME,
        "differs": DIFFERS,
        "sides": {name: row(done) for name, done in reports.items()},
        "not_measured": NOT_MEASURED,
    }
    write_json(chosen.out, result)
    for name, figures in result["sides"].items():
        print(
            f"{name}: {figures['seconds_per_round']:.3f} s a round, "
            f"{figures['bytes_up_of_a_party'] / 1e6:.2f} MB up, "
            f"{figures['bytes_down_of_a_party'] / 1e6:.2f} MB down"
        )


if __name__ == "__main__":
    main()
