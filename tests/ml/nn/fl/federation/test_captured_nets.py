"""What a training captured of nets with modes and of several inputs is attacked as it was computed."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from secretflow.ml.nn.core.torch import BaseModule
from secretflow.ml.nn.fl import GradientCapture
from secretflow.ml.nn.fl.attacks import DLGSettings, LBFGSSettings, dlg_attack, idlg_attack
from secretflow.ml.nn.fl.audit import Capture, Knowledge, load_capture, observe_capture
from secretflow.ml.nn.fl.audit.scores import match, mean_squared_error

from ..bring import CLASSES, FEATURES, build, spread, table, worker_of

ROWS = (4, 2)
EXACT = LBFGSSettings(tolerance_grad=0, tolerance_change=0)


class Normed(nn.Module):
    """Batch normalisation between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(FEATURES, 16)
        self.norm = nn.BatchNorm1d(16)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.sigmoid(self.norm(self.first(x))))


class Frozen(BaseModule):
    """Batch normalisation that a training step of its own keeps in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Normed()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0, **kwargs: Any) -> Any:
        self.net.norm.eval()
        return nn.functional.cross_entropy(self(batch[0]), batch[1].long())


def dropping() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 16), nn.Dropout(0.5), nn.Linear(16, CLASSES))


def captured(
    devices: SimpleNamespace, folder: Path, net: Callable[[], nn.Module], loss: Any, **options: Any
) -> Capture:
    """Bob's first step, of two rows, and a training of three epochs to bring the statistics on their way."""
    x, y = table(sum(ROWS))
    chosen = {"gradient_capture": GradientCapture(f"{folder}/capture", "bob", (3,)), **options}
    model = build(devices, net, loss, **chosen)
    model.fit(spread(devices, ROWS, x), spread(devices, ROWS, y), epochs=4, batch_size=2, verbose=0)
    return load_capture(folder / "capture")


@pytest.mark.parametrize("frozen", [False, True])
def test_batch_normalisation_is_attacked_in_the_mode_of_the_capture(
    devices: SimpleNamespace, tmp_path: Path, frozen: bool
) -> None:
    net: Any = Frozen if frozen else Normed
    capture = captured(devices, tmp_path, net, None if frozen else nn.CrossEntropyLoss, prune_end_rate=0.5)
    assert capture.evaluating == (("net.norm",) if frozen else ())
    known = observe_capture(capture, net, classes=CLASSES)
    settings = DLGSettings(iterations=60, restarts=4, loss_reached=1e-14, lbfgs=EXACT)
    result = dlg_attack([known], settings)[0]
    assert math.isfinite(result.loss)
    order = match(result.images, capture.x, None)
    if frozen:  # batch statistics take much of two rows away, which is what is measured then
        assert mean_squared_error(result.images[order], capture.x, None) < 0.05


def test_a_net_with_dropout_is_not_measured(devices: SimpleNamespace, tmp_path: Path) -> None:
    capture = captured(devices, tmp_path, dropping, nn.CrossEntropyLoss)
    with pytest.raises(ValueError, match=r"capture must be explained by .*: not measured"):
        observe_capture(capture, dropping, classes=CLASSES)


def test_another_loss_than_the_attacks_is_not_measured(devices: SimpleNamespace, tmp_path: Path) -> None:
    class Other(Frozen):
        def training_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0, **kwargs: Any) -> Any:
            return nn.functional.multi_margin_loss(self(batch[0]), batch[1].long())

    capture = captured(devices, tmp_path, Other, None)
    with pytest.raises(ValueError, match=r"capture must be explained by .*: not measured"):
        observe_capture(capture, Other, classes=CLASSES)


def test_a_whole_audit_goes_from_a_training_to_its_rows(devices: SimpleNamespace, tmp_path: Path) -> None:
    def net() -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, 12), nn.Sigmoid(), nn.Linear(12, CLASSES, bias=False))

    chosen = {"gradient_capture": GradientCapture(f"{tmp_path}/capture", "alice"), "prune_end_rate": 0.5}
    x, y = table(4)
    model = build(devices, net, nn.CrossEntropyLoss, **chosen)
    model.fit(spread(devices, (2, 2), x), spread(devices, (2, 2), y), batch_size=1, verbose=0)
    capture = load_capture(tmp_path / "capture")
    known = observe_capture(capture, net, classes=CLASSES, knowledge=Knowledge.MASK_KNOWN)
    result = idlg_attack([known], DLGSettings(iterations=60, restarts=4, lbfgs=EXACT))[0]
    assert mean_squared_error(result.images, capture.x, None) < 0.01


class TwoInputs(BaseModule):
    """Two tensors of features, that meet in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(FEATURES, 5), nn.Linear(FEATURES, 5)
        self.head = nn.Linear(5, CLASSES)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.left(left) + self.right(right)))

    def training_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0, **kwargs: Any) -> Any:
        return nn.functional.cross_entropy(self(*batch[0]), batch[1].long())


def two_inputs(*_: Any, **__: Any) -> Any:
    torch.manual_seed(0)
    x, y = torch.randn(4, 2, FEATURES), torch.arange(4) % CLASSES
    return [((x[k : k + 2, 0], x[k : k + 2, 1]), y[k : k + 2]) for k in (0, 2)], 2


def test_a_capture_of_several_inputs_is_written_and_read(devices: SimpleNamespace, tmp_path: Path) -> None:
    x, y = table(8)
    model = build(devices, TwoInputs, gradient_capture=GradientCapture(f"{tmp_path}/capture", "alice"))
    builder = {devices.alice: two_inputs, devices.bob: two_inputs}
    model.fit(
        spread(devices, (4, 4), x),
        spread(devices, (4, 4), y),
        batch_size=2,
        verbose=0,
        dataset_builder=builder,
    )
    capture = load_capture(tmp_path / "capture")
    expected = two_inputs()[0][0]
    for saved, given in zip(capture.x, expected[0], strict=True):
        assert torch.equal(saved, given)
    net = TwoInputs()
    net.load_state_dict(dict(capture.weights))
    net.training_step((capture.x, capture.y), 0).backward()
    for parameter, gradient in zip(net.parameters(), capture.gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    with pytest.raises(TypeError, match=r"capture\.x must be one tensor"):
        observe_capture(capture, TwoInputs, classes=CLASSES)
    assert worker_of(model).epochs_trained() == 1
