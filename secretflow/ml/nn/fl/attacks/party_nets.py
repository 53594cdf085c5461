"""What an average shows of rows where each party has pruned its net by a mask of its own.

Also the labels behind such an average, for a party's row is known by the net that it went through.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.func import functional_call, vmap

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.net import by_first_name, check_not_random, differentiable_twice, in_mode
from secretflow.ml.nn.fl.attacks.observation import Observation
from secretflow.ml.nn.fl.attacks.public import PublicRows, living_coordinates
from secretflow.ml.nn.fl.attacks.simulate import simulated_gradient

Tensors = Mapping[str, torch.Tensor]
Masks = Sequence[Tensors]

_ENOUGH = 50
"""Public rows of a label from which on they stand for it alone."""
_ROWS_OF_LABEL = 40
"""Public rows whose gradients show what those of a label look like."""
_SWEEPS = 50


class PartyNets:
    """The nets of all parties.

    Args:
        observation: of an average of one row a party; net, weights and what is compared count.
        masks: of each party, by parameter name: 1 where it keeps a weight and 0 where not, or a part of it.

    Attributes:
        like: a number of the type and on the device of all others.
        shape: of a row.
        counted: places of the coordinates that are compared, among all.

    Raises:
        TypeError: masks are no tensors by name.
        ValueError: they are not one for each party, do not fit the net, or its output is random.
    """

    def __init__(self, observation: Observation, masks: Masks) -> None:
        _check_masks(observation, masks)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.like = observation.gradients[0].new_zeros((), device=device)
        self.shape = observation.image_shape
        self._steps, self._rate = observation.local_steps, observation.learning_rate or 1.0
        self._net = in_mode(observation.model(), observation.evaluating).to(device)
        names = [name for name, _ in self._net.named_parameters()]
        given = {name: value.detach().to(device) for name, value in observation.weights.items()}
        self._state = by_first_name(self._net, given)
        common = {name: self._state.pop(name) for name in names}
        held = [by_first_name(self._net, mask) for mask in masks]
        self._alive = {
            name: torch.stack([own.get(name, torch.ones_like(value)).to(value) for own in held])
            for name, value in common.items()
        }
        self._weights = {name: value * self._alive[name] for name, value in common.items()}
        living = living_coordinates(observation).to(device)
        self.counted = living.nonzero().squeeze(1)
        sizes = torch.tensor([value.numel() for value in common.values()], device=device)
        self._arrays = torch.arange(len(names), device=device).repeat_interleave(sizes)[self.counted]
        first = {name: value[0] for name, value in self._weights.items()} | self._state
        x = torch.rand(1, *self.shape, generator=torch.Generator().manual_seed(0)).to(self.like)
        check_not_random(self._net, lambda: functional_call(self._net, first, (x,)))

    def __len__(self) -> int:
        return len(next(iter(self._alive.values())))

    def gradients(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """What each party would upload of each of its rows.

        Args:
            x: float of shape (parties, rows, *shape).
            y: int64 of shape (parties, rows).

        Returns:
            Of what is compared, (parties, rows, coordinates).
        """

        def one(weights: Tensors, alive: Tensors, row: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            own = weights, self._state, alive, row[None], label[None], self._steps, self._rate
            found = simulated_gradient(self._net, *own)
            return torch.cat([(found[name] * alive[name]).flatten() for name in alive])[self.counted]

        with differentiable_twice(self._net):
            each = vmap(vmap(one, in_dims=(None, None, 0, 0)))
            return each(self._weights, self._alive, x, y)

    def seen(self, observations: Sequence[Observation]) -> torch.Tensor:
        """What was seen in observations, (observations, coordinates)."""
        rows = [torch.cat([g.detach().flatten() for g in each.gradients]) for each in observations]
        return torch.stack(rows).to(self.like)[:, self.counted]

    def largest(self, seen: torch.Tensor) -> torch.Tensor:
        """For each coordinate the largest number of its array, of the shape of ``seen``."""
        found = torch.zeros_like(seen)
        for array in self._arrays.unique():
            own = self._arrays == array
            found[:, own] = seen[:, own].abs().amax(dim=1, keepdim=True)
        return found.clamp(min=torch.finfo(seen.dtype).tiny ** 0.25)


def rows_of(public: PublicRows, label: int) -> torch.Tensor:
    """Public rows that stand for a label: its own, or all where it has few."""
    own = public.x[public.y == label]
    return own if len(own) >= min(_ENOUGH, len(public.x)) else public.x


def labels_of(parties: PartyNets, observations: Sequence[Observation], public: PublicRows) -> torch.Tensor:
    """The labels under which mean gradients of public rows add up best to what was seen.

    Args:
        parties: their nets.
        observations: of averages of one row a party.
        public: rows with labels.

    Returns:
        int64 of shape (observations, parties).
    """
    count, classes = len(parties), observations[0].classes
    means, spread = [], torch.zeros_like(parties.counted, dtype=parties.like.dtype)
    for label in range(classes):
        x = rows_of(public, label)[:_ROWS_OF_LABEL].to(parties.like)
        y = torch.full((count, len(x)), label, device=x.device)
        shown = parties.gradients(x.expand(count, *x.shape), y)
        means.append(shown.mean(dim=1))
        spread += shown.var(dim=1).sum(dim=0)
    scale = (spread + 1e-6 * spread.mean()).clamp(min=torch.finfo(spread.dtype).tiny).rsqrt()
    every = torch.stack(means, dim=1) * scale
    seen = parties.seen(observations) * count * scale
    return torch.stack([_adding_up(every, each) for each in seen]).cpu()


def _adding_up(means: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """Changes one label or exchanges two as long as that brings a sum nearer.

    Args:
        means: for each party and label, (parties, classes, size).
        total: what they shall add up to, (size,).

    Returns:
        int64 of shape (parties,).
    """
    count = len(means)
    labels = [0] * count
    left = total - means[:, 0].sum(dim=0)
    for _ in range(_SWEEPS):
        before = list(labels)
        for party in range(count):
            without = left + means[party, labels[party]]
            labels[party] = int((without - means[party]).square().sum(dim=1).argmin())
            left = without - means[party, labels[party]]
        for one, other in ((a, b) for a in range(count) for b in range(a)):
            a, b = labels[one], labels[other]
            change = means[one, a] + means[other, b] - means[one, b] - means[other, a]
            if a != b and bool((left + change).norm() < (1 - 1e-6) * left.norm()):
                left, labels[one], labels[other] = left + change, b, a
        if labels == before:
            break
    return torch.tensor(labels)


def _check_masks(observation: Observation, masks: Masks) -> None:
    held = isinstance(masks, Sequence) and all(isinstance(own, Mapping) for own in masks)
    _validate.check(held, "masks", masks, "a sequence of mappings, one for each party", TypeError)
    what = f"one for each of {observation.batch_size} parties"
    _validate.check(len(masks) == observation.batch_size, "masks", len(masks), what)
    parameters = observation.model().named_parameters(remove_duplicate=False)
    shapes = {name: value.shape for name, value in parameters}
    for mask in masks:
        for name, entry in mask.items():
            _validate.instance(f"masks of {name}", entry, torch.Tensor, "tensors")
            fits = shapes.get(name) == entry.shape
            what = "of parameters of the net, each entry of the shape of its own"
            _validate.check(fits, "masks", (name, tuple(entry.shape)), what)
