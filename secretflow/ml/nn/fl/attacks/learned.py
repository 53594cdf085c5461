"""A small net from the living coordinates of a gradient to its row, trained on public rows.

Source: Wu, Chen, Guo, Weinberger, "Learning to Invert: Simple adaptive attacks for gradient inversion in
federated learning", UAI 2023, section 3: whatever a defence does to a gradient, the net is trained on public
gradients to which the same was done. To use where a gradient is no linear clue to its row: few living
coordinates, rounding, noise, trained nets. It takes minutes to train, and then inverts thousands of
gradients a second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.inverter import Features, attack_with, features_of
from secretflow.ml.nn.fl.attacks.observation import Observation, Reconstruction, check_observations
from secretflow.ml.nn.fl.attacks.public import Distort, PublicRows, public_gradients
from secretflow.ml.nn.fl.attacks.ridge import RidgeInverter, regress

_AT_ONCE = 4096
_LEAST = 1e-9
"""Variance, relative to the mean one, below which a component is taken for rounding."""


@dataclass(frozen=True)
class LearnedSettings:
    """How to train.

    Attributes:
        features: coordinates that are used as they are, at least 1; more are added up to so many at random.
        width: of both hidden layers, at least 1.
        epochs: over the public rows, at least 1.
        batch: public rows of one step, at least 2.
        learning_rate: largest one of AdamW, above 0; it rises over the first tenth of the steps and then
            falls.
        dropout: part of the hidden units that each step leaves out, in [0, 1).
        seed: of weights and order.

    Raises:
        TypeError: a value is of the wrong type.
        ValueError: a number is out of its range.
    """

    features: int = 1500
    width: int = 512
    epochs: int = 10
    batch: int = 256
    learning_rate: float = 2e-3
    dropout: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        _validate.plain_fields(self)
        for name, least in (("features", 1), ("width", 1), ("epochs", 1), ("batch", 2)):
            _validate.integer(name, getattr(self, name), least)
        _validate.integer("seed", self.seed, 0)
        _validate.number("learning_rate", self.learning_rate, above=0)
        _validate.number("dropout", self.dropout, at_least=0, below=1)


class LearnedInverter:
    """A trained net, and the regression that it corrects.

    Args:
        ridge: the regression.
        features: from gradients to its features.
        components: (size, size), from what the regression gets, less its mean, to what the net gets.
        mean: of what the regression gets.
        net: from components and label to the correction of a row.
    """

    def __init__(
        self,
        ridge: RidgeInverter,
        features: Features,
        components: torch.Tensor,
        mean: torch.Tensor,
        net: nn.Module,
    ) -> None:
        self._ridge, self._features, self._net = ridge, features, net
        self._components, self._mean = components, mean

    def invert(self, gradients: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """See :meth:`~.inverter.Inverter.invert`."""
        device = next(self._net.parameters()).device
        found = []
        with torch.inference_mode():
            for some, own in zip(gradients.split(_AT_ONCE), labels.split(_AT_ONCE), strict=True):
                given = self._ridge.given(self._features(some))
                known = self._ridge.labelled(given, own)
                components = ((given - self._mean) @ self._components).float()
                correction = self._net((components.to(device), known.to(device)))
                found.append(self._ridge.rows_of(given, known) + correction.cpu())
        return torch.cat(found)


class _Net(nn.Module):
    """Two hidden layers."""

    def __init__(self, inputs: int, classes: int, outputs: int, settings: LearnedSettings) -> None:
        super().__init__()
        width = settings.width
        self.classes = classes
        last = nn.Linear(width, outputs)
        nn.init.zeros_(last.weight)  # it starts at the regression
        nn.init.zeros_(last.bias)
        self.body = nn.Sequential(
            *(
                layer
                for size in (inputs + classes, width)
                for layer in (
                    nn.Linear(size, width),
                    nn.LayerNorm(width),
                    nn.GELU(),
                    nn.Dropout(settings.dropout),
                )
            ),
            last,
        )

    def forward(self, given: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Corrections of rows.

        Args:
            given: components, (rows, inputs), and labels, (rows,).
        """
        components, labels = given
        known = labels[:, None] == torch.arange(self.classes, device=labels.device)
        return self.body(torch.cat([components, known.to(components)], dim=1))


