"""Every public function refuses wrong input early, in one sentence of one form: "NAME must be ..., got ...".

The modules of :mod:`.public` have an entry for each public callable: how it is called rightly, and wrong
values of its arguments. A parameter without any is named in the entry's ``any``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
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
from secretflow.ml.nn.fl import attacks, audit
from secretflow.security.aggregation.secagg.errors import AggregationError

from .bring import CLASSES, FEATURES, build, linear, spread, table
from .public.attack_calls import ATTACK
from .public.audit_calls import AUDIT
from .public.call import fit_of, own_model
from .public.training_calls import TRAINING

FORM = r"(of \w+ )?must [a-z].*, got "
REFUSALS = (TypeError, ValueError, FileNotFoundError, FileExistsError, AggregationError)

CALLS = {**TRAINING, **ATTACK, **AUDIT}


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
        attacks.LayerRound,
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
