"""Which units may be removed: never outputs, tied ones together, and what cannot be followed is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from experiments.dgl_utils import ConvNet, FedAvgCNN
from secretflow.ml.nn.fl.backend.torch.units import unit_groups

from .test_models import ResNet18


def sizes(net: nn.Module, structure: str, choice: Any = None) -> dict[str, int]:
    return {group.name: group.size for group in unit_groups(net, structure, choice)}


def test_each_structure_has_its_layers_and_never_the_outputs() -> None:
    net = FedAvgCNN()
    assert sizes(net, "filter") == {"conv1.weight": 32, "conv2.weight": 64}
    assert sizes(net, "neuron") == {"fc1.weight": 512}
    assert sizes(net, "unit") == {"conv1.weight": 32, "conv2.weight": 64, "fc1.weight": 512}
    assert sizes(net, "unit", ["conv*"]) == {"conv1.weight": 32, "conv2.weight": 64}


def test_a_flattened_channel_is_all_its_places() -> None:
    (group,) = unit_groups(ConvNet(), "filter")
    (read,) = group.read_by
    assert (read.name, read.dim) == ("fc.weight", 1)
    assert np.array_equal(read.units, np.repeat(np.arange(3), 64))
    assert [(axis.name, axis.dim) for axis in group.carried_by] == [("conv1.bias", 0)]


@pytest.mark.parametrize(
    ("norm", "stem"),
    [(nn.BatchNorm2d, 16), (lambda width: nn.GroupNorm(4, width), 4)],
    ids=["batch", "group"],
)
def test_channels_that_are_added_up_or_normalised_together_are_tied(norm: Any, stem: int) -> None:
    groups = {group.name: group for group in unit_groups(ResNet18(norm), "filter")}
    stream = groups["body.0.weight"]
    assert [axis.name for axis in stream.made_by] == [
        *("body.0.weight", "body.3.conv2.weight", "body.4.conv2.weight")
    ]
    assert {axis.name for axis in stream.read_by} == {
        *("body.3.conv1.weight", "body.4.conv1.weight", "body.5.conv1.weight", "body.5.way.0.weight")
    }
    assert stream.size == stem
    # Within a block a layer's channels are its own.
    inner = groups["body.3.conv1.weight"]
    assert [axis.name for axis in inner.made_by] == ["body.3.conv1.weight"]
    assert "fc.weight" not in groups


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), Deciding())
        self.out = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.body(x))


class Deciding(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class Reader(nn.Module):
    """Something that no rule covers reads the units."""

    def __init__(self, how: Any) -> None:
        super().__init__()
        self.hidden, self.out, self.how = nn.Linear(4, 6), nn.Linear(6, 2), how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.how(self.hidden(x)))


class Twice(nn.Module):
    """A layer's weight is used by the layer and by a function."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.hidden(x)) + x.matmul(self.hidden.weight).sum(dim=1, keepdim=True)


class OwnLinear(nn.Linear):
    """Computes what its parent does."""


class OwnView(nn.Module):
    """A decoder that is its encoder's transpose."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(6, 3), nn.Linear(3, 6)
        self.decoder.weight = nn.Parameter(self.encoder.weight.t())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(torch.relu(self.encoder(x)))


REFUSED = [
    (Branches(), "neuron", None, r"by torch.fx .*, got body.1 \(Deciding\), whose forward is not: .*"),
    (ConvNet(), "neuron", None, "outputs of linear layers .*, got fc.weight, .* softmax"),
    (nn.Sequential(nn.Linear(4, 2)), "neuron", None, "got 0.weight, whose units are the model's output"),
    (nn.Sequential(nn.Linear(4, 2)), "filter", None, "channels of .*, got Sequential, which has none"),
    (FedAvgCNN(), "unit", ["fc*"], "got fc2.weight, whose units are the model's output"),
    (FedAvgCNN(), "filter", ["fc1.weight"], "got fc1.weight, whose units are not output channels of"),
    (Reader(nn.LayerNorm(6)), "neuron", None, r"hidden.weight, .* read by how \(LayerNorm\), which"),
    (Reader(lambda x: x[:, [1, 0, 2, 3, 4, 5]]), "neuron", None, "got hidden.weight, .* read by getitem"),
    (Reader(lambda x: x / x.size(1)), "neuron", None, "got hidden.weight, .* read by size"),
    (Reader(spectral_norm(nn.Linear(6, 6))), "neuron", ["hidden*"], "got hidden.weight, .* read by how"),
    (Twice(), "neuron", None, "got hidden.weight, .* which is used outside of its layer"),
    (OwnView(), "neuron", None, "whose units are in memory that .* and .* share"),
    (ResNet18(), "filter", ["body.0.weight"], "got body.0.weight, .* tied to those of body.3.conv2"),
]


@pytest.mark.parametrize(("net", "structure", "choice", "message"), REFUSED, ids=range(len(REFUSED)))
def test_what_must_stay_is_refused_by_name_and_reason(
    net: nn.Module, structure: str, choice: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=f"^model must .*{message}"):
        unit_groups(net, structure, choice)


def test_a_subclass_that_computes_the_same_has_units() -> None:
    assert sizes(nn.Sequential(OwnLinear(3, 5), nn.ReLU(), OwnLinear(5, 2)), "neuron") == {"0.weight": 5}


def test_following_units_leaves_the_model_as_it_is() -> None:
    net = ResNet18().train()
    net.body[1].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    unit_groups(net, "unit")
    assert modes == [module.training for module in net.modules()]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
