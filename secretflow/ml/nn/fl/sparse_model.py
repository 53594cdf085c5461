"""The sparse model as a file: only what lives takes room on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from secretflow import _validate
from secretflow._atomic import PRIVATE, atomic_write
from secretflow.errors import ArgumentError

_FORMAT = "secretflow-prune sparse 2"


def export_sparse(state_dict: Mapping[str, torch.Tensor], path: str | PathLike[str]) -> None:
    """Writes the living weights of a model into a safetensors file.

    An array of floats that takes less room so is written as two: ``<name>.values``, its numbers that are
    not zero, in memory order, and ``<name>.bitmap``, uint8, in which bit ``k % 8`` of byte ``k // 8``, the
    lowest first, says whether the number at the flat position ``k`` is one of them. Every other array is
    written as it is, under ``<name>``. The metadata hold ``format``, ``arrays``, JSON: for each name in
    order the ``shape``, and whether it is ``sparse``, and ``sha256`` of it and
    of every array's name, type, shape and bytes, so that damage is noticed.
    Negative zeros become zeros.

    Args:
        state_dict: arrays by name; those that share memory are written once for each name.
        path: file to write, with folders that are missing; it is there at once or not at all, readable by its
            owner only, for the mask is the party's.

    Raises:
        TypeError: an array is no tensor, or ``path`` no path.
    """
    _validate.instance("state_dict", state_dict, Mapping, "a mapping from names to tensors")
    _validate.instance("path", path, (str, PathLike), "a path")
    tensors: dict[str, torch.Tensor] = {}
    arrays: dict[str, dict[str, Any]] = {}
    for name, value in state_dict.items():
        _validate.instance(f"state_dict[{name!r}]", value, torch.Tensor, "a tensor")
        flat = value.detach().cpu().reshape(-1)
        living = flat != 0
        values = flat[living]
        bitmap_size = (flat.numel() + 7) // 8
        sparse = value.is_floating_point() and (
            values.numel() * values.element_size() + bitmap_size < flat.numel() * flat.element_size()
        )
        arrays[name] = {"shape": list(value.shape), "sparse": sparse}
        if sparse:
            tensors[f"{name}.values"] = values
            tensors[f"{name}.bitmap"] = torch.from_numpy(np.packbits(living.numpy(), bitorder="little"))
        else:
            # A copy, since safetensors refuses arrays that share memory.
            tensors[name] = flat.clone().reshape(value.shape)
    description = json.dumps(arrays)
    digest = _digest(description, tensors)
    content = save(tensors, {"format": _FORMAT, "arrays": description, "sha256": digest})
    with atomic_write(path, PRIVATE) as unfinished:
        unfinished.write_bytes(content)


def load_sparse(path: str | PathLike[str]) -> dict[str, torch.Tensor]:
    """Reads what :func:`export_sparse` wrote.

    Args:
        path: the file.

    Returns:
        The dense ``state_dict``, on the CPU, equal to the one that was written.

    Raises:
        TypeError: ``path`` is no path.
        FileNotFoundError: there is no file.
        ValueError: the file is damaged or another one; the message says which.
    """
    _validate.instance("path", path, (str, PathLike), "a path")
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"path must be a file of export_sparse, got {str(path)!r}, which is not there"
        )
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise ArgumentError(
            f"path must be a file of export_sparse, got {str(path)!r}, which is damaged or no safetensors "
            f"file ({error}); export it again"
        ) from None
    if metadata.get("format") != _FORMAT:
        raise ArgumentError(
            f"path must be a file of export_sparse, of format {_FORMAT!r}, got {str(path)!r} of format "
            f"{metadata.get('format')!r}"
        )
    if metadata.get("sha256") != _digest(metadata.get("arrays", ""), tensors):
        raise ArgumentError(
            f"path must be a file of export_sparse, got {str(path)!r}, which is damaged: its content has "
            "changed; export it again"
        )
    state_dict = {}
    for name, array in json.loads(metadata["arrays"]).items():
        if array["sparse"]:
            values = tensors[f"{name}.values"]
            dense = torch.zeros(array["shape"], dtype=values.dtype)
            living = np.unpackbits(tensors[f"{name}.bitmap"].numpy(), count=dense.numel(), bitorder="little")
            dense.view(-1)[torch.from_numpy(living.view(np.bool_))] = values
        else:
            dense = tensors[name]
        state_dict[name] = dense
    return state_dict


def _digest(description: str, tensors: Mapping[str, torch.Tensor]) -> str:
    state = sha256(description.encode())
    for name in sorted(tensors):
        # With its type and shape: the same bytes read as others are another array.
        state.update(json.dumps([name, str(tensors[name].dtype), list(tensors[name].shape)]).encode())
        state.update(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()
