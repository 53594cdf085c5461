"""Improved DLG: read the label off the last layer's gradient, then guess the image alone.

Source: Zhao, Mopuri, Bilen, "iDLG: Improved Deep Leakage from Gradients", 2020, section 3. To use when the
batch is one image and the net ends in a fully connected layer; fewer unknowns make the search easier.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.dlg import DLGSettings, dlg_attack
from secretflow.ml.nn.fl.attacks.layers import last_layer, single_score
from secretflow.ml.nn.fl.attacks.observation import (
    Observation,
    Progress,
    Reconstruction,
    check_observations,
)

_NOISE = 1e-4
"""Part of the largest number of a gradient up to which its sign says nothing."""


def labels_from_gradient(observation: Observation) -> torch.Tensor:
    """Labels read off the gradient of the last fully connected layer, wherever that is defined.

    The gradient with respect to the score of a class is its probability less 1 if it is the label's, so it
    is negative for the label alone. The bias has it. Without one, each row of the weights has it times the
    features: of a single row's label alone the products with all other rows are not positive, whatever the
    features. Two classes, or a batch, need features that cannot be negative, as behind a rectifier or a
    sigmoid; inputs of both signs show that, or inputs of ``value_range`` where the attacker knows that.

    Of a batch the most negative classes are taken. Those below zero are surely labels; the others are a
    guess, needed where a label occurs twice or the net is sure of wrong ones.

    Source: Zhao et al. 2020, section 3.1, eq. (4) and (5), the product of rows; for batches Yin et al., "See
    through Gradients", CVPR 2021, section 3.1, in the simpler form of the sum of a row.

    Args:
        observation: what the attacker has.

    Returns:
        int64 of shape (batch,).

    Raises:
        TypeError: it is not an observation.
        ValueError: the net has no such layer, the batch holds more rows than there are classes, or the layer
            has no bias and its features can be negative, or are, where that matters.
    """
    scores = _scores(observation)
    what = "other than zero to read labels off them, as they are until the net is sure of every row"
    _validate.check(bool(scores.any()), "gradients", "zeros", what)
    return _smallest(scores, observation.batch_size)


def labels_or_a_guess(observation: Observation) -> torch.Tensor:
    """Labels for an attack to go on with: :func:`labels_from_gradient`, or a guess where a gradient is zero.

    Args:
        observation: what the attacker has.

    Returns:
        int64 of shape (batch,).

    Raises:
        TypeError: it is not an observation.
        ValueError: as of :func:`labels_from_gradient`, but for gradients of zero.
    """
    return _smallest(_scores(observation), observation.batch_size)


def _smallest(scores: torch.Tensor, batch: int) -> torch.Tensor:
    return scores.topk(batch, largest=False).indices


def _scores(observation: Observation) -> torch.Tensor:
    """A score of each class, the smallest for labels; zeros where the gradient tells nothing."""
    _validate.instance("observation", observation, Observation, "an Observation")
    batch, classes = observation.batch_size, observation.classes
    what = f"at most the number of classes, {classes}, to read labels off a gradient"
    _validate.check(batch <= classes, "batch_size", batch, what)
    layer = last_layer(observation)
    one = single_score(observation) if layer is None and batch == 1 else None
    if one is not None:
        score = observation.gradients[one].reshape(())
        return torch.stack([-score, score])
    if layer is None:
        raise ValueError(
            "model must end in a fully connected layer of its own to read labels off a gradient, got one "
            "without; dlg_attack guesses labels, and takes known ones"
        )
    if layer.bias is not None:
        return observation.gradients[layer.bias]
    assert layer.weight is not None
    rows = observation.gradients[layer.weight]
    return _scores_of_rows(rows.T if layer.by_column else rows, batch, layer.signed)


def _scores_of_rows(rows: torch.Tensor, batch: int, signed: bool) -> torch.Tensor:
    """Scores of classes, the smallest for labels, from the gradient of weights without a bias.

    Args:
        rows: the gradient, a row for each class.
        batch: rows of the batch.
        signed: whether features may be negative.

    Raises:
        ValueError: they may, or are, and that matters.
    """
    rows = rows.double() / rows.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    if batch == 1:
        products = (rows @ rows.T).fill_diagonal_(0)
        scores = products.sum(dim=1)
        # Only with the label are products negative, so it is one of the two of the most negative one; by
        # their products with all others, which may be many orders smaller, it is told from the other.
        one, other = divmod(int(products.argmin()), len(rows))
        if products[one, other] < 0:
            products[one, other] = products[other, one] = 0
            scores = torch.full_like(scores, math.inf).index_copy_(
                0, torch.tensor([one, other]), products.sum(dim=1)[[one, other]]
            )
        first, second = scores.topk(2, largest=False).values
        if first < second:  # where nothing is negative, the label's row is pruned, and its products are zero
            return scores
    # The gradient of a class that is no label has no sign but the features'.
    sure = (rows < -_NOISE).any(dim=1)
    if signed or int(sure.sum()) > batch:
        case = f"a batch of {batch}" if batch > 1 else "two classes"
        raise ValueError(
            "model must have a bias in its last layer, or features that are not negative in front of it, to "
            f"read the labels of {case} off a gradient, got neither; value_range of Observation says what "
            "rows can hold, and dlg_attack guesses labels, and takes known ones"
        )
    sums = rows.sum(dim=1)
    return torch.where(sure, sums - 2 * sums.abs().max(), sums)


def idlg_attack(
    observations: Sequence[Observation],
    settings: DLGSettings = DLGSettings(),  # noqa: B008 - frozen
    progress: Progress | None = None,
) -> list[Reconstruction]:
    """Reconstructs single rows from their gradients.

    Args:
        observations: what the attacker has.
        settings: how hard to try.
        progress: called after each step.

    Returns:
        As :func:`~.dlg.dlg_attack`.

    Raises:
        TypeError: something is not an observation, or not settings.
        ValueError: a batch holds more than one row, the label cannot be read off, or the observations cannot
            be attacked together.
    """
    check_observations(observations, progress)
    for observation in observations:
        _validate.check(observation.batch_size == 1, "batch_size", observation.batch_size, "1 for iDLG")
    labels = torch.stack([labels_or_a_guess(observation) for observation in observations])
    return dlg_attack(observations, settings, progress, labels)
