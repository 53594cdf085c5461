"""The small model: a net without the units that structured pruning has removed.

The net that was trained has all its units, the removed ones at zero. Without them it takes less memory and
time on every machine, and computes the same.
"""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from secretflow import _validate
from secretflow.errors import ArgumentError
from secretflow.ml.nn.fl.backend.torch.units.groups import Followed, followed
from secretflow.ml.nn.fl.backend.torch.units.thinned import thinned
from secretflow.ml.nn.fl.backend.torch.units.tracing import without_steps
from secretflow.ml.nn.fl.pruning.structure import used_units
from secretflow.ml.nn.fl.small_probes import check_same
from secretflow.ml.nn.fl.sparse_model import export_sparse, load_sparse

_KEPT = "kept_units."


def export_dense_small(model: nn.Module, inputs: Any = None) -> fx.GraphModule:
    """Makes a smaller net that computes the same.

    A unit goes, an output channel of a convolution or an output of a linear layer, if no weight that reads it
    differs from zero, as ``prune_structure`` of :class:`~secretflow.ml.nn.fl.pruning.PruneSettings` leaves
    them. Where a normalisation layer, a residual sum or a product ties units, they go together or stay.

    Args:
        model: the trained net, such as after ``load_state_dict(load_sparse(path))``; left as it is.
        inputs: features of a batch as the model gets them, on which both nets are compared before the small
            one is given out; None looks for a shape that the model takes.

    Returns:
        A net in evaluation mode, of the model's own layers by their names, with fewer units; its outputs are
        the model's in evaluation mode up to float rounding. Inputs that have a default cannot be given. It
        is for
        prediction: what depends on training mode within ``forward`` is that of evaluation.

    Raises:
        TypeError: ``model`` is no module.
        ValueError: :mod:`torch.fx` cannot follow the model, and the message names the layer; the small net
            does not compute the same; or ``inputs`` are needed.
    """
    _validate.instance("model", model, nn.Module, "a module of torch's")
    found = followed(model)
    return _checked(model, found, _read_units(model, found), inputs)


def save_dense_small(model: nn.Module, path: str | PathLike[str], inputs: Any = None) -> None:
    """Writes the small model into a safetensors file.

    It holds the arrays of :func:`export_dense_small` as
    :func:`~secretflow.ml.nn.fl.sparse_model.export_sparse` writes them, and for each group of units
    ``kept_units.<name of its first weight>``, the numbers of those that are left, int64, ascending.

    Args:
        model: as for :func:`export_dense_small`.
        path: as for :func:`~secretflow.ml.nn.fl.sparse_model.export_sparse`.
        inputs: as for :func:`export_dense_small`.

    Raises:
        TypeError: ``model`` is no module, or ``path`` no path.
        ValueError: as of :func:`export_dense_small`.
    """
    _validate.instance("model", model, nn.Module, "a module of torch's")
    found = followed(model)
    kept = _read_units(model, found)
    numbers = {
        f"{_KEPT}{group.name}": torch.from_numpy(units)
        for group, units in zip(found.structure, kept, strict=True)
    }
    export_sparse({**_checked(model, found, kept, inputs).state_dict(), **numbers}, path)


def load_dense_small(path: str | PathLike[str], model: nn.Module) -> fx.GraphModule:
    """Reads what :func:`save_dense_small` wrote.

    Args:
        path: the file.
        model: the net as it was before training, of any weights: its class says how the arrays are used.
            Left as it is.

    Returns:
        As :func:`export_dense_small`, on the CPU.

    Raises:
        TypeError: ``model`` is no module, or ``path`` no path.
        FileNotFoundError: there is no file.
        ValueError: the file is damaged, or not one of this model.
    """
    _validate.instance("model", model, nn.Module, "a module of torch's")
    state = load_sparse(path)
    stored = {
        name.removeprefix(_KEPT): state.pop(name).numpy() for name in list(state) if name.startswith(_KEPT)
    }
    found = followed(model)
    sizes = {group.name: group.size for group in found.structure}
    if stored.keys() != sizes.keys() or any(units.max() >= sizes[name] for name, units in stored.items()):
        raise ArgumentError(f"path must hold a small model of {type(model).__name__}, got one of another net")
    small = thinned(model, found, [stored[group.name] for group in found.structure]).cpu()
    try:
        small.load_state_dict(state)
    except RuntimeError as error:
        raise ArgumentError(
            f"path must hold a small model of {type(model).__name__}, got one of another net: {error}"
        ) from error
    return small


def _checked(model: nn.Module, found: Followed, kept: list[np.ndarray], inputs: Any) -> fx.GraphModule:
    """The small net, if it computes the same."""
    small = thinned(model, found, kept)
    check_same(without_steps(model), small, inputs)
    return small


def _read_units(model: nn.Module, found: Followed) -> list[np.ndarray]:
    """Of each group the numbers of the units that some weight reads; the first one if there are none."""
    names = {axis.name for group in found.structure for axis in group.read_by}
    arrays = {name: model.get_parameter(name).numpy(force=True) for name in names}
    read = [np.flatnonzero(used_units(group.read_by, group.size, arrays)) for group in found.structure]
    return [units if units.size else np.zeros(1, np.int64) for units in read]
