"""Improved DLG: read the label off the last layer's gradient, then guess the image alone.

Source: Zhao, Mopuri, Bilen, "iDLG: Improved Deep Leakage from Gradients", 2020, section 3. To use when the
batch is one image and the net ends in a fully connected layer; fewer unknowns make the search easier.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from secretflow.ml.nn.fl.attacks.dlg import DLGSettings, dlg_attack
from secretflow.ml.nn.fl.attacks.observation import Observation, Progress, Reconstruction


def labels_from_gradient(observation: Observation) -> torch.Tensor:
    """Labels read off the gradient of the last fully connected layer.

    The gradient with respect to the score of a class is its probability less 1 if it is the label's, so it
    is negative for the label alone; the bias has it, and each row of the weights has it times the features.
    For a batch the most negative classes are taken, which is right when no label occurs twice.

    Source: Zhao et al. 2020, section 3.1, eq. (4); for batches Yin et al., "See through Gradients", CVPR
    2021, section 3.1, in the simpler form of the sum of a row.

    Args:
        observation: what the attacker has.

    Returns:
        int64 of shape (batch,).

    Raises:
        ValueError: no parameter has as many rows as there are classes, or the batch is larger than that.
    """
    rows = [
        gradient
        for gradient in observation.gradients
        if gradient.dim() in (1, 2) and len(gradient) == observation.classes
    ]
    if not rows or observation.batch_size > observation.classes:
        raise ValueError(
            f"batch_size={observation.batch_size} is not allowed: labels can be read off for up to "
            f"{observation.classes} images, from a net that ends in a fully connected layer"
        )
    last = rows[-1]
    # Features behind a sigmoid or a rectifier are not negative, so the sum of a row keeps the sign.
    score = last if last.dim() == 1 else last.sum(dim=1)
    return score.topk(observation.batch_size, largest=False).indices


def idlg_attack(
    observations: Sequence[Observation],
    settings: DLGSettings = DLGSettings(),  # noqa: B008 - frozen
    progress: Progress | None = None,
) -> list[Reconstruction]:
    """Reconstructs single images from their gradients.

    Args:
        observations: what the attacker has.
        settings: how hard to try.
        progress: called after each step.

    Returns:
        As :func:`~.dlg.dlg_attack`.

    Raises:
        ValueError: a batch holds more than one image, or the observations cannot be attacked together.
    """
    for observation in observations:
        if observation.batch_size != 1:
            raise ValueError(f"batch_size={observation.batch_size} is not allowed: iDLG takes single images")
    labels = torch.stack([labels_from_gradient(observation) for observation in observations])
    return dlg_attack(observations, settings, progress, labels)
