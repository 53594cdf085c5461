"""Convolutions of many models at once, as one batched product of matrices.

What vmap makes of a convolution is one of many groups, which a GPU computes one after the other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class MatrixConv2d(nn.Conv2d):
    """A convolution for use under one :func:`torch.func.vmap`, with padding of zeros and no dilation."""

    def forward(self, x: Tensor) -> Tensor:
        """As :class:`torch.nn.Conv2d`; what comes out lies in memory pixel by pixel."""
        assert not isinstance(self.padding, str)  # no net here names it by a word
        out = _Single.apply(x, self.weight, self.stride[0], self.padding[0])
        return out if self.bias is None else out + self.bias[:, None, None]


class _Single(torch.autograd.Function):
    """A model's convolution, which vmap turns into that of all models."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        return _Stacked.apply(x[None], weight[None], stride, padding)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keeps nothing: vmap calls :class:`_Stacked`, which is differentiated in its place."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        x, weight = (value.movedim(dim, 0) for value, dim in zip(args[:2], in_dims[:2], strict=True))
        return _Stacked.apply(x, weight, *args[2:]), 0


class _Stacked(torch.autograd.Function):
    """Square images (models, rows, channels, side, side), weights (models, outputs, channels, k, k)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        kernel = weight.shape[3]
        columns, (down, right) = _columns(x, kernel, stride, (padding, padding))
        ctx.save_for_backward(columns, weight)
        ctx.stride, ctx.padding, ctx.shape = stride, padding, x.shape
        out = columns @ weight.permute(0, 3, 4, 2, 1).flatten(1, 3)
        return out.view(len(x), -1, down, right, weight.shape[1]).permute(0, 1, 4, 2, 3)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (grad,) = gradients
        columns, weight = ctx.saved_tensors
        models, outputs, channels, kernel, _ = weight.shape
        flat = grad.permute(0, 1, 3, 4, 2).reshape(models, -1, outputs)
        of_weight = (columns.transpose(1, 2) @ flat).view(models, kernel, kernel, channels, outputs)
        of_weight = of_weight.permute(0, 4, 3, 1, 2)
        if not ctx.needs_input_grad[0]:
            return None, of_weight, None, None
        size = ctx.shape[3]
        if ctx.stride > 1:  # zeros between the pixels
            apart = grad.new_zeros(*grad.shape[:3], *[ctx.stride * (side - 1) + 1 for side in grad.shape[3:]])
            apart[..., :: ctx.stride, :: ctx.stride] = grad
            grad = apart
        before = kernel - 1 - ctx.padding
        behind = size + kernel - 1 - before - grad.shape[3]
        columns, _ = _columns(grad, kernel, 1, (before, behind))
        of_x = columns @ weight.flip(3, 4).permute(0, 3, 4, 1, 2).flatten(1, 3)
        return of_x.view(models, -1, size, size, channels).permute(0, 1, 4, 2, 3), of_weight, None, None


def _columns(x: Tensor, kernel: int, stride: int, padding: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
    """What each output pixel looks at, (models, pixels of all rows, k * k * channels); height, width."""
    models, rows, channels, height, width = x.shape
    before, behind = padding
    tall, wide = height + before + behind, width + before + behind
    padded = x.new_zeros(models, rows, tall, wide, channels)
    padded[:, :, before : before + height, before : before + width] = x.permute(0, 1, 3, 4, 2)
    down, right = (tall - kernel) // stride + 1, (wide - kernel) // stride + 1
    line = wide * channels
    windows = padded.as_strided(
        (models * rows, down, right, kernel, kernel * channels),
        (tall * line, stride * line, stride * channels, line, 1),
    )
    return windows.reshape(models, rows * down * right, kernel * kernel * channels), (down, right)
