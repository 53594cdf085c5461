"""Structured pruning end to end: whole units go, the report is true, the small net computes the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, optim

import secretflow as sf
from experiments.dgl_utils import ConvNet
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.core.torch import TorchModel, optim_wrapper
from secretflow.ml.nn.fl.small_model import export_dense_small, load_dense_small
from secretflow.ml.nn.fl.sparse_model import load_sparse
from secretflow.security.aggregation import SecurePruneAggregator
from secretflow.utils.simulation.data.ndarray import create_ndarray

CLASSES, ROWS_EACH, SIZE = 4, 32, 12
DOCS = Path(__file__).resolve().parents[4] / "docs"


class Cnn(nn.Module):
    """Two convolutions with normalisation, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.GroupNorm(6, 12), nn.ReLU(), nn.Flatten()),
        )
        self.hidden = nn.Linear(12 * 5 * 5, 10)
        self.norm = nn.BatchNorm1d(10)
        self.out = nn.Linear(10, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.norm(self.hidden(self.body(x)))))


class Residual(nn.Module):
    """Two blocks around which their input goes: what is added up is tied."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3)
        self.inner = nn.ModuleList([nn.Conv2d(6, 9, 3, padding=1) for _ in range(2)])
        self.outer = nn.ModuleList([nn.Conv2d(9, 6, 3, padding=1) for _ in range(2)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(6) for _ in range(2)])
        self.out = nn.Linear(6, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for inner, outer, norm in zip(self.inner, self.outer, self.norms, strict=True):
            x = torch.relu(x + norm(outer(torch.relu(inner(x)))))
        return self.out(x.mean(dim=(2, 3)))


@dataclass
class Images:
    """Rows of two parties that differ, and models that are trained on them."""

    x: Any
    y: Any
    make: Callable[..., FLModel]


@pytest.fixture
def images(devices: SimpleNamespace) -> Images:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, CLASSES, 2 * ROWS_EACH)
    pictures = rng.normal(size=(2 * ROWS_EACH, 1, SIZE, SIZE)).astype(np.float32)
    pictures[:, 0, 0] += labels[:, None]
    parts = {devices.alice: 0.5, devices.bob: 0.5}
    x = create_ndarray(pictures, parts=parts, axis=0)
    y = create_ndarray(np.eye(CLASSES)[labels], parts=parts, axis=0, is_label=True)

    def make(net: Callable[[], nn.Module], optimizer: Any = None, **options: Any) -> FLModel:
        parties = [devices.alice, devices.bob]
        return FLModel(
            server=devices.carol,
            device_list=parties,
            model=TorchModel(net, nn.CrossEntropyLoss, optimizer or optim_wrapper(optim.Adam, lr=1e-2), []),
            aggregator=SecurePruneAggregator(devices.carol, parties),
            strategy="fed_avg_w_prune",
            backend="torch",
            **{"random_seed": 5, "prune_end_rate": 0.5, "prune_percent": 40, **options},
        )

    return Images(x, y, make)


def fit(images: Images, model: FLModel, epochs: int = 3) -> Any:
    return model.fit(images.x, images.y, epochs=epochs, batch_size=16, verbose=0, random_seed=1)


def nets_of(model: FLModel, net: Callable[[], nn.Module]) -> dict[str, nn.Module]:
    """The parties' trained nets."""
    nets = {}
    for device, worker in model._workers.items():
        arrays = [torch.tensor(array) for array in sf.reveal(worker.get_weights())]
        trained = net()
        trained.load_state_dict(dict(zip(trained.state_dict(), arrays, strict=True)))
        nets[device.party] = trained.eval()
    return nets


