"""Public rows, and the gradients that an attacker computes of them: what an inverter is fitted on.

An inverter learns, from rows that anybody has, how a row follows from its gradient in *this* net under *this*
mask. Whatever training does to a gradient before it is uploaded, the attacker does to those of its own rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.func import vmap

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.net import by_first_name, check_not_random, differentiable_twice, in_mode
from secretflow.ml.nn.fl.attacks.observation import Observation
from secretflow.ml.nn.fl.attacks.simulate import simulated_gradient

Distort = Callable[[tuple[torch.Tensor, ...]], tuple[torch.Tensor, ...]]
"""What is done to a gradient before it is seen, such as rounding: from arrays to arrays of their shapes."""

_AT_ONCE = 256
_NUMBERS_AT_ONCE = 2**27
"""Coordinates of gradients that are computed together, for memory: 512 MB in single precision."""


@dataclass(frozen=True)
class PublicRows:
    """Rows that resemble those under attack and are none of them.

    Attributes:
        x: float of shape (rows, ...), at least two rows.
        y: labels, int64 of shape (rows,).

    Raises:
        TypeError: a value is no tensor, or labels are no integers.
        ValueError: there are too few rows, or not one label for each.
    """

    x: torch.Tensor
    y: torch.Tensor

    def __post_init__(self) -> None:
        for name in ("x", "y"):
            _validate.instance(name, getattr(self, name), torch.Tensor, "a tensor")
        _validate.check(self.y.dtype == torch.int64, "y", self.y.dtype, "of int64", TypeError)
        rows = len(self.x) if self.x.dim() else 0
        _validate.check(rows >= 2, "x", tuple(self.x.shape), "at least two rows")
        _validate.check(self.y.shape == (rows,), "y", tuple(self.y.shape), f"of shape {(rows,)}")


def check_rows(observation: Observation, rows: PublicRows) -> None:
    """Refuses rows or labels that cannot be those of an observation.

    Raises:
        ValueError: rows are of another shape, or a label is no class.
    """
    shape = tuple(rows.x.shape[1:])
    what = f"rows of shape {observation.image_shape}, as the observation's"
    _validate.check(shape == observation.image_shape, "x", shape, what)
    fit = bool(((rows.y >= 0) & (rows.y < observation.classes)).all())
    _validate.check(fit, "y", [int(rows.y.min()), int(rows.y.max())], f"from 0 to {observation.classes - 1}")


def living_arrays(observation: Observation) -> list[torch.Tensor]:
    """Which coordinates of the gradient an attacker compares.

    Args:
        observation: its ``mask`` and ``compared`` count; without them all coordinates do.

    Returns:
        bool of the shapes of the parameters, in their order, on the CPU.
    """
    net = observation.model()
    names = [name for name, _ in net.named_parameters()]
    living = [torch.ones(gradient.shape, dtype=torch.bool) for gradient in observation.gradients]
    for tensors in (observation.mask, observation.compared):
        held = by_first_name(net, tensors or {})
        living = [
            here & (held[name] != 0).cpu() if name in held else here
            for name, here in zip(names, living, strict=True)
        ]
    return living


def living_coordinates(observation: Observation) -> torch.Tensor:
    """What :func:`living_arrays` gives, as one bool tensor of shape (all parameters,)."""
    return torch.cat([here.flatten() for here in living_arrays(observation)])


def flat(gradients: Sequence[torch.Tensor], living: torch.Tensor) -> torch.Tensor:
    """The living coordinates of a gradient, (living,), on the CPU."""
    return torch.cat([gradient.detach().cpu().flatten() for gradient in gradients])[living]


def public_gradients(
    observation: Observation, rows: PublicRows, distort: Distort | None = None
) -> Iterator[torch.Tensor]:
    """The gradient of each public row alone, as the party that was observed would have uploaded it.

    Args:
        observation: net, weights, mask, mode and local steps are used; its ``batch_size`` must be 1.
        rows: public ones.
        distort: what is done to a gradient before it is seen; None is nothing.

    Yields:
        Living coordinates of some rows after the other, float of shape (some, living), on the CPU.

    Raises:
        TypeError: something is of the wrong type.
        ValueError: ``batch_size`` is not 1, rows do not fit the net, or its output is random.
    """
    _validate.instance("observation", observation, Observation, "an Observation")
    _validate.instance("public", rows, PublicRows, "PublicRows")
    function = distort is None or callable(distort)
    _validate.check(function, "distort", distort, "a function of arrays, or None", TypeError)
    _validate.check(observation.batch_size == 1, "batch_size", observation.batch_size, "1 for an inverter")
    check_rows(observation, rows)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net = in_mode(observation.model(), observation.evaluating).to(device)
    names = [name for name, _ in net.named_parameters()]
    tensors = by_first_name(net, {n: v.detach().to(device) for n, v in observation.pruned_weights().items()})
    weights = {name: tensors.pop(name) for name in names}
    mask = by_first_name(net, observation.mask or {})
    alive = {
        name: mask[name].to(value) if name in mask else torch.ones_like(value)
        for name, value in weights.items()
    }
    living = living_coordinates(observation).to(device)

    def one(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        steps, rate = observation.local_steps, observation.learning_rate or 1.0
        found = simulated_gradient(net, weights, tensors, alive, x[None], y[None], steps, rate)
        arrays = tuple(found[name] for name in names)
        return torch.cat([array.flatten() for array in (arrays if distort is None else distort(arrays))])

    like = observation.gradients[0]
    at_once = max(1, min(_AT_ONCE, _NUMBERS_AT_ONCE // max(1, len(living))))
    with differentiable_twice(net):
        first = rows.x[:1].to(device, like.dtype)
        check_not_random(net, lambda: torch.func.functional_call(net, {**weights, **tensors}, (first,)))
        for x, y in zip(rows.x.split(at_once), rows.y.split(at_once), strict=True):
            yield vmap(one, randomness="different")(x.to(device, like.dtype), y.to(device))[:, living].cpu()
