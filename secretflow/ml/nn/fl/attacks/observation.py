"""What goes into a gradient-inversion attack and what comes out.

Attacker and victim share nothing but an :class:`Observation`. The true images are not in it, so no attack
can choose by them; scoring is done elsewhere (:mod:`~secretflow.ml.nn.fl.audit.scores`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.net import called, first_names, in_mode

Progress = Callable[[float], None]
"""Called now and then with the part of the work that is done, from 0 to 1."""


@dataclass(frozen=True)
class Observation:
    """All that an attacker has.

    Attributes:
        image_shape: of one row: (channels, height, width) of an image, (features,) of a table, (steps,
            features) of a sequence, whatever the net takes behind the batch.
        classes: number of classes, at least 2.
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
        evaluating: names of the modules that were in evaluation mode when the gradient was computed, with all
            inside of them; ``""`` is the whole net. A party trains in training mode, so by default all are
            in that; a capture says which were not.
        value_range: smallest and largest number that a row can hold, as the attacker knows; None is [0, 1]
            for images and no bound for other rows. Only attacks that search within bounds use it.

    Raises:
        TypeError: a value is of the wrong type.
        ValueError: a shape does not fit the net, or a number is out of its range.
    """

    image_shape: tuple[int, ...]
    classes: int
    gradients: tuple[torch.Tensor, ...]
    model: Callable[[], nn.Module]
    weights: Mapping[str, torch.Tensor]
    mask: Mapping[str, torch.Tensor] | None = None
    batch_size: int = 1
    compared: Mapping[str, torch.Tensor] | None = None
    local_steps: int = 1
    learning_rate: float | None = None
    evaluating: tuple[str, ...] = ()
    value_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        _validate.plain_fields(self)
        shape = self.image_shape
        whole = isinstance(shape, tuple) and len(shape) > 0 and all(type(side) is int for side in shape)
        _validate.check(whole, "image_shape", shape, "a tuple of integers", TypeError)
        _validate.check(min(shape) >= 1, "image_shape", shape, "a tuple of integers of at least 1")
        for name, least in (("classes", 2), ("batch_size", 1), ("local_steps", 1)):
            _validate.integer(name, getattr(self, name), least)
        given = self.learning_rate is not None or self.local_steps == 1
        _validate.check(given, "learning_rate", None, "a number above 0 with several local_steps")
        _validate.number("learning_rate", self.learning_rate, above=0, optional=True)
        _validate.check(callable(self.model), "model", self.model, "a function without arguments", TypeError)
        if self.value_range is not None:
            _check_range(self.value_range)
        self._check_tensors()
        self._check_net()

    @property
    def bounds(self) -> tuple[float, float]:
        """Smallest and largest number that a row can hold, infinite where there is no bound."""
        if self.value_range is not None:
            return self.value_range
        return (0.0, 1.0) if self.is_image else (-math.inf, math.inf)

    @property
    def is_image(self) -> bool:
        """Whether a row has three dimensions, the last two of them of more than one pixel."""
        return len(self.image_shape) == 3 and min(self.image_shape[1:]) > 1

    def pruned_weights(self) -> dict[str, torch.Tensor]:
        """The weights that the attacker evaluates: zero where it knows that they are pruned."""
        mask = self.mask or {}
        return {
            name: value * mask[name].to(value) if name in mask else value
            for name, value in self.weights.items()
        }

    def _check_tensors(self) -> None:
        net = self.model()
        _validate.instance("model", net, nn.Module, "a function that builds a torch module")
        names = isinstance(self.evaluating, tuple) and all(isinstance(n, str) for n in self.evaluating)
        _validate.check(names, "evaluating", self.evaluating, "a tuple of names of modules", TypeError)
        in_mode(net, self.evaluating)
        net = self.model()  # in_mode takes running statistics away
        parameters = dict(net.named_parameters(remove_duplicate=False))
        _check_all_tensors("gradients", dict(enumerate(self.gradients)))
        seen = [tuple(gradient.shape) for gradient in self.gradients]
        expected = [tuple(parameter.shape) for parameter in net.parameters()]
        _validate.check(
            seen == expected, "gradients", seen, f"of the shapes of the net's parameters, {expected}"
        )
        _check_all_tensors("weights", self.weights)
        firsts = first_names(net)
        for name, value in net.state_dict().items():
            if name not in firsts:  # a module's extra state
                continue
            found = self.weights.get(name)
            _validate.check(
                found is not None and found.shape == value.shape,
                "weights",
                None if found is None else tuple(found.shape),
                f"of the net, with {name!r} of shape {tuple(value.shape)}",
            )
            tied = torch.equal(self.weights[name], self.weights[firsts[name]])
            _validate.check(
                tied, "weights", "others", f"equal under {name!r} and {firsts[name]!r}, which are one tensor"
            )
        for argument in ("mask", "compared"):
            held = getattr(self, argument) or {}
            _check_all_tensors(argument, held)
            for name, entry in held.items():
                fits = name in parameters and parameters[name].shape == entry.shape
                what = "of parameters of the net, each entry of the shape of its own"
                _validate.check(fits, argument, (name, tuple(entry.shape)), what)

    def _check_net(self) -> None:
        """Has the net called once, on zeros: what does not fit shall not look like safety later."""
        net = in_mode(self.model(), self.evaluating)
        x = torch.zeros(self.batch_size, *self.image_shape, dtype=self.gradients[0].dtype)
        weights = {name: value.detach().cpu() for name, value in self.weights.items()}
        try:
            with torch.random.fork_rng([]), torch.no_grad():
                scores = called(net.cpu(), weights, x)
        except Exception as error:
            raise ValueError(
                f"image_shape must be what the net takes, {self.batch_size} rows at once, got "
                f"{self.image_shape}: {error}"
            ) from error
        shape = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        what = f"the number of scores that the net gives for a row, in one tensor, which is {shape}"
        _validate.check(shape == (self.batch_size, self.classes), "classes", self.classes, what)


def _check_all_tensors(argument: str, tensors: Mapping[Any, Any]) -> None:
    _validate.instance(argument, tensors, Mapping, "a mapping from names to tensors")
    for name, value in tensors.items():
        _validate.instance(f"{argument}[{name!r}]", value, torch.Tensor, "a tensor")


def _check_range(value: object) -> None:
    what = "two numbers, the smaller one first, or None"
    ends = value if isinstance(value, tuple) and len(value) == 2 else (None,)
    numbers = all(isinstance(end, (int, float)) and not isinstance(end, bool) for end in ends)
    _validate.check(numbers, "value_range", value, what, TypeError)
    _validate.check(ends[0] < ends[-1], "value_range", value, what)  # type: ignore[operator]


def check_observations(observations: object, progress: object = None) -> None:
    """Refuses what an attack cannot be made on.

    Args:
        observations: what the user gave.
        progress: what the user gave.

    Raises:
        TypeError: it is no sequence of observations, or ``progress`` no function.
        ValueError: it is empty.
    """
    sequence = isinstance(observations, Sequence) and all(isinstance(o, Observation) for o in observations)
    _validate.check(sequence, "observations", observations, "a sequence of Observation", TypeError)
    _validate.check(bool(observations), "observations", observations, "at least one")
    callable_ = progress is None or callable(progress)
    _validate.check(
        callable_, "progress", progress, "a function of the part that is done, or None", TypeError
    )


def check_one_step(observation: Observation, purpose: str) -> None:
    """Refuses what several local steps have come to.

    Args:
        observation: what the attacker has.
        purpose: what one step is needed for, an infinitive.

    Raises:
        ValueError: it is of several.
    """
    steps = observation.local_steps
    _validate.check(steps == 1, "local_steps", steps, f"1 to {purpose}")


@dataclass(frozen=True)
class Snapshot:
    """A reconstruction on its way.

    Attributes:
        iteration: optimiser steps done.
        loss: matching loss.
        images: float of shape (batch, *image_shape).
    """

    iteration: int
    loss: float
    images: torch.Tensor


@dataclass(frozen=True)
class Reconstruction:
    """What an attack got back.

    Attributes:
        images: float of shape (batch, *image_shape); those of an unbounded search may leave the range of
            the true ones. Their order within the batch means nothing.
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
