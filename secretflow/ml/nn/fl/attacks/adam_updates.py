"""The gradient behind an update of Adam: what an attacker goes on with where a party uses Adam.

An update of Adam is no gradient, but a mean of the gradients so far, number by number over the root of that
of their squares. Two updates in a row, which whoever sees every upload of a party has, differ by the newest
gradient. Public rows show how large the squares are, for whoever has seen the model of every round and
computes a gradient of its own in each.

Source: Kingma and Ba, "Adam: A method for stochastic optimization", ICLR 2015, algorithm 1, solved for the
gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from secretflow import _validate

Arrays = Sequence[torch.Tensor]
_STEPS = 30


def gradient_of_adam(
    update: Arrays,
    previous: Arrays,
    squares: Arrays,
    *,
    step: int,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> tuple[torch.Tensor, ...]:
    """The gradient of Adam's newest step.

    Args:
        update: weights before the step less those after it, over the learning rate, float arrays.
        previous: that of the step before, of the same shapes.
        squares: running means of the squares of gradients before the step, Adam's ``exp_avg_sq``, as the
            attacker estimates them, of the same shapes.
        step: number of the newest step, at least 2; a first one shows signs only.
        betas: of Adam, each in [0, 1).
        eps: of Adam, at least 0.

    Returns:
        Arrays of the same shapes; exact where ``squares`` are.

    Raises:
        TypeError: a value is of the wrong type.
        ValueError: shapes differ, or a number is out of its range.
    """
    for name, arrays in (("update", update), ("previous", previous), ("squares", squares)):
        tensors = isinstance(arrays, Sequence) and all(isinstance(array, torch.Tensor) for array in arrays)
        _validate.check(tensors, name, type(arrays).__name__, "a sequence of tensors", TypeError)
        shapes = [tuple(array.shape) for array in arrays]
        expected = [tuple(array.shape) for array in update]
        _validate.check(shapes == expected, name, shapes, f"of the shapes of update, {expected}")
    _validate.integer("step", step, 2)
    pair = isinstance(betas, tuple) and len(betas) == 2
    _validate.check(pair, "betas", betas, "two numbers", TypeError)
    for beta in betas:
        _validate.number("betas", beta, at_least=0, below=1)
    _validate.number("eps", eps, at_least=0)
    first, second = betas
    found = []
    for newest, last, square in zip(update, previous, squares, strict=True):
        momentum = (1 - first ** (step - 1)) * last * ((square / (1 - second ** (step - 1))).sqrt() + eps)
        gradient = torch.zeros_like(newest)
        for _ in range(_STEPS):  # the newest gradient is in the squares as well, if little
            now = second * square + (1 - second) * gradient.square()
            whole = (1 - first**step) * newest * ((now / (1 - second**step)).sqrt() + eps)
            gradient = (whole - first * momentum) / (1 - first)
        found.append(gradient)
    return tuple(found)
