"""The small net: really smaller, the same outputs, whatever the model is made of."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from benchmarks.large_net import ResNet18
from experiments.dgl_utils import ConvNet, FedAvgCNN, LeNet
from secretflow.ml.nn.fl.backend.torch.masked_model import apply_mask, full_mask_of
from secretflow.ml.nn.fl.backend.torch.units import unit_groups
from secretflow.ml.nn.fl.pruning.structure import mask_of_units
from secretflow.ml.nn.fl.small_model import export_dense_small, load_dense_small, save_dense_small
from secretflow.ml.nn.fl.sparse_model import export_sparse


def thin_out(net: nn.Module, part: float, seed: int) -> nn.Module:
    """Random weights and statistics; then a part of the units of each group goes, their biases stay."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in net.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
        for parameter in net.parameters():
            parameter.mul_(2 / max(1, parameter[0].numel()) ** 0.5).sub_(0.3 / parameter[0].numel() ** 0.5)
    structure = unit_groups(net, "unit")
    rng = np.random.default_rng(seed)
    living = []
    for group in structure:
        units = np.ones(group.size, np.uint8)
        units[rng.permutation(group.size)[: min(round(part * group.size), group.size - 1)]] = 0
        living.append(units)
    shapes = {name: entry.shape for name, entry in full_mask_of(net).items()}
    apply_mask(net, mask_of_units(structure, shapes, living))
    return net.eval()


def assert_same(net: nn.Module, small: nn.Module, *shape: int) -> None:
    x = torch.rand(5, *shape) - 0.3
    with torch.no_grad():
        expected, got = net(x), small(x)
    assert torch.isfinite(expected).all() and got.shape == expected.shape
    assert (got - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))


def size(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


class Depthwise(nn.Module):
    """Depthwise and transposed convolutions, a concatenation, and a width that is written down."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.each = nn.Conv2d(6, 12, 3, groups=6)
        self.beside = nn.Conv2d(1, 4, 3)
        self.both = nn.Conv2d(16, 8, 1)
        self.act = nn.PReLU(8)
        self.up = nn.ConvTranspose2d(8, 5, 2)
        self.hidden = nn.Linear(5 * 4 * 4, 9)
        self.out = nn.Linear(9, 3)

    def forward(self, x: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
        if scale is not None:
            x = x * scale
        y = self.each(F.relu(self.norm(self.first(x))))
        z = F.max_pool2d(self.beside(x), 3, stride=1)
        y = self.up(self.act(self.both(torch.cat([y, z], 1))))
        y = F.adaptive_avg_pool2d(y, 4).view(-1, 5 * 4 * 4)
        return self.out(torch.tanh(self.hidden(y)))


class Gated(nn.Module):
    """A linear layer scales channels (squeeze and excitation), and a layer is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 8, 3)
        self.norm = nn.InstanceNorm1d(8, affine=True, track_running_stats=True)
        self.again = nn.Conv1d(8, 8, 3, padding=1)
        self.narrow = nn.Linear(8, 3)
        self.wide = nn.Linear(3, 8)
        self.out = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.again(self.again(self.norm(self.conv(x))))
        gate = torch.sigmoid(self.wide(F.relu(self.narrow(x.mean(dim=2)))))
        b = x.shape[0]
        return self.out(F.dropout(gate * x.mean(dim=-1), 0.5, self.training).reshape(b, -1))


class TiedHeads(nn.Module):
    """A layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 10)
        self.b = nn.Linear(6, 10)
        self.b.weight = self.a.weight
        self.out = nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.a(x))) + self.out(torch.relu(self.b(-x)))


class SharedNorm(nn.Module):
    """A normalisation without parameters is called for two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3)
        self.norm = nn.GroupNorm(4, 8, affine=False)
        self.out = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.b(torch.relu(self.norm(self.a(x))))))
        return self.out(F.adaptive_max_pool2d(x, 1).squeeze(-1).squeeze(-1))


def mlp() -> nn.Module:
    return nn.Sequential(
        *(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.Linear(12, 8), nn.GroupNorm(4, 8), nn.Tanh(), nn.Linear(8, 3)),
    )


def plain_cnn() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8, affine=False), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.ZeroPad2d(1), nn.Conv2d(8, 8, 3), nn.GroupNorm(8, 8), nn.GELU(), nn.Upsample(scale_factor=2.0)),
        *(nn.Dropout2d(), nn.Flatten(), nn.Linear(8 * 10 * 10, 5), nn.Sigmoid(), nn.Linear(5, 2)),
    )


NETS: dict[Callable[[], nn.Module], tuple[int, ...]] = {
    ConvNet: (1, 28, 28),
    FedAvgCNN: (1, 28, 28),
    LeNet: (1, 28, 28),
    ResNet18: (3, 32, 32),
    Depthwise: (1, 12, 12),
    Gated: (2, 9),
    TiedHeads: (6,),
    SharedNorm: (1, 9, 9),
    mlp: (6,),
    plain_cnn: (1, 12, 12),
}