def fit_learned(
    observation: Observation,
    public: PublicRows,
    settings: LearnedSettings = LearnedSettings(),
    distort: Distort | None = None,
    progress: Callable[[float], None] | None = None,
) -> LearnedInverter:
    """Trains a net for one net, mask and number of local steps.

    Args:
        observation: of one row; what was seen in it is not used.
        public: rows to train on.
        settings: how.
        distort: what is done to a gradient before it is seen, such as quantisation.
        progress: called after each epoch with the part of the work that is done, from 0 to 1.

    Returns:
        The inverter.

    Raises:
        TypeError: something is of the wrong type.
        ValueError: the observation is of a batch, or the rows do not fit the net.
    """
    _validate.instance("settings", settings, LearnedSettings, "LearnedSettings")
    function = progress is None or callable(progress)
    what = "a function of the part that is done, or None"
    _validate.check(function, "progress", progress, what, TypeError)
    gradients = public_gradients(observation, public, distort)
    features, seen = features_of(gradients, settings.features, settings.seed)
    ridge = regress(features, seen, public, settings.seed)
    return learn(ridge, features, seen, public, observation.classes, settings, progress)


def learn(
    ridge: RidgeInverter,
    features: Features,
    seen: torch.Tensor,
    public: PublicRows,
    classes: int,
    settings: LearnedSettings,
    progress: Callable[[float], None] | None = None,
) -> LearnedInverter:
    """Trains a net on features of public rows, for what a regression leaves of them.

    Args:
        ridge: the regression of these rows, see :func:`~.ridge.regress`.
        features: from gradients, for the inverter.
        seen: features of the public rows, float64 of shape (rows, size).
        public: the rows.
        classes: of the task.
        settings: how.
        progress: called after each epoch with the part of the work that is done, from 0 to 1.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    regressed = ridge.given(seen)
    components, mean = _components(regressed)
    left = public.x.flatten(1).float() - ridge.rows_of(regressed, public.y)
    given = ((regressed - mean) @ components).float()
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        net = _Net(given.shape[1], classes, left.shape[1], settings).to(device)
        _train(net, [each.to(device) for each in (given, public.y, left)], settings, progress)
    return LearnedInverter(ridge, features, components, mean, net.eval())


def _components(seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """From features less their mean to principal components of about unit deviation, and that mean."""
    mean = seen.mean(dim=0)
    values, vectors = torch.linalg.eigh((seen - mean).T @ (seen - mean) / len(seen))
    return vectors / (values.clamp(min=0) + _LEAST * values.mean()).sqrt(), mean


def _train(
    net: nn.Module,
    data: Sequence[torch.Tensor],
    settings: LearnedSettings,
    progress: Callable[[float], None] | None,
) -> None:
    """Brings down the squared error on components, labels and what is left of the rows."""
    given, labels, left = data
    generator = torch.Generator().manual_seed(settings.seed)
    size = min(settings.batch, len(given))
    steps = len(given) // size  # what is left over has its turn in another order
    optimizer = torch.optim.AdamW(net.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=steps * settings.epochs + 1, pct_start=0.1
    )
    net.train()
    for epoch in range(settings.epochs):
        order = torch.randperm(len(given), generator=generator).to(given.device)
        for step in range(steps):
            own = order[step * size : (step + 1) * size]
            loss = nn.functional.mse_loss(net((given[own], labels[own])), left[own])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if progress is not None:
            progress((epoch + 1) / settings.epochs)


def learned_attack(
    observations: Sequence[Observation],
    public: PublicRows,
    settings: LearnedSettings = LearnedSettings(),
    distort: Distort | None = None,
) -> list[Reconstruction]:
    """Trains one net and inverts all observations with it.

    Args:
        observations: of one row each, all of one net, mask and number of local steps.
        public: rows to train on.
        settings: how to train.
        distort: what is done to a gradient before it is seen.

    Returns:
        See :func:`~.inverter.attack_with`.

    Raises:
        TypeError: something is of the wrong type.
        ValueError: an observation is of a batch or of another net, or the rows do not fit.
    """
    check_observations(observations)
    return attack_with(fit_learned(observations[0], public, settings, distort), observations)
