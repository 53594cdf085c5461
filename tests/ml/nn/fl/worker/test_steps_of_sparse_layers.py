"""The steps of an optimiser in a sparse layer, multiplied with one over its density."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn, optim

from secretflow.ml.nn.fl.worker.masked import MaskedModel

HALF = {"0.weight": np.tile(np.array([1, 0], np.uint8), (6, 4)), "2.weight": np.ones((3, 6), np.uint8)}


def stepped(power: float, optimizer: type[optim.Optimizer]) -> tuple[list[Tensor], list[Tensor]]:
    """Weights before and after a step, of a layer of density 0.5, its bias, and a layer of density 1."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))
    chosen = optimizer(net.parameters(), lr=0.1)
    MaskedModel(net, [chosen], HALF, power)
    watched = [net[0].weight, net[0].bias, net[2].weight]
    before = [value.detach().clone() for value in watched]
    net(torch.randn(10, 8)).square().mean().backward()
    chosen.step()
    return before, [value.detach().clone() for value in watched]


@pytest.mark.parametrize("optimizer", [optim.SGD, optim.Adam])
@pytest.mark.parametrize("power", [0.5, 1.0])
def test_a_step_is_multiplied_with_one_over_the_layers_density(
    power: float, optimizer: type[optim.Optimizer]
) -> None:
    before, plain = stepped(0.0, optimizer)
    _, scaled = stepped(power, optimizer)
    for start, short, long, factor in zip(before, plain, scaled, (2**power, 1, 1), strict=True):
        torch.testing.assert_close(long - start, factor * (short - start))
    assert not scaled[0][:, 1::2].any()


def test_a_weight_that_two_optimisers_could_step_is_stretched_once_each() -> None:
    """The layer that the other optimiser steps stays as it is, to the last bit."""
    net = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))
    first, second = optim.SGD(net[0].parameters(), 0.1), optim.SGD(net[2].parameters(), 0.1)
    MaskedModel(net, [first, second], HALF, 1.0)
    net(torch.randn(10, 8)).square().mean().backward()
    untouched = net[0].weight.detach().clone()
    second.step()
    assert torch.equal(net[0].weight, untouched)


def test_weights_in_the_memory_of_another_are_stretched_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.e = nn.Linear(4, 3, bias=False)
            self.d = nn.Linear(3, 4, bias=False)
            self.d.weight = nn.Parameter(self.e.weight.t())

    def change(power: float) -> Tensor:
        torch.manual_seed(2)
        net = Tied()
        mask = {"e.weight": np.tri(3, 4, dtype=np.uint8)}
        chosen = optim.SGD(net.e.parameters(), 0.1)
        MaskedModel(net, [chosen], mask, power)
        start = net.e.weight.detach().clone()
        net.e(torch.ones(2, 4)).square().mean().backward()
        chosen.step()
        return net.e.weight.detach() - start

    torch.testing.assert_close(change(1.0), change(0.0) * 2)
