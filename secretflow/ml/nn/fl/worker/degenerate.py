"""Fully connected layers that sort rows into bins, told by their weights or by what they make of rows.

A server that chooses the weights can have a layer's units all measure one projection of the row against
ascending thresholds. Where the gradients of two neighbouring units differ, they differ by the rows whose
projection lies between their thresholds, and a row that lies there alone is read exactly, off an average of
any number of parties. No training comes to such a layer. To use before training on weights from outside.

Source: Fowl et al., "Robbing the Fed: Directly obtaining private data in federated learning with modified
models", ICLR 2022, section 3, for the layer; how it is told from others is ours.
"""

from __future__ import annotations

import torch

_PARALLEL = 0.999
"""Cosine from which on two units count as parallel."""

_LEAST_UNITS, _LEAST_PART = 8, 8
"""Units of one group, and one in how many of the layer's, from which on a layer counts as degenerate."""

_LEAST_INPUTS = 4
"""Living weights of a unit below which it says nothing: of two or three, many are parallel by chance."""

LEAST_ROWS = 16
"""Rows below which what a layer makes of them says nothing."""

_MOST_UNITS, _MOST_ROWS = 512, 128
_SKETCH, _NEAR = 24, 0.995
"""Random projections by which parallel units are found first, and the cosine that they must then have."""


def parallel_units(weight: torch.Tensor, bias: torch.Tensor, living: torch.Tensor | None = None) -> int:
    """How many units of a layer weigh their inputs alike, against thresholds of their own.

    Args:
        weight: float of shape (units, inputs).
        bias: of shape (units,).
        living: 0 where a weight is pruned, of the shape of ``weight``; None if none is.

    Returns:
        The size of the largest such group, of wide layers of an evenly spaced part; 0 if it is too small to
        mean anything.
    """
    chosen = _spaced(len(weight), weight.device)
    lit = weight[chosen] != 0 if living is None else living[chosen] != 0
    rows = weight[chosen].float()
    lengths = rows.norm(dim=1)
    usable = (lit.sum(dim=1) >= _LEAST_INPUTS) & (lengths > 0) & lengths.isfinite()
    least = _least(len(chosen))
    if int(usable.sum()) < least:
        return 0
    rows, lengths = rows[usable], lengths[usable]
    rows = rows / lengths[:, None]
    generator = torch.Generator().manual_seed(0)
    sketched = rows @ torch.randn(rows.shape[1], _SKETCH, generator=generator).to(rows)
    sketched = torch.nn.functional.normalize(sketched, dim=1)
    centre = int(((sketched @ sketched.T).abs() > _NEAR).sum(dim=1).argmax())
    cosines = rows @ rows[centre]
    members = cosines.abs() > _PARALLEL
    thresholds = -bias[chosen][usable].float() * cosines.sign() / lengths
    size = int(members.sum())
    return size if size >= least and 2 * len(thresholds[members].unique()) > size else 0


def nested_units(outputs: torch.Tensor) -> int:
    """How many units of a layer tell rows apart by one number, each at a place of its own.

    Args:
        outputs: what the layer gives before its activation, float of shape (rows, units).

    Returns:
        The size of the largest group of units that each are positive for a part of the rows and rise and fall
        together, so that the rows of one are among those of the next; 0 if it is too small to mean anything,
        the rows are too few, or most of the group divide them at one place.
    """
    values = outputs.detach()[:_MOST_ROWS, _spaced(outputs.shape[1], outputs.device)].float()
    rows, units = values.shape
    counts = (values > 0).sum(dim=0)
    partly = (counts > 0) & (counts < rows)
    least = _least(units)
    if rows < LEAST_ROWS or int(partly.sum()) < least:
        return 0
    values, counts = values[:, partly], counts[partly]
    values = torch.nn.functional.normalize(values - values.mean(dim=0), dim=0)
    cosines = values.T @ values
    near = cosines.abs() > _PARALLEL
    centre = int(near.sum(dim=1).argmax())
    members = near[centre]
    levels = torch.where(cosines[centre] > 0, counts, rows - counts)[members]
    size = len(levels)
    return size if size >= least and 2 * int(levels.bincount().max()) <= size else 0


def _least(units: int) -> int:
    return max(_LEAST_UNITS, units // _LEAST_PART)


def _spaced(units: int, device: torch.device) -> torch.Tensor:
    """Numbers of all units of a layer, or of an evenly spaced part of a wide one."""
    return torch.linspace(0, units - 1, min(units, _MOST_UNITS), device=device).long()
