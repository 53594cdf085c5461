"""The nets of the main job and how the attacked one is initialised."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from secretflow.ml.nn.core.torch import BaseModule

IMAGE_SHAPE = (1, 28, 28)
CLASSES = 10


class ConvNet(BaseModule):
    """The net that is trained: 1,947 prunable weights and 13 biases.

    One convolution (3 channels, kernel 3), max pooling by 3, one fully connected layer from 192, softmax.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 3, kernel_size=3)
        self.fc = nn.Linear(3 * 8 * 8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class probabilities.

        Args:
            x: float images of shape (batch, 1, 28, 28).

        Returns:
            Float of shape (batch, 10), each row sums to 1.
        """
        features = F.relu(F.max_pool2d(self.conv1(x), 3))
        return F.softmax(self.fc(features.flatten(start_dim=1)), dim=1)


class FedAvgCNN(BaseModule):
    """The larger net of the evaluation: 1,662,752 prunable weights and 618 biases.

    Two 5x5 convolutions of 32 and 64 channels that keep the image's size, each behind ReLU and max pooling
    by 2, one fully connected layer of 512 behind ReLU, and one of 10.

    Source: McMahan, Moore, Ramage, Hampson, Aguera y Arcas, "Communication-efficient learning of deep
    networks from decentralized data", AISTATS 2017, section 3: the MNIST CNN of 1,663,370 parameters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, kernel_size=5, padding=2)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=5, padding=2)
        self.fc1 = nn.Linear(64 * 7 * 7, 512)
        self.fc2 = nn.Linear(512, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores.

        Args:
            x: float images of shape (batch, 1, 28, 28).

        Returns:
            Float of shape (batch, 10): logits.
        """
        for convolution in (self.conv1, self.conv2):
            x = F.max_pool2d(F.relu(convolution(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(start_dim=1))))


class LeNet(BaseModule):
    """The net that is attacked: the LeNet of the DLG paper for images of one channel and 28x28 pixels.

    Three 5x5 convolutions of 12 channels with strides 2, 2, 1, each behind a sigmoid, and one fully
    connected layer from 588.

    Source: Zhu, Liu, Han, "Deep Leakage from Gradients", NeurIPS 2019, section 4.1 (activations replaced
    by sigmoid and strides removed, so that the net can be differentiated twice).
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 12, kernel_size=5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(12, 12, kernel_size=5, stride=2, padding=2)
        self.conv3 = nn.Conv2d(12, 12, kernel_size=5, stride=1, padding=2)
        self.fc = nn.Linear(12 * 7 * 7, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores.

        Args:
            x: float images of shape (batch, 1, 28, 28).

        Returns:
            Float of shape (batch, 10): logits.
        """
        for convolution in (self.conv1, self.conv2, self.conv3):
            x = torch.sigmoid(convolution(x))
        return self.fc(x.flatten(start_dim=1))


def weights_init(module: nn.Module) -> None:
    """Draws weight and bias of one layer uniformly from [-0.5, 0.5]; for ``net.apply(weights_init)``.

    The usual, smaller initial weights saturate a net of sigmoids, and its gradient then says little.

    Args:
        module: a layer; one without weight and bias stays as it is.
    """
    for name in ("weight", "bias"):
        parameter = getattr(module, name, None)
        if isinstance(parameter, nn.Parameter):
            nn.init.uniform_(parameter, -0.5, 0.5)


def attacked_net() -> LeNet:
    """A LeNet with :func:`weights_init` applied, from torch's current random state."""
    net = LeNet()
    net.apply(weights_init)
    return net
