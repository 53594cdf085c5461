"""The most probable rows behind an average of parties that have pruned by masks of their own.

Each party trains a net of its own, what its mask keeps of the common weights, and a coordinate of the average
is the sum over the parties that keep it. So the guess of each row goes through the net of its party, and all
that travels is compared, whoever keeps it. To use where the attacker knows the masks: uploads in the clear
show them, and so does each party's model. Who knows only how many parties keep each weight gives all parties
that part of it, and gets less back. Needs public rows, no training.

Source: Balunović et al., "Bayesian framework for gradient leakage", ICLR 2022, section 3, as in
:mod:`~.prior_search`, here with a Gaussian for each label. The noise that is allowed for is brought down step
by step as long as what is left fits it, which is the discrepancy principle: Morozov, "On the solution of
functional equations by the method of regularization", Soviet Math. Dokl. 7 (1966).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.dlg import one_hot_labels
from secretflow.ml.nn.fl.attacks.gaussian import fit_gaussian
from secretflow.ml.nn.fl.attacks.inverter import check_same_net
from secretflow.ml.nn.fl.attacks.lbfgs import BatchedLBFGS, LBFGSSettings
from secretflow.ml.nn.fl.attacks.observation import (
    Observation,
    Progress,
    Reconstruction,
    check_observations,
)
from secretflow.ml.nn.fl.attacks.party_nets import Masks, PartyNets, labels_of, rows_of
from secretflow.ml.nn.fl.attacks.public import PublicRows, check_rows

_APART = 0.1
"""Deviations from the mean of their label at which rows start, for equal ones of one label stay equal."""
_LBFGS = LBFGSSettings(tolerance_grad=1e-6, tolerance_change=1e-12)


@dataclass(frozen=True)
class OwnMasksSettings:
    """How hard to try.

    Attributes:
        noises: deviations of the error that is allowed for, relative to the largest number of an array, above
            0, one after the other. The last one that what is left of the gradient fits counts.
        iterations: steps of L-BFGS for each, at least 1.
        rank: directions of the Gaussian of each label, at least 1.
        lanes: observations that are attacked side by side, at least 1.
        seed: of the start.

    Raises:
        TypeError: a value is of the wrong type.
        ValueError: a number is out of its range.
    """

    noises: tuple[float, ...] = (1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4)
    iterations: int = 5
    rank: int = 200
    lanes: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        _validate.plain_fields(self)
        what = "a tuple of at least one number"
        held = isinstance(self.noises, tuple) and len(self.noises) > 0
        _validate.check(held, "noises", self.noises, what, TypeError)
        for noise in self.noises:
            _validate.number("noises", noise, above=0)
        for name in ("iterations", "rank", "lanes"):
            _validate.integer(name, getattr(self, name), 1)
        _validate.integer("seed", self.seed, 0)


def own_masks_attack(
    observations: Sequence[Observation],
    masks: Masks,
    public: PublicRows,
    settings: OwnMasksSettings = OwnMasksSettings(),
    progress: Progress | None = None,
    labels: torch.Tensor | None = None,
) -> list[Reconstruction]:
    """Finds the most probable row of each party.

    Args:
        observations: of averages of one row a party, each the sum of what the parties upload over their
            number; all of one net and weights. ``weights`` are the common ones, and ``mask`` and
            ``compared`` say what is seen.
        masks: of each party, by parameter name: 1 where it keeps a weight and 0 where not, or where that is
            not known the part of the parties that keep it.
        public: rows with labels; none of them may be attacked.
        settings: how hard to try.
        progress: called after each step.
        labels: int64 of shape (observations, parties) if the attacker knows them; None takes those under
            which mean gradients of public rows add up to what was seen.

    Returns:
        For each observation the rows in the order of the masks, within their bounds; where parties have the
        same mask their order means nothing. ``loss`` is minus the logarithm of the posterior, less its
        constant, under the noise that counted.

    Raises:
        TypeError: something is of the wrong type.
        ValueError: rows, masks or labels do not fit the net, its output is random, or an observation is not
            like the first one.
    """
    check_observations(observations, progress)
    _validate.instance("public", public, PublicRows, "PublicRows")
    _validate.instance("settings", settings, OwnMasksSettings, "OwnMasksSettings")
    check_rows(observations[0], public)
    check_same_net(observations)
    if labels is not None:
        one_hot_labels(labels, observations)
    parties = PartyNets(observations[0], masks)
    if labels is None:
        labels = labels_of(parties, observations, public)
    prior = _LabelledPrior(public, observations[0].classes, settings.rank, parties.like)
    lots = torch.arange(len(observations)).split(settings.lanes)
    found: list[Reconstruction] = []
    for number, own in enumerate(lots):
        part = _Search(parties, prior, [observations[k] for k in own.tolist()], labels[own])

        def report(within: float, number: int = number) -> None:
            if progress is not None:
                progress((number + within) / len(lots))

        found += part.run(settings, report)
    return found


class _LabelledPrior:
    """A Gaussian for each label: means, (classes, numbers of a row), and bases, (classes, numbers, rank)."""

    def __init__(self, public: PublicRows, classes: int, rank: int, like: torch.Tensor) -> None:
        own = [fit_gaussian(rows_of(public, label), rank) for label in range(classes)]
        self.rank = min(prior.rank for prior in own)
        self.means = torch.stack([prior.mean for prior in own]).to(like)
        self.bases = torch.stack([prior.basis[:, -self.rank :] for prior in own]).to(like)


class _Search:
    """Some observations attacked side by side.

    Args:
        parties: their nets.
        prior: of rows.
        observations: of averages of one row a party.
        labels: int64 of shape (observations, parties).
    """

    def __init__(
        self,
        parties: PartyNets,
        prior: _LabelledPrior,
        observations: Sequence[Observation],
        labels: torch.Tensor,
    ) -> None:
        self._parties, self._labels = parties, labels.to(parties.like.device)
        self._bounds = observations[0].bounds
        self._means, self._bases = prior.means[self._labels], prior.bases
        self._seen = parties.seen(observations)
        self._scale = parties.largest(self._seen)
        self._size = len(parties) * prior.rank

    def run(self, settings: OwnMasksSettings, report: Progress) -> list[Reconstruction]:
        """The rows under the last noise that what is left fits."""
        started, count = time.perf_counter(), len(self._seen)
        generator = torch.Generator().manual_seed(settings.seed)
        start = _APART * torch.randn(self._size, generator=generator, dtype=self._seen.dtype)
        points = start.to(self._seen).expand(count, -1).clone()
        losses = points.new_full((count,), torch.inf)
        steps, left = torch.zeros(count, dtype=torch.int64), torch.arange(count)
        for number, noise in enumerate(settings.noises):
            there, loss = self._brought_down(points[left], left, noise, settings.iterations)
            # Where a gradient fits, the squares come to one for each coordinate and the loss to half of that.
            fits = (loss < len(self._parties.counted)).cpu() | torch.tensor(number == 0)
            left, there, loss = left[fits], there[fits.to(there.device)], loss[fits.to(loss.device)]
            points[left], losses[left] = there, loss
            steps[left] += settings.iterations
            report((number + 1) / len(settings.noises))
            if not len(left):
                break
        rows = self._rows(points, torch.arange(count)).detach().clamp(*self._bounds)
        seconds = (time.perf_counter() - started) / count
        shape = (len(self._parties), *self._parties.shape)
        return [
            Reconstruction(row.view(shape), label, float(loss), (), int(step), 0, 0, seconds)
            for row, label, loss, step in zip(rows, self._labels, losses, steps, strict=True)
        ]

    def _rows(self, points: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        components = points.view(len(own), len(self._parties), -1)
        bases = self._bases[self._labels[own]]
        return self._means[own] + torch.einsum("opnr,opr->opn", bases, components)

    def _brought_down(
        self, start: torch.Tensor, own: torch.Tensor, noise: float, iterations: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The best points of a run from some start under some noise, and their losses."""
        deviation, seen, labels = noise * self._scale[own], self._seen[own], self._labels[own].T

        def evaluate(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            given = points.detach().requires_grad_()
            rows = self._rows(given, own).transpose(0, 1)
            shown = self._parties.gradients(rows.reshape(*labels.shape, *self._parties.shape), labels)
            apart = (shown.mean(dim=0) - seen) / deviation
            losses = apart.square().sum(dim=1) / 2 + given.square().sum(dim=1) / 2
            (slopes,) = torch.autograd.grad(losses.sum(), given)
            return losses.detach(), slopes

        optimizer = BatchedLBFGS(start, _LBFGS)
        best, least = start.clone(), start.new_full((len(start),), torch.inf)
        for _ in range(iterations):
            optimizer.step(evaluate)
            better = optimizer.losses < least
            best[better], least[better] = optimizer.points[better], optimizer.losses[better]
        return best, least
