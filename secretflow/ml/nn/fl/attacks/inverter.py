"""What all inverters that learn from public rows have in common: features, and how to attack with one.

An inverter is fitted once for one net, mask and number of local steps, and then inverts thousands of
gradients a second. Both kinds (:mod:`~.ridge`, :mod:`~.learned`) get the same features.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Protocol

import torch

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.idlg import labels_or_a_guess
from secretflow.ml.nn.fl.attacks.net import Tensors
from secretflow.ml.nn.fl.attacks.observation import Observation, Reconstruction, check_observations
from secretflow.ml.nn.fl.attacks.public import flat, living_coordinates

_SAME = ("image_shape", "classes", "batch_size", "local_steps", "learning_rate", "evaluating")


class Inverter(Protocol):
    """From gradients to rows; :class:`~.ridge.RidgeInverter` is one."""

    def invert(self, gradients: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Inverts many gradients at once.

        Args:
            gradients: living coordinates, float of shape (rows, living).
            labels: that were read off them, int64 of shape (rows,); -1 is not known.

        Returns:
            Rows, float32 of shape (rows, numbers of a row).
        """


class Features:
    """A gradient's living coordinates, each with unit deviation over public rows; a sketch of them if many.

    They are linear, so those of a batch are the mean of those of its rows. The sketch adds coordinates with
    random signs into as many buckets as there may be features. Source: Charikar, Chen, Farach-Colton,
    "Finding frequent items in data streams", ICALP 2002, section 3.

    Args:
        first: gradients of some public rows, (rows, living), which give the coordinates' scales.
        most: features at most, at least 1.
        seed: of the sketch.
    """

    def __init__(self, first: torch.Tensor, most: int, seed: int) -> None:
        deviation = first.double().std(dim=0)
        # What never differs says nothing; what nearly never does is not blown up.
        self._used = deviation > 1e-9 * deviation.max()
        living = int(self._used.sum())
        generator = torch.Generator().manual_seed(seed)
        self._scale = 1 / deviation[self._used]
        self._buckets = torch.randint(most, (living,), generator=generator) if living > most else None
        self._signs = 2.0 * torch.randint(2, (living,), generator=generator).double() - 1
        self.size = max(1, min(living, most))

    def __call__(self, gradients: torch.Tensor) -> torch.Tensor:
        """Features of gradients, float64 of shape (rows, size)."""
        scaled = gradients[:, self._used].double() * self._scale
        if self._buckets is None:
            return scaled if scaled.shape[1] else scaled.new_zeros(len(scaled), 1)
        return scaled.new_zeros(len(scaled), self.size).index_add_(1, self._buckets, scaled * self._signs)


def features_of(parts: Iterable[torch.Tensor], most: int, seed: int) -> tuple[Features, torch.Tensor]:
    """Features of the public gradients, part by part, so that no more than they are held at once.

    Args:
        parts: of :func:`~.public.public_gradients`.
        most: features at most.
        seed: of the sketch.

    Returns:
        The features, and those of all parts, float64 of shape (rows, size).
    """
    features, found = None, []
    for part in parts:
        features = features or Features(part, most, seed)
        found.append(features(part))
    assert features is not None
    return features, torch.cat(found)


def attack_with(inverter: Inverter, observations: Sequence[Observation]) -> list[Reconstruction]:
    """Inverts what was observed.

    Args:
        inverter: fitted for one observation of the same net, weights and mask.
        observations: of one row each.

    Returns:
        For each observation its row within its bounds; ``loss`` is NaN, for nothing is matched. Where no
        label can be read off it is -1.

    Raises:
        TypeError: something is not an observation.
        ValueError: an observation is of a batch, or not like the first one.
    """
    check_observations(observations)
    started = time.perf_counter()
    check_alike(observations)
    first = observations[0]
    living = living_coordinates(first)
    seen = torch.stack([flat(observation.gradients, living) for observation in observations])
    labels = [_label(observation) for observation in observations]
    rows = inverter.invert(seen, torch.cat(labels)).clamp(*first.bounds)
    seconds = (time.perf_counter() - started) / len(observations)
    return [
        Reconstruction(row.view(1, *first.image_shape), label, float("nan"), (), 0, 0, 0, seconds)
        for row, label in zip(rows, labels, strict=True)
    ]


def check_alike(observations: Sequence[Observation]) -> None:
    """Refuses observations that are not of one row each, or not like the first one but for what was seen.

    Args:
        observations: at least one.

    Raises:
        ValueError: one is of a batch, or of another net, mask or number of local steps.
    """
    for observation in observations:
        _validate.check(observation.batch_size == 1, "batch_size", observation.batch_size, "1")
    check_same_net(observations)


def check_same_net(observations: Sequence[Observation]) -> None:
    """Refuses observations that are not like the first one but for what was seen.

    Args:
        observations: at least one.

    Raises:
        ValueError: one is of another net, mask, batch or number of local steps.
    """
    first = observations[0]
    living, others = living_coordinates(first), first.pruned_weights()
    for observation in observations:
        _check_same(observation, first, living, others)


def _check_same(observation: Observation, first: Observation, living: torch.Tensor, others: Tensors) -> None:
    """Refuses an observation not like the first one, whose living coordinates and weights are given."""
    for field in _SAME:
        value, expected = getattr(observation, field), getattr(first, field)
        _validate.check(value == expected, field, value, f"{expected!r}, as in the first observation")
    weights = observation.pruned_weights()
    same = all(weights[name] is value or torch.equal(weights[name], value) for name, value in others.items())
    what = "those of the first observation; an inverter is fitted for one net, so fit one for each"
    _validate.check(same, "weights", "others", what)
    masks = torch.equal(living_coordinates(observation), living)
    _validate.check(masks, "mask", "another", "that of the first observation; fit an inverter for each mask")


def _label(observation: Observation) -> torch.Tensor:
    try:
        return labels_or_a_guess(observation)
    except ValueError:
        return torch.full((1,), -1)
