"""Whether rows that were read off a gradient explain it: each is put through the net once more.

Signs alone do not tell a row from a mixture of rows that switch on the same neurons. What a row sends back
to the first layer, with one label or another, does: the gradient must show just that, with a weight.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.func import grad, vmap

from secretflow.ml.nn.fl.attacks.net import by_first_name, called, differentiable_twice, in_mode, is_random
from secretflow.ml.nn.fl.attacks.observation import Observation
from secretflow.ml.nn.fl.attacks.public import living_arrays

TOLERANCE = 1e-4
"""Relative difference up to which the gradient shows what a row sends back; float32 keeps 1e-7 of it, and
1e-5 where what is pruned is filled in."""
WEIGHT_TOLERANCE = 1e-3
"""Relative difference up to which a weight is that of one row."""
_AT_ONCE = 256


def explained(observation: Observation, bias: int, rows: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    """Which rows send back what the gradient shows of them.

    If rows are missing, or some do not fit, a row must also have the weight of one row among as many of equal
    weights: the sum of two rows that no neuron tells apart has more. If all are there, their weights may
    differ and must sum to 1.

    Args:
        observation: of one local step.
        bias: number of the first layer's bias among the parameters.
        rows: that were read, float of shape (rows, *image_shape).
        shown: what the gradient shows to come back from each, (rows, neurons).

    Returns:
        bool of shape (rows,). Of a net that draws random numbers, as dropout does, nothing can be said of
        single rows: there all are, if as many were read as there are, or else none.
    """
    whole = len(rows) == observation.batch_size
    net = in_mode(observation.model(), observation.evaluating)
    tensors = {name: value.detach().cpu() for name, value in observation.pruned_weights().items()}
    tensors = by_first_name(net, tensors)
    rows = rows.to(observation.gradients[0].dtype)
    if not len(rows) or is_random(net, lambda: called(net, tensors, rows)):
        return torch.full((len(rows),), whole)
    seen = living_arrays(observation)[bias]
    back = _sent_back(net, tensors, bias, rows, observation.classes)[:, :, seen]
    shown = shown[:, seen].to(back)
    weights = (back * shown[:, None]).sum(dim=2) / back.square().sum(dim=2).clamp(min=1e-300)
    left = (shown[:, None] - weights[:, :, None] * back).norm(dim=2) / shown.norm(dim=1).clamp(min=1e-300)[
        :, None
    ]
    left = torch.where(weights > 0, left, torch.inf)
    best, labels = left.min(dim=1)
    fits = best < TOLERANCE
    own = weights.gather(1, labels[:, None])[:, 0]
    if whole and bool(fits.all()) and abs(float(own.sum()) - 1) < WEIGHT_TOLERANCE:
        return fits
    return fits & ((own * observation.batch_size - 1).abs() < WEIGHT_TOLERANCE)


def _sent_back(
    net: nn.Module, tensors: dict[str, torch.Tensor], bias: int, rows: torch.Tensor, classes: int
) -> torch.Tensor:
    """The gradient of the bias for each row and label, float64 of shape (rows, classes, neurons)."""
    name = [name for name, _ in net.named_parameters()][bias]

    def cross_entropy(own: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(called(net, {**tensors, name: own}, x[None]), y[None])

    labels = torch.arange(classes).repeat(len(rows))
    with differentiable_twice(net):
        each = vmap(grad(cross_entropy), in_dims=(None, 0, 0), chunk_size=_AT_ONCE)
        found: torch.Tensor = each(tensors[name], rows.repeat_interleave(classes, dim=0), labels)
    return found.double().view(len(rows), classes, -1)
