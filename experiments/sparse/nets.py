"""Nets of the sparse evaluation beside those of :mod:`experiments.dgl_utils`; none has buffers."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_GROUPS = 8


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.GroupNorm(_GROUPS, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.GroupNorm(_GROUPS, outputs)
        self._stride, self._more = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        # The shortcut without weights: every second pixel, and channels of zeros.
        short = x[:, :, :: self._stride, :: self._stride]
        return F.relu(out + F.pad(short, (0, 0, 0, 0, 0, self._more)))


class ResNet20(nn.Module):
    """ResNet-20 with group normalisation for 28x28 images: 268,048 prunable weights of 269,434 in all.

    The first convolution has stride 2, so that the blocks see 14, 7 and 4 pixels: a quarter of the
    arithmetic, the same weights.

    Source: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016, section 4.2; group
    normalisation after Hsieh et al., "The non-IID data quagmire of decentralized machine learning", ICML
    2020.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3, 2, 1, bias=False)
        self.norm = nn.GroupNorm(_GROUPS, 16)
        widths = [16] * 4 + [32] * 3 + [64] * 3
        self.blocks = nn.Sequential(*[_Block(a, b, b // a) for a, b in pairwise(widths)])
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores of images of shape (rows, 1, 28, 28)."""
        out = self.blocks(F.relu(self.norm(self.conv(x))))
        return self.fc(out.mean((2, 3)))


class Lstm(nn.Module):
    """An LSTM of 128 units over the rows of an 8x8 digit, eight steps: 70,912 prunable weights."""

    def __init__(self, features: int = 8, units: int = 128, classes: int = 10) -> None:
        super().__init__()
        self.input = nn.Linear(features, 4 * units)
        self.hidden = nn.Linear(units, 4 * units, bias=False)
        self.out = nn.Linear(units, classes)
        self._units = units

    def forward(self, x: Tensor) -> Tensor:
        """Class scores of sequences of shape (rows, steps, features)."""
        # Written out, because nn.LSTM cannot be stacked by vmap.
        h = c = torch.zeros((), dtype=x.dtype, device=x.device).expand(x.shape[0], self._units)
        for now in self.input(x).unbind(1):
            i, f, g, o = (now + self.hidden(h)).chunk(4, -1)
            c = torch.sigmoid(f + 1) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return self.out(h)


class TableNet(nn.Module):
    """A perceptron for tables: 30 features, two hidden layers of 64, two classes; 6,144 prunable weights."""

    def __init__(self, features: int = 30, classes: int = 2) -> None:
        super().__init__()
        self.hidden1 = nn.Linear(features, 64)
        self.hidden2 = nn.Linear(64, 64)
        self.out = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores of rows of shape (rows, features)."""
        return self.out(F.relu(self.hidden2(F.relu(self.hidden1(x)))))
