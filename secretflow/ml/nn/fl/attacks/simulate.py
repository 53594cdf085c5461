"""What training on given rows would have shown: the gradient that an attacker computes for a guess."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.func import grad

from secretflow.ml.nn.fl.attacks.net import called

Tensors = Mapping[str, torch.Tensor]


def simulated_gradient(
    net: nn.Module,
    weights: Tensors,
    state: Tensors,
    alive: Tensors,
    images: torch.Tensor,
    labels: torch.Tensor,
    steps: int = 1,
    learning_rate: float = 1.0,
) -> dict[str, torch.Tensor]:
    """The mean gradient of some local steps on one batch, by parameter; can be differentiated and batched.

    Source of several steps: Geiping et al., "Inverting Gradients", NeurIPS 2020, section 6.

    Args:
        net: of :func:`~.net.in_mode`; left as it is.
        weights: parameters that are trained, by name.
        state: other tensors of the net by name.
        alive: for each name of ``weights`` 1 where it is trained and 0 where it is pruned.
        images: rows of one batch, float of shape (batch, ...).
        labels: int64 of shape (batch,), or class probabilities of shape (batch, classes).
        steps: of gradient descent, at least 1.
        learning_rate: of these steps.

    Returns:
        For each name of ``weights`` an array of its shape.
    """

    def cross_entropy(parameters: Tensors) -> torch.Tensor:
        scores = called(net, {**state, **parameters}, images)
        return nn.functional.cross_entropy(scores, labels)

    gradient: Callable[[Tensors], dict[str, torch.Tensor]] = grad(cross_entropy)
    parameters = dict(weights)
    found = gradient(parameters)
    total = found
    for _ in range(steps - 1):
        parameters = {
            name: value - learning_rate * alive[name] * found[name] for name, value in parameters.items()
        }
        found = gradient(parameters)
        total = {name: total[name] + found[name] for name in total}
    return {name: value / steps for name, value in total.items()} if steps > 1 else total
