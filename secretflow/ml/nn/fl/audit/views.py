"""What an attacker sees, and what it knows besides: from what parties compute to an :class:`Observation`.

A *view* is what is seen: a party's gradient, its weight update over several local steps, the plain average of
several parties. *Knowledge* is what the attacker does about pruning. With local pruning the upload is zero
where the mask is, so an upload in the clear shows its mask; that is one kind of knowledge below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import torch
from torch import nn

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.net import by_first_name, called, in_mode
from secretflow.ml.nn.fl.attacks.observation import Observation
from secretflow.ml.nn.fl.audit.defences import support
from secretflow.security.aggregation.secagg.rounding import rounded_update, rounding_key

Weights = Mapping[str, torch.Tensor]


class Knowledge(Enum):
    """What an attacker does about zeros in what it sees. All else is equal: optimiser, starts, image, net."""

    OBLIVIOUS = "mask-oblivious"
    """Believes that nothing was pruned: evaluates the unpruned weights and matches all coordinates. It lacks
    two things at once, the mask and the weights that the gradient was computed with."""

    WEIGHTS_ONLY = "pruned weights, mask ignored"
    """Evaluates the pruned weights, as whoever receives the model does, but matches all coordinates, so the
    zeros of the upload count against every guess. Beside ``MASK_KNOWN`` this isolates what matching only the
    mask's coordinates brings."""

    MASK_KNOWN = "mask-aware"
    """Evaluates the pruned net and matches the coordinates of the mask only. Nothing is pruned during the
    steps it simulates that was not pruned during the real ones."""

    MASK_INFERRED = "mask inferred from zeros"
    """Has the unpruned weights, takes every prunable coordinate that is zero in what it sees for pruned, and
    goes on as ``MASK_KNOWN``. A living weight whose gradient happens to be zero misleads it."""


@dataclass(frozen=True)
class PartyStep:
    """What one party starts a round with; no attacker gets it.

    Attributes:
        model: builds the net.
        weights: before pruning, by parameter and buffer name.
        x: its batch, float of shape (batch, ...); images are (batch, channels, height, width) in [0, 1].
        y: labels, int64 of shape (batch,).
        mask: for each prunable parameter by name 0 where it is pruned and 1 where it lives; empty if nothing
            is pruned.
        evaluating: names of the modules that are in evaluation mode during the steps, with all inside of
            them; ``""`` is the whole net. By default all are in training mode, as in training itself.

    Raises:
        TypeError: a value is of the wrong type.
        ValueError: there is not one label for each row.
    """

    model: Callable[[], nn.Module]
    weights: Weights
    x: torch.Tensor
    y: torch.Tensor
    mask: Weights
    evaluating: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _validate.check(callable(self.model), "model", self.model, "a function without arguments", TypeError)
        for name in ("x", "y"):
            _validate.instance(name, getattr(self, name), torch.Tensor, "a tensor")
        for name in ("weights", "mask"):
            _validate.instance(name, getattr(self, name), Mapping, "a mapping from names to tensors")
        rows = (len(self.x), *self.y.shape[1:]) if self.x.dim() else ()
        names = isinstance(self.evaluating, tuple) and all(isinstance(n, str) for n in self.evaluating)
        _validate.check(names, "evaluating", self.evaluating, "a tuple of names of modules", TypeError)
        what = f"of shape {rows[:1]}, one label for each row of x"
        _validate.check(tuple(self.y.shape) == rows[:1], "y", tuple(self.y.shape), what)

    def pruned_weights(self) -> dict[str, torch.Tensor]:
        """The weights that are trained: zero where the mask is."""
        return apply_mask(self.weights, self.mask)


def apply_mask(weights: Weights, mask: Weights) -> dict[str, torch.Tensor]:
    """Weights with those that a mask prunes set to zero."""
    return {name: value * mask[name] if name in mask else value for name, value in weights.items()}


def party_gradient(party: PartyStep) -> tuple[torch.Tensor, ...]:
    """View: one party's gradient as it is uploaded, zero where its mask is.

    Args:
        party: who uploads.

    Returns:
        The gradient of the mean cross entropy, in the order of the parameters.
    """
    return weight_update(party, steps=1, learning_rate=1.0)


