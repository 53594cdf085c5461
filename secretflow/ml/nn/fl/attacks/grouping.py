"""Groups rows that were read off averages by the party that they come from, without knowing any counts.

A row changes only the neurons that it switches on. All parties begin a round with the weights that
everybody knows; a row that does not switch a neuron on there and yet is part of its update was switched
on by what another row of its own party did to the neuron before, for parties do not meet within a round.
If all rows that are part of the update are known, and those that switch the neuron on at the start are of
one party (as one alone is), then all others are of that party. It needs a first layer with a ReLU and
several local steps with several batches of plain gradient descent: with one step nothing tells parties
apart.

Source: Marchand et al., "SRATTA: Sample re-attribution attack of secure aggregation in federated learning",
ICML 2023, for grouping by what neurons have in common over rounds; the rule above is derived here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from secretflow import _validate

_EXPLAINED = 1e-3
"""Part of an update's norm that may stay once the rows are taken off."""
_PART, _NO_PART = 1e-2, 1e-3
"""Coefficients, relative to the largest, above which a row is part of an update and below which it is not."""
_SWITCHED = 1e-5
"""Least distance of a neuron's input from 0 at which its state is sure."""


@dataclass(frozen=True)
class LayerRound:
    """What everybody sees of a first layer in a round.

    Attributes:
        weight: at the start, of shape (neurons, inputs).
        bias: at the start, (neurons,).
        weight_update: average over the parties, of the shape of ``weight``.
        bias_update: likewise of ``bias``.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    weight_update: torch.Tensor
    bias_update: torch.Tensor


def group_rows(rows: torch.Tensor, rounds: Iterable[LayerRound]) -> torch.Tensor:
    """Puts rows of a party together.

    Args:
        rows: that were read, none of them twice, float of shape (rows, inputs); fewer than inputs.
        rounds: in which they may have been used, in any order, of one or more trainings.

    Returns:
        For each row the number of its group, int64 of shape (rows,), from 0. A row that nothing links to
        another is a group of its own; a party may have several groups.

    Raises:
        TypeError: ``rows`` is no tensor, or ``rounds`` are no rounds.
        ValueError: the rows have another shape.
    """
    _validate.instance("rows", rows, torch.Tensor, "a tensor")
    fits = rows.dim() == 2 and len(rows) < rows.shape[1]
    _validate.check(fits, "rows", tuple(rows.shape), "two-dimensional, fewer rows than inputs")
    _validate.instance("rounds", rounds, Iterable, "an iterable of LayerRound")
    inputs = torch.cat([rows.double(), rows.new_ones(len(rows), 1).double()], dim=1)
    inverse = torch.linalg.pinv(inputs)
    groups = torch.arange(len(rows))
    for seen in rounds:
        _validate.instance("rounds", seen, LayerRound, "LayerRounds")
        for on, off in _told(inputs, inverse, seen):
            own = groups[on].unique()
            if len(own) == 1:
                groups[torch.isin(groups, groups[off])] = own
    return groups.unique(return_inverse=True)[1]


def _told(
    inputs: torch.Tensor, inverse: torch.Tensor, seen: LayerRound
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Of each neuron that tells something: rows that switch it on at the start, others of its update."""
    update = torch.cat([seen.weight_update, seen.bias_update[:, None]], dim=1).double()
    moved = update.norm(dim=1)
    parts = update @ inverse
    explained = (update - parts @ inputs).norm(dim=1) <= _EXPLAINED * moved
    sizes = parts.abs() / parts.abs().amax(dim=1, keepdim=True).clamp(min=1e-300)
    sure = ((sizes >= _PART) | (sizes <= _NO_PART)).all(dim=1)
    state = torch.cat([seen.weight, seen.bias[:, None]], dim=1).double() @ inputs.T
    part = sizes >= _PART
    clear = ((state.abs() > _SWITCHED) | ~part).all(dim=1)
    on, off = part & (state > 0), part & (state <= 0)
    telling = (moved > 0) & explained & sure & clear & on.any(dim=1) & off.any(dim=1)
    for neuron in telling.nonzero().flatten().tolist():
        yield on[neuron].nonzero().flatten(), off[neuron].nonzero().flatten()