class Steps(nn.Module):
    """Normalises the steps of sequences, of which there are as many as units."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.norm, self.out = (
            nn.Linear(SIZE, SIZE),
            nn.BatchNorm1d(SIZE),
            nn.Linear(SIZE, CLASSES),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.norm(self.hidden(x[:, 0]))))[:, -1]


def test_steps_are_not_taken_for_units(images: Images) -> None:
    model = images.make(Steps, prune_structure="neuron")
    with pytest.raises(
        ValueError, match=r"norm \(BatchNorm1d\) must get rows of shape .*, got \(16, 12, 12\); .*Norm"
    ):
        fit(images, model)
    assert model.epochs_trained() == 0
    fit(images, images.make(Steps), epochs=1)  # single weights may be pruned


LAYERS = {
    Cnn: ["body.0.weight", "body.4.weight", "hidden.weight", "out.weight"],
    Residual: [
        *("stem.weight", "inner.0.weight", "inner.1.weight", "outer.0.weight", "outer.1.weight"),
        "out.weight",
    ],
}
UNITS = {
    (Cnn, "filter"): [8, 6],
    (Cnn, "neuron"): [10],
    (Cnn, "unit"): [8, 6, 10],
    (Residual, "filter"): [6, 9, 9],
}


@pytest.mark.parametrize("prune_scope", ["layer", "global"])
@pytest.mark.parametrize("mask_scope", ["local", "global"])
@pytest.mark.parametrize(("net", "structure"), UNITS, ids=str)
def test_units_go_the_report_is_true_and_the_small_net_computes_the_same(
    images: Images,
    tmp_path: Path,
    net: type[nn.Module],
    structure: str,
    mask_scope: str,
    prune_scope: str,
) -> None:
    model = images.make(net, prune_structure=structure, mask_scope=mask_scope, prune_scope=prune_scope)
    columns = fit(images, model).local_history
    nets = nets_of(model, net)
    model.export_dense_small(f"{tmp_path}/small", is_test=True)
    model.export_sparse(f"{tmp_path}/sparse", is_test=True)
    for device, worker in model._workers.items():
        party, trained = device.party, nets[device.party]
        sizes = sf.reveal(worker.party_state(2))
        assert sizes["sizes"] == UNITS[net, structure]
        assert sum(sizes["living"]) == sum(sizes["sizes"]) // 2
        state = trained.state_dict()
        assert columns[f"{party}_density.units"][-1] == sum(sizes["living"]) / sum(sizes["sizes"])
        # Reported, real and exported are one.
        for name in LAYERS[net]:
            rate = torch.count_nonzero(state[name]).item() / state[name].numel()
            assert columns[f"{party}_density.{name}"][-1] == pytest.approx(rate, abs=1e-12)
        total = sum(state[name].numel() for name in LAYERS[net])
        real = sum(torch.count_nonzero(state[name]).item() for name in LAYERS[net]) / total
        assert columns[f"{party}_density"][-1] == pytest.approx(real, abs=1e-12)
        assert real < 0.75
        sparse = load_sparse(tmp_path / party / "sparse")
        assert all(torch.equal(sparse[name], value) for name, value in state.items())
        # The model's outputs are all there.
        assert state["out.weight"].any(dim=1).all() and state["out.bias"].all()
        small = export_dense_small(trained)
        loaded = load_dense_small(tmp_path / party / "small", net())
        x = torch.randn(7, 1, SIZE, SIZE)
        with torch.no_grad():
            expected = trained(x)
            torch.testing.assert_close(small(x), expected, rtol=0, atol=1e-5)
            torch.testing.assert_close(loaded(x), expected, rtol=0, atol=1e-5)
        count = sum(p.numel() for p in small.parameters())
        assert count < 0.75 * sum(p.numel() for p in trained.parameters())
        assert all(torch.equal(a, b) for a, b in zip(small.parameters(), loaded.parameters(), strict=True))


def test_what_goes_with_a_unit_is_zero_and_what_both_keep_is_averaged(images: Images) -> None:
    """Statistics of a removed channel would spoil the average of the others'."""
    # Gradients are a party's own, so the parties keep other units.
    model = images.make(Cnn, prune_structure="filter", prune_criterion="snip")
    fit(images, model)
    alice, bob = (net.state_dict() for net in nets_of(model, Cnn).values())
    lives = [state["body.0.weight"].flatten(1).any(dim=1) for state in (alice, bob)]
    for name in ("body.0.bias", *(f"body.1.{each}" for each in ("weight", "bias", "running_var"))):
        for state, living in zip((alice, bob), lives, strict=True):
            assert torch.equal(state[name] != 0, living)
        both = lives[0] & lives[1]
        assert torch.equal(alice[name][both], bob[name][both])
    assert not torch.equal(*lives), "the parties must differ for this to say something"


