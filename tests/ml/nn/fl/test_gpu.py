"""Training, pruning, files, captures and attacks on a CUDA device, wherever one is seen."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.classification import MulticlassAccuracy

import secretflow as sf
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.core.torch import metric_wrapper
from secretflow.ml.nn.fl import GradientCapture
from secretflow.ml.nn.fl.attacks import DLGSettings, InvertingSettings, dlg_attack, inverting_attack
from secretflow.ml.nn.fl.attacks.objective import Objective
from secretflow.ml.nn.fl.audit import load_capture, observe_capture
from secretflow.ml.nn.fl.audit.scores import label_accuracy, mean_squared_error
from secretflow.ml.nn.fl.sparse_model import load_sparse

from .attacks import test_rows_of_all_kinds as rows
from .bring import CLASSES, FEATURES, build, predicted, spread, table, worker_of
from .federation.families import FAMILIES
from .federation.test_families import (
    EPOCHS,
    RATE,
    as_inputs,
    federated,
    fitted,
    in_plain_torch,
    living,
    rows_of,
)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is seen")

GPU: dict[str, Any] = {"num_gpus": 1}
DEVICE = "cuda"
ROWS = (12, 8)


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """Convolutions in whole float32, which the other side of a comparison has, too."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False, deterministic=True, benchmark=False):
        yield


def devices_of(module: nn.Module) -> set[str]:
    return {value.device.type for value in module.state_dict().values()}


def assert_equal_outputs(name: str, one: nn.Module, other: nn.Module) -> None:
    """Not of weights: Adam makes whole steps of what rounding leaves of a gradient that is zero.

    Such are those of a bias in front of a normalisation and of the keys of attention. No output in training
    mode depends on them; the running statistics lag behind such a bias.
    """
    x = as_inputs(FAMILIES[name], rows_of(FAMILIES[name])[0][0])
    outputs = []
    for net in (one, other):
        net = copy.deepcopy(net).cpu().train()
        with torch.no_grad():
            outputs.append(net(*x) if isinstance(x, tuple) else net(x))
    torch.testing.assert_close(*outputs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "dropout"])  # other random numbers
def test_training_comes_to_what_the_cpu_comes_to(devices: SimpleNamespace, name: str) -> None:
    model, _ = fitted(devices, FAMILIES[name], prune_end_rate=1, **GPU)
    for party, net in enumerate(in_plain_torch(FAMILIES[name])):
        found = worker_of(model, party).model
        assert devices_of(found) == {DEVICE}
        assert_equal_outputs(name, found, net)


@pytest.mark.parametrize("mask_scope", ["local", "global"])
@pytest.mark.parametrize(
    "options", [{}, {"regrow_percent": 20}, {"withhold_percent": 20}, {"mu": 0.1}], ids=str
)
@pytest.mark.parametrize("name", ["MLP", "CNN with batch normalisation", "tied embedding"])
def test_the_reported_density_is_the_real_one(
    devices: SimpleNamespace, tmp_path: Path, name: str, options: dict[str, Any], mask_scope: str
) -> None:
    if options.get("regrow_percent") and mask_scope == "global":
        options = {"prune_scope": "global"}
    pruning = {"prune_end_rate": RATE, "prune_percent": 50, "prune_freq": 1, "mask_scope": mask_scope}
    model, columns = fitted(devices, FAMILIES[name], **pruning, **options, **GPU)
    model.export_sparse(f"{tmp_path}/sparse", is_test=True)
    for party, (device, worker) in enumerate(model._workers.items()):
        own = worker_of(model, party)
        reported, names = columns[f"{device.party}_density"][-1], list(own._masked.mask)
        assert reported == pytest.approx(RATE, abs=0.05)
        for state in (own.model.state_dict(), load_sparse(tmp_path / device.party / "sparse")):
            if "regrow_percent" in options:  # what grows again starts at zero
                assert living(state, names) <= reported
            else:
                assert living(state, names) == pytest.approx(reported, abs=1e-9)
        sf.reveal(worker.train_step(None, 0, 2, refresh_data=True))
        assert living(own.model.state_dict(), names) <= reported + 1e-9


def dropping() -> nn.Module:
    return nn.Sequential(
        nn.Linear(FEATURES, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, CLASSES)
    )


