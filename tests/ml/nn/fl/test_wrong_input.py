"""Every public function refuses wrong input early, in one sentence of one form: "NAME must be ..., got ...".

Each entry of ``CALLS`` is one public callable, how it is called rightly, and wrong values of its arguments. A
parameter that no entry has is named in ``ANY`` with the reason why nothing is wrong for it.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics as tm
from torch import nn

import secretflow as sf
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.core.torch import TorchModel, optim_wrapper
from secretflow.ml.nn.fl import CaptureRounds, GradientCapture, attacks, audit
from secretflow.ml.nn.fl.audit import defences, padded, scores, views
from secretflow.ml.nn.fl.callbacks import Checkpoint, TensorBoard
from secretflow.ml.nn.fl.options import FitOptions
from secretflow.ml.nn.fl.pruning import PruneSettings
from secretflow.ml.nn.fl.small_model import export_dense_small, load_dense_small, save_dense_small
from secretflow.ml.nn.fl.sparse_model import export_sparse, load_sparse
from secretflow.ml.nn.fl.worker.capture_files import Capture, write_capture
from secretflow.ml.nn.fl.worker.trainer import LocalObjective
from secretflow.security.aggregation import SecurePruneAggregator
from secretflow.security.aggregation.secagg.errors import AggregationError

from .bring import CLASSES, FEATURES, build, linear, spread, table

FORM = r"(of \w+ )?must [a-z].*, got "
REFUSALS = (TypeError, ValueError, FileNotFoundError, FileExistsError, AggregationError)

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

CALLS: dict[str, Call] = {
    "PruneSettings": Call(PruneSettings, lambda *_: {}, PRUNING),
    "LocalObjective": Call(
        LocalObjective,
        lambda *_: {},
        {"name": ["sgd", None], "mu": [0.1, "1"]},
        called={"name": "local_objective"},
    ),
    "CaptureRounds": Call(
        CaptureRounds,
        lambda *_: {"first": True},
        {"numbers": [[0], (0.5,), (-1,), (1, 1)], "first": FLAG, "last": FLAG, "after_mask_change": FLAG},
        called={"numbers": "rounds"},
    ),
    "GradientCapture": Call(
        GradientCapture,
        lambda *_: {"directory": "d", "party": "alice"},
        {"directory": TEXT, "party": TEXT, "rounds": [(), [0], 0, (-1,)]},
    ),
    "Checkpoint": Call(
        Checkpoint, lambda *_: {"path": "a/b"}, {"path": [*TEXT, "b", "a/"], "every": COUNT, "is_test": FLAG}
    ),
    "TensorBoard": Call(TensorBoard, lambda *_: {"log_dir": "d"}, {"log_dir": [None, 3]}),
    "export_sparse": Call(
        export_sparse,
        lambda _, folder: {"state_dict": {"w": torch.ones(2)}, "path": folder / "f"},
        {"state_dict": [None, [1], {"w": 1}], "path": [None, 3]},
        called={"state_dict": r"state_dict(\['w'\])?"},
    ),
    "export_dense_small": Call(
        export_dense_small, lambda *_: {"model": linear()}, {"model": [None, 3, linear]}, any=("inputs",)
    ),
    "save_dense_small": Call(
        save_dense_small,
        lambda _, folder: {"model": linear(), "path": folder / "f"},
        {"model": [None, 3], "path": [None, 3]},
        any=("inputs",),  # the model's own
    ),
    "load_dense_small": Call(
        load_dense_small,
        lambda *_: {"path": "f", "model": linear()},
        {"path": [None, 3, "/no/such/file"], "model": [None, 3]},
    ),
    "load_sparse": Call(
        load_sparse, lambda *_: {"path": "f"}, {"path": [None, 3, "/no/such/file", __file__]}
    ),
    "load_capture": Call(
        audit.load_capture, lambda *_: {"directory": "d"}, {"directory": [None, 3, "/no/such/folder"]}
    ),
    "write_capture": Call(
        write_capture,
        lambda _, folder: parts_of_capture(folder),
        {
            "directory": [None, 3],
            "y": [torch.zeros(3)],
            "gradients": [[], [torch.ones(3)]],
            "mask": [{"v": torch.eye(2)}, {"w": 3 * torch.eye(2)}, {"w": 1 - torch.eye(2)}],
            "density": [0.6],
            "optimizer": [{}],
        },
        any=("x", "weights", "party", "round_number", "evaluating"),  # checked beside the others
        called={**WHERE, "mask": r"(mask|weights)\[.*\]"},
    ),
    "observe_capture": Call(
        audit.observe_capture,
        lambda _, folder: {
            "capture": capture(folder),
            "model": lambda: nn.Linear(2, 2, bias=False),
            "classes": 2,
        },
        {"capture": [None], "model": [3], "classes": [1, "2"], "knowledge": ["all"]},
    ),
    "Observation": Call(
        attacks.Observation,
        lambda *_: fields_of_observation(),
        {
            "image_shape": [4, (), (0,), (4.0,), (FEATURES + 1,), [4]],
            "classes": [1, 2.5, CLASSES + 1],
            "gradients": [(), (1, 2), (torch.ones(1),)],
            "model": [None, lambda: 3],
            "weights": [None, {}, {"weight": 1}],
            "mask": [3, {"other": torch.ones(1)}, {"weight": torch.ones(1)}],
            "compared": [3, {"other": torch.ones(1)}],
            "batch_size": COUNT,
            "local_steps": COUNT,
            "learning_rate": [0, math.nan, "1"],
            "evaluating": ["norm", ("norm",), [""]],
            "value_range": [(1, 0), (0,), ("a", "b"), 3],
        },
        called=WHERE,
    ),
    "dlg_attack": Call(
        attacks.dlg_attack,
        lambda *_: {"observations": [observation()]},
        {
            "observations": [None, [], [1]],
            "settings": [None, attacks.InvertingSettings()],
            "labels": [[0], torch.tensor([[0.0]]), torch.tensor([0]), torch.tensor([[CLASSES]])],
            "progress": [3],
        },
    ),
    "idlg_attack": Call(
        attacks.idlg_attack,
        lambda *_: {"observations": [observation()]},
        {"observations": [None, [], [1]], "settings": [None, 3], "progress": [3]},
    ),
    "inverting_attack": Call(
        attacks.inverting_attack,
        lambda *_: {"observations": [observation()]},
        {
            "observations": [None, [], [1]],
            "settings": [None, attacks.DLGSettings()],
            "labels": [[0], torch.tensor([0]), torch.tensor([[-1]])],
            "progress": [3],
        },
    ),
    "closed_form_attack": Call(
        attacks.closed_form_attack,
        lambda *_: {"observations": [observation()]},
        {"observations": [None, [], [1]], "progress": [3], "prior": [3]},
    ),
    "read_average": Call(
        attacks.read_average,
        lambda *_: {"observation": two_layers()},
        {"observation": [None, observation()]},
        called={"observation": "(observation|model)"},
    ),
    "distance_from_average": Call(
        attacks.distance_from_average,
        lambda *_: {"observation": two_layers(), "x": torch.rand(3, FEATURES), "y": torch.zeros(3).long()},
        {
            "observation": [None],
            "x": [*TENSOR, torch.rand(3, FEATURES + 1)],
            "y": [*TENSOR, torch.zeros(3), torch.zeros(2).long(), torch.full((3,), CLASSES)],
        },
        called={"observation": "(observation|model)"},
    ),
    "PublicRows": Call(
        attacks.PublicRows,
        lambda *_: {"x": torch.rand(3, FEATURES), "y": torch.zeros(3).long()},
        {"x": [*TENSOR, torch.rand(1, FEATURES)], "y": [*TENSOR, torch.zeros(3), torch.zeros(2).long()]},
    ),
    "fit_gaussian": Call(
        attacks.fit_gaussian,
        lambda *_: {"rows": torch.rand(5, FEATURES)},
        {"rows": [*TENSOR, torch.rand(1, FEATURES)], "rank": COUNT},
    ),
    "prior_attack": Call(
        attacks.prior_attack,
        lambda *_: {"observations": [observation()], "prior": attacks.fit_gaussian(torch.rand(5, FEATURES))},
        {
            "observations": [None, [], [1]],
            "prior": [None, attacks.fit_gaussian(torch.rand(5, FEATURES + 1))],
            "settings": [None, attacks.DLGSettings()],
            "labels": [[0], torch.tensor([0]), torch.tensor([[-1]])],
            "progress": [3],
        },
    ),
    "fit_ridge": Call(
        attacks.fit_ridge,
        lambda *_: {"observation": observation(), "public": public_rows()},
        {"observation": [None], "public": [None], "settings": [None, 3], "distort": [3]},
    ),
    "ridge_attack": Call(
        attacks.ridge_attack,
        lambda *_: {"observations": [observation()], "public": public_rows()},
        {"observations": [None, [], [1]], "public": [None], "settings": [None, 3], "distort": [3]},
    ),
    "fit_learned": Call(
        attacks.fit_learned,
        lambda *_: {"observation": observation(), "public": public_rows()},
        {
            "observation": [None],
            "public": [None],
            "settings": [None, 3],
            "distort": [3],
            "progress": [3],
        },
    ),
    "learned_attack": Call(
        attacks.learned_attack,
        lambda *_: {"observations": [observation()], "public": public_rows()},
        {"observations": [None, [], [1]], "public": [None], "settings": [None, 3], "distort": [3]},
    ),
    "RidgeSettings": Call(attacks.RidgeSettings, lambda *_: {}, {"features": COUNT, "seed": [-1, 0.5, "1"]}),
    "learn_row_gradients": Call(
        attacks.learn_row_gradients,
        lambda *_: {"observation": observation(), "public": public_rows()},
        {"observation": [None], "public": [None], "features": COUNT, "seed": [-1, 0.5], "distort": [3]},
    ),
    "candidate_scores": Call(
        attacks.candidate_scores,
        lambda *_: {
            "learned": attacks.learn_row_gradients(observation(), public_rows()),
            "observations": [observation()],
            "candidates": public_rows(),
        },
        {"learned": [None, 3], "observations": [None, [], [1]], "candidates": [None, 3], "seed": [-1, 0.5]},
    ),
    "read_neurons": Call(
        attacks.read_neurons,
        lambda *_: {"observation": observation()},
        {"observation": [None, 3], "prior": [3]},
    ),
    "token_attack": Call(
        attacks.token_attack,
        lambda *_: {"observations": [observation()]},
        {"observations": [None, [], [1]]},
    ),
    "LearnedSettings": Call(
        attacks.LearnedSettings,
        lambda *_: {},
        {
            "features": COUNT,
            "width": COUNT,
            "epochs": COUNT,
            "batch": [1, *COUNT],
            "learning_rate": [0, *NUMBER],
            "dropout": [1, *NUMBER],
            "seed": [-1, 0.5, "1"],
        },
    ),
    "PriorSettings": Call(
        attacks.PriorSettings, lambda *_: {}, {**SEARCH, "lbfgs": [None, 3], "noise": [0, *NUMBER]}
    ),
    "DLGSettings": Call(
        attacks.DLGSettings,
        lambda *_: {},
        {**SEARCH, "lbfgs": [None, 3], "start_mean": [math.inf, "0"], "start_deviation": NUMBER},
    ),
    "InvertingSettings": Call(
        attacks.InvertingSettings,
        lambda *_: {},
        {**SEARCH, "tv_weight": NUMBER, "learning_rate": [0, *NUMBER]},
    ),
    "LBFGSSettings": Call(
        attacks.LBFGSSettings,
        lambda *_: {},
        {
            "evaluations": COUNT,
            "history": COUNT,
            "learning_rate": [0, *NUMBER],
            "tolerance_grad": NUMBER,
            "tolerance_change": NUMBER,
        },
    ),
    "PartyStep": Call(
        views.PartyStep,
        lambda *_: fields_of_party(),
        {
            "model": [None],
            "weights": [None, 3],
            "x": TENSOR,
            "y": [*TENSOR, torch.zeros(3)],
            "mask": [None, 3],
            "evaluating": ["norm", [""]],
        },
    ),
    "observe": Call(
        audit.observe,
        lambda *_: {
            "party": party(),
            "seen": views.party_gradient(party()),
            "knowledge": audit.Knowledge.OBLIVIOUS,
            "classes": CLASSES,
        },
        {
            "party": [None],
            "seen": [[], [1]],
            "knowledge": [None, "all"],
            "classes": [1, "3"],
            "parties": COUNT,
            "local_steps": COUNT,
            "learning_rate": [0, "1"],
        },
        called={"seen": r"gradients(\[\d+\])?"},
    ),
    "weight_update": Call(
        views.weight_update,
        lambda *_: {"party": party(), "steps": 1, "learning_rate": 0.1},
        {"party": [None], "steps": COUNT, "learning_rate": [0, *NUMBER]},
    ),
    "plain_aggregate": Call(views.plain_aggregate, lambda *_: {}, {"uploads": [[], None]}),
    "magnitude_mask": Call(
        defences.magnitude_mask,
        lambda *_: {"model": linear, "weights": linear().state_dict(), "pruned": 0.5},
        {"pruned": [1, -0.1, "0.5"]},
        any=("model", "weights"),  # torch's load_state_dict says what does not fit
    ),
    "sparsify": Call(
        defences.sparsify,
        lambda *_: {"upload": [torch.ones(3)], "dropped": 0.5},
        {"dropped": [1, -1, "0"]},
        any=("upload",),
    ),
    "round_stochastically": Call(
        defences.round_stochastically,
        lambda *_: {"upload": [torch.ones(3)], "bits": 4},
        {"bits": [1, 2.5, "4"], "seed": [-1, 0.5]},
        any=("upload",),
    ),
    "padded_uploads": Call(
        padded.padded_uploads,
        lambda *_: {"uploads": [[torch.ones(2)]] * 2, "masks": [[None]] * 2},
        {"uploads": [[]], "masks": [[]]},
    ),
    "mean_squared_error": Call(
        scores.mean_squared_error, lambda *_: images(), {**PAIR, "value_range": [(1, 0), 3]}, called=WHERE
    ),
    "peak_signal_to_noise": Call(scores.peak_signal_to_noise, lambda *_: images(), PAIR, called=WHERE),
    "structural_similarity": Call(scores.structural_similarity, lambda *_: images(), PAIR, called=WHERE),
    "match": Call(scores.match, lambda *_: images(), {**PAIR, "value_range": [(1, 0), 3]}, called=WHERE),
    "ranks": Call(
        scores.ranks,
        lambda *_: {
            "images": torch.rand(2, 1, 4, 4),
            "numbers": torch.tensor([0, 1]),
            "candidates": torch.rand(3, 1, 4, 4),
        },
        {
            "images": [None, torch.rand(2, 1, 4, 5)],
            "numbers": [[0, 1], torch.tensor([0.0, 1.0]), torch.tensor([0, 3])],
            "candidates": [None, torch.full((3, 1, 4, 4), 2.0)],
            "value_range": [(1, 0), 3],
        },
        called={"candidates": "(candidates|truth)"},
    ),
    "label_accuracy": Call(
        scores.label_accuracy,
        lambda *_: {"labels": torch.zeros(2), "truth": torch.zeros(2)},
        {"labels": [None, torch.zeros(3)], "truth": [None, torch.zeros(3)]},
        called={"truth": "(labels|truth)"},
    ),
    "AuditSettings": Call(
        audit.AuditSettings,
        lambda *_: {},
        {
            **dict.fromkeys(("batch_size", "local_steps", "rows", "candidates", "public"), COUNT),
            "parties": [8, (1,), (2.5,)],
            "density": [0, 1.5, "1"],
            "bits": [1, 2.5, "8"],
            "learning_rate": NUMBER,
            "minutes": [0, *NUMBER],
            "seed": [-1, 0.5],
            "show_rows": FLAG,
        },
    ),
    "Rows": Call(
        audit.Rows,
        lambda *_: {
            "x": torch.rand(4, 3),
            "y": torch.tensor([0, 1, 0, 1]),
            "kind": "table",
            "labels": ("no", "yes"),
        },
        {
            "x": [
                None,
                torch.rand(4),
                torch.rand(3, 3),
                torch.rand(4, 3).double(),
                torch.full((4, 3), math.nan),
            ],
            "y": [None, torch.rand(4), torch.zeros(3, dtype=torch.int64), torch.tensor([0, 1, 2, 3])],
            "kind": ["text", None],
            "labels": [(), ("no",)],
            "columns": [(audit.Column("age", 0),)],
        },
        ("value_range", "padding", "words"),
    ),
    "read_csv": Call(
        audit.read_csv,
        lambda _, folder: {"path": own_csv(folder), "label": "died"},
        {"label": ["dead", None], "drop": [("weight",)], "scale": ["log", None]},
        ("path",),
    ),
    "read_arrays": Call(
        audit.read_arrays,
        lambda _, folder: {"path": own_csv(folder)},
        {},
        ("path",),
    ),
    "read_images": Call(
        audit.read_images,
        lambda _, folder: {"folder": folder},
        {"folder": ["/nowhere"], "size": COUNT},
        ("grey",),
    ),
    "audit": Call(
        audit.audit,
        lambda *_: {"model": linear, "rows": None},
        {"rows": [None, torch.rand(4, 3)]},
        ("model", "settings", "loss", "weights", "captures", "public", "out", "verbose"),
    ),
    "SecurePruneAggregator": Call(
        SecurePruneAggregator,
        lambda devices, _: {"device": devices.carol, "participants": [devices.alice, devices.bob]},
        {
            "device": [None, "carol"],
            "participants": [[], None],
            "fxp_bits": [0, 1.5, 99],
            "ring_bits": [16, "32", None],
            "min_contributors": [0, 3, 1.5],
            "min_share": [-1, 2, "0"],
            "max_colluders": [-1, 2, "0"],
            "upload_bits": [1, 16, "8"],
            "min_survivors": [0, 3, 1.5],
            "round_deadline": [0, *NUMBER],
            "fixed_contributors": FLAG,
            "server_blind": FLAG,
            "identities": [3, "keys"],
        },
    ),
    "FLModel": Call(
        FLModel,
        lambda devices, _: {
            "server": devices.carol,
            "device_list": [devices.alice, devices.bob],
            "model": linear,
            "aggregator": SecurePruneAggregator(devices.carol, [devices.alice, devices.bob]),
            "strategy": "fed_avg_w_prune",
            "backend": "torch",
        },
        {
            "server": [None, "carol"],
            "device_list": [[], None, ["alice", "bob"]],
            "model": [None, 3, lambda: 3, TorchModel(lambda: 3), TorchModel(lambda: nn.Linear(4, 0))],
            "aggregator": [None, 3],
            "strategy": ["fed_avg_prune"],
            "backend": ["tensorflow", None],
            "random_seed": [-1, 0.5, "1"],
            "skip_bn": FLAG,
            "wp_strategy": [False, 3],
            "gradient_capture": [3, "folder"],
            **PRUNING,
            "local_objective": ["sgd"],
            "mu": ["1", -1],
            "num_gpus": [-1, "1"],
            "worker_processes": COUNT,
            "consensus_num": COUNT,
            "dp_strategy": [3, "noise"],
            "simulation": FLAG,
        },
    ),
    "fit": Call(
        FitOptions,
        lambda devices, _: fit_of(devices),
        {
            "x": [None, 3, np.zeros((4, 4))],
            "y": [None, np.zeros(4)],
            "batch_size": COUNT,
            "batch_sampling_rate": [0, 1.5, "1"],
            "epochs": COUNT,
            "callbacks": [3, [3]],
            "shuffle": FLAG,
            "class_weight": [3, {0: -1}],
            "sample_weight": [3, np.zeros(4)],
            "validation_data": [3, (1,)],
            "validation_freq": COUNT,
            "aggregate_freq": COUNT,
            "max_batch_size": COUNT,
            "prefetch_buffer_size": COUNT,
            "sampler_method": ["uniform", None],
            "random_seed": [-1, 0.5, "1"],
            "dp_spent_step_freq": COUNT,
            "audit_log_dir": [3],
            "dataset_builder": [3],
            "wait_steps": COUNT,
            "steps_per_epoch": COUNT,
        },
        any=("label_decoder", "verbose"),  # upstream's
        called={"class_weight": r"class_weight(\[0\])?", "x": "[xy]", "validation_data": "validation_data"},
    ),
}


def by_name(model: FLModel, method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that takes the names of parties for them."""
    parties = {device.party: device for device in model.device_list}

    def call(**arguments: Any) -> Any:
        named = arguments.copy()
        for name, value in arguments.items():
            if isinstance(value, dict):
                named[name] = {parties[party]: part for party, part in value.items()}
        return method(**named)

    return call


