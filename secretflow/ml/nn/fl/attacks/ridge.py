"""Ridge regression from the living coordinates of a gradient to its row, fitted on public rows.

Among rows of one label, a row is nearly a linear function of its gradient in the net that everybody has, and
public rows show which one; over all labels it is not, so each label has a regression of its own. In a trained
net the length of a gradient says how sure the net is and hides all else, so there it is a function of the
direction; which of both is better, public rows that are held out say. Needs no search and no prior beyond
them. To use first: it takes seconds, knows the mask, and gets images back from gradients in which too few
coordinates live for an optimising attack.

Source: Hoerl and Kennard, "Ridge regression: biased estimation for nonorthogonal problems", Technometrics 12
(1970), eq. (2.1); the attacker with public rows is that of Wu et al., "Learning to Invert", UAI 2023,
section 3, there with a net.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.inverter import Features, attack_with, features_of
from secretflow.ml.nn.fl.attacks.observation import Observation, Reconstruction, check_observations
from secretflow.ml.nn.fl.attacks.public import Distort, PublicRows, public_gradients

PENALTIES = tuple(10.0**power for power in range(-10, 1))
"""Of which the one of the smallest error on public rows that were held out is taken; relative to the rows."""

_HELD_OUT = 0.1
_DIRECTIONS = 32
_ENOUGH = 50
"""Public rows of a label from which on it has a regression of its own."""


@dataclass(frozen=True)
class RidgeSettings:
    """How to fit.

    Attributes:
        features: coordinates that are used as they are, at least 1; more are added up to so many at random.
        seed: of that, and of which public rows are held out.

    Raises:
        ValueError: a number is out of its range.
    """

    features: int = 1500
    seed: int = 0

    def __post_init__(self) -> None:
        _validate.plain_fields(self)
        _validate.integer("features", self.features, 1)
        _validate.integer("seed", self.seed, 0)


@dataclass(frozen=True)
class _Regression:
    """From features to rows: weight (size, numbers of a row), the means of both, and the error on others."""

    mean: torch.Tensor
    weight: torch.Tensor
    offset: torch.Tensor
    error: float

    def __call__(self, given: torch.Tensor) -> torch.Tensor:
        """Rows, float64 of shape (rows, numbers of a row)."""
        return (given - self.mean) @ self.weight + self.offset


class RidgeInverter:
    """Ridge regressions from gradients to rows, one for each label and one for all.

    Args:
        features: from gradients to what is seen of them.
        directed: whether their direction and length are regressed on, and not they themselves.
        by_label: a regression for each label of which there were public rows enough.
        of_all: the one for other labels.
        of_labels: to a number for each label, the largest for the one to go on with where it is not known.
    """

    def __init__(
        self,
        features: Features,
        directed: bool,
        by_label: Mapping[int, _Regression],
        of_all: _Regression,
        of_labels: _Regression,
    ) -> None:
        self._features, self._directed = features, directed
        self._by_label, self._of_all, self._of_labels = by_label, of_all, of_labels

    @property
    def error(self) -> float:
        """Mean squared error on public rows that were held out, of the regression of all labels."""
        return self._of_all.error

    def invert(self, gradients: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """See :meth:`~.inverter.Inverter.invert`."""
        given = self.given(self._features(gradients))
        return self.rows_of(given, self.labelled(given, labels))

    def given(self, seen: torch.Tensor) -> torch.Tensor:
        """What is regressed on, float64 of shape (rows, size), of features."""
        return directed(seen) if self._directed else seen

    def labelled(self, given: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The labels, with a guess for each -1."""
        return torch.where(labels < 0, self._of_labels(given).argmax(dim=1), labels)

    def rows_of(self, given: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Rows of what :meth:`given` gives, float32 of shape (rows, numbers of a row)."""
        found = torch.empty(len(given), len(self._of_all.offset))
        for label in labels.unique().tolist():
            own = labels == label
            found[own] = self._by_label.get(label, self._of_all)(given[own]).float()
        return found


def directed(seen: torch.Tensor) -> torch.Tensor:
    """Features at one length, so that each is about 1, and the logarithm of their length as one more."""
    length = seen.norm(dim=1, keepdim=True).clamp(min=1e-300)
    return torch.cat([seen / length * seen.shape[1] ** 0.5, length.log()], dim=1)


def fit_ridge(
    observation: Observation,
    public: PublicRows,
    settings: RidgeSettings = RidgeSettings(),
    distort: Distort | None = None,
) -> RidgeInverter:
    """Fits a regression for one net, mask and number of local steps.

    Args:
        observation: of one row; what was seen in it is not used.
        public: rows to fit on.
        settings: how.
        distort: what is done to a gradient before it is seen, such as quantisation.

    Returns:
        The inverter.

    Raises:
        TypeError: something is of the wrong type.
        ValueError: the observation is of a batch, or the rows do not fit the net.
    """
    _validate.instance("settings", settings, RidgeSettings, "RidgeSettings")
    features, seen = features_of(
        public_gradients(observation, public, distort), settings.features, settings.seed
    )
    return regress(features, seen, public, settings.seed)


def regress(features: Features, seen: torch.Tensor, public: PublicRows, seed: int) -> RidgeInverter:
    """The regressions of public rows on features.

    Args:
        features: from gradients, for the inverter.
        seen: features of the public rows, float64 of shape (rows, size).
        public: the rows.
        seed: of which are held out.
    """
    rows = public.x.flatten(1).double()
    plain, by_direction = (_regress(given, rows, seed) for given in (seen, directed(seen)))
    better = by_direction.error < plain.error
    given = directed(seen) if better else seen
    by_label = {
        label: _regress(given[own], rows[own], seed)
        for label in public.y.unique().tolist()
        if int((own := public.y == label).sum()) >= _ENOUGH
    }
    of_labels = _regress(given, torch.nn.functional.one_hot(public.y).double(), seed)
    return RidgeInverter(features, better, by_label, by_direction if better else plain, of_labels)


def _regress(seen: torch.Tensor, rows: torch.Tensor, seed: int) -> _Regression:
    """The regression of rows on features, both float64, with the penalty that does best on rows held out."""
    mean, offset = seen.mean(dim=0), rows.mean(dim=0)
    centred, targets = seen - mean, rows - offset
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    cut = max(1, int(_HELD_OUT * len(rows)))
    held, kept = order[:cut], order[cut:]
    gram, product = _moments(centred[held], targets[held])
    gram_kept, product_kept = _moments(centred[kept], targets[kept])
    # The error shows in a few random directions as well, which are quicker to solve for.
    few = _few_directions(targets.shape[1], seed)
    errors = {}
    for penalty in PENALTIES:
        guess = centred[held] @ _solve(gram_kept, product_kept @ few, penalty)
        errors[penalty] = float((guess - targets[held] @ few).square().mean())
    best = min(errors, key=lambda penalty: errors[penalty])
    weight = _solve(gram + gram_kept, product + product_kept, best)
    return _Regression(mean, weight, offset, errors[best])


def _few_directions(size: int, seed: int) -> torch.Tensor:
    """Orthonormal random directions, (size, at most 32)."""
    drawn = torch.randn(size, min(size, _DIRECTIONS), generator=torch.Generator().manual_seed(seed))
    return torch.linalg.qr(drawn.double()).Q


def _moments(seen: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return seen.T @ seen, seen.T @ rows


def _solve(gram: torch.Tensor, product: torch.Tensor, penalty: float) -> torch.Tensor:
    """Coefficients under a penalty that is relative to the mean square of a feature over all rows."""
    diagonal = penalty * gram.diagonal().mean().clamp(min=1e-12)
    system = gram + diagonal * torch.eye(len(gram), dtype=gram.dtype)
    return torch.cholesky_solve(product, torch.linalg.cholesky(system))


def ridge_attack(
    observations: Sequence[Observation],
    public: PublicRows,
    settings: RidgeSettings = RidgeSettings(),
    distort: Distort | None = None,
) -> list[Reconstruction]:
    """Fits one regression and inverts all observations with it.

    Args:
        observations: of one row each, all of one net, mask and number of local steps.
        public: rows to fit on.
        settings: how to fit.
        distort: what is done to a gradient before it is seen.

    Returns:
        See :func:`~.inverter.attack_with`.

    Raises:
        TypeError: something is of the wrong type.
        ValueError: an observation is of a batch or of another net, or the rows do not fit.
    """
    check_observations(observations)
    return attack_with(fit_ridge(observations[0], public, settings, distort), observations)