def own_model(devices: SimpleNamespace, **options: Any) -> tuple[FLModel, list[Any]]:
    x, y = table(sum(ROWS))
    accuracy = metric_wrapper(MulticlassAccuracy, num_classes=CLASSES, average="micro")
    chosen = {"prune_end_rate": 0.5, "prune_percent": 20, **options}
    model = build(devices, dropping, nn.CrossEntropyLoss, [accuracy], **chosen)
    return model, [spread(devices, ROWS, x), spread(devices, ROWS, y)]


def test_evaluation_and_prediction_change_nothing(devices: SimpleNamespace) -> None:
    model, data = own_model(devices, **GPU)
    model.fit(*data, validation_data=tuple(data), epochs=2, batch_size=4, verbose=0)
    nets = [worker_of(model, party).model for party in range(2)]
    before = [{name: value.clone() for name, value in net.state_dict().items()} for net in nets]
    first, again = (predicted(model, data[0], batch_size=4) for _ in range(2))
    score, _ = model.evaluate(*data, batch_size=4)
    labels = [torch.as_tensor(sf.reveal(part)) for part in data[1].partitions.values()]
    right = sum(int((p.argmax(1) == y).sum()) for p, y in zip(first, labels, strict=True))
    assert float(score[0].result()) == pytest.approx(right / sum(ROWS))
    for one, other in zip(first, again, strict=True):
        assert one.device.type == "cpu" and torch.equal(one, other)
    for net, state in zip(nets, before, strict=True):
        assert devices_of(net) == {DEVICE}
        assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(("saved_on", "loaded_on"), [(GPU, GPU), (GPU, {}), ({}, GPU)], ids=str)
def test_a_run_goes_on_from_its_checkpoint(
    devices: SimpleNamespace, tmp_path: Path, saved_on: dict[str, Any], loaded_on: dict[str, Any]
) -> None:
    family = FAMILIES["CNN with batch normalisation"]
    pruning = {"prune_end_rate": RATE, "prune_percent": 20}
    begun, data, fit = federated(devices, family, **pruning, **saved_on)
    begun.fit(*data, **fit)
    begun.save_model(f"{tmp_path}/model", is_test=True)
    resumed, *_ = federated(devices, family, **pruning, **loaded_on)
    resumed.load_model(f"{tmp_path}/model", is_test=True)
    histories = [model.fit(*data, **fit).local_history for model in (begun, resumed)]
    assert histories[0]["bob_density"][-EPOCHS:] == histories[1]["bob_density"][-EPOCHS:]
    for party in range(2):
        one, other = (worker_of(model, party).model for model in (begun, resumed))
        assert_equal_outputs("CNN with batch normalisation", one, other)


def test_a_capture_is_the_same_on_the_disk(devices: SimpleNamespace, tmp_path: Path) -> None:
    def net() -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Linear(12, CLASSES))

    x, y = table(4)
    chosen = {"gradient_capture": GradientCapture(f"{tmp_path}/capture", "alice"), "prune_end_rate": 0.5}
    model = build(devices, net, nn.CrossEntropyLoss, **chosen, **GPU)
    model.fit(spread(devices, (2, 2), x), spread(devices, (2, 2), y), batch_size=2, verbose=0)
    capture = load_capture(tmp_path / "capture")
    tensors = [capture.x, capture.y, *capture.weights.values(), *capture.gradients, *capture.mask.values()]
    assert {tensor.device.type for tensor in tensors} == {"cpu"}
    known = observe_capture(capture, net, classes=CLASSES)
    result = dlg_attack([known], DLGSettings(iterations=5, restarts=2))[0]
    assert result.images.device.type == DEVICE and np.isfinite(result.loss)
    assert mean_squared_error(result.images, capture.x, None) >= 0
    assert 0 <= label_accuracy(result.labels, capture.y.long()) <= 1


@pytest.mark.parametrize("net", rows.SHAPES)
def test_attacks_differentiate_every_layer_twice(net: rows.Net) -> None:
    party = rows.party_of(net, rows.SHAPES[net])
    known = rows.observed(party)
    guess = torch.randn(1, Objective([known]).size, generator=torch.Generator().manual_seed(0)).double()
    found = [
        Objective([known], device=torch.device(device)).bind([0])(guess.to(device))
        for device in ("cpu", DEVICE)
    ]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other.cpu(), rtol=1e-6, atol=1e-8)
    for result in (
        dlg_attack([known], DLGSettings(iterations=2, restarts=2))[0],
        inverting_attack([known], InvertingSettings(iterations=2))[0],
    ):
        assert np.isfinite(result.loss) and result.images.device.type == DEVICE
