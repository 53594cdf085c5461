"""Improved DLG: read the label off the last layer's gradient, then guess the image alone.

Source: Zhao, Mopuri, Bilen, "iDLG: Improved Deep Leakage from Gradients", 2020, section 3. To use when the
batch is one image and the net ends in a fully connected layer; fewer unknowns make the search easier.
"""

from __future__ import annotations

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


def labels_from_gradient(observation: Observation) -> torch.Tensor:
    """Labels read off the gradient of the last fully connected layer, wherever that is defined.

    The gradient with respect to the score of a class is its probability less 1 if it is the label's, so it
    is negative for the label alone. The bias has it. Each row of the weights has it times the features: of a
    single row's label alone the products with all other rows are not positive. For a batch the most negative
    classes are taken, which is right when no label occurs twice; without a bias that needs features that are
    not negative, as behind a rectifier or a sigmoid.

    Source: Zhao et al. 2020, section 3.1, eq. (4) and (5), the product of rows; for batches Yin et al., "See
    through Gradients", CVPR 2021, section 3.1, in the simpler form of the sum of a row.

    Args:
        observation: what the attacker has.

    Returns:
        int64 of shape (batch,).

    Raises:
        TypeError: it is not an observation.
        ValueError: the net has no such layer, the batch holds more rows than there are classes, or the layer
            has no bias and its features do not tell.
    """
    _validate.instance("observation", observation, Observation, "an Observation")
    batch, classes = observation.batch_size, observation.classes
    what = f"at most the number of classes, {classes}, to read labels off a gradient"
    _validate.check(batch <= classes, "batch_size", batch, what)
    layer = last_layer(observation)
    one = single_score(observation) if layer is None and batch == 1 else None
    if one is not None:
        return (observation.gradients[one] < 0).long()
    if layer is None:
        raise ValueError(
            "model must end in a fully connected layer of its own to read labels off a gradient, got one "
            "without; dlg_attack guesses labels, and takes known ones"
        )
    if layer.bias is not None:
        scores = observation.gradients[layer.bias]
    else:
        assert layer.weight is not None
        rows = observation.gradients[layer.weight]
        scores = _scores_of_rows(rows.T if layer.by_column else rows, batch, layer.signed)
    return scores.topk(batch, largest=False).indices


def _scores_of_rows(rows: torch.Tensor, batch: int, signed: bool) -> torch.Tensor:
    if not signed:
        return rows.sum(dim=1)
    if batch > 1 or len(rows) == 2:
        case = "two classes" if batch == 1 else f"a batch of {batch}"
        raise ValueError(
            "model must have a bias in its last layer, or features that are not negative in front of it, to "
            f"read the labels of {case} off a gradient, got neither; dlg_attack guesses labels, and takes "
            "known ones"
        )
    rows = rows.double() / rows.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    products = rows @ rows.T
    # Of the label all are negative; of another class only that with the label, which its own sum outweighs.
    return products.sum(dim=1) - products.diagonal()


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
    labels = torch.stack([labels_from_gradient(observation) for observation in observations])
    return dlg_attack(observations, settings, progress, labels)
