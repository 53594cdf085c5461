"""Gaussians of public rows: their mean and covariance as a prior of what a row looks like.

One Gaussian is of all public rows; the other kind is fitted anew to those that resemble what is known of a
row, where rows are of many kinds and a good part of a row is known.

A low rank and one variance for what it leaves over, as in probabilistic principal component analysis. Source:
Tipping and Bishop, "Probabilistic principal component analysis", J. R. Stat. Soc. B 61 (1999), eq. (7) and
(8); the conditional mean is Bishop, "Pattern recognition and machine learning" (2006), eq. (2.116) and
(2.117).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from secretflow import _validate

_LEAST_VARIANCE = 1e-6
"""Of a number that is the same in all public rows, such as a dark corner; it may differ in another row."""


class Prior(Protocol):
    """What is expected of a row; :class:`GaussianPrior` and :class:`LocalPrior` are two."""

    def conditional_mean(self, values: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """See :meth:`GaussianPrior.conditional_mean`."""


@dataclass(frozen=True)
class GaussianPrior:
    """What rows look like.

    Attributes:
        mean: float64 of shape (numbers of a row,).
        basis: principal directions, each as long as its standard deviation, (numbers of a row, rank).
        variance: of what the basis leaves over, number by number, (numbers of a row,), above 0.
    """

    mean: torch.Tensor
    basis: torch.Tensor
    variance: torch.Tensor

    @property
    def rank(self) -> int:
        """Number of directions."""
        return self.basis.shape[1]

    def conditional_mean(self, values: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The row to expect once some of its numbers are known.

        Args:
            values: what was read of a row, (numbers of a row,); where nothing was, any finite number.
            noise: variance of the error of each value, (numbers of a row,), at least 0: 0 is exact, infinite
                is unknown.

        Returns:
            float64 of shape (numbers of a row,); exact values come back as they are.

        Raises:
            ValueError: a shape is another one, or a variance is negative or NaN.
        """
        shape = self.mean.shape
        for name, value in (("values", values), ("noise", noise)):
            _validate.check(value.shape == shape, name, tuple(value.shape), f"of shape {tuple(shape)}")
        sound = bool((noise >= 0).all())
        _validate.check(sound, "noise", float(noise.min()), "variances of at least 0")
        found = values.to(self.mean) - self.mean
        precision = 1 / (self.variance + noise.to(self.mean))
        weighted = self.basis * precision[:, None]
        system = torch.eye(self.rank, dtype=self.mean.dtype) + self.basis.T @ weighted
        explained = self.basis @ torch.linalg.solve(system, weighted.T @ found)
        # The rest of a value is its own as far as it is not noise.
        return self.mean + explained + self.variance * precision * (found - explained)


def fit_gaussian(rows: torch.Tensor, rank: int = 200) -> GaussianPrior:
    """The prior of public rows.

    Args:
        rows: float of shape (rows, ...), at least two.
        rank: directions to keep, at least 1; no more than rows and numbers allow are kept.

    Raises:
        TypeError: ``rows`` is no tensor.
        ValueError: there are too few rows, or ``rank`` is out of its range.
    """
    _validate.instance("rows", rows, torch.Tensor, "a tensor")
    enough = rows.dim() >= 2 and len(rows) >= 2
    _validate.check(enough, "rows", tuple(rows.shape), "at least two rows")
    _validate.integer("rank", rank, 1)
    data = rows.detach().cpu().flatten(1).double()
    mean = data.mean(dim=0)
    centred = data - mean
    covariance = centred.T @ centred / (len(data) - 1)
    values, vectors = torch.linalg.eigh(covariance)
    kept = min(rank, len(data) - 1, data.shape[1])
    basis = vectors[:, -kept:] * values[-kept:].clamp(min=0).sqrt()
    left = covariance.diagonal() - basis.square().sum(dim=1)
    return GaussianPrior(mean, basis, left.clamp(min=_LEAST_VARIANCE))


@dataclass(frozen=True)
class LocalPrior:
    """A Gaussian of those public rows that are nearest to the known numbers of a row.

    Source: the nearest neighbours' regression of Cleveland, "Robust locally weighted regression and smoothing
    scatterplots", J. Am. Stat. Assoc. 74 (1979), section 2, here with equal weights and many numbers.

    Attributes:
        rows: public ones, float of shape (rows, ...), at least two.
        neighbours: of them that are used, at least 2; all where there are fewer.

    Raises:
        TypeError: ``rows`` is no tensor.
        ValueError: there are too few rows, or ``neighbours`` is out of its range.
    """

    rows: torch.Tensor
    neighbours: int = 1000

    def __post_init__(self) -> None:
        _validate.instance("rows", self.rows, torch.Tensor, "a tensor")
        enough = self.rows.dim() >= 2 and len(self.rows) >= 2
        _validate.check(enough, "rows", tuple(self.rows.shape), "at least two rows")
        _validate.integer("neighbours", self.neighbours, 2)

    def conditional_mean(self, values: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """See :meth:`GaussianPrior.conditional_mean`; a value of finite noise counts as known."""
        rows = self.rows.detach().cpu().flatten(1)
        shape = rows.shape[1:]
        for name, value in (("values", values), ("noise", noise)):
            _validate.check(value.shape == shape, name, tuple(value.shape), f"of shape {tuple(shape)}")
        known = noise.isfinite()
        count = min(self.neighbours, len(rows))
        apart = (rows[:, known] - values[known].to(rows)).square().sum(dim=1)
        return fit_gaussian(rows[apart.topk(count, largest=False).indices]).conditional_mean(values, noise)


def check_prior(prior: Prior | None) -> None:
    """Refuses what is no prior of this module.

    Raises:
        TypeError: it is none, nor None.
    """
    _validate.instance("prior", prior, (GaussianPrior, LocalPrior, type(None)), "a prior or None")
