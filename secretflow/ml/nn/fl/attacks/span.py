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
from secretflow.ml.nn.fl.attacks.first_gradients import FirstGradient, with_ones
from secretflow.ml.nn.fl.attacks.observation import Observation


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
    asked = with_ones(observation, x)
    rows, layer = observation.batch_size, FirstGradient.of_few_rows(observation, "tell rows by their space")
    if bool(layer.living.all()):
        space = torch.linalg.svd(layer.both(), full_matrices=False).Vh[:rows]
    else:
        factors = layer.factors(rows)
        space = asked.new_zeros(0, asked.shape[1]) if factors is None else torch.linalg.qr(factors[1].T).Q.T
    left = asked - asked @ space.T @ space
    return -(left.norm(dim=1) / asked.norm(dim=1)).clamp(max=1)
