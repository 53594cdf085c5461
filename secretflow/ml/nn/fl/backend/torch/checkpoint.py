"""Checkpoints of one party as files: written at once, and read with a word on what is wrong with them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from secretflow._atomic import PRIVATE, atomic_write
from secretflow.errors import ArgumentError
from secretflow.ml.nn.fl.backend.torch.plain_values import as_plain, from_plain

_FIELDS = (
    "model_state_dict",
    "optimizer_state_dict",
    "optimizers",
    "epoch",
    "rounds",
    "mask_scope",
    "prune_mask",
    "mask_changed",
    "withheld",
)


def write_checkpoint(path: Path, checkpoint: dict[str, Any], keep_previous: bool = False) -> None:
    """Writes a checkpoint, at once or not at all, readable by its owner only.

    The state of an optimiser tells of the party's gradients, and what it withheld is its own.

    Args:
        path: of the file; its folder is made. What is there is replaced.
        checkpoint: what to keep, under the names that :func:`read_checkpoint` asks for; what can be written
            can be read.
        keep_previous: moves what is there aside, as :func:`previous_of` says, if it is of an earlier epoch.
            One of the same epoch was left by a run that stopped before all parties had theirs, so the one
            aside is the one that all have, and it stays.

    Raises:
        ValueError: there is something that could not be read again, see
            :func:`~secretflow.ml.nn.fl.backend.torch.plain_values.as_plain`; nothing was written then.
    """
    plain = plain_checkpoint(checkpoint)
    with atomic_write(path, PRIVATE) as unfinished:
        with unfinished.open("wb") as file:
            torch.save(plain, file)
            file.flush()
            os.fsync(file.fileno())  # or a power cut may keep the new name and lose the content
        if keep_previous and path.exists() and _epoch_of(path) < checkpoint["epoch"]:
            path.replace(previous_of(path))


def plain_checkpoint(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint as it is written.

    Args:
        checkpoint: as for :func:`write_checkpoint`.

    Raises:
        ValueError: as there.
    """
    return {name: as_plain(value, name) for name, value in checkpoint.items()}


def previous_of(path: Path) -> Path:
    """Where the checkpoint before the one at a path is kept."""
    return path.with_name(f"{path.name}.previous")


def newest_epoch(path: Path) -> int:
    """The epoch of the newest checkpoint at a path.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it cannot be read.
    """
    # A run may have been stopped after the old one was moved aside and before the new one took its place.
    return _epoch_of(path if path.exists() or not previous_of(path).exists() else previous_of(path))


def read_checkpoint(path: Path, device: Any = None, epoch: int | None = None) -> dict[str, Any]:
    """Reads what :func:`write_checkpoint` wrote.

    Args:
        path: of the file.
        device: where the tensors go.
        epoch: the one before is read if that, and not the newest, is of this epoch; None is the newest.

    Returns:
        Model, optimisers, epoch, rounds, mask and what was withheld.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, is no checkpoint of a pruned model, or none is of that epoch.
    """
    if epoch is None:
        return _read(path, device)
    found = []
    for candidate in filter(Path.exists, (path, previous_of(path))):
        found.append(_epoch_of(candidate))
        if found[-1] == epoch:
            return _read(candidate, device)
    raise ArgumentError(
        f"model_path must hold epoch {epoch}, as another party's file does, got {str(path)!r} with epoch "
        f"{' and '.join(map(str, found))}; load the same epoch everywhere"
    )


def _epoch_of(path: Path) -> int:
    return _read(path, mmap=True)["epoch"]


def _read(path: Path, device: Any = None, mmap: bool = False) -> dict[str, Any]:
    try:
        checkpoint = torch.load(path, map_location=device, weights_only=True, mmap=mmap)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"model_path must be a checkpoint, got {str(path)!r}, which is not there"
        ) from None
    except Exception as error:
        raise ArgumentError(
            f"model_path must be a checkpoint, got {str(path)!r}, which is damaged or none "
            f"({type(error).__name__}); load another one"
        ) from None
    missing = [field for field in _FIELDS if not isinstance(checkpoint, dict) or field not in checkpoint]
    if missing:
        raise ArgumentError(
            f"model_path must be a checkpoint of fed_avg_w_prune, got {str(path)!r}, which has no {missing}"
        )
    return checkpoint if mmap else {name: from_plain(value) for name, value in checkpoint.items()}
