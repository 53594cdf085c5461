"""Gradient capture: one party writes what it computed in a round to its own disk, for the leakage audit.

A capture is a folder with the files of the project's first experiment, ``gradients{i}.npy``, ``x.pt`` and
``y.pt``, and what an audit needs besides: ``weights.pt``, ``mask.pt`` and ``meta.json``. It holds private
training rows. It is off unless asked for, readable by its owner only, and never leaves the party by itself.
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
class CaptureRounds:
    """Rounds chosen by what happens in them; those of all choices together are captured.

    Attributes:
        numbers: these rounds, counted from 0 since the model was made.
        first: the first round.
        last: the last round of each ``fit``.
        after_mask_change: each first round under a new mask.

    Raises:
        TypeError: a number is not a whole number.
        ValueError: a number is negative or there twice, or nothing is chosen.
    """

    numbers: tuple[int, ...] = ()
    first: bool = False
    last: bool = False
    after_mask_change: bool = False

    def __post_init__(self) -> None:
        numbers = self.numbers
        if not isinstance(numbers, tuple) or any(type(number) is not int for number in numbers):
            raise TypeError(f"rounds={numbers!r} is not allowed: a tuple of whole numbers")
        if min(numbers, default=0) < 0 or len(set(numbers)) < len(numbers):
            raise ValueError(f"rounds={numbers!r} is not allowed: different rounds from 0 on")
        if not (numbers or self.first or self.last or self.after_mask_change):
            raise ValueError(f"rounds={numbers!r} is not allowed: at least one round must be chosen")

    def include(self, number: int, *, is_last: bool, mask_changed: bool) -> bool:
        """Whether a round is captured.

        Args:
            number: of the round, from 0.
            is_last: whether it is the last round of ``fit``.
            mask_changed: whether its mask is another than that of the round before.
        """
        return (
            number in self.numbers
            or (self.first and number == 0)
            or (self.last and is_last)
            or (self.after_mask_change and mask_changed)
        )

    def is_single(self) -> bool:
        """Whether one round at most can be captured, however often ``fit`` is called."""
        return len(self.numbers) + self.first == 1 and not (self.last or self.after_mask_change)


@dataclass(frozen=True)
class GradientCapture:
    """Which gradients a party shall write, and where.

    Attributes:
        directory: folder on the party's own disk; a relative one starts at the working directory of the
            party's process. It must not hold a capture of a round that is still to come.
        party: name of the party that writes; the others write nothing.
        rounds: which aggregation rounds to capture, of each the first batch: numbers, or what they are chosen
            by. A single round, chosen by its number or as the first, is written into ``directory`` itself,
            otherwise each into its own sub-directory ``round-<n>``.

    Raises:
        TypeError: a value is of the wrong type.
        ValueError: a value is empty, negative or there twice.
    """

    directory: str
    party: str
    rounds: tuple[int, ...] | CaptureRounds = (0,)

    def __post_init__(self) -> None:
        for name in ("directory", "party"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise TypeError(f"{name}={value!r} is not allowed: a string")
            if not value:
                raise ValueError(f"{name}={value!r} is not allowed: it must not be empty")
        self._chosen()

    def _chosen(self) -> CaptureRounds:
        return self.rounds if isinstance(self.rounds, CaptureRounds) else CaptureRounds(self.rounds)

    def folder(
        self, party: str, round_number: int, *, is_last: bool = False, mask_changed: bool = False
    ) -> str | None:
        """The folder to write this party's gradient of this round to; None if it is not to be written.

        Args:
            party: who asks.
            round_number: of the round, from 0.
            is_last: see :meth:`CaptureRounds.include`.
            mask_changed: see :meth:`CaptureRounds.include`.
        """
        chosen = self._chosen()
        if party != self.party or not chosen.include(
            round_number, is_last=is_last, mask_changed=mask_changed
        ):
            return None
        return str(self._folder(round_number))

    def check_free(self, round_number: int) -> None:
        """Looks whether captures of the rounds to come have a place.

        Args:
            round_number: of the next round, from 0.

        Raises:
            FileExistsError: the folder holds a capture of that round or a later one, or other files where
                the only capture goes.
        """
        chosen, folder = self._chosen(), Path(self.directory)
        if chosen.is_single():
            is_to_come = round_number <= max(chosen.numbers, default=0)
            taken = [folder] if is_to_come and folder.exists() and list(folder.iterdir()) else []
        else:
            numbers = {path: path.name.removeprefix("round-") for path in folder.glob("round-*")}
            taken = [path for path, n in numbers.items() if n.isdecimal() and int(n) >= round_number]
        if taken:
            raise FileExistsError(
                f"directory={self.directory!r} is not allowed: {min(taken)} is there already, and captures "
                "are never mixed or overwritten"
            )

    def _folder(self, round_number: int) -> Path:
        folder = Path(self.directory)
        return folder if self._chosen().is_single() else folder / f"round-{round_number}"


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
        living_rate: fraction of prunable weights that live, in [0, 1].
        optimizer: see :func:`optimizer_settings`; None if the writer did not say.
    """

    x: torch.Tensor
    y: torch.Tensor
    weights: Mapping[str, torch.Tensor]
    mask: Mapping[str, torch.Tensor]
    gradients: tuple[torch.Tensor, ...]
    party: str
    round_number: int
    living_rate: float
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
        if not size or abs(living / size - self.living_rate) > 1e-6:
            raise ValueError(f"living_rate is {self.living_rate}, but {living} of {size} weights live")


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
    living_rate: float,
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
        living_rate: fraction of prunable weights that live.
        optimizer: from :func:`optimizer_settings`; an attacker on several local steps needs it.

    Raises:
        FileExistsError: the folder exists and is not empty.
        ValueError: the parts do not belong together.
    """
    capture = Capture(x, y, weights, mask, tuple(gradients), party, round_number, living_rate, optimizer)
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
            "living_rate": living_rate,
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
            raise ValueError(f"format={meta['format']!r} is not allowed: {_FORMAT}")
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
            living_rate=meta["living_rate"],
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
