"""The public callables of attacks, see :mod:`.call`."""

from __future__ import annotations

import math

import torch

from secretflow.ml.nn.fl import attacks

from ..bring import CLASSES, FEATURES
from .call import (
    COUNT,
    NUMBER,
    SEARCH,
    TENSOR,
    WHERE,
    Call,
    fields_of_observation,
    observation,
    public_rows,
    two_layers,
)

ATTACK: dict[str, Call] = {
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
    "LocalPrior": Call(
        attacks.LocalPrior,
        lambda *_: {"rows": torch.rand(5, FEATURES)},
        {"rows": [*TENSOR, torch.rand(1, FEATURES)], "neighbours": [*COUNT, 1]},
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
    "compare_candidates": Call(
        attacks.compare_candidates,
        lambda *_: {"observations": [observation()], "candidates": public_rows()},
        {"observations": [None, [], [1]], "candidates": [None, 3], "distort": [3]},
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
    "span_scores": Call(
        attacks.span_scores,
        lambda *_: {"observation": two_layers(), "x": torch.rand(3, *two_layers().image_shape)},
        {"observation": [None, 3], "x": [None, 3]},
    ),
    "match_neurons": Call(
        attacks.match_neurons,
        lambda *_: {"observation": two_layers(), "x": torch.rand(3, *two_layers().image_shape)},
        {"observation": [None, 3], "x": [None, 3]},
    ),
    "OwnMasksSettings": Call(
        attacks.OwnMasksSettings,
        lambda *_: {},
        {
            "noises": [(), [0.1], (0.1, 0), ("1",), 0.1],
            "iterations": COUNT,
            "rank": COUNT,
            "lanes": COUNT,
            "seed": [-1, 0.5, "1"],
        },
    ),
    "own_masks_attack": Call(
        attacks.own_masks_attack,
        lambda *_: {"observations": [observation()], "masks": [{}], "public": public_rows()},
        {
            "observations": [None, [], [1]],
            "masks": [None, [], [3], [{"weight": 3}], [{"other": torch.ones(1)}]],
            "public": [None, 3],
            "settings": [None, 3],
            "progress": [3],
            "labels": [[0], torch.tensor([0])],
        },
    ),
    "unmix_rows": Call(
        attacks.unmix_rows,
        lambda *_: {"observation": two_layers()},
        {"observation": [None, 3], "prior": [3], "seed": [-1, 0.5, "1"]},
    ),
    "group_rows": Call(
        attacks.group_rows,
        lambda *_: {"rows": torch.rand(2, FEATURES), "rounds": []},
        {"rows": [None, [[1.0]], torch.rand(3), torch.rand(FEATURES, FEATURES)], "rounds": [None, 3, [3]]},
    ),
    "imprint_weights": Call(
        attacks.imprint_weights,
        lambda *_: {
            "model": two_layers().model,
            "weights": two_layers().weights,
            "public": public_rows(),
        },
        {
            "model": [None, lambda: torch.nn.Linear(FEATURES, 3)],
            "weights": [None, {}],
            "public": [None, 3],
            "seed": [-1, 0.5],
        },
    ),
    "read_imprint": Call(
        attacks.read_imprint,
        lambda *_: {"observation": two_layers()},
        {"observation": [None, 3, observation()]},
        called={"observation": "(observation|model)"},
    ),
    "spear_attack": Call(
        attacks.spear_attack,
        lambda *_: {"observation": two_layers()},
        {"observation": [None, 3], "settings": [None, attacks.DLGSettings()]},
    ),
    "SpearSettings": Call(
        attacks.SpearSettings,
        lambda *_: {},
        {
            "starts": COUNT,
            "agreement": [*NUMBER, 0.0, 1.5],
            "seed": [-1, 0.5],
            "seconds": [*NUMBER, 0.0],
            "explained": [None, 1],
        },
    ),
    "gradient_of_adam": Call(
        attacks.gradient_of_adam,
        lambda *_: {
            "update": [torch.rand(3)],
            "previous": [torch.rand(3)],
            "squares": [torch.rand(3)],
            "step": 3,
        },
        {
            "update": [None, [1.0], torch.rand(3)],
            "previous": [None, [1.0], [torch.rand(2)]],
            "squares": [None, [1.0], [torch.rand(2)]],
            "step": [1, *COUNT],
            "betas": [None, 0.9, (0.9,), (0.9, 1.0), (-0.1, 0.9)],
            "eps": NUMBER,
        },
        called={"update": "(update|previous)"},
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
}
