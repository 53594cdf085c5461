"""Which candidates lie in the space that an average's first fully connected layer shows.

The gradient of such a layer is a sum of outer products, one for each row: what comes back to the layer, and
the row with a 1 behind it. Whatever the other layers are, and whatever comes back, its rows lie in the space
of as many vectors, and other rows do not as long as those are few. Of a pruned layer the gradient is filled
in first (:mod:`~.completion`); parties may have masks of their own, for each adds a product of its own. To
use for batches and averages in nets that begin so, where there are candidates.

Source: Dimitrov, Baader, Müller, Vechev, "SPEAR: Exact gradient inversion of batches in federated learning",
NeurIPS 2024, theorem 3.1: the gradient's rows span those of the batch.
"""

from __future__ import annotations

import torch

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.completion import completed
from secretflow.ml.nn.fl.attacks.layers import needed_first_layer
from secretflow.ml.nn.fl.attacks.observation import Observation
from secretflow.ml.nn.fl.attacks.public import living_arrays


def span_scores(observation: Observation, x: torch.Tensor) -> torch.Tensor:
    """How near each of some rows is to the space that the first layer's gradient spans.

    Args:
        observation: of one local step; its ``batch_size`` is the number of all rows, which need not have
            equal weights and must be fewer than the first layer has neurons and inputs.
        x: rows to ask for, float of shape (rows, *image_shape).

    Returns:
        Minus the relative distance from the space, float64 of shape (rows,), in [-1, 0]: near 0 is in it. All
        are -1 where too little of the gradient lives to fill it in.

    Raises:
        TypeError: something is of the wrong type.
        ValueError: the input goes into no fully connected layer with bias, several local steps were taken,
            there are too many rows, or ``x`` does not fit.
    """
    _validate.instance("observation", observation, Observation, "an Observation")
    _validate.instance("x", x, torch.Tensor, "a tensor")
    shape, steps, rows = observation.image_shape, observation.local_steps, observation.batch_size
    _validate.check(tuple(x.shape[1:]) == shape, "x", tuple(x.shape), f"rows of shape {shape}")
    _validate.check(steps == 1, "local_steps", steps, "1 to tell rows by the space that they span")
    numbers = needed_first_layer(observation)
    weight, bias = (observation.gradients[number].detach().cpu().double() for number in numbers)
    what = f"below the smaller side of the first layer, {min(weight.shape)}, to tell rows by their space"
    _validate.check(rows < min(weight.shape), "batch_size", rows, what)
    both = torch.cat([weight, bias[:, None]], dim=1)
    living = living_arrays(observation)[numbers[0]]
    if bool(living.all()):
        space = torch.linalg.svd(both, full_matrices=False).Vh[:rows]
    else:
        factors = completed(both, torch.cat([living, torch.ones_like(living[:, :1])], dim=1), rows)
        space = both.new_zeros(0, both.shape[1]) if factors is None else torch.linalg.qr(factors[1].T).Q.T
    asked = torch.cat([x.flatten(1).double(), x.new_ones(len(x), 1).double()], dim=1)
    left = asked - asked @ space.T @ space
    return -(left.norm(dim=1) / asked.norm(dim=1)).clamp(max=1)
