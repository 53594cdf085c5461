"""Inverting Gradients here and in breaching: images per second and successes on the same images and nets.

Both sides get the gradients of MNIST's first training images, each in a LeNet of its own, know the label,
and make as many moves of signed Adam from one random start with steps of the same size. Neither adds a total
variation, for breaching's takes images of three channels only. Both have one thread. LeakPro was to be a
third side: what the package index has under that name is empty.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.attack import cases
from benchmarks.environment import ROOT, describe, write_json
from benchmarks.jobs import run_script
from benchmarks.separate_environment import pinned, separate_python
from secretflow.ml.nn.fl.attacks import InvertingSettings, Observation, inverting_attack
from secretflow.ml.nn.fl.attacks.inverting import MOVES
from secretflow.ml.nn.fl.audit.scores import SUCCESS_MSE, mean_squared_error

RESULTS = ROOT / "benchmarks" / "results" / "attack_peers.json"
BREACHING = "breaching==0.1.2"
NOT_MEASURED = {"LeakPro": "`pip install leakpro` brings version 0.0.1, a module without content"}


def attack_here(
    observations: Sequence[Observation], labels: torch.Tensor, settings: InvertingSettings
) -> tuple[list[torch.Tensor], float]:
    """The images found, and the seconds that it took."""
    started = time.perf_counter()
    found = inverting_attack(observations, settings, labels=labels)
    return [result.images for result in found], time.perf_counter() - started


def attack_there(
    observations: Sequence[Observation], labels: torch.Tensor, settings: InvertingSettings
) -> tuple[list[torch.Tensor], float, dict[str, str]]:
    """The images that breaching finds, the seconds that it took, and what it ran with."""
    python = separate_python(ROOT / ".venv-breaching", [BREACHING, *pinned("torch", "numpy")])
    with tempfile.TemporaryDirectory() as folder:
        names = [name for name, _ in observations[0].model().named_parameters()]
        attacked = [
            {
                "weights": [seen.weights[name].detach() for name in names],
                "gradients": [gradient.detach() for gradient in seen.gradients],
                "label": label,
            }
            for seen, label in zip(observations, labels, strict=True)
        ]
        job = {"cases": f"{folder}/cases.pt", "found": f"{folder}/found.pt"}
        torch.save(attacked, job["cases"])
        moves = {"moves": MOVES * settings.iterations, "step": settings.learning_rate}
        script = Path(__file__).parent / "peers" / "breaching_job.py"
        report = run_script("breaching", python, script, {**job, **moves})
        images = torch.load(job["found"])
    return list(images.split(1)), sum(report["seconds"]), report["packages"]


def row(found: Sequence[torch.Tensor], truth: Sequence[torch.Tensor], seconds: float) -> dict[str, Any]:
    """Successes and speed."""
    errors = [mean_squared_error(image, true) for image, true in zip(found, truth, strict=True)]
    return {
        "successes": sum(error < SUCCESS_MSE for error in errors),
        "median_mse": float(torch.tensor(errors).median()),
        "seconds": round(seconds, 2),
        "images_per_second": round(len(found) / seconds, 4),
    }


def measure(images: int, iterations: int) -> dict[str, Any]:
    """Attacks the same images on both sides.

    Args:
        images: how many.
        iterations: of 20 moves each.
    """
    torch.set_num_threads(1)
    observations, truth = cases(images)
    labels = torch.stack([label_of(seen) for seen in observations])
    settings = InvertingSettings(iterations=iterations, lanes=images, tv_weight=0.0)
    found, seconds = attack_here(observations, labels, settings)
    theirs, their_seconds, packages = attack_there(observations, labels, settings)
    ours, peers = row(found, truth, seconds), row(theirs, truth, their_seconds)
    ratio = ours["images_per_second"] / peers["images_per_second"]
    return {
        "images": images,
        "moves": MOVES * iterations,
        "rows": {"this project": ours, "breaching": {**peers, "packages": packages}},
        "ratio": round(ratio, 2),
        "not_measured": NOT_MEASURED,
    }


def label_of(seen: Observation) -> torch.Tensor:
    """The label, which the gradient of the last bias shows: the only negative number in it."""
    return seen.gradients[-1].argmin().reshape(1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes ``benchmarks/results/attack_peers.json``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--images", type=int, default=16, help="to attack, at least 1")
    parser.add_argument("--iterations", type=int, default=60, help="of 20 moves each, at least 1")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the result")
    chosen = parser.parse_args(arguments)
    for name in ("images", "iterations"):
        if getattr(chosen, name) < 1:
            parser.error(f"argument --{name}: must be at least 1, got {getattr(chosen, name)}")
    result = measure(chosen.images, chosen.iterations)
    write_json(chosen.out, {**describe(), **result})
    for name, measured in result["rows"].items():
        print(f"{name}: {measured}")


if __name__ == "__main__":
    main()
