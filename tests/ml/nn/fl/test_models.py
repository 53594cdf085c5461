"""A pruned weight stays zero, in every net and under every way of stepping an optimiser."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, optim
from torch.nn import functional as F

import secretflow as sf
from experiments.dgl_utils import ConvNet, FedAvgCNN, LeNet
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.core.torch import BaseModule, TorchModel, optim_wrapper
from secretflow.security.aggregation import SecurePruneAggregator
from secretflow.utils.simulation.data.ndarray import create_ndarray

CLASSES = 10
ROWS, BATCH, EPOCHS = 12, 4, 2


class Block(nn.Module):
    """Two convolutions and a way around them (He et al. 2016, figure 2)."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = norm(outputs)
        self.way: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.way = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), norm(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return torch.relu(y + self.way(x))


class ResNet18(nn.Module):
    """ResNet-18 for 32x32 images, of a quarter of its width so that a test can train it."""

    def __init__(self, norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), norm(16), nn.ReLU()]
        width = 16
        for outputs, stride in ((16, 1), (32, 2), (64, 2), (128, 2)):
            layers += [Block(width, outputs, stride, norm), Block(outputs, outputs, 1, norm)]
            width = outputs
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(x))


def group_normed_resnet() -> nn.Module:
    return ResNet18(lambda channels: nn.GroupNorm(8, channels))


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(28 * 28, 30)
        self.fc = nn.Linear(30, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.hidden(x.flatten(1))))


class ByHand(BaseModule):
    """Steps two optimisers itself, one of them only every second batch, and returns no loss."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.net = Mlp()
        self.batches = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0, **kwargs: Any) -> None:
        x, y = batch
        hidden, last = self.optimizers()
        F.cross_entropy(self(x), y).backward()
        hidden.step()
        hidden.zero_grad()
        self.batches += 1
        if self.batches % 2 == 0:  # gradients of two batches
            last.step()
            last.zero_grad()

    def configure_optimizers(self) -> list[optim.Optimizer]:
        return [
            optim.Adam(self.net.hidden.parameters(), lr=0.01),
            optim.SGD(self.net.fc.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1),
        ]


class Groups(BaseModule):
    """One optimiser with a group of parameters for each layer."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Mlp()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0, **kwargs: Any) -> Any:
        x, y = batch
        return F.cross_entropy(self(x), y)

    def configure_optimizers(self) -> optim.Optimizer:
        return optim.AdamW(
            [
                {"params": self.net.hidden.parameters(), "lr": 0.01},
                {"params": self.net.fc.parameters(), "lr": 0.1, "weight_decay": 0.3},
            ]
        )


def trained(devices: SimpleNamespace, model: TorchModel, shape: tuple[int, ...], **options: Any) -> FLModel:
    rng = np.random.default_rng(0)
    parties = [devices.alice, devices.bob]
    x = rng.normal(size=(2 * ROWS, *shape)).astype(np.float32)
    y = np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, 2 * ROWS)]
    parts = {devices.alice: (0, ROWS), devices.bob: (ROWS, 2 * ROWS)}
    held = [create_ndarray(array, parts=parts, axis=0) for array in (x, y)]
    federated = FLModel(
        server=devices.carol,
        device_list=parties,
        model=model,
        aggregator=SecurePruneAggregator(devices.carol, parties),
        strategy="fed_avg_w_prune",
        backend="torch",
        random_seed=1,
        **{"prune_end_rate": 0.3, "prune_percent": 50, **options},
    )
    federated.fit(*held, epochs=EPOCHS, batch_size=BATCH, verbose=0)
    return federated


def assert_zero_stays_zero(model: FLModel) -> None:
    """After further steps of each party by itself exactly the living weights are not zero."""
    for worker in model._workers.values():
        mask, rate = sf.reveal(worker.prune_state())
        assert rate == pytest.approx(0.3, abs=0.01)
        uploaded, _ = sf.reveal(worker.train_step(None, 0, 3, refresh_data=True))
        for entry, weight in zip(mask, [w for w in uploaded if w.ndim >= 2], strict=True):
            if entry is not None:
                assert not weight[entry == 0].any()
                assert np.count_nonzero(weight) > 0


NETS = {
    "ConvNet": (ConvNet, (1, 28, 28), {}),
    "LeNet": (LeNet, (1, 28, 28), {}),
    "MLP": (Mlp, (1, 28, 28), {}),
    "CNN of the FedAvg paper": (FedAvgCNN, (1, 28, 28), {}),
    "ResNet-18, groups": (group_normed_resnet, (3, 32, 32), {}),
    "ResNet-18, batches": (ResNet18, (3, 32, 32), {}),
    "ResNet-18, batches kept": (ResNet18, (3, 32, 32), {"skip_bn": True}),
}


@pytest.mark.parametrize("mask_scope", ["local", "global"])
@pytest.mark.parametrize("net", NETS)
def test_in_every_net(devices: SimpleNamespace, net: str, mask_scope: str) -> None:
    build, shape, options = NETS[net]
    model = TorchModel(build, nn.CrossEntropyLoss, optim_wrapper(optim.Adam, lr=1e-3), [])
    assert_zero_stays_zero(trained(devices, model, shape, mask_scope=mask_scope, **options))


@pytest.mark.parametrize("build", [ByHand, Groups])
@pytest.mark.parametrize("options", [{}, {"prune_scope": "global", "regrow_percent": 10}], ids=["", "regrow"])
def test_however_optimisers_are_stepped(
    devices: SimpleNamespace, build: Callable[[], BaseModule], options: dict[str, Any]
) -> None:
    if build is ByHand and options:
        with pytest.raises(ValueError, match=r"regrow_percent must be left alone .*got 10"):
            trained(devices, TorchModel(build), (1, 28, 28), **options)
        return
    assert_zero_stays_zero(trained(devices, TorchModel(build), (1, 28, 28), **options))
