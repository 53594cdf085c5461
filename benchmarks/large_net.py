"""A net of eleven million weights, for what only shows at that size; needs nothing but torch and upstream."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from secretflow.ml.nn.core.torch import BaseModule

CLASSES = 10
CHANNELS = (64, 128, 256, 512)
GROUPS = 32


class Block(nn.Module):
    """Two 3x3 convolutions behind GroupNorm, added onto their input.

    Args:
        before: channels that come in.
        after: channels that go out.
        stride: of the first convolution; where it or the channels change the shape, a 1x1 convolution
            brings the input to it.
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(GROUPS, after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(GROUPS, after)
        self.shortcut = nn.Sequential()
        if stride > 1 or before != after:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.GroupNorm(GROUPS, after)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (batch, before, h, w) to (batch, after, h / stride, w / stride)."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResNet18(BaseModule):
    """ResNet-18 for images of 32x32 pixels: 11,173,962 parameters.

    GroupNorm stands where the paper has batch normalisation, whose running averages of rows have no
    place in an average of models.

    Sources: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016, table 1, with the
    first layer of its section 4.2; Hsieh et al., "The non-IID data quagmire of decentralized machine
    learning", ICML 2020, section 5 (GroupNorm).
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, CHANNELS[0], 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(GROUPS, CHANNELS[0])
        blocks: list[nn.Module] = []
        before = CHANNELS[0]
        for after in CHANNELS:
            blocks += [Block(before, after, 1 if after == before else 2), Block(after, after, 1)]
            before = after
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(before, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores.

        Args:
            x: float images of shape (batch, 3, 32, 32).

        Returns:
            Float of shape (batch, 10): logits.
        """
        y = self.blocks(F.relu(self.norm(self.conv(x))))
        return self.fc(y.mean(dim=(2, 3)))
