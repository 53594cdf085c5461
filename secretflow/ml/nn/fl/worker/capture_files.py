"""The files of a gradient capture: what one party computed in a round, on its own disk.

A capture is a folder with the files of the project's first experiment, ``gradients{i}.npy``, ``x.pt`` and
``y.pt``, and what an audit needs besides: ``weights.pt``, ``mask.pt`` and ``meta.json``. It holds private
training rows, is readable by its owner only, and never leaves the party by itself.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

_FORMAT = 2
_TENSORS = ("x", "y", "weights", "mask")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Capture:
    """What one party computed on one batch.

    Attributes:
        x: the batch, float of shape (rows, ...).
        y: its labels, (rows,) or one-hot (rows, classes).
        weights: the model's ``state_dict`` before the step, already masked.
        mask: for each prunable parameter by name 0 where it is pruned and 1 where it lives.
        gradients: of the loss on this batch, in the order of ``model.parameters()``.
        party: who computed it.
        round_number: aggregation round, counted from 0.
        density: fraction of prunable weights that live, in [0, 1].
        optimizer: see :func:`optimizer_settings`; None if the writer did not say.
    """

    x: torch.Tensor
    y: torch.Tensor
    weights: Mapping[str, torch.Tensor]
    mask: Mapping[str, torch.Tensor]
    gradients: tuple[torch.Tensor, ...]
    party: str
    round_number: int
    density: float
    optimizer: Mapping[str, Any] | None = None

    def check(self) -> None:
        """Looks whether the parts belong together.

        Raises:
            ValueError: they do not; the message says which.
        """
        if self.x.shape[:1] != self.y.shape[:1] or not len(self.x):
            raise ValueError(f"x has the shape {tuple(self.x.shape)}, y {tuple(self.y.shape)}: rows differ")
        # Parameters come in the order of the state_dict, which holds buffers between them.
        shapes = iter([tuple(value.shape) for value in self.weights.values()])
        for number, gradient in enumerate(self.gradients):
            if tuple(gradient.shape) not in shapes:
                raise ValueError(
                    f"gradient {number} of shape {tuple(gradient.shape)} has no weight beside it"
                )
        if not self.gradients:
            raise ValueError("there is no gradient")
        for name, entry in self.mask.items():
            if name not in self.weights or self.weights[name].shape != entry.shape:
                raise ValueError(f"mask of {name!r}, shape {tuple(entry.shape)}, has no weight of that shape")
            if not torch.all((entry == 0) | (entry == 1)):
                raise ValueError(f"mask of {name!r} holds more than 0 and 1")
            if torch.any(self.weights[name][entry == 0] != 0):
                raise ValueError(f"weight {name!r} is not zero where its mask is")
        if self.optimizer is not None and not {"name", "groups"} <= self.optimizer.keys():
            raise ValueError(f"optimizer has {sorted(self.optimizer)}; name and groups are needed")
        size = sum(entry.numel() for entry in self.mask.values())
        living = sum(int(torch.count_nonzero(entry)) for entry in self.mask.values())
        if not size or abs(living / size - self.density) > 1e-6:
            raise ValueError(f"density is {self.density}, but {living} of {size} weights live")


def write_capture(
    directory: str,
    *,
    x: torch.Tensor,
    y: torch.Tensor,
    weights: dict[str, torch.Tensor],
    mask: dict[str, torch.Tensor],
    gradients: list[torch.Tensor],
    party: str,
    round_number: int,
    density: float,
    optimizer: Mapping[str, Any] | None = None,
) -> None:
    """Writes a capture: all of it or nothing, readable by its owner only.

    Args:
        directory: folder to make; it may exist if it is empty.
        x: see :class:`Capture`, also for the rest.
        y: labels.
        weights: ``state_dict`` before the step.
        mask: mask of each prunable parameter.
        gradients: in the order of ``model.parameters()``.
        party: who computed it.
        round_number: aggregation round.
        density: fraction of prunable weights that live.
        optimizer: from :func:`optimizer_settings`; an attacker on several local steps needs it.

    Raises:
        FileExistsError: the folder exists and is not empty.
        ValueError: the parts do not belong together.
    """
    capture = Capture(x, y, weights, mask, tuple(gradients), party, round_number, density, optimizer)
    capture.check()
    target = Path(directory).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(
            f"directory={str(target)!r} is not empty: captures are never mixed or overwritten"
        )
    _log.warning(
        "GRADIENT CAPTURE: %s writes the private batch, labels, weights and gradient of round %d to %s",
        party,
        round_number,
        target,
    )
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        for name in _TENSORS:
            with _create(unfinished / f"{name}.pt") as file:
                torch.save(getattr(capture, name), file)
        for number, gradient in enumerate(gradients):
            with _create(unfinished / f"gradients{number}.npy") as file:
                np.save(file, gradient.numpy(force=True))
        meta = {
            "format": _FORMAT,
            "party": party,
            "round": round_number,
            "density": density,
            "gradients": len(gradients),
            "optimizer": None if optimizer is None else dict(optimizer),
        }
        with _create(unfinished / "meta.json") as file:
            file.write(json.dumps(meta, indent=2).encode())
        os.rename(unfinished, target)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def optimizer_settings(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's settings as JSON can hold them: its name and, of each group, all but parameters.

    Args:
        optimizer: the party's.
    """
    plain = (bool, int, float, str, type(None))
    groups = [
        {
            name: list(value)
            if isinstance(value, tuple)
            else value
            if isinstance(value, plain)
            else str(value)
            for name, value in group.items()
            if name != "params"
        }
        for group in optimizer.param_groups
    ]
    return {"name": type(optimizer).__name__, "groups": groups}


def load_capture(directory: str | Path) -> Capture:
    """Reads a capture and checks it.

    Args:
        directory: a folder that :func:`write_capture` made.

    Returns:
        The capture.

    Raises:
        FileNotFoundError: a file is missing; the message says which.
        ValueError: a file cannot be read, or the parts do not belong together.
    """
    folder = Path(directory)
    try:
        meta = json.loads((folder / "meta.json").read_text())
        if meta["format"] != _FORMAT:
            raise ValueError(f"format must be {_FORMAT}, got {meta['format']!r}")
        count = sum(1 for _ in folder.glob("gradients*.npy"))
        if count != meta["gradients"]:
            raise ValueError(f"there are {count} gradients, {meta['gradients']} were written")
        tensors = {name: _read_tensors(folder / f"{name}.pt") for name in _TENSORS}
        gradients = tuple(
            torch.from_numpy(np.load(folder / f"gradients{number}.npy", allow_pickle=False))
            for number in range(count)
        )
        capture = Capture(
            **tensors,
            gradients=gradients,
            party=meta["party"],
            round_number=meta["round"],
            density=meta["density"],
            optimizer=meta["optimizer"],
        )
        capture.check()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"capture {str(folder)!r} is incomplete: {error.filename} is missing"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"capture {str(folder)!r} cannot be used: {error}") from error
    return capture


def _create(path: Path) -> IO[bytes]:
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _read_tensors(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise ValueError(f"{path.name} is not a file of tensors ({error})") from error
