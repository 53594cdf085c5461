"""What a weight is worth: those of the smallest score are pruned first.

A criterion is one function here, registered by its name; ``prune_criterion`` chooses it. It gets a layer's
weight and its gradient (None unless it says that it needs one) and gives an array of their shape, of numbers
from 0 up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Score = Callable[[np.ndarray, np.ndarray | None], np.ndarray]


@dataclass(frozen=True)
class Criterion:
    """A way to score weights.

    Attributes:
        score: from a layer's weight and gradient to its scores.
        needs_gradient: whether ``score`` looks at the gradient, which is a party's own: such a criterion is
            refused where all parties prune the average alike.
    """

    score: Score
    needs_gradient: bool


CRITERIA: dict[str, Criterion] = {}
"""The criteria by name."""


def criterion(name: str, *, needs_gradient: bool = False) -> Callable[[Score], Score]:
    """Registers a function as a criterion.

    Args:
        name: as ``prune_criterion`` chooses it.
        needs_gradient: see :class:`Criterion`.
    """

    def register(score: Score) -> Score:
        CRITERIA[name] = Criterion(score, needs_gradient)
        return score

    return register


@criterion("magnitude")
def magnitude(weight: np.ndarray, gradient: np.ndarray | None) -> np.ndarray:
    """The weight's absolute value."""
    return np.abs(weight)


@criterion("lamp")
def lamp(weight: np.ndarray, gradient: np.ndarray | None) -> np.ndarray:
    """The weight's part of what is left of its layer: its square over the sum of all squares not below it.

    With ``prune_scope="global"`` it can be compared between layers whatever the scale of their weights, and
    the largest weight of a layer scores 1; within a layer it orders weights as "magnitude" does. Sums are of
    float64, one square after the other, so that all parties come to the same scores.

    Source: Lee, Park, Mo, Ahn, Shin, "Layer-adaptive sparsity for the magnitude-based pruning", ICLR 2021,
    section 2.
    """
    # What is not finite gets a score that is not, and is refused where scores are compared.
    with np.errstate(over="ignore", invalid="ignore"):
        return _parts(np.square(weight.ravel(), dtype=np.float64)).reshape(weight.shape)


def _parts(squares: np.ndarray) -> np.ndarray:
    """Each number over the sum of all that are not below it."""
    order = np.argsort(squares, kind="stable")
    ordered = squares[order]
    not_below = np.cumsum(ordered[::-1])[::-1]
    found = np.empty_like(squares)
    found[order] = ordered / np.maximum(not_below, np.finfo(np.float64).tiny)
    return found


@criterion("snip", needs_gradient=True)
def snip(weight: np.ndarray, gradient: np.ndarray | None) -> np.ndarray:
    """How much the loss changes, to first order, if the weight becomes zero: ``|w * g|``.

    Source: Lee et al., "SNIP: Single-shot Network Pruning based on Connection Sensitivity", ICLR 2019,
    section 4. There it prunes once, before training; here at every step.
    """
    assert gradient is not None  # it says that it needs one
    return np.abs(weight * gradient)


def scores(
    name: str, weights: Sequence[np.ndarray], gradients: Sequence[np.ndarray] | None
) -> list[np.ndarray]:
    """Scores the weights of every layer.

    Args:
        name: of the criterion.
        weights: float array of each layer.
        gradients: array of each layer, of its weight's shape; None where there are none.

    Returns:
        The scores of each layer, of its weight's shape.

    Raises:
        ValueError: the criterion needs gradients, and there are none or one is of another shape.
    """
    chosen = CRITERIA[name]
    if not chosen.needs_gradient:
        return [chosen.score(weight, None) for weight in weights]
    if gradients is None:
        raise ValueError(
            f"prune_criterion must be one that needs no gradients, for there are none, got {name!r}"
        )
    for weight, gradient in zip(weights, gradients, strict=True):
        if weight.shape != gradient.shape:
            raise ValueError(f"gradient must have its weight's shape {weight.shape}, got {gradient.shape}")
    return [chosen.score(weight, gradient) for weight, gradient in zip(weights, gradients, strict=True)]
