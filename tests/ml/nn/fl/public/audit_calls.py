"""The public callables of captures and the audit, see :mod:`.call`."""

from __future__ import annotations

import math

import torch
from torch import nn

from secretflow.ml.nn.fl import audit
from secretflow.ml.nn.fl.audit import defences, padded, scores, views
from secretflow.ml.nn.fl.worker.capture_files import write_capture

from ..bring import CLASSES, linear
from .call import (
    COUNT,
    FLAG,
    NUMBER,
    PAIR,
    TENSOR,
    WHERE,
    Call,
    capture,
    fields_of_party,
    images,
    own_csv,
    parts_of_capture,
    party,
)

AUDIT: dict[str, Call] = {
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
}
