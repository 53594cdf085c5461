"""The files of a gradient capture: what one party computed in a round, on its own disk.

A capture is a folder with the files of the project's first experiment, ``gradients{i}.npy``, ``x.pt`` and
``y.pt``, and what an audit needs besides: ``weights.pt``, ``mask.pt`` and ``meta.json``. It holds private
training rows, is readable by its owner only, and never leaves the party by itself.
"""

from __future__ import annotations

import json
import logging
import math
import os
import pickle
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import nn

from secretflow._validate import check, instance
from secretflow.ml.nn.fl.backend.torch.batches import row_count

_FORMAT = 2
_TENSORS = ("x", "y", "weights", "mask")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Capture:
    """What one party computed on one batch.

    Attributes:
        x: the batch, float of shape (rows, ...), tokens int64; of a model of several inputs a list or
            dictionary of them.
        y: its labels, (rows,) or one-hot (rows, classes), or as the model takes them.
        weights: the model's ``state_dict`` before the step, already masked.
        mask: for each prunable parameter by name 0 where it is pruned and 1 where it lives.
        gradients: of the loss on this batch, in the order of ``model.parameters()``.
        party: who computed it.
        round_number: aggregation round, counted from 0.
        density: fraction of prunable weights that live, in [0, 1].
        optimizer: see :func:`optimizer_settings`; None if the writer did not say.
        evaluating: names of the modules that were in evaluation mode during the step, with all inside of
            them, see :func:`modules_evaluating`; the others were in training mode.
    """

    x: Any
    y: torch.Tensor
    weights: Mapping[str, torch.Tensor]
    mask: Mapping[str, torch.Tensor]
    gradients: tuple[torch.Tensor, ...]
    party: str
    round_number: int
    density: float
    optimizer: Mapping[str, Any] | None = None
    evaluating: tuple[str, ...] = ()

    def check(self) -> None:
        """Looks whether the parts belong together.

        Raises:
            ValueError: they do not; the message says which.
        """
        rows, labels = row_count(self.x), row_count(self.y)
        check(rows == labels > 0, "y", labels, f"labels of the {rows} rows of x, and at least one")
        # Parameters come in the order of the state_dict, which holds buffers between them.
        shapes = iter([tuple(value.shape) for value in self.weights.values()])
        for number, gradient in enumerate(self.gradients):
            shape = tuple(gradient.shape)
            check(shape in shapes, f"gradients[{number}]", shape, "of the shape of a weight, in their order")
        check(bool(self.gradients), "gradients", self.gradients, "of at least one parameter")
        for name, entry in self.mask.items():
            shape, weight = tuple(entry.shape), self.weights.get(name)
            fits = weight is not None and weight.shape == entry.shape
            check(fits, f"mask[{name!r}]", shape, "of the shape of the weight of that name")
            zero_or_one = bool(torch.all((entry == 0) | (entry == 1)))
            check(zero_or_one, f"mask[{name!r}]", entry.unique().tolist(), "of 0 and 1")
            wrong = int(torch.count_nonzero(self.weights[name][entry == 0]))
            check(wrong == 0, f"weights[{name!r}]", f"{wrong} others", "zero where the mask is")
        parts = None if self.optimizer is None else sorted(self.optimizer)
        enough = parts is None or {"name", "groups"} <= set(parts)
        check(enough, "optimizer", parts, "settings with name and groups")
        size = sum(entry.numel() for entry in self.mask.values())
        living = sum(int(torch.count_nonzero(entry)) for entry in self.mask.values())
        true = living / size if size else math.nan
        what = f"the part of the mask that lives, {living} of {size}"
        check(abs(true - self.density) <= 1e-6, "density", self.density, what)


def write_capture(
    directory: str,
    *,
    x: Any,
    y: Any,
    weights: dict[str, torch.Tensor],
    mask: dict[str, torch.Tensor],
    gradients: list[torch.Tensor],
    party: str,
    round_number: int,
    density: float,
    optimizer: Mapping[str, Any] | None = None,
    evaluating: tuple[str, ...] = (),
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
        evaluating: from :func:`modules_evaluating`; an attacker on a net with modes needs it.

    Raises:
        FileExistsError: the folder exists and is not empty.
        ValueError: the parts do not belong together.
    """
    instance("directory", directory, (str, PathLike), "a path")
    capture = Capture(
        x, y, weights, mask, tuple(gradients), party, round_number, density, optimizer, tuple(evaluating)
    )
    capture.check()
    target = Path(directory).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(
            "directory must be new or empty, since captures are never mixed or overwritten, got "
            f"{str(target)!r}"
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
            "evaluating": list(evaluating),
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

    Returns:
        Numbers of NumPy's and torch's are Python's, and what JSON has not is text.
    """
    groups = [
        {str(name): _for_json(value) for name, value in group.items() if name != "params"}
        for group in optimizer.param_groups
    ]
    return {"name": type(optimizer).__name__, "groups": groups}


def _for_json(value: Any) -> Any:
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        value = value.tolist()  # of a single number the number
    if isinstance(value, (list, tuple)):
        return [_for_json(part) for part in value]
    if isinstance(value, Mapping):
        return {str(name): _for_json(part) for name, part in value.items()}
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)


def modules_evaluating(net: nn.Module) -> tuple[str, ...]:
    """Names of the modules in evaluation mode, without those inside of another one; "" is the whole net.

    Args:
        net: a party's model, such as one with frozen batch normalisation.
    """
    found: list[str] = []
    for name, module in net.named_modules():
        inside = any(outer == "" or name.startswith(f"{outer}.") for outer in found)
        if not inside and not any(part.training for part in module.modules()):
            found.append(name)
    return tuple(found)


def load_capture(directory: str | PathLike[str]) -> Capture:
    """Reads a capture and checks it.

    Args:
        directory: a folder that :func:`write_capture` made.

    Returns:
        The capture.

    Raises:
        TypeError: ``directory`` is no path.
        FileNotFoundError: a file is missing; the message says which.
        ValueError: a file cannot be read, or the parts do not belong together.
    """
    instance("directory", directory, (str, PathLike), "a path")
    folder = Path(directory)
    try:
        meta = json.loads((folder / "meta.json").read_text())
        if meta["format"] != _FORMAT:
            raise ValueError(f"format must be {_FORMAT}, got {meta['format']!r}")
        count = sum(1 for _ in folder.glob("gradients*.npy"))
        if count != meta["gradients"]:
            raise ValueError(f"gradients must be {meta['gradients']} files, got {count}")
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
            evaluating=tuple(meta.get("evaluating", ())),  # of captures before: all trained
        )
        capture.check()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"directory must be a whole capture, got {str(folder)!r}, in which {error.filename} is missing"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"directory must be a capture that can be read, got {str(folder)!r}, in which {error}"
        ) from error
    return capture


def _create(path: Path) -> IO[bytes]:
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _read_tensors(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise ValueError(f"{path.name} must be a file of tensors, got one that is not ({error})") from error
