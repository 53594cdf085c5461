"""What goes into a gradient-inversion attack and what comes out.

Attacker and victim share nothing but an :class:`Observation`. The true images are not in it, so no attack
can choose by them; scoring is done elsewhere (:mod:`~secretflow.ml.nn.fl.attacks.scores`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call


@dataclass(frozen=True)
class Observation:
    """All that an attacker has.

    Attributes:
        image_shape: (channels, height, width) of one image.
        classes: number of classes.
        gradients: what was seen: the gradient of the mean cross entropy over the batch, in the order of
            ``model().parameters()``.
        model: builds the net; its initial weights do not matter.
        weights: the weights that the attacker believes the gradient was computed with, by parameter and
            buffer name.
        mask: 0 where a weight is known to be pruned and 1 where it lives, by parameter name. With it the
            attacker is *mask-aware*: it evaluates the pruned net and matches living coordinates only.
            None is the *mask-oblivious* attacker, which evaluates ``weights`` as they are and matches all
            coordinates.
        batch_size: images in the batch, at least 1.

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

    def __post_init__(self) -> None:
        if len(self.image_shape) != 3 or min(self.image_shape) < 1:
            raise ValueError(f"image_shape={self.image_shape!r} is not allowed: (channels, height, width)")
        if self.classes < 2:
            raise ValueError(f"classes={self.classes!r} is not allowed: at least 2")
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size!r} is not allowed: at least 1")
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
        for name, entry in (self.mask or {}).items():
            if name not in parameters or parameters[name].shape != entry.shape:
                raise ValueError(
                    f"mask: {name!r} of shape {tuple(entry.shape)} is not a parameter of the net"
                )


@dataclass(frozen=True)
class Frame:
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
            leave it.
        labels: int64 of shape (batch,).
        loss: matching loss of ``images``; infinite if every restart diverged.
        history: the way of the restart that was chosen, first frame at iteration 0.
        iteration: optimiser steps of the restart that was chosen.
        restart: which restart was chosen, from 0.
        diverged: how many restarts ended in NaN or infinity.
        seconds: wall time of all restarts.
    """

    images: torch.Tensor
    labels: torch.Tensor
    loss: float
    history: tuple[Frame, ...]
    iteration: int
    restart: int
    diverged: int
    seconds: float


class Target:
    """The observed gradient as a function to match; made once for each attack.

    Args:
        observation: what the attacker has.
    """

    def __init__(self, observation: Observation) -> None:
        self._net = observation.model().eval()
        names = [name for name, _ in self._net.named_parameters()]
        mask = observation.mask or {}
        self._state = {name: value.detach() for name, value in observation.weights.items()}
        self._masks = [mask[name].to(self._state[name]) if name in mask else None for name in names]
        self._parameters = {
            name: (self._state[name] if factor is None else self._state[name] * factor).requires_grad_()
            for name, factor in zip(names, self._masks, strict=True)
        }
        self._seen = [gradient.detach() for gradient in observation.gradients]

    def loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Squared distance between the gradient of a guess and the one seen.

        Args:
            images: the guess, float of shape (batch, channels, height, width).
            labels: class probabilities of the guess, float of shape (batch, classes).

        Returns:
            Scalar that can be differentiated with respect to both.
        """
        prediction = functional_call(self._net, {**self._state, **self._parameters}, (images,))
        cross_entropy = nn.functional.cross_entropy(prediction, labels)
        guess = torch.autograd.grad(cross_entropy, list(self._parameters.values()), create_graph=True)
        return squared_distance(guess, self._seen, self._masks)


def squared_distance(
    guess: tuple[torch.Tensor, ...] | list[torch.Tensor],
    seen: tuple[torch.Tensor, ...] | list[torch.Tensor],
    masks: list[torch.Tensor | None],
) -> torch.Tensor:
    """Squared Euclidean distance over the coordinates that live.

    Source: Zhu, Liu, Han, "Deep Leakage from Gradients", NeurIPS 2019, section 3.2, eq. (3); the mask is
    ours.

    Args:
        guess: gradient arrays.
        seen: gradient arrays of the same shapes.
        masks: for each array 1 where it counts and 0 where it does not; None counts all.

    Returns:
        Scalar, at least 0.
    """
    differences = [a - b if m is None else (a - b) * m for a, b, m in zip(guess, seen, masks, strict=True)]
    return torch.stack([difference.square().sum() for difference in differences]).sum()
