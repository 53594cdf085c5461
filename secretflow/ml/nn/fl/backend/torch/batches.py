"""Batches of one or several inputs, and outputs of one or several tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from secretflow.errors import ArgumentError

SQUEEZED = (
    "; a forward that ends in squeeze() takes the rows away too where there is one: squeeze(1) does not"
)


def moved(held: Any, device: torch.device) -> Any:
    """Tensors, and tuples, lists and dictionaries of them, on a device."""
    if isinstance(held, torch.Tensor):
        return held.to(device)
    if isinstance(held, dict):
        return {name: moved(part, device) for name, part in held.items()}
    if isinstance(held, (list, tuple)):
        return [moved(part, device) for part in held]
    return held


def row_count(x: Any) -> int:
    """Rows of the features of a batch: one tensor, or a list or dictionary of inputs."""
    while not isinstance(x, torch.Tensor):
        x = next(iter(x.values())) if isinstance(x, dict) else x[0]
    return len(x)


def outputs_of(model: nn.Module, x: Any) -> Any:
    """What a model gives for the features of a batch; several inputs are several arguments."""
    if isinstance(x, dict):
        return model(**x)
    return model(*x) if isinstance(x, (list, tuple)) else model(x)


def rows_of(output: Any) -> list[Any]:
    """A model's output row by row, without gradients, on the CPU.

    Raises:
        ValueError: it is neither a tensor nor a tuple, list or dictionary of tensors.
    """
    if isinstance(output, torch.Tensor) and output.dim():
        return list(output.detach().cpu())
    if isinstance(output, dict) and output:
        columns = zip(*map(rows_of, output.values()), strict=True)
        return [dict(zip(output, row, strict=True)) for row in columns]
    if isinstance(output, (list, tuple)) and output:
        return list(zip(*map(rows_of, output), strict=True))
    got = "a tensor without dimensions" if isinstance(output, torch.Tensor) else f"a {type(output).__name__}"
    raise ArgumentError(
        "model must give a tensor with an entry for each row, or a tuple or dictionary of such tensors, got "
        f"{got}{SQUEEZED if isinstance(output, torch.Tensor) else ''}"
    )
