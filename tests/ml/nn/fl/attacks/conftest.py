"""Tiny nets in double precision, and what a party computes with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from secretflow.ml.nn.fl.audit.defences import magnitude_mask
from secretflow.ml.nn.fl.audit.views import PartyStep


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """A net this small gains nothing by a second thread, and loses much when the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny_net() -> nn.Module:
    """A convolution and a fully connected layer: 4x4 images of one channel, three classes."""
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(8, 3)).double()


def tiny_perceptron() -> nn.Module:
    """Two fully connected layers for the same images."""
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Sigmoid(), nn.Linear(6, 3)).double()


@pytest.fixture
def make_party() -> Callable[..., PartyStep]:
    """A party with random weights and images; ``pruned`` is the part of each layer that is pruned."""

    def make(
        net: Callable[[], nn.Module] = tiny_net, batch: int = 1, pruned: float = 0.0, seed: int = 1
    ) -> PartyStep:
        torch.manual_seed(seed)
        weights = {name: torch.rand_like(value) - 0.5 for name, value in net().state_dict().items()}
        x, y = torch.rand(batch, 1, 4, 4).double(), torch.randperm(3)[:batch]
        return PartyStep(net, weights, x, y, magnitude_mask(net, weights, pruned) if pruned else {})

    return make
