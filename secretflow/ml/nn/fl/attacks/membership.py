"""Which of many candidate rows are in a batch or in an average, told from its gradient, in any net.

The gradient that was seen is the mean of those of its rows. If a candidate is one of them, the others are
left over once its own gradient is taken off, and those look like any public rows: near the mean, and far
from it only in directions in which gradients differ anyway. To use for every batch and average, beside
attacks that rebuild rows: it needs candidates and public rows, no search, and no particular net.

Source: the likelihood of a sum of independent gradients, taken for Gaussian; Mallat and Zhang, "Matching
pursuits with time-frequency dictionaries", IEEE Trans. Signal Process. 41 (1993), section III, for one
candidate after the other, each with the weight that it has in a mean. Li, Li, Ribeiro, "Effective
passive membership inference attacks in federated learning against overparameterized models", ICLR 2023, ask
likewise whether a gradient is explained by that of a candidate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.observation import Observation, check_observations
from secretflow.ml.nn.fl.attacks.public import PublicRows
from secretflow.ml.nn.fl.attacks.row_gradients import RowGradients

PENALTIES = (1.0, 1e-2, 1e-4, 1e-6, 1e-9)
"""Of which the one is taken under which public rows that were held out are told best."""

_HELD_OUT, _MOST_HELD_OUT = 0.2, 2000
_TRIES, _ROWS_TRIED = 16, 256
_ROUNDING = 1e-12
_PASSES = 4
"""Over the rows that were found, to exchange what others explain better."""


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
        float64 of shape (observations, candidates); the highest are in it most likely. Where gradients of
        single rows are only about those in the batch, as with batch normalisation, each candidate is asked
        of by itself, for what is taken off would be wrong.

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
    exact = learned.single.evaluating == observations[0].evaluating
    space = _best_space(learned.seen, rows, exact, seed)
    single = space.of(learned.of_rows(candidates))
    return torch.stack([_explained(each, single, rows if exact else 0) for each in rows * space.of(seen)])


@dataclass(frozen=True)
class _Space:
    """Directions in which gradients differ alike: what is taken off features, (size,), and (size, size)."""

    mean: torch.Tensor
    whitening: torch.Tensor

    def of(self, features: torch.Tensor) -> torch.Tensor:
        """Where features are in it, (rows, size)."""
        return (features - self.mean) @ self.whitening


def _explained(total: torch.Tensor, single: torch.Tensor, rows: int) -> torch.Tensor:
    """How far each candidate is needed beside others to explain a sum of some of them.

    Args:
        total: the sum, in directions in which gradients differ alike, less as many means, (size,).
        single: each candidate's, less one mean, (candidates, size).
        rows: candidates in the sum at most; with 0 each is asked of by itself.

    Returns:
        How much longer what is left is without a candidate, squared, (candidates,).
    """
    squares, products = single.square().sum(dim=1), single @ total
    own: list[int] = []
    outside = torch.ones(len(single), dtype=torch.bool)
    with_others: dict[int, torch.Tensor] = {}

    def move(candidate: int, inside: bool) -> None:
        nonlocal products
        if candidate not in with_others:
            with_others[candidate] = single @ single[candidate]
        outside[candidate] = not inside
        products = products - with_others[candidate] * (1 if inside else -1)

    def best() -> int | None:
        gains = torch.where(outside, 2 * products - squares, -torch.inf)
        return int(gains.argmax()) if float(gains.max()) > 0 else None

    while len(own) < min(rows, len(single)) and (found := best()) is not None:
        own.append(found)
        move(found, inside=True)
    for _ in range(_PASSES):
        before = list(own)
        for place, member in enumerate(before):
            move(member, inside=False)
            better = best()
            own[place] = member if better is None else better
            move(own[place], inside=True)
        if own == before:
            break
    scores = 2 * products + torch.where(outside, -squares, squares)
    rounding = _ROUNDING * total.norm() * squares.sqrt()
    for member in own:  # whatever explains as much in its place is as likely
        gains = 2 * (products + with_others[member]) - squares
        same = (gains - gains[member]).abs() <= rounding
        scores = torch.where(same, scores.maximum(scores[member]), scores)
    return scores


def _best_space(seen: torch.Tensor, rows: int, exact: bool, seed: int) -> _Space:
    """The space in which public rows that were held out are told best from each other in sums of them."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(seen), generator=generator)
    held = seen[order[: max(2, min(_MOST_HELD_OUT, int(_HELD_OUT * len(seen))))]]
    kept = seen[order[len(held) :]] if len(seen) > len(held) + 1 else seen
    tries = max(2, min(_TRIES, _ROWS_TRIED // rows))
    batches = torch.randint(len(held), (tries, rows), generator=generator)
    means = held[batches].mean(dim=1)

    def mean_rank(space: _Space) -> float:
        single = space.of(held)
        sums = rows * space.of(means)
        scores = torch.stack([_explained(each, single, rows if exact else 0) for each in sums])
        return float(_mean_rank(scores, batches))

    return min(_spaces(kept, directions=exact), key=mean_rank)


def _spaces(seen: torch.Tensor, directions: bool) -> Iterator[_Space]:
    """Spaces to choose from, the most cautious ones first.

    In a trained net a few rows have gradients that are many orders longer than all others. Mean and variance
    are theirs alone, so there are spaces of directions as well, from which nothing is taken off.
    """
    mean = seen.mean(dim=0)
    kinds = [(mean, seen - mean)]
    if directions:
        kinds.append((torch.zeros_like(mean), seen / seen.norm(dim=1, keepdim=True).clamp(min=1e-300)))
    for origin, centred in kinds:
        values, vectors = torch.linalg.eigh(centred.T @ centred / max(1, len(seen) - 1))
        values = values.clamp(min=0)
        for penalty in PENALTIES:
            deviations = (values + penalty * values.mean().clamp(min=1e-300)).sqrt()
            yield _Space(origin, vectors / deviations)


def _mean_rank(scores: torch.Tensor, batches: torch.Tensor) -> torch.Tensor:
    """Of the rows of each batch the mean rank among all."""
    own = scores.gather(1, batches)
    return (scores[:, None, :] > own[:, :, None]).sum(dim=2).double().mean()
