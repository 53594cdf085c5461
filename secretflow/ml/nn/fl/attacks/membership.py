"""Which of many candidate rows are in a batch or in an average, told from its gradient, in any net.

The gradient that was seen is the mean of those of its rows. If a candidate is one of them, the others are
left over once its own gradient is taken off, and those look like any public rows: near the mean, and far
from it only in directions in which gradients differ anyway. To use for every batch and average, beside
attacks that rebuild rows: it needs candidates and public rows, no search, and no particular net.

Source: the likelihood of a sum of independent gradients, taken for Gaussian. Li, Li, Ribeiro, "Effective
passive membership inference attacks in federated learning against overparameterized models", ICLR 2023, ask
likewise whether a gradient is explained by that of a candidate.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.observation import Observation, check_observations
from secretflow.ml.nn.fl.attacks.public import PublicRows
from secretflow.ml.nn.fl.attacks.row_gradients import RowGradients

PENALTIES = (1e-6, 1e-4, 1e-2, 1.0)
"""Of which the one is taken under which public rows that were held out are told best."""

_HELD_OUT = 0.2
_TRIES = 16


def candidate_scores(
    learned: RowGradients, observations: Sequence[Observation], candidates: PublicRows, seed: int = 0
) -> torch.Tensor:
    """How well each candidate explains what was observed.

    Args:
        learned: of the public rows, for observations like these.
        observations: of as many rows each, of one net, weights and mask.
        candidates: rows with labels, none of them public.
        seed: of the held-out rows.

    Returns:
        float64 of shape (observations, candidates); the highest are in it most likely.

    Raises:
        TypeError: something is not an observation.
        ValueError: they are of different numbers of rows, or the candidates do not fit the net.
    """
    check_observations(observations)
    _validate.instance("learned", learned, RowGradients, "RowGradients, of learn_row_gradients")
    _validate.instance("candidates", candidates, PublicRows, "PublicRows")
    _validate.integer("seed", seed, 0)
    rows = observations[0].batch_size
    for observation in observations:
        what = f"{rows}, as in the first observation"
        _validate.check(observation.batch_size == rows, "batch_size", observation.batch_size, what)
    seen = torch.stack([learned.of_observation(observation) for observation in observations])
    whitened = _best_whitening(learned.seen, rows, seed)
    mean = learned.seen.mean(dim=0)
    return _scores(seen, learned.of_rows(candidates), mean, whitened, rows)


def _scores(
    seen: torch.Tensor, single: torch.Tensor, mean: torch.Tensor, whitening: torch.Tensor, rows: int
) -> torch.Tensor:
    """Minus the squared distance from each candidate to what is left of the sum without the mean others."""
    left = (rows * (seen - mean)) @ whitening
    return -torch.cdist(left, (single - mean) @ whitening).square()


def _best_whitening(seen: torch.Tensor, rows: int, seed: int) -> torch.Tensor:
    """From features to directions in which gradients differ alike, (size, size)."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(seen), generator=generator)
    held = seen[order[: max(2, int(_HELD_OUT * len(seen)))]]
    kept = seen[order[len(held) :]] if len(seen) > len(held) + 1 else seen
    mean = kept.mean(dim=0)
    values, vectors = torch.linalg.eigh((kept - mean).T @ (kept - mean) / max(1, len(kept) - 1))
    values = values.clamp(min=0)
    batches = torch.randint(len(held), (_TRIES, rows), generator=generator)
    sums = held[batches].mean(dim=1)
    places = {}
    for penalty in PENALTIES:
        whitening = vectors / (values + penalty * values.mean().clamp(min=1e-300)).sqrt()
        scores = _scores(sums, held, mean, whitening, rows)
        places[penalty] = float(_mean_rank(scores, batches)), -penalty
    best = min(places, key=lambda penalty: places[penalty])
    return vectors / (values + best * values.mean().clamp(min=1e-300)).sqrt()


def _mean_rank(scores: torch.Tensor, batches: torch.Tensor) -> torch.Tensor:
    """Of the rows of each batch the mean rank among all."""
    own = scores.gather(1, batches)
    return (scores[:, None, :] > own[:, :, None]).sum(dim=2).double().mean()