METHODS: dict[str, tuple[dict[str, list[Any]], Callable[[FLModel], Callable[..., Any]]]] = {
    "save_model": ({"model_path": [None, 3, {}]}, lambda model: model.save_model),
    "load_model": ({"model_path": [None, 3, {}, "/no/such/file"]}, lambda model: model.load_model),
    "export_sparse": ({"path": [None, 3, {}], "is_test": [3, "x"]}, lambda model: model.export_sparse),
    "initialize_weights": (
        {"init_mask": [3, [], [1, 2], "masks"]},
        lambda model: model.initialize_weights,
    ),
    "fit": (
        {
            "dataset_builder": [{"alice": 3, "bob": 3}],
            "y": [None, 3],
        },
        lambda model: by_name(model, model.fit),
    ),
    "predict": ({"x": [None, 3], "batch_size": [0, "2"]}, lambda model: model.predict),
    "evaluate": (
        {"batch_size": [0, "2"], "y": [None, 3], "dataset_builder": [{"alice": 3, "bob": 3}]},
        lambda model: by_name(model, model.evaluate),
    ),
}


def cases() -> list[Any]:
    return [
        pytest.param(name, argument, value, id=f"{name}-{argument}-{k}")
        for name, call in CALLS.items()
        for argument, values in call.wrong.items()
        for k, value in enumerate(values)
        if not (argument == "record_every" and value is None)
    ]


