"""Layers that take the second dimension for units, where nothing in a model says that rows are no sequences.

``Linear(4, 6)`` and ``BatchNorm1d(6)`` take rows of shape (n, 4), of which the latter normalises units, and
sequences of shape (n, 6, 4), of which it normalises steps. The graph is the same. Units are followed as for
rows; a layer that gets something else then says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from secretflow.errors import ArgumentError


@dataclass(frozen=True)
class RowsAlone:
    """A hook before a layer that refuses whatever has not two dimensions.

    Attributes:
        path: of the layer in the model.
    """

    path: str

    def __call__(self, layer: nn.Module, args: tuple[Any, ...]) -> None:
        """Looks at what the layer gets.

        Raises:
            ValueError: it has not two dimensions.
        """
        if args[0].dim() != 2:
            raise ArgumentError(
                f"{self.path} ({type(layer).__name__}) must get rows of shape (n, units), since units before "
                f"it are removed, got {tuple(args[0].shape)}; for sequences use nn.LayerNorm, or leave "
                "prune_structure out"
            )


def guard(layer: nn.Module, path: str) -> None:
    """Has a layer refuse what has not two dimensions.

    Args:
        layer: changed in place, once.
        path: of the layer in its model.
    """
    if not is_guarded(layer):
        layer.register_forward_pre_hook(RowsAlone(path))


def is_guarded(layer: nn.Module) -> bool:
    """Whether :func:`guard` has been called for a layer."""
    return any(isinstance(hook, RowsAlone) for hook in layer._forward_pre_hooks.values())
