"""Follows units through the graph of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import torch
from torch import fx, nn
from torch.nn.utils import parametrize

from secretflow.ml.nn.fl.backend.torch.shared_memory import View

from .ids import Channels, Ids
from .rows_alone import RowsAlone

Value: TypeAlias = "Channels | None"
"""What is known of a tensor; None where it has no units that may go."""


@dataclass(eq=False)
class Flow:
    """What has been found out about a model's units.

    Attributes:
        names: for each parameter or buffer by name the first name of the same one.
        ids: the units' numbers.
        axes: by array and dimension the units of its positions.
        roles: by array and dimension whether it "makes", "reads" or "carries" its units.
        normed: by the path of a normalisation layer its units.
        views_of_width: nodes that make a tensor flat whose width is written down in the graph, and the units
            of its elements.
        of_rows: paths of layers whose units are in the second dimension for want of anything that says more.
        met: names of all arrays of layers that were met.
        assumes_rows: whether a tensor of which nothing else is known holds a vector for each row.
        dimensions: how many the tensor has that the layer at hand gets; None if nobody knows.
    """

    names: Mapping[str, str]
    ids: Ids = field(default_factory=Ids)
    axes: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    roles: dict[tuple[str, int], set[str]] = field(default_factory=dict)
    normed: dict[str, np.ndarray] = field(default_factory=dict)
    views_of_width: dict[fx.Node, Channels] = field(default_factory=dict)
    of_rows: set[str] = field(default_factory=set)
    met: set[str] = field(default_factory=set)
    assumes_rows: bool = True
    dimensions: int | None = None

    def output(self, path: str, tensor: str, dim: int, size: int) -> np.ndarray:
        """The units that a weight makes; the same each time that its layer is called.

        Args:
            path: of the layer.
            tensor: the weight's name in it.
            dim: dimension of the units.
            size: how many.
        """
        ids = self.axes.get(self._key(path, tensor, dim))
        ids = self.ids.fresh(size) if ids is None else ids
        self._bind(path, tensor, dim, ids, "makes")
        return ids

    def reads(self, path: str, tensor: str, dim: int, ids: np.ndarray) -> None:
        """Says that a weight reads units.

        Args:
            path: of the layer.
            tensor: the weight's name in it.
            dim: dimension of the weight.
            ids: of each position along it.
        """
        self._bind(path, tensor, dim, ids, "reads")

    def carries(self, path: str, layer: nn.Module, tensor: str, ids: np.ndarray) -> None:
        """Says that an array of one dimension, if the layer has it, has an entry for each unit."""
        if layer._parameters.get(tensor, layer._buffers.get(tensor)) is not None:
            self._bind(path, tensor, 0, ids, "carries")

    def normalises(self, path: str, ids: np.ndarray) -> None:
        """Says which units a layer normalises; the same each time that it is called."""
        self.ids.tie(self.normed.setdefault(path, ids), ids)

    def input(self, x: Value, width: int, why: str) -> np.ndarray:
        """The units that a layer of a width reads; those of an input of the model, which stay, if there are
        none.

        Args:
            x: what the layer gets.
            width: how many it reads.
            why: reason to keep those that do not fit.
        """
        ids = x.widened(width) if x is not None else None
        if ids is None:
            self.keep(x, why)
            ids = self.ids.fresh(width)
            self.ids.keep(ids, "are not those of a layer")
        return ids

    def keep(self, x: Value, why: str) -> None:
        """Says that the units of a tensor must stay."""
        if x is not None:
            self.ids.keep(x.ids, why)

    def keep_shared(self, views: Mapping[str, View]) -> None:
        """Says that units of weights must stay that lie in the memory of others in a way that is not
        followed.

        Args:
            views: of :func:`~secretflow.ml.nn.fl.backend.torch.shared_memory.views_of`.
        """
        for name, view in views.items():
            if view.positions is None and {name, view.of} <= self.met:
                continue
            for array in (name, view.of):
                self.keep_array(array, f"are in memory that {view.of} and {name} share")

    def keep_array(self, name: str | None, why: str) -> None:
        """Says that the units of an array, if it has any, must stay."""
        for (array, _), ids in self.axes.items():
            if array == name:
                self.ids.keep(ids, why)

    def _bind(self, path: str, tensor: str, dim: int, ids: np.ndarray, role: str) -> None:
        key = self._key(path, tensor, dim)
        self.ids.tie(self.axes.setdefault(key, ids), ids)
        self.roles.setdefault(key, set()).add(role)

    def _key(self, path: str, tensor: str, dim: int) -> tuple[str, int]:
        name = f"{path}.{tensor}" if path else tensor
        self.met.add(name)
        return self.names[name], dim


def first_names(model: nn.Module, views: Mapping[str, View]) -> dict[str, str]:
    """For each parameter and buffer by name the first name of the same one.

    Args:
        model: the model.
        views: of :func:`~secretflow.ml.nn.fl.backend.torch.shared_memory.views_of`.
    """
    first: dict[int, str] = {}
    names: dict[str, str] = {}
    tensors: list[tuple[str, torch.Tensor]] = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    for name, tensor in tensors:
        names[name] = first.setdefault(id(tensor), name)
    same = {name: view.of for name, view in views.items() if view.positions is None}
    return {name: same.get(name, of) for name, of in names.items()}


def computes_anew(layer: nn.Module) -> bool:
    """Whether a layer computes a weight from others, or has hooks that may."""
    before = any(not isinstance(hook, RowsAlone) for hook in layer._forward_pre_hooks.values())
    return parametrize.is_parametrized(layer) or before or bool(layer._forward_hooks)
