"""The public callables of training and aggregation, see :mod:`.call`."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from secretflow.ml.nn import FLModel
from secretflow.ml.nn.core.torch import TorchModel
from secretflow.ml.nn.fl import CaptureRounds, GradientCapture
from secretflow.ml.nn.fl.callbacks import Checkpoint, TensorBoard
from secretflow.ml.nn.fl.options import FitOptions
from secretflow.ml.nn.fl.pruning import PruneSettings
from secretflow.ml.nn.fl.small_model import export_dense_small, load_dense_small, save_dense_small
from secretflow.ml.nn.fl.sparse_model import export_sparse, load_sparse
from secretflow.ml.nn.fl.worker.trainer import LocalObjective
from secretflow.security.aggregation import SecurePruneAggregator

from ..bring import linear
from .call import (
    COUNT,
    FLAG,
    NUMBER,
    PRUNING,
    TEXT,
    Call,
    fit_of,
)

TRAINING: dict[str, Call] = {
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
            "accept_degenerate_layers": FLAG,
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