@pytest.mark.parametrize("net", NETS)
def test_outputs_are_the_same_and_parameters_fewer(net: Callable[[], nn.Module], tmp_path: Path) -> None:
    trained = thin_out(net(), 0.5, seed=4)
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    small = export_dense_small(trained)
    assert size(small) < 0.8 * size(trained)
    assert_same(trained, small, *NETS[net])
    save_dense_small(trained, tmp_path / "small")
    loaded = load_dense_small(tmp_path / "small", net())
    assert_same(trained, loaded, *NETS[net])
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())


@st.composite
def nets(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, ...]]:
    """Convolutions, sums around them, normalisations and linear layers, in any order that fits."""
    channels, places = draw(st.integers(1, 3)), 8
    shape = (channels, places, places)
    layers: list[nn.Module] = []
    for _ in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(["conv", "norm", "group", "act", "pool", "around", "each"]))
        if kind == "conv":
            out = draw(st.integers(1, 6))
            layers.append(nn.Conv2d(channels, out, 3, padding=1, bias=draw(st.booleans())))
            channels = out
        elif kind == "norm":
            layers.append(nn.BatchNorm2d(channels))
        elif kind == "group":
            layers.append(
                nn.GroupNorm(draw(st.sampled_from([d for d in (1, 2, 3, 6) if channels % d == 0])), channels)
            )
        elif kind == "act":
            layers.append(draw(st.sampled_from([nn.ReLU, nn.Sigmoid, nn.SiLU]))())
        elif kind == "pool" and places > 2:
            layers.append(draw(st.sampled_from([nn.MaxPool2d, nn.AvgPool2d]))(2))
            places //= 2
        elif kind == "around":
            layers.append(Around(channels, draw(st.integers(1, 5))))
        elif kind == "each":
            layers.append(nn.Conv2d(channels, 2 * channels, 3, padding=1, groups=channels))
            channels *= 2
    layers.append(nn.Flatten())
    width = channels * places * places
    for _ in range(draw(st.integers(1, 3))):
        out = draw(st.integers(1, 6))
        layers += [nn.Linear(width, out), *([nn.BatchNorm1d(out)] if draw(st.booleans()) else []), nn.ReLU()]
        width = out
    return nn.Sequential(*layers, nn.Linear(width, 2)), shape


