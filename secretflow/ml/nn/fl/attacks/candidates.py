"""Which candidate has the gradient that was seen: that of each is computed and compared.

Whoever knows the net and its weights, as all parties and the server do, can compute what any row would have
uploaded, under the same mask and over the same local steps. No other row has just that gradient, so this
tells a row among candidates from fewer living coordinates, and with fewer bits, than any attack that rebuilds
it. To use for single rows, whenever there are candidates; it needs no public rows and no training. For
batches and averages see :mod:`~.membership`.

Source: the likelihood of what was seen where noise is Gaussian, with a deviation that is the same part of the
largest coordinate of every array, as that of rounding is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.inverter import check_alike
from secretflow.ml.nn.fl.attacks.observation import Observation, check_observations
from secretflow.ml.nn.fl.attacks.public import (
    Distort,
    PublicRows,
    flat,
    living_arrays,
    living_coordinates,
    public_gradients,
)

_LEAST = 1e-12
"""Largest coordinate of an array, relative to that of all, below which its differences are not blown up."""


def compare_candidates(
    observations: Sequence[Observation], candidates: PublicRows, distort: Distort | None = None
) -> torch.Tensor:
    """How near the gradient of each candidate is to what was observed.

    Args:
        observations: of one row each, of one net, weights, mask and number of local steps.
        candidates: rows with labels.
        distort: what was done to the gradients in the observations, where it says the same of the same
            gradient, such as taking signs; None is nothing. Rounding at random is noise and is left out.

    Returns:
        float64 of shape (observations, candidates), at most 0; the highest is the one, and 0 is an exact
        match. Minus infinity where a candidate's gradient is not finite.

    Raises:
        TypeError: something is of the wrong type.
        ValueError: an observation is of a batch or not like the first one, or the candidates do not fit.
    """
    check_observations(observations)
    _validate.instance("candidates", candidates, PublicRows, "PublicRows")
    check_alike(observations)
    first = observations[0]
    living = living_coordinates(first)
    seen = torch.stack([flat(each.gradients, living) for each in observations]).double()
    counts = [int(here.sum()) for here in living_arrays(first)]
    precision = torch.cat([_precision(part, seen) for part in seen.split(counts, dim=1)], dim=1)
    own = (precision * seen.square()).sum(dim=1)
    found = []
    for some in public_gradients(first, candidates, distort):
        gradients = some.double()
        scores = (precision * seen) @ gradients.T * 2 - precision @ gradients.square().T - own[:, None]
        found.append(scores.nan_to_num(nan=-torch.inf, posinf=-torch.inf).clamp(max=0))
    return torch.cat(found, dim=1)


def _precision(part: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """One over the square of an array's largest coordinate, for each of its coordinates."""
    if not part.shape[1]:
        return part
    least = _LEAST * seen.abs().amax(dim=1).clamp(min=1e-100)
    return part.abs().amax(dim=1).maximum(least).pow(-2)[:, None].expand_as(part)
