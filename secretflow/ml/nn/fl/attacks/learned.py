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

_AT_ONCE = 4096


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

    features: int = 3000
    width: int = 1024
    epochs: int = 30
    batch: int = 256
    learning_rate: float = 1e-3
    dropout: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("features", 1), ("width", 1), ("epochs", 1), ("batch", 2)):
            _validate.integer(name, getattr(self, name), least)
        _validate.integer("seed", self.seed, 0)
        _validate.number("learning_rate", self.learning_rate, above=0)
        _validate.number("dropout", self.dropout, at_least=0, below=1)


class LearnedInverter:
    """A trained net.

    Args:
        features: from gradients to what the net gets.
        net: from features, less their mean, to rows.
        device: where the net is.
    """

    def __init__(self, features: Features, net: nn.Module, device: torch.device) -> None:
        self._features, self._net, self._device = features, net, device

    def invert(self, gradients: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """See :meth:`~.inverter.Inverter.invert`; the net sees the label by itself."""
        with torch.inference_mode():
            parts = [
                self._net(self._features(part).float().to(self._device)).cpu()
                for part in gradients.split(_AT_ONCE)
            ]
        return torch.cat(parts)


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
    _validate.instance("observation", observation, Observation, "an Observation")
    _validate.instance("public", public, PublicRows, "PublicRows")
    _validate.instance("settings", settings, LearnedSettings, "LearnedSettings")
    gradients = public_gradients(observation, public, distort)
    features, seen = features_of(gradients, settings.features, settings.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = public.x.flatten(1).float()
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        net = _net(seen, rows, settings).to(device)
        _train(net, seen.float().to(device), rows.to(device), settings, progress)
    return LearnedInverter(features, net.eval(), device)


def _net(seen: torch.Tensor, rows: torch.Tensor, settings: LearnedSettings) -> nn.Module:
    width = settings.width
    last = nn.Linear(width, rows.shape[1])
    with torch.no_grad():  # it starts at the mean row
        last.weight.mul_(0.1)
        last.bias.copy_(rows.mean(dim=0))
    first = nn.BatchNorm1d(seen.shape[1], affine=False)
    hidden = [
        layer
        for inputs in (seen.shape[1], width)
        for layer in (nn.Linear(inputs, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(settings.dropout))
    ]
    return nn.Sequential(first, *hidden, last)


def _train(
    net: nn.Module,
    seen: torch.Tensor,
    rows: torch.Tensor,
    settings: LearnedSettings,
    progress: Callable[[float], None] | None,
) -> None:
    generator = torch.Generator().manual_seed(settings.seed)
    size = min(settings.batch, len(rows))
    steps = len(rows) // size  # what is left over has its turn in another order
    optimizer = torch.optim.AdamW(net.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=steps * settings.epochs + 1, pct_start=0.1
    )
    net.train()
    for epoch in range(settings.epochs):
        order = torch.randperm(len(rows), generator=generator).to(rows.device)
        for step in range(steps):
            chosen = order[step * size : (step + 1) * size]
            loss = nn.functional.mse_loss(net(seen[chosen]), rows[chosen])
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