class Around(nn.Module):
    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(channels, inner, 3, padding=1)
        self.b = nn.Conv2d(inner, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.b(torch.relu(self.a(x)))


@settings(deadline=None)
@given(nets(), st.floats(0, 1), st.integers(0, 2**31))
def test_any_net_computes_the_same_without_its_removed_units(
    net: tuple[nn.Module, tuple[int, ...]], part: float, seed: int
) -> None:
    module, shape = net
    trained = thin_out(module, part, seed)
    assert_same(trained, export_dense_small(trained, torch.rand(3, *shape)), *shape)


class Sequences(nn.Module):
    """Two layers for each step, and something that takes one of the dimensions."""

    def __init__(self, how: Callable[..., torch.Tensor], norm: nn.Module, width: int, steps: int = 0) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Linear(4, 6), nn.Linear(4, 6), norm
        self.hidden, self.out = nn.Linear(width, 9), nn.Linear(9, 3)
        self.how, self.steps = how, steps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.view(-1, self.steps, 4) if self.steps else x
        y = self.how(torch.relu(self.norm(self.a(x))), torch.relu(self.b(x)))
        return self.out(torch.tanh(self.hidden(y)))


class Mapped(nn.Module):
    """A convolution whose places become rows, or whose last dimension is taken off."""

    def __init__(self, how: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.conv, self.hidden, self.out = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8, 6), nn.Linear(6, 2)
        self.how = how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.out(torch.relu(self.hidden(self.how(torch.relu(self.conv(x))))))
        return y.view(x.size(0), -1)


def in_steps(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.cat([a, b], 1).flatten(1)


def of_units(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.cat([a, b], 2).mean(1)


def mean_of_steps(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a + b).mean(1)


def whole(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * b).flatten(1)


DIMENSIONS: list[tuple[Callable[[], nn.Module], tuple[int, ...]]] = [
    (lambda: Sequences(in_steps, nn.Identity(), 36), (3, 4)),
    (lambda: Sequences(in_steps, nn.Identity(), 36, steps=3), (12,)),
    (lambda: Sequences(of_units, nn.Identity(), 12, steps=3), (12,)),
    (lambda: Sequences(mean_of_steps, nn.BatchNorm1d(6), 6), (6, 4)),
    (lambda: Sequences(mean_of_steps, nn.GroupNorm(3, 6), 6), (6, 4)),
    (lambda: Sequences(mean_of_steps, nn.PReLU(6), 6), (6, 4)),
    (lambda: Sequences(whole, nn.BatchNorm1d(6), 36, steps=6), (24,)),
    (lambda: Sequences(whole, nn.InstanceNorm1d(6, affine=True), 36), (6, 4)),
    (lambda: Mapped(lambda x: x.view(-1, 8)), (1, 4, 4)),
    (lambda: Mapped(lambda x: F.adaptive_avg_pool2d(x, 1).view(-1, 8)), (1, 4, 4)),
    (lambda: Mapped(lambda x: x.mean((2, 3), keepdim=True).view(-1, 8)), (1, 4, 4)),
    (lambda: Mapped(lambda x: x.squeeze(-1).permute(0, 2, 3, 1)), (1, 4, 4)),
    (lambda: Mapped(lambda x: F.max_pool2d(x, 4).squeeze(-1).squeeze(-1)), (1, 4, 4)),
]


@pytest.mark.parametrize(("net", "shape"), DIMENSIONS, ids=range(len(DIMENSIONS)))
def test_units_are_those_of_their_dimension_whatever_the_sizes(
    net: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    """Where steps are as many as units, or places become rows, a size says nothing."""
    trained = thin_out(net(), 0.5, seed=4)
    assert_same(trained, export_dense_small(trained, torch.rand(3, *shape)), *shape)


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm1d, partial(nn.GroupNorm, 6), nn.PReLU], ids=["batch", "group", "p"]
)
def test_a_small_net_of_rows_says_that_it_takes_no_sequences(norm: Any, tmp_path: Path) -> None:
    """Of as many steps as there are units: then nothing in the model told the two apart."""
    net = nn.Sequential(nn.Linear(4, 12), norm(12), nn.ReLU(), nn.Linear(12, 2))
    trained = thin_out(net, 0.5, seed=4)
    save_dense_small(trained, tmp_path / "small")
    loaded = load_dense_small(tmp_path / "small", net)
    for small in (export_dense_small(trained), loaded, pickle.loads(pickle.dumps(loaded))):
        assert_same(trained, small, 4)
        with pytest.raises(
            ValueError, match=r"^1 \(.*\) must get rows of shape \(n, units\), .* got \(3, 12, 6\);"
        ):
            small(torch.rand(3, 12, 4))
    # A small net can be made smaller, and the trained one takes what it took.
    assert size(export_dense_small(thin_out(loaded, 0.5, seed=1))) < size(loaded)
    assert trained(torch.rand(3, 12, 4)).shape == (3, 12, 2)


def test_a_small_net_that_computes_something_else_is_not_given_out(tmp_path: Path) -> None:
    # Nothing in it says that rows are sequences, of as many steps as there are units.
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))
    trained = thin_out(net, 0.5, seed=4)
    assert_same(trained, export_dense_small(trained, torch.rand(3, 4)), 4)
    with pytest.raises(ValueError, match="model must have units that can be followed"):
        export_dense_small(trained, torch.rand(3, 6, 4))
    with pytest.raises(ValueError, match="model must have units that can be followed"):
        save_dense_small(trained, tmp_path / "small", torch.rand(3, 6, 4))
    assert not (tmp_path / "small").exists()


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(3, 8), nn.Linear(5, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.a(x) + self.b(z)))


def test_a_net_of_several_inputs_is_compared_on_those_that_are_given() -> None:
    trained = thin_out(TwoInputs(), 0.5, seed=4)
    with pytest.raises(ValueError, match="inputs must be features of a batch as the model gets them"):
        export_dense_small(trained)
    inputs = (torch.rand(4, 3), torch.rand(4, 5))
    small = export_dense_small(trained, inputs)
    assert size(small) < size(trained)
    assert torch.allclose(small(*inputs), trained(*inputs), atol=1e-5)


def test_a_net_that_lost_nothing_stays_as_large() -> None:
    net = FedAvgCNN()
    assert size(export_dense_small(net)) == size(net)


def test_a_file_of_another_net_is_refused(tmp_path: Path) -> None:
    save_dense_small(thin_out(FedAvgCNN(), 0.5, 0), tmp_path / "small")
    with pytest.raises(ValueError, match="path must hold a small model of LeNet, got one of another net"):
        load_dense_small(tmp_path / "small", LeNet())
    export_sparse(FedAvgCNN().state_dict(), tmp_path / "sparse")
    with pytest.raises(ValueError, match="path must hold a small model of FedAvgCNN, got one of another net"):
        load_dense_small(tmp_path / "sparse", FedAvgCNN())
    with pytest.raises(FileNotFoundError):
        load_dense_small(tmp_path / "nothing", FedAvgCNN())
