"""Inputs on which a smaller net is compared with the one that it was made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules import conv
from torch.utils._pytree import tree_leaves

from secretflow.errors import ArgumentError
from secretflow.ml.nn.fl.backend.torch.batches import outputs_of
from secretflow.ml.nn.fl.backend.torch.evaluation import evaluation_mode

_SIDES = (32, 28, 16, 8, 64, 24, 48, 96, 224, *range(128))
_ROUNDINGS = 1000
"""How many units in the last place of the largest output two nets may differ by."""


def check_same(model: nn.Module, small: nn.Module, inputs: Any = None) -> None:
    """Refuses a smaller net that does not compute what its model does.

    Args:
        model: the model; left as it is.
        small: made of it, in evaluation mode.
        inputs: features of a batch as the model gets them; None looks for a shape that it takes, and fills it
            with normal random numbers.

    Raises:
        ValueError: outputs differ, or no shape was found.
    """
    with evaluation_mode(model):
        expected = _called(model, inputs) if inputs is not None else None
        if inputs is None:
            found = next(((x, out) for x in _guesses(model) if (out := _tried(model, x)) is not None), None)
            if found is None:
                raise ArgumentError(
                    "inputs must be features of a batch as the model gets them, to compare the small model "
                    "with it, got None, and no shape of one tensor was found that it takes"
                )
            inputs, expected = found
        try:
            got = _called(small, inputs)
        except Exception as error:  # whatever a layer of another width raises
            raise ArgumentError(f"{_WHAT}, got {type(error).__name__}: {error}") from error
    assert expected is not None
    for one, other in zip(expected, got, strict=True):
        scale = max(1.0, float(one.abs().nan_to_num().max())) if one.numel() else 1.0
        bound = _ROUNDINGS * (torch.finfo(one.dtype).eps if one.is_floating_point() else 0) * scale
        same = one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=bound, equal_nan=True)
        if not same:
            apart = float((one - other).abs().max()) if one.shape == other.shape else tuple(other.shape)
            raise ArgumentError(f"{_WHAT}, got outputs that differ from its own: {apart}")


_WHAT = (
    "model must have units that can be followed to the layers that read them for a small model that computes "
    "the same; export_sparse has no such limit"
)


def _called(net: nn.Module, inputs: Any) -> list[torch.Tensor]:
    with torch.no_grad():
        return [leaf for leaf in tree_leaves(outputs_of(net, inputs)) if isinstance(leaf, torch.Tensor)]


def _tried(net: nn.Module, x: torch.Tensor) -> list[torch.Tensor] | None:
    try:
        return _called(net, x)
    except (RuntimeError, ValueError, IndexError, TypeError):
        return None


def _guesses(model: nn.Module) -> Iterator[torch.Tensor]:
    """Inputs of shapes that the first layers take, the most usual first."""
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(1))
    generator = torch.Generator().manual_seed(0)
    for shape in _shapes(model):
        yield torch.randn(4, *shape, generator=generator).to(like)


def _shapes(model: nn.Module) -> Iterator[tuple[int, ...]]:
    layers = [m for m in model.modules() if isinstance(m, (nn.Linear, conv._ConvNd))]
    convolutions = [layer for layer in layers if isinstance(layer, conv._ConvNd)]
    for layer in [*convolutions[:1], *layers]:
        if isinstance(layer, nn.Linear):
            yield from ((layer.in_features,), (3, layer.in_features))
        else:
            sides = _SIDES[: len(_SIDES) if len(layer.kernel_size) < 3 else 6]
            yield from ((layer.in_channels, *(side,) * len(layer.kernel_size)) for side in sides if side)
    yield from ((width,) for width in range(1, 1025))