def weight_update(party: PartyStep, steps: int, learning_rate: float) -> tuple[torch.Tensor, ...]:
    """View: one party's weights after k steps of gradient descent on its batch, beside those before.

    What is pruned stays zero at every step.

    Args:
        party: who uploads.
        steps: k, at least 1.
        learning_rate: of the steps, above 0; the attacker knows it, as all parties do.

    Returns:
        ``(before - after) / (k * learning_rate)``, the mean of the gradients, in the order of the parameters.

    Raises:
        ValueError: a number is out of its range.
    """
    _validate.instance("party", party, PartyStep, "a PartyStep")
    _validate.integer("steps", steps, 1)
    _validate.number("learning_rate", learning_rate, above=0)
    net = in_mode(party.model(), party.evaluating)
    names = [name for name, _ in net.named_parameters()]
    state = by_first_name(net, party.pruned_weights())
    mask = by_first_name(net, party.mask)
    total = [torch.zeros_like(state[name]) for name in names]
    for _ in range(steps):
        parameters = {name: state[name].detach().clone().requires_grad_() for name in names}
        loss = nn.functional.cross_entropy(called(net, {**state, **parameters}, party.x), party.y)
        used = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        found = [torch.zeros_like(state[n]) if g is None else g for n, g in zip(names, used, strict=True)]
        living = [
            gradient * mask[name] if name in mask else gradient
            for name, gradient in zip(names, found, strict=True)
        ]
        state |= {name: state[name] - learning_rate * step for name, step in zip(names, living, strict=True)}
        total = [sum_ + step for sum_, step in zip(total, living, strict=True)]
    return tuple(array / steps for array in total)


def rounded(
    update: Sequence[torch.Tensor], upload_bits: int, parties: int, seed: int = 0
) -> tuple[torch.Tensor, ...]:
    """View: one party's update as ``SecurePruneAggregator(upload_bits=...)`` has it rounded.

    It is what stands behind the pads, so that of one party is seen by nobody who follows the protocol; the
    average of several is :func:`plain_aggregate` of them.

    Args:
        update: of the party, or its gradient; each array is a layer.
        upload_bits: 8, 4 or 2.
        parties: how many upload, with equal weights and updates as large as this one.
        seed: decides, with the number of the layer, how is rounded.

    Raises:
        ValueError: updates are not rounded to so many bits.
    """
    return tuple(
        torch.from_numpy(
            rounded_update(array.numpy(force=True), upload_bits, parties, rounding_key(seed, "", 0, layer))
        )
        for layer, array in enumerate(update)
    )


def plain_aggregate(uploads: Sequence[Sequence[torch.Tensor]]) -> tuple[torch.Tensor, ...]:
    """View: the average of n parties' uploads in the clear, which is all that secure aggregation shows.

    With equal weights, equally large batches and one mask for all it is the gradient of all batches together,
    so the attacker matches one batch of n times as many images; it knows n.

    Args:
        uploads: of each party, in the order of the parameters.

    Returns:
        Their mean.

    Raises:
        ValueError: there is no upload.
    """
    _validate.instance("uploads", uploads, Sequence, "a sequence of uploads")
    _validate.check(len(uploads) > 0, "uploads", uploads, "the uploads of at least one party")
    return tuple(torch.stack(list(arrays)).mean(dim=0) for arrays in zip(*uploads, strict=True))


def observe(
    party: PartyStep,
    seen: Sequence[torch.Tensor],
    knowledge: Knowledge,
    *,
    classes: int,
    parties: int = 1,
    local_steps: int = 1,
    learning_rate: float | None = None,
) -> Observation:
    """What an attacker on a pruned model has.

    Args:
        party: one of those whose upload is in ``seen``; of it only the net, its weights, the number of its
            images and, if that is known, its mask are used.
        seen: the view.
        knowledge: what the attacker does about zeros.
        classes: of the task.
        parties: how many uploads are averaged in ``seen``.
        local_steps: that they took.
        learning_rate: of these steps.

    Raises:
        TypeError: a value is of the wrong type.
        ValueError: a number is out of its range, or a shape does not fit.
    """
    _validate.instance("party", party, PartyStep, "a PartyStep")
    _validate.instance("knowledge", knowledge, Knowledge, "a Knowledge")
    _validate.integer("parties", parties, 1)
    weights, mask = party.weights, None
    if knowledge is Knowledge.WEIGHTS_ONLY:
        weights = party.pruned_weights()
    elif knowledge is Knowledge.MASK_KNOWN:
        mask = party.mask
    elif knowledge is Knowledge.MASK_INFERRED:
        names = [name for name, _ in party.model().named_parameters()]
        mask = {name: entry for name, entry in support(seen, names).items() if entry.dim() >= 2}
    return Observation(
        image_shape=tuple(party.x.shape[1:]),
        classes=classes,
        gradients=tuple(seen),
        model=party.model,
        weights=weights,
        mask=mask,
        batch_size=parties * len(party.x),
        local_steps=local_steps,
        learning_rate=learning_rate,
        evaluating=party.evaluating,
    )


def observe_sparse(
    party: PartyStep, seen: Sequence[torch.Tensor], zeros_count: bool, *, classes: int
) -> Observation:
    """What an attacker has of an upload from which entries were dropped while the net is whole.

    Args:
        party: who uploads; nothing of it is pruned.
        seen: its gradient after :func:`~.defences.sparsify` or :func:`~.defences.withhold`.
        zeros_count: True is the attacker that takes zeros for numbers, False the one that sees that nothing
            was uploaded there and leaves them out.
        classes: of the task.
    """
    observation = observe(party, seen, Knowledge.OBLIVIOUS, classes=classes)
    if zeros_count:
        return observation
    names = [name for name, _ in party.model().named_parameters()]
    return replace(observation, compared=support(seen, names))
