"""View: what one party computed in a training, from the capture that it wrote to its own disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.observation import Observation
from secretflow.ml.nn.fl.audit.views import Knowledge, PartyStep, apply_mask, observe, party_gradient
from secretflow.ml.nn.fl.worker.capture_files import Capture

_TOLERANCE = 0.01
"""Relative distance up to which a gradient that is computed again is the captured one; float32 keeps 1e-5."""


def observe_capture(
    capture: Capture,
    model: Callable[[], nn.Module],
    *,
    classes: int,
    knowledge: Knowledge = Knowledge.MASK_KNOWN,
) -> Observation:
    """What an attacker has of a captured step: the gradient as far as the party uploads it.

    The step is computed again from the captured rows first, in the mode it was captured in. An attack
    compares with what a guess would have shown; if the truth itself would have shown something else, because
    the net draws random numbers (dropout) or is trained by another loss than the mean cross entropy, the
    attack would fail for that reason and seem to say that nothing leaks.

    Args:
        capture: of one input, with labels as numbers of classes, a column of them, or one-hot.
        model: builds the net that was trained.
        classes: of the task, at least 2.
        knowledge: what the attacker does about zeros; the weights that it has are pruned already, so an
            attacker without the mask is ``WEIGHTS_ONLY``.

    Returns:
        The observation; its ``value_range`` is None.

    Raises:
        TypeError: a value is of the wrong type.
        ValueError: the capture is not one of the net, or, "not measured", the truth does not explain it.
    """
    _validate.instance("capture", capture, Capture, "a Capture")
    _validate.integer("classes", classes, 2)
    _validate.instance("capture.x", capture.x, torch.Tensor, "one tensor; of several inputs nothing is known")
    real = capture.x.is_floating_point()
    _validate.check(real, "capture.x", capture.x.dtype, "of real numbers; attacks on tokens are not measured")
    party = PartyStep(
        model, capture.weights, capture.x, class_numbers(capture.y), capture.mask, capture.evaluating
    )
    names = [name for name, _ in model().named_parameters()]
    seen = dict(zip(names, capture.gradients, strict=True))
    uploaded = tuple(apply_mask(seen, capture.mask).values())
    observation = observe(party, uploaded, knowledge, classes=classes)
    _check_explained(party, uploaded)
    return observation


def class_numbers(y: torch.Tensor) -> torch.Tensor:
    """Numbers of classes, int64 of shape (rows,), of labels as numbers, a column of them, or one-hot."""
    if y.dim() == 2:
        y = y.argmax(dim=1) if y.shape[1] > 1 else y[:, 0]
    return y.long()


def _check_explained(party: PartyStep, uploaded: tuple[torch.Tensor, ...]) -> None:
    again = party_gradient(replace(party, x=party.x.to(uploaded[0].dtype)))
    norm = torch.stack([array.norm() for array in uploaded]).norm()
    distance = torch.stack([(a - b).norm() for a, b in zip(again, uploaded, strict=True)]).norm()
    if not distance <= _TOLERANCE * norm:
        raise ValueError(
            "capture must be explained by the mean cross entropy of its rows, got a gradient that is "
            f"{float(distance / norm):.0%} away from that: not measured, for the net draws random numbers as "
            "dropout does, or its loss is another one"
        )
