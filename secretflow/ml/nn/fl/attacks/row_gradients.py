"""What the gradients of single public rows look like: where attackers start who have such rows.

Computed once, it serves the regression, the learned inverter and the search for candidates alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.inverter import Features, features_of
from secretflow.ml.nn.fl.attacks.net import batch_norms, statistics_of
from secretflow.ml.nn.fl.attacks.observation import Observation
from secretflow.ml.nn.fl.attacks.public import (
    Distort,
    PublicRows,
    flat,
    living_coordinates,
    public_gradients,
)

_STATISTICS_OF = 512
"""Public rows of which batch normalisation notes mean and variance."""


@dataclass(frozen=True)
class RowGradients:
    """Features of the gradients of public rows.

    Attributes:
        single: what an attacker would have of one row alone.
        features: from living coordinates to features.
        seen: features of the public rows, float64 of shape (rows, size).
        public: the rows.
    """

    single: Observation
    features: Features
    seen: torch.Tensor
    public: PublicRows

    def of_observation(self, observation: Observation) -> torch.Tensor:
        """Features of what was observed, float64 of shape (size,): of a batch the mean of its rows'.

        Args:
            observation: of the same net, weights and mask.
        """
        living = living_coordinates(self.single)
        return self.features(flat(observation.gradients, living)[None])[0]

    def of_rows(self, rows: PublicRows) -> torch.Tensor:
        """Features of the gradients of other rows, float64 of shape (rows, size)."""
        return torch.cat([self.features(part) for part in public_gradients(self.single, rows)])


def single_row(observation: Observation, public: PublicRows) -> Observation:
    """An observation of one row, as like that of a batch as can be.

    In a batch, several local steps count as one: alone, a row would pull much further in each. Batch
    normalisation uses the statistics of public rows, which are about those of the batch where it normalises
    over many numbers (images, batches of a dozen rows and more), and are not in a few rows of a table.

    Args:
        observation: of one row, which is given back as it is, or of several.
        public: rows that resemble them.
    """
    if observation.batch_size == 1:
        return observation
    net = observation.model()
    names = [
        name
        for name in batch_norms(net)
        if not any(name == outer or name.startswith(f"{outer}.") for outer in observation.evaluating)
        and "" not in observation.evaluating
    ]
    found = replace(observation, batch_size=1, local_steps=1, learning_rate=None) if not names else None
    if found is not None:
        return found
    rows = public.x[:_STATISTICS_OF].to(observation.gradients[0].dtype)
    return replace(
        observation,
        batch_size=1,
        local_steps=1,
        learning_rate=None,
        weights=statistics_of(net, observation.pruned_weights(), rows),
        evaluating=(*observation.evaluating, *names),
    )


def learn_row_gradients(
    observation: Observation,
    public: PublicRows,
    features: int = 1500,
    seed: int = 0,
    distort: Distort | None = None,
) -> RowGradients:
    """Computes the gradients of public rows.

    Args:
        observation: net, weights, mask and batch size count; what was seen in it does not.
        public: rows that resemble those under attack and are none of them.
        features: coordinates that are used as they are, at least 1; more are added up to so many at random.
        seed: of that.
        distort: what is done to a gradient before it is seen, such as rounding; in a batch it counts as
        noise.

    Returns:
        Their features.

    Raises:
        TypeError: something is of the wrong type.
        ValueError: the rows do not fit the net, or its output is random.
    """
    _validate.instance("observation", observation, Observation, "an Observation")
    _validate.instance("public", public, PublicRows, "PublicRows")
    _validate.check(distort is None or callable(distort), "distort", distort, "a function or None", TypeError)
    _validate.integer("features", features, 1)
    _validate.integer("seed", seed, 0)
    single = single_row(observation, public)
    made, seen = features_of(public_gradients(single, public, distort), features, seed)
    return RowGradients(single, made, seen, public)
