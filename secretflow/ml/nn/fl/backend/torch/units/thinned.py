"""A net with some of its units."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn.modules import batchnorm, conv, instancenorm

from .groups import Followed
from .rows_alone import guard


def thinned(model: nn.Module, found: Followed, kept: Sequence[np.ndarray]) -> fx.GraphModule:
    """A net with some of its units, in evaluation mode.

    Args:
        model: the net; left as it is.
        found: its units; the graph is used up.
        kept: for each group the numbers of the units that stay, ascending, at least one.
    """
    places, lives = _places(found, kept), _lives(found, kept)
    layers: dict[str, Any] = {}
    for node in found.graph.nodes:
        if node.op == "call_module" and node.target not in layers:
            layers[node.target] = _layer(model.get_submodule(node.target), node.target, found, places, lives)
        elif node.op == "get_attr":
            owner, _, name = node.target.rpartition(".")
            layers[node.target] = copy.deepcopy(getattr(model.get_submodule(owner), name))
        elif node in found.flow.views_of_width:
            ids = found.flow.views_of_width[node].ids
            sizes = node.args[1] if len(node.args) == 2 else node.args[1:]
            width = sizes[1] // len(ids) * int(lives[found.flow.ids.roots(ids)].sum())
            node.args = (node.args[0], (sizes[0], width))
    return fx.GraphModule(layers, found.graph, type(model).__name__).eval()


def _places(found: Followed, kept: Sequence[np.ndarray]) -> dict[tuple[str, int], np.ndarray]:
    """By array and dimension which positions stay, boolean."""
    places: dict[tuple[str, int], np.ndarray] = {}
    for group, units in zip(found.structure, kept, strict=True):
        for axis in (*group.made_by, *group.read_by, *group.carried_by):
            stays = (axis.units < 0) | np.isin(axis.units, units)
            places[axis.name, axis.dim] = places.get((axis.name, axis.dim), True) & stays
    return places


def _lives(found: Followed, kept: Sequence[np.ndarray]) -> np.ndarray:
    """Of each number of a unit, if nothing is tied to it that is smaller, whether it stays; boolean."""
    lives = np.ones(found.flow.ids.count(), bool)
    for group, units in zip(found.structure, kept, strict=True):
        for axis in group.made_by:
            lives[found.flow.ids.roots(found.flow.axes[axis.name, axis.dim])] = np.isin(axis.units, units)
    return lives


def _layer(
    layer: nn.Module,
    path: str,
    found: Followed,
    places: dict[tuple[str, int], np.ndarray],
    lives: np.ndarray,
) -> nn.Module:
    """A copy of a layer with fewer units."""
    small, flow = copy.deepcopy(layer), found.flow
    for name, parameter in small._parameters.items():
        if parameter is not None:
            smaller = _some(parameter.detach(), flow.names[f"{path}.{name}"], places)
            small._parameters[name] = nn.Parameter(smaller, parameter.requires_grad)
    for name, buffer in small._buffers.items():
        if buffer is not None:
            small._buffers[name] = _some(buffer, flow.names[f"{path}.{name}"], places)
    normed = flow.normed.get(path)
    if path in flow.of_rows:
        guard(small, path)
    _describe(small, 0 if normed is None else int(lives[flow.ids.roots(normed)].sum()))
    return small


def _some(tensor: torch.Tensor, name: str, places: dict[tuple[str, int], np.ndarray]) -> torch.Tensor:
    """The positions of a tensor that stay."""
    for dim in range(tensor.dim()):
        if (name, dim) in places:
            stay = torch.from_numpy(np.flatnonzero(places[name, dim]))
            tensor = tensor.index_select(dim, stay.to(tensor.device))
    return tensor


def _describe(layer: Any, units: int) -> None:
    """Has a layer say what its arrays have become.

    Args:
        layer: changed in place.
        units: how many it normalises; 0 if it is another layer.
    """
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, conv._ConvNd) and layer.groups == 1:
        layer.out_channels, layer.in_channels = layer.weight.shape[:2]
        if layer.transposed:
            layer.in_channels, layer.out_channels = layer.weight.shape[:2]
    elif isinstance(layer, conv._ConvNd) and layer.groups == layer.in_channels:
        each = layer.out_channels // layer.groups
        layer.out_channels = layer.weight.shape[0]
        layer.in_channels = layer.groups = layer.out_channels // each
    elif isinstance(layer, (batchnorm._BatchNorm, instancenorm._InstanceNorm)) and units:
        layer.num_features = units
    elif isinstance(layer, nn.GroupNorm) and units:
        layer.num_groups = units // (layer.num_channels // layer.num_groups)
        layer.num_channels = units
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = layer.weight.numel()
