"""The images that are attacked, and the nets whose gradients give them away."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from experiments.data import CLASSES, as_images, load_images
from experiments.dgl_utils import LeNet, weights_init

CANDIDATES = 10_000
"""Images at most among which a reconstruction must be nearest to its own to count as identified."""

ATTACKED = 100
"""Of them the first ones, which may be attacked."""

CROP = 64
SIDE = 32
SEED_IMAGE = 56
"""The row of CIFAR-100 that the project's first experiment attacked."""

_CIFAR_CLASSES = 100
_SAFE_TO_UNPICKLE = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class ColourLeNet(LeNet):
    """A LeNet for colour images of 32x32 pixels.

    Args:
        classes: outputs, at least 2.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 12, kernel_size=5, stride=2, padding=2)
        self.fc = nn.Linear(12 * 8 * 8, classes)


class Perceptron(nn.Sequential):
    """A net that starts with a fully connected layer, for the closed form.

    Args:
        pixels: inputs, with all channels.
        classes: outputs, at least 2.
    """

    def __init__(self, pixels: int, classes: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(pixels, 100), nn.Sigmoid(), nn.Linear(100, classes))


@dataclass(frozen=True)
class Dataset:
    """Images to attack.

    Attributes:
        name: in the report.
        x: float32 of shape (images, channels, height, width) in [0, 1]; the first ones are attacked, all of
            them, at most 10,000, are the candidates among which it is identified.
        y: int64 of shape (images,).
        classes: of the net.
    """

    name: str
    x: torch.Tensor
    y: torch.Tensor
    classes: int

    def net(self, attack: str) -> Callable[[], nn.Module]:
        """Builds the net that is attacked: a LeNet, or for the closed form a perceptron."""
        if attack == "closed form":
            return _Maker(Perceptron, (self.x[0].numel(), self.classes))
        return LeNet if self.x.shape[1] == 1 else _Maker(ColourLeNet, (self.classes,))

    def initial_weights(self, attack: str, seed: int) -> dict[str, torch.Tensor]:
        """Weights and biases uniform in [-0.5, 0.5], as in the DLG paper."""
        torch.manual_seed(seed)
        net = self.net(attack)()
        net.apply(weights_init)
        return dict(net.state_dict())


@dataclass(frozen=True)
class _Maker:
    """A net's constructor with its arguments; two of the same are equal, which a lambda would not be."""

    kind: Callable[..., nn.Module]
    arguments: tuple[int, ...]

    def __call__(self) -> nn.Module:
        return self.kind(*self.arguments)


def mnist() -> Dataset:
    """The first 10,000 training images of MNIST."""
    images = load_images()
    x = torch.from_numpy(as_images(images.x_train[:CANDIDATES]))
    return Dataset("MNIST", x, torch.from_numpy(images.y_train[:CANDIDATES]).long(), CLASSES)


def crops() -> Dataset:
    """Photographs: 120 parts of the two pictures that scikit-learn ships, 64x64 pixels averaged to 32x32.

    The parts do not overlap. They have no classes, so labels are drawn at random from ten.
    """
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    found = [
        picture[top : top + CROP, left : left + CROP]
        for picture in load_sample_images().images
        for top in range(0, picture.shape[0] - CROP + 1, CROP)
        for left in range(0, picture.shape[1] - CROP + 1, CROP)
    ]
    chosen = rng.permutation(len(found))[:CANDIDATES]
    pixels = (
        torch.from_numpy(np.stack([found[number] for number in chosen])).permute(0, 3, 1, 2).float() / 255
    )
    return Dataset(
        "colour crops",
        nn.functional.avg_pool2d(pixels, CROP // SIDE),
        torch.from_numpy(rng.integers(0, CLASSES, len(chosen))),
        CLASSES,
    )


def cifar100(folder: Path) -> Dataset:
    """The image of the project's first experiment and the first training images of CIFAR-100.

    Args:
        folder: the one that torchvision downloads to, or the ``cifar-100-python`` in it.

    Raises:
        FileNotFoundError: there is no file ``train``.
        ValueError: it is not what it should be.
    """
    file = next(
        (path for path in (folder / "cifar-100-python" / "train", folder / "train") if path.is_file()), None
    )
    if file is None:
        raise FileNotFoundError(f"--data {str(folder)!r} has no cifar-100-python/train")
    try:
        with file.open("rb") as stream:
            content = _NumpyOnly(stream, encoding="bytes").load()
        pixels = np.asarray(content[b"data"]).reshape(-1, 3, SIDE, SIDE)
        labels = np.asarray(content[b"fine_labels"], dtype=np.int64)
    except (pickle.UnpicklingError, KeyError, ValueError, TypeError, EOFError) as error:
        raise ValueError(f"--data {str(file)!r} is not CIFAR-100 ({error})") from None
    if pixels.dtype != np.uint8 or len(pixels) != len(labels) or len(pixels) <= SEED_IMAGE:
        raise ValueError(f"--data {str(file)!r} is not CIFAR-100: {len(pixels)} images, {len(labels)} labels")
    order = [SEED_IMAGE, *(number for number in range(min(CANDIDATES, len(pixels))) if number != SEED_IMAGE)]
    x = torch.from_numpy(pixels[order].copy()).float() / 255
    return Dataset("CIFAR-100", x, torch.from_numpy(labels[order]), _CIFAR_CLASSES)


class _NumpyOnly(pickle.Unpickler):
    """Reads arrays, lists and texts, and runs nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _SAFE_TO_UNPICKLE:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")