def test_only_rows_and_columns_that_live_travel(images: Images) -> None:
    model = images.make(Cnn, prune_structure="unit", mask_scope="global", prune_end_rate=0.3)
    rounds = fit(images, model, epochs=5).local_history["alice_round_payload_bytes"]
    state = nets_of(model, Cnn)["alice"].state_dict()
    floats = sum(torch.count_nonzero(v).item() for v in state.values() if v.is_floating_point())
    integers = sum(v.numel() for v in state.values() if not v.is_floating_point())
    assert rounds[-1] == [4 * floats + 8 * integers] * 2
    assert rounds[-1][0] < 0.25 * rounds[0][0]


@pytest.mark.parametrize("mask_scope", ["local", "global"])
def test_training_goes_on_from_a_checkpoint_of_whole_units(
    images: Images, tmp_path: Path, mask_scope: str
) -> None:
    options = {"prune_structure": "unit", "mask_scope": mask_scope, "prune_percent": 20}
    options["optimizer"] = optim_wrapper(optim.SGD, lr=0.05, momentum=0.9)  # Adam makes much of rounding
    straight = images.make(Cnn, **options)
    fit(images, straight, epochs=4)
    first, second = images.make(Cnn, **options), images.make(Cnn, **options)
    fit(images, first, epochs=2)
    first.save_model(f"{tmp_path}/model", is_test=True)
    second.load_model(f"{tmp_path}/model", is_test=True)
    fit(images, second, epochs=2)
    for party, net in nets_of(straight, Cnn).items():
        again = nets_of(second, Cnn)[party].state_dict()
        for name, value in net.state_dict().items():
            torch.testing.assert_close(again[name], value, rtol=1e-4, atol=1e-5)


def test_a_checkpoint_of_single_weights_is_refused(images: Images, tmp_path: Path) -> None:
    model = images.make(Cnn)
    fit(images, model, epochs=1)
    model.save_model(f"{tmp_path}/model", is_test=True)
    with pytest.raises(ValueError, match="mask must prune whole units with prune_structure"):
        images.make(Cnn, prune_structure="unit").load_model(f"{tmp_path}/model", is_test=True)


def test_the_criterion_may_look_at_gradients(images: Images) -> None:
    model = images.make(Residual, prune_structure="filter", prune_criterion="snip")
    fit(images, model)
    for worker in model._workers.values():
        state = sf.reveal(worker.party_state(2))
        assert sum(state["living"]) == sum(state["sizes"]) // 2


@pytest.mark.parametrize("page", ["training.md", "training.zh-CN.md"])
def test_the_example_of_the_page_runs_as_printed(
    images: Images, devices: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    (code,) = [
        block
        for block in re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
        if "prune_structure" in block
    ]
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {
        "FLModel": FLModel,
        "SecurePruneAggregator": SecurePruneAggregator,
        "charlie": devices.carol,
        "alice": devices.alice,
        "bob": devices.bob,
        "x": images.x,
        "y": images.y,
        "Net": Cnn,
        "model_def": TorchModel(Cnn, nn.CrossEntropyLoss, optim_wrapper(optim.Adam, lr=1e-2), []),
    }
    exec(code, names)
    trained = nets_of(names["model"], Cnn)["alice"]
    x = torch.randn(3, 1, SIZE, SIZE)
    with torch.no_grad():
        torch.testing.assert_close(names["small"](x), trained(x), rtol=0, atol=1e-5)
    assert sum(p.numel() for p in names["small"].parameters()) < 0.6 * sum(
        p.numel() for p in trained.parameters()
    )


def test_a_small_model_needs_whole_units(images: Images) -> None:
    with pytest.raises(
        ValueError, match=r"prune_structure must be one of .* for export_dense_small, got None"
    ):
        images.make(Cnn).export_dense_small("nowhere")


def test_a_model_without_units_to_remove_is_refused_before_any_worker_starts(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "secretflow.ml.nn.fl.fl_model.dispatch_strategy", lambda *_, **__: pytest.fail("a worker was started")
    )
    with pytest.raises(ValueError, match=r"got fc.weight, whose units are read by softmax"):
        images.make(ConvNet, prune_structure="neuron")
