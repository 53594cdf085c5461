"""Rounds of training beside Flower's simulation, in the clear and with its SecAgg+.

Every job is a process of its own: :mod:`benchmarks.flower_job` in Flower's environment,
:mod:`benchmarks.training_job` in this one; the sides alternate. The first epoch of a job warms up and is not
counted. The fork runs twice: dense, which is the same mathematics as Flower's, so the same metrics at the end
show that the work was the same, and pruned, as in ``make bench``. Flower runs as it is and, with ``eager`` in
the name, without the waits of its simulation, which are most of its rounds.

:data:`SAME` says what it took to make the work the same, :data:`DIFFERS` what still is not; both are in the
result. ``docs/performance.md`` has what was found.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.environment import ROOT, describe, write_json
from benchmarks.flower_environment import FLOWER, flower_python
from benchmarks.jobs import Jobs, Report, Side, summary
from benchmarks.rounds import SIDES
from benchmarks.training import DENSE
from experiments.data import load_images

EPOCHS = 3
POLL = 0.001
"""Seconds between two looks for messages of the eager sides, in place of Flower's 0.1."""
SAME = {
    "net": "ConvNet from the same file, drawn with the same seed, so all sides start from the same weights",
    "data": "the same rows for each party; a round takes the next 32 in their order, an epoch all of them",
    "optimizer": "Adam's moments stay with a party: the fork's worker keeps them, Flower's party has them in "
    "its Context.state, which travels with every message",
    "metrics": "accuracy and precision of each training batch at the party, averaged over the last epoch; "
    "nothing else is evaluated: fraction_evaluate=0 and no validation data",
    "actors": "one Ray actor for each party, one thread of torch in each; Flower's need one core each",
    "process": "the rows are read once by each process, torch is imported before rounds are counted",
    "rounds": "a mean over whole epochs: in Flower from one average to the next at the server, in the fork "
    "from the epoch's begin until all parties have taken the last average up",
}
DIFFERS = {
    "waiting": "Flower's simulation looks for messages, and its server for answers, every 0.1 s: at least "
    "one such wait for a round in the clear, four for the four exchanges of SecAgg+. The eager sides look "
    f"every {POLL} s, for which Flower's code is patched, and show what its work takes by itself",
    "processes": "the fork's server is a Ray actor of its own, Flower's runs in a thread of the driver",
    "net": "Flower's parties build net and Adam anew for each message, because any actor may serve any party",
    "interface": "Flower's client and strategy classes with a workflow, which is where it has SecAgg+; its "
    "newer message interface is not measured",
    "keys": "SecAgg+ agrees on new keys and shares in each round and stands parties that drop out, as long "
    "as enough shares are left (here: all); the fork agrees on keys once and needs all parties",
    "ray": "each side brings the version of Ray that it is built for",
}


def compare(jobs: Jobs, repeats: int, rounds: int) -> Report:
    """Round of all sides, how many times as fast as Flower the fork is, and what Flower was."""
    reports = jobs.alternate(repeats, rounds=rounds, epochs=EPOCHS)
    sides = {name: summary(done, rounds) for name, done in reports.items()}
    secure = reports["flower_secagg"][0]
    return {
        "round": ratios(sides, "round_mean"),
        "flower": {"versions": secure["versions"], "secagg": secure["secagg"]},
        "sides": sides,
    }


def ratios(sides: Report, column: str) -> dict[str, float]:
    """Each side of Flower's over each of the fork's."""
    return {
        f"{flower}_over_{fork}": sides[flower][column] / sides[fork][column]
        for flower in sides
        if flower.startswith("flower")
        for fork in sides
        if fork.startswith("fork")
    }


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side (default 3)")
    parser.add_argument(
        "--rounds", type=int, default=60, help=f"rounds of each of {EPOCHS} epochs (default 60)"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks/results/flower.json", help="the result"
    )
    chosen = parser.parse_args()
    for name, least in (("repeats", 1), ("rounds", 2)):
        if getattr(chosen, name) < least:
            parser.error(f"argument --{name}: must be at least {least}, got {getattr(chosen, name)}")

    flower = Side(flower_python(), ROOT / "benchmarks/flower_job.py")
    fork = Side(Path(sys.executable), settings=SIDES["fork"])
    sides = {
        "flower_plain": flower,
        "flower_secagg": flower.with_settings(secure=True),
        "flower_plain_eager": flower.with_settings(poll=POLL),
        "flower_secagg_eager": flower.with_settings(secure=True, poll=POLL),
        "fork_dense": fork.with_settings(options=DENSE),
        "fork": fork,
    }
    how = {"repeats": chosen.repeats, "rounds": chosen.rounds, "epochs": EPOCHS, "environment": describe()}
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images.npz"
        mnist = load_images()
        np.savez(images, x=mnist.x_train, y=mnist.y_train)
        result = compare(Jobs(images, sides), chosen.repeats, chosen.rounds)
    write_json(chosen.out, {**how, "requirement": FLOWER, "same": SAME, "differs": DIFFERS, **result})
    for name, side in result["sides"].items():
        milliseconds, accuracy = 1000 * side["round_mean"], side["metrics"]["multiclassaccuracy"]
        print(f"{name}: {milliseconds:.1f} ms a round, {accuracy:.4f}")
    print(f"round: {result['round']}")


if __name__ == "__main__":
    main()
