"""One side of :mod:`benchmarks.attack_peers`: breaching's Inverting Gradients, in its own environment."""

from __future__ import annotations

import json
import logging
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import breaching
import torch
from omegaconf import OmegaConf
from torch import nn


def lenet() -> nn.Module:
    """The attacked net, whose parameters come in this order."""
    sigmoid = nn.Sigmoid
    return nn.Sequential(
        *(nn.Conv2d(1, 12, 5, stride=2, padding=2), sigmoid()),
        *(nn.Conv2d(12, 12, 5, stride=2, padding=2), sigmoid()),
        *(nn.Conv2d(12, 12, 5, stride=1, padding=2), sigmoid()),
        *(nn.Flatten(), nn.Linear(588, 10)),
    )


class Images:
    """What breaching is told of the rows."""

    shape = (1, 28, 28)
    classes = 10
    modality = "vision"
    task = "classification"
    mean, std = (0.0,), (1.0,)


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Attacks each case; see :func:`benchmarks.attack_peers.measure`."""
    logging.disable()
    torch.set_num_threads(1)
    cases = torch.load(job["cases"])
    overrides = [f"optim.max_iterations={job['moves']}", "optim.callback=1000000"]
    overrides += [f"optim.step_size={job['step']}", "regularization.total_variation.scale=0"]
    cfg = breaching.get_attack_config("invertinggradients", overrides)
    OmegaConf.set_struct(cfg, False)
    net, setup = lenet(), {"device": torch.device("cpu"), "dtype": torch.float}
    torch.manual_seed(0)
    found, seconds = [], []
    for case in cases:
        attacker = breaching.attacks.prepare_attack(net, nn.CrossEntropyLoss(), cfg, setup)
        payload = {"parameters": case["weights"], "buffers": [], "metadata": Images()}
        shared = {
            "gradients": case["gradients"],
            "buffers": None,
            "metadata": {"num_data_points": 1, "labels": case["label"], "local_hyperparams": None},
        }
        started = time.perf_counter()
        data, _ = attacker.reconstruct([payload], [shared], {})
        seconds.append(time.perf_counter() - started)
        found.append(data["data"].detach())
    torch.save(torch.cat(found), job["found"])
    return {"seconds": seconds, "packages": {name: version(name) for name in ("breaching", "torch")}}


if __name__ == "__main__":
    report = measure(json.loads(sys.argv[1]))
    Path(sys.argv[2]).write_text(json.dumps(report), encoding="utf-8")
