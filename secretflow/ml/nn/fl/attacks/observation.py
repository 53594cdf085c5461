"""What goes into a gradient-inversion attack and what comes out.

Attacker and victim share nothing but an :class:`Observation`. The true images are not in it, so no attack
can choose by them; scoring is done elsewhere (:mod:`~secretflow.ml.nn.fl.audit.scores`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

Progress = Callable[[float], None]
"""Called now and then with the part of the work that is done, from 0 to 1."""


@dataclass(frozen=True)
class Observation:
    """All that an attacker has.

    Attributes:
        image_shape: (channels, height, width) of one image.
        classes: number of classes.
        gradients: what was seen, in the order of ``model().parameters()``. After one local step: the gradient
            of the mean cross entropy over the batch. After k steps of gradient descent, all on the same
            batch: ``(weights before - weights after) / (k * learning_rate)``, the mean of the k gradients.
        model: builds the net; its initial weights do not matter.
        weights: the weights that the attacker believes training started from, by parameter and buffer name.
        mask: 0 where a weight is known to be pruned and 1 where it lives, by parameter name. With it the
            attacker is *mask-aware*: it evaluates the pruned net and matches living coordinates only.
            None is the attacker that evaluates ``weights`` as they are and matches all coordinates.
        compared: 0 where a coordinate is known not to have been uploaded and 1 where it was, by parameter
            name, for what was dropped from the upload while the net itself is whole. None compares all.
        batch_size: images in the batch, at least 1.
        local_steps: k, at least 1.
        learning_rate: of the local steps, above 0; only needed if there is more than one.

    Raises:
        ValueError: a shape does not fit the net, or a number is out of its range.
    """

    image_shape: tuple[int, int, int]
    classes: int
    gradients: tuple[torch.Tensor, ...]
    model: Callable[[], nn.Module]
    weights: Mapping[str, torch.Tensor]
    mask: Mapping[str, torch.Tensor] | None = None
    batch_size: int = 1
    compared: Mapping[str, torch.Tensor] | None = None
    local_steps: int = 1
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        if len(self.image_shape) != 3 or min(self.image_shape) < 1:
            raise ValueError(f"image_shape={self.image_shape!r} is not allowed: (channels, height, width)")
        for name, least in (("classes", 2), ("batch_size", 1), ("local_steps", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)!r} is not allowed: at least {least}")
        rate = self.learning_rate
        if rate is None:
            if self.local_steps > 1:
                raise ValueError(
                    "learning_rate=None is not allowed with several local_steps: a number above 0"
                )
        elif not 0 < rate < math.inf:
            raise ValueError(f"learning_rate={rate!r} is not allowed: a number above 0")
        self._check_shapes()

    def _check_shapes(self) -> None:
        net = self.model()
        parameters = dict(net.named_parameters())
        seen = [tuple(gradient.shape) for gradient in self.gradients]
        expected = [tuple(parameter.shape) for parameter in parameters.values()]
        if seen != expected:
            raise ValueError(
                f"gradients of shapes {seen} do not fit the net, whose parameters are {expected}"
            )
        for name, value in net.state_dict().items():
            if name not in self.weights or self.weights[name].shape != value.shape:
                raise ValueError(f"weights: {name!r} of shape {tuple(value.shape)} is missing")
        for argument in ("mask", "compared"):
            for name, entry in (getattr(self, argument) or {}).items():
                if name not in parameters or parameters[name].shape != entry.shape:
                    raise ValueError(
                        f"{argument}: {name!r} of shape {tuple(entry.shape)} is not a parameter of the net"
                    )


@dataclass(frozen=True)
class Snapshot:
    """A reconstruction on its way.

    Attributes:
        iteration: optimiser steps done.
        loss: matching loss.
        images: float of shape (batch, channels, height, width).
    """

    iteration: int
    loss: float
    images: torch.Tensor


@dataclass(frozen=True)
class Reconstruction:
    """What an attack got back.

    Attributes:
        images: float of shape (batch, channels, height, width); the true ones lie in [0, 1], these may
            leave it. Their order within the batch means nothing.
        labels: int64 of shape (batch,), in the order of ``images``.
        loss: matching loss of ``images``; infinite if every restart diverged.
        history: the way of the restart that was chosen, first frame at iteration 0; empty for an attack that
            does not iterate.
        iteration: optimiser steps of the restart that was chosen up to ``images``.
        restart: which restart was chosen, from 0.
        diverged: how many restarts ended in NaN or infinity.
        seconds: wall time until the answer was there; of observations attacked together an equal share each.
    """

    images: torch.Tensor
    labels: torch.Tensor
    loss: float
    history: tuple[Snapshot, ...]
    iteration: int
    restart: int
    diverged: int
    seconds: float