@pytest.mark.parametrize(("name", "argument", "value"), cases())
def test_wrong_input_is_refused_in_one_sentence(
    devices: SimpleNamespace, tmp_path: Path, name: str, argument: str, value: Any
) -> None:
    call = CALLS[name]
    right = call.right(devices, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(REFUSALS) as refusal:
        call.function(**{**right, argument: value})
    called = call.called.get(argument, re.escape(argument))
    assert re.match(rf"{called} {FORM}", str(refusal.value), re.DOTALL), refusal.value
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", METHODS)
def test_wrong_input_of_a_method_is_refused_in_one_sentence(devices: SimpleNamespace, name: str) -> None:
    wrong, method = METHODS[name]
    model = own_model(devices)
    right: dict[str, Any] = {k: v for k, v in fit_of(devices).items() if name != "predict" or k != "y"}
    if name not in ("predict", "evaluate", "fit"):
        right = {"path": "run/model"} if name == "export_sparse" else {}
    for argument, values in wrong.items():
        for value in values:
            with pytest.raises(REFUSALS) as refusal:
                method(model)(**{**right, argument: value})
            assert re.match(rf"{argument} {FORM}", str(refusal.value), re.DOTALL), (
                argument,
                value,
                refusal.value,
            )


@pytest.mark.parametrize("name", CALLS)
def test_right_input_is_taken_and_every_argument_has_its_wrong_values(
    devices: SimpleNamespace, tmp_path: Path, name: str
) -> None:
    call = CALLS[name]
    parameters = inspect.signature(call.function).parameters.values()
    named = {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    assert named - set(call.wrong) - set(call.any) == set()
    if name in ("CaptureRounds", "Observation", "FLModel", "fit", "DLGSettings", "mean_squared_error"):
        call.function(**call.right(devices, tmp_path))


def test_every_public_name_of_attacks_and_audit_is_walked() -> None:
    told = {call.function for call in CALLS.values()}
    results = {
        attacks.Reconstruction,
        attacks.Snapshot,
        attacks.Reading,
        attacks.GaussianPrior,
        attacks.RidgeInverter,
        attacks.LearnedInverter,
        attacks.RowGradients,
        audit.AuditReport,
        audit.Capture,
        audit.Column,
        audit.Knowledge,
        audit.PartyStep,
    }
    for package in (attacks, audit):
        public = {getattr(package, name) for name in package.__all__}
        assert public - told - results == set()


def test_a_fit_without_labels_says_what_is_missing(devices: SimpleNamespace) -> None:
    x = fit_of(devices)["x"]
    for call, name in ((lambda: own_model(devices).fit(x), "y"), (lambda: own_model(devices).fit(y=x), "x")):
        with pytest.raises(TypeError, match=rf"^{name} must be given, got none"):
            call()


def test_metrics_are_a_list(devices: SimpleNamespace) -> None:
    for metrics in (tm.MeanSquaredError, tm.MeanSquaredError(), "mse"):
        model = TorchModel(linear, nn.MSELoss, optim_wrapper(torch.optim.SGD, lr=0.1), metrics)
        right = CALLS["FLModel"].right(devices, Path())
        with pytest.raises(TypeError, match=r"^metrics must be a list of functions .* got "):
            FLModel(**{**right, "model": model})


def test_a_dataset_builder_returns_batches_and_their_number(devices: SimpleNamespace) -> None:
    for built in (3, [1], ([], 0), ([], "2")):
        builders = {device: lambda *_, built=built, **__: built for device in (devices.alice, devices.bob)}
        with pytest.raises(REFUSALS, match=r"^dataset_builder.* must be .*, got "):
            own_model(devices).fit(**fit_of(devices), dataset_builder=builders)


def test_no_layer_that_is_pruned_is_empty(devices: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match=r"^model must have weights .* got weight of shape \(0, 4\)"):
        build(devices, lambda: nn.Linear(4, 0), nn.CrossEntropyLoss)


def test_an_aggregator_takes_objects_at_parties(devices: SimpleNamespace) -> None:
    aggregator = CALLS["FLModel"].right(devices, Path())["aggregator"]
    for data in ([1, 2], 3, [np.ones(2)] * 2):
        with pytest.raises(AggregationError, match=r"^data must be one object for each party, .* got "):
            aggregator.sum(data, axis=0)


class Normalised(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(FEATURES, 5), nn.BatchNorm1d(5), nn.Linear(5, CLASSES))


def test_a_batch_of_one_row_for_batch_normalisation_is_explained(devices: SimpleNamespace) -> None:
    x, y = table(26)
    model = build(devices, Normalised, nn.CrossEntropyLoss)
    message = r"^batch_size must leave no batch of one row .*, got 13 rows in batches of 4 of alice; choose "
    with pytest.raises(ValueError, match=message):
        model.fit(spread(devices, (13, 13), x), spread(devices, (13, 13), y), batch_size=4, verbose=0)
    how = {"batch_size": 4, "steps_per_epoch": 4, "shuffle": True, "verbose": 0}
    model.fit(spread(devices, (13, 13), x), spread(devices, (13, 13), y), **how)


@pytest.mark.parametrize(("outputs", "got"), [(1, "a tensor without dimensions"), (3, "3 for 1 rows")])
def test_an_output_without_its_rows_is_explained(devices: SimpleNamespace, outputs: int, got: str) -> None:
    class Squeezed(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).squeeze()

    x, _ = table(9)
    model = build(devices, lambda: Squeezed(FEATURES, outputs), nn.MSELoss)
    with pytest.raises(ValueError, match=rf"^model must give .*, got {got}; a forward that ends in squeeze"):
        sf.reveal(list(model.predict(spread(devices, (5, 4), x), batch_size=4).values()))
