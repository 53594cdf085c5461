"""Structured pruning: whole units instead of single weights.

A *unit* is an output channel of a convolution or an output of a linear layer. Removing one takes its rows
out of the weights that make it, its columns out of the weights that read it, and its entries out of biases
and normalisation layers. Units that only make sense together (channels that a residual sum adds up, or that a
GroupNorm normalises together) are one unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from .masks import Mask, prune_by_magnitude, prune_over_layers
from .schedule import living_after_step
from .scores import scores
from .settings import PruneSettings


@dataclass(frozen=True, eq=False)
class Axis:
    """Where units are in an array.

    Attributes:
        name: of the array in the ``state_dict``.
        dim: the dimension along which they are.
        units: for each position along it the number of its unit in the group, -1 for one of another group or
            of none; int64.
    """

    name: str
    dim: int
    units: np.ndarray


@dataclass(frozen=True, eq=False)
class UnitGroup:
    """The units of a layer, or of several whose units are tied: what a layer is to unstructured pruning.

    Attributes:
        name: of the first weight that makes them.
        size: how many there are.
        made_by: where the weights have them as outputs.
        read_by: where the weights have them as inputs.
        carried_by: where biases, and entries of normalisation layers, have them.
    """

    name: str
    size: int
    made_by: tuple[Axis, ...]
    read_by: tuple[Axis, ...]
    carried_by: tuple[Axis, ...]


Structure: TypeAlias = "tuple[UnitGroup, ...]"
"""The units of a model that may be removed."""


def living_units(structure: Structure, mask: Mask) -> list[np.ndarray]:
    """Which units live under a mask.

    Args:
        structure: of the model.
        mask: of the model, with an entry for each weight of the structure.

    Returns:
        For each group an array of 0 and 1, uint8; a unit lives if a weight that makes it does.
    """
    return [used_units(group.made_by, group.size, mask) for group in structure]


def used_units(axes: Sequence[Axis], size: int, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Of which units an array has something that is not zero.

    Args:
        axes: where to look for them.
        size: how many units there are.
        arrays: by name.

    Returns:
        0 and 1, uint8.
    """
    used = np.zeros(size, np.uint8)
    for axis in axes:
        found = (arrays[axis.name] != 0).any(axis=_others(arrays[axis.name], axis.dim))
        np.maximum.at(used, axis.units[axis.units >= 0], found[axis.units >= 0].astype(np.uint8))
    return used


def mask_of_units(
    structure: Structure, shapes: Mapping[str, tuple[int, ...]], living: Sequence[np.ndarray]
) -> Mask:
    """The mask of weights under which some units live.

    Args:
        structure: of the model.
        shapes: of all weights that the mask shall have, those of the structure among them, by name.
        living: as of :func:`living_units`.
    """
    mask = {name: np.ones(shape, np.uint8) for name, shape in shapes.items()}
    for group, units in zip(structure, living, strict=True):
        for axis in (*group.made_by, *group.read_by):
            entry = mask[axis.name]
            entry *= _factor(axis, units).reshape([-1 if d == axis.dim else 1 for d in range(entry.ndim)])
    return mask


def carried_mask(structure: Structure, living: Sequence[np.ndarray]) -> Mask:
    """The mask of biases and entries of normalisation layers under which some units live.

    Args:
        structure: of the model.
        living: as of :func:`living_units`.
    """
    mask: Mask = {}
    for group, units in zip(structure, living, strict=True):
        for axis in group.carried_by:
            factor = _factor(axis, units)
            mask[axis.name] = mask[axis.name] * factor if axis.name in mask else factor
    return mask


def check_whole_units(structure: Structure, mask: Mask) -> None:
    """Refuses a mask that prunes single weights.

    Args:
        structure: of the model.
        mask: by name.

    Raises:
        ValueError: it does, or a weight of the structure has no entry.
    """
    for axis in (axis for group in structure for axis in (*group.made_by, *group.read_by)):
        if axis.name not in mask:
            raise ValueError(f"mask must have an entry for {axis.name} with prune_structure, got none")
    living = living_units(structure, mask)
    whole = mask_of_units(structure, {name: entry.shape for name, entry in mask.items()}, living)
    for name, entry in mask.items():
        if not np.array_equal(entry != 0, whole[name] != 0):
            raise ValueError(
                "mask must prune whole units with prune_structure, got one that prunes single weights of "
                f"{name}"
            )


def pruned_units(
    structure: Structure,
    weights: Mapping[str, np.ndarray],
    mask: Mask,
    settings: PruneSettings,
    epoch: float,
    gradients: Mapping[str, np.ndarray] | None = None,
) -> Mask:
    """One step of structured pruning: the units of the smallest scores go.

    A unit's score is the L2 norm of the scores of the living weights that make it. Source: Li et al.,
    "Pruning filters for efficient convnets", ICLR 2017, section 3.1, where it is the L1 norm. With
    ``prune_scope="global"`` a group's scores are divided by their L2 norm, so that wide and narrow layers
    can be compared (Molchanov et al., "Pruning convolutional neural networks for resource efficient
    inference", ICLR 2017, section 2.2).

    Args:
        structure: of the model.
        weights: float array of each weight by name.
        mask: of the same names and shapes, of whole units.
        settings: as for :func:`~secretflow.ml.nn.fl.pruning.pruned_masks`, for which counts are of units.
        epoch: as there.
        gradients: as there.

    Returns:
        The new mask, uint8. Every group keeps at least one unit; how many live afterwards is
        :func:`~secretflow.ml.nn.fl.pruning.living_after_step` of the numbers of units.

    Raises:
        KeyError: a layer has no weight or no gradient.
        ValueError: the shapes differ, a living weight or a gradient is not finite, or gradients are missing.
    """
    makers = list(dict.fromkeys(axis.name for group in structure for axis in group.made_by))
    slopes = None if gradients is None else [gradients[name] for name in makers]
    of_weights = scores(settings.prune_criterion, [weights[name] for name in makers], slopes)
    scored = dict(zip(makers, of_weights, strict=True))
    living = living_units(structure, mask)
    norms = [_norms(group, scored, mask) for group in structure]
    counts = [int(units.sum()) for units in living]
    kept = living_after_step(settings, [group.size for group in structure], counts, epoch)
    if settings.prune_scope == "global":
        norms = [norm / (np.linalg.norm(norm) or 1.0) for norm in norms]
        pruned = prune_over_layers(norms, living, sum(kept))
    else:
        pruned = [
            prune_by_magnitude(norm, units, count)
            for norm, units, count in zip(norms, living, kept, strict=True)
        ]
    return mask_of_units(structure, {name: entry.shape for name, entry in mask.items()}, pruned)


def _norms(group: UnitGroup, scored: Mapping[str, np.ndarray], mask: Mask) -> np.ndarray:
    """The L2 norm of the scores of each unit's living weights."""
    squares = np.zeros(group.size)
    for axis in group.made_by:
        score = np.where(mask[axis.name] != 0, scored[axis.name], 0).astype(np.float64)
        of_rows = np.square(score).sum(axis=_others(score, axis.dim))
        belongs = axis.units >= 0
        squares += np.bincount(axis.units[belongs], of_rows[belongs], minlength=group.size)
    return np.sqrt(squares)


def _factor(axis: Axis, living: np.ndarray) -> np.ndarray:
    """For each position of an axis 0 where its unit has gone, else 1; uint8."""
    return np.where(axis.units < 0, 1, living[axis.units]).astype(np.uint8)


def _others(array: np.ndarray, dim: int) -> tuple[int, ...]:
    return tuple(d for d in range(array.ndim) if d != dim)
