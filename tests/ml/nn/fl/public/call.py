"""A public callable with wrong values of its arguments, and what right ones are made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from secretflow.ml.nn import FLModel
from secretflow.ml.nn.fl import attacks
from secretflow.ml.nn.fl.audit import views
from secretflow.ml.nn.fl.worker.capture_files import Capture

from ..bring import CLASSES, FEATURES, build, linear, spread, table

COUNT = [0, -1, 1.5, "2", True]  # for what must be an integer of at least 1
NUMBER = [-1.0, math.nan, math.inf, "1"]
FLAG = [2, "yes", None]
TEXT = [None, 3, ""]
TENSOR = [None, [1.0]]


@dataclass(frozen=True)
class Call:
    """A public callable.

    Attributes:
        function: the callable.
        right: gives right arguments by name.
        wrong: of each argument wrong values.
        any: arguments for which nothing is wrong, or whose type is checked elsewhere.
        called: what the sentence calls an argument, where that is not its name.
    """

    function: Callable[..., Any]
    right: Callable[[SimpleNamespace, Path], dict[str, Any]]
    wrong: dict[str, list[Any]]
    any: tuple[str, ...] = ()
    called: dict[str, str] = field(default_factory=dict)


def observation(**change: Any) -> attacks.Observation:
    torch.manual_seed(0)
    net = linear()
    weights = dict(net.state_dict())
    parts: dict[str, Any] = {
        "image_shape": (FEATURES,),
        "classes": CLASSES,
        "gradients": tuple(torch.randn_like(value) for value in weights.values()),
        "model": linear,
        "weights": weights,
    }
    return attacks.Observation(**{**parts, **change})


def two_layers() -> attacks.Observation:
    """The average of one row in a net of two layers."""

    def net() -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, 7), nn.ReLU(), nn.Linear(7, CLASSES))

    weights = dict(net().state_dict())
    return observation(
        model=net, weights=weights, gradients=tuple(torch.randn_like(value) for value in weights.values())
    )


def public_rows() -> attacks.PublicRows:
    return attacks.PublicRows(torch.rand(4, FEATURES), torch.zeros(4).long())


def fields_of_observation() -> dict[str, Any]:
    known = observation()
    return {name: getattr(known, name) for name in known.__dataclass_fields__}


def party() -> views.PartyStep:
    return views.PartyStep(
        linear, dict(linear().state_dict()), torch.randn(2, FEATURES), torch.tensor([0, 1]), {}
    )


def fields_of_party() -> dict[str, Any]:
    one = party()
    return {name: getattr(one, name) for name in one.__dataclass_fields__}


def parts_of_capture(folder: Path) -> dict[str, Any]:
    return {
        "directory": str(folder / "capture"),
        "x": torch.zeros(2, 2),
        "y": torch.zeros(2),
        "weights": {"w": torch.eye(2)},
        "mask": {"w": torch.eye(2)},
        "gradients": [torch.ones(2, 2)],
        "party": "alice",
        "round_number": 0,
        "density": 0.5,
        "optimizer": None,
        "evaluating": (),
    }


def capture(folder: Path) -> Capture:
    return Capture(**{k: v for k, v in parts_of_capture(folder).items() if k != "directory"})


def own_csv(folder: Path) -> Path:
    path = folder / "patients.csv"
    path.write_text("age,died\n" + "".join(f"{40 + row},{row % 2}\n" for row in range(8)))
    return path


def fit_of(devices: SimpleNamespace) -> dict[str, Any]:
    x, y = table(8)
    return {"x": spread(devices, (4, 4), x), "y": spread(devices, (4, 4), y), "batch_size": 2}


def own_model(devices: SimpleNamespace) -> FLModel:
    return build(devices, linear, nn.CrossEntropyLoss)


def images(**change: Any) -> dict[str, Any]:
    return {"images": torch.rand(2, 1, 12, 12), "truth": torch.rand(2, 1, 12, 12), **change}


SEARCH = {
    "iterations": COUNT,
    "restarts": COUNT,
    "patience": COUNT,
    "record_every": COUNT,
    "lanes": COUNT,
    "loss_reached": NUMBER,
    "seed": [-1, 0.5, "1"],
}
PRUNING = {
    "prune_end_rate": [0, 1.1, math.nan, "0.1", True],
    "prune_percent": [0, 100, "5"],
    "prune_preset": ["both", 1],
    "mask_scope": ["both", 1],
    "prune_scope": ["net", 1],
    "prune_schedule": ["linear"],
    "prune_freq": [-1, 0.5, "1"],
    "prune_start_epoch": [-1, 0.5],
    "prune_end_epoch": [0, 2.5],
    "regrow_percent": [-1, 100, "1"],
    "withhold_percent": [-1, 100, "1"],
    "prune_criterion": ["random", 2],
    "prunable": [3, [], [1], lambda name: True],
    "prune_structure": ["channel", 1],
    "step_power": [-1, "1"],
}
PAIR = {"images": [None, torch.rand(2, 1, 12, 13)], "truth": [None, torch.full((2, 1, 12, 12), 2.0)]}
RANGE = ("value_range",)
WHERE = {"truth": "(images|truth)", "gradients": r"gradients(\[\d+\])?", "weights": r"weights(\[.*\])?"}
