"""Which candidates single neurons of a first fully connected layer hold, in batches and averages.

A neuron that one row alone switches on holds that row, the gradient of its weights being the row times that
of its bias, and candidates can be compared with what its living weights show. Where some rows are known, a
neuron that these and one more row switch on tells the latter: what the known ones cannot explain of it is
that row's. So rows are found one after the other. Parties may have masks of their own, and few weights
living; two neurons need not show the same numbers, as :mod:`~.neurons` asks. To use in nets that begin with
such a layer and a ReLU, where there are candidates.

Source: Marchand et al., "SRATTA: Sample re-attribution attack of secure aggregation in federated learning",
ICML 2023, section 3, for neurons of a single row; the rest is least squares.
"""

from __future__ import annotations

import torch

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.first_gradients import FirstGradient, with_ones
from secretflow.ml.nn.fl.attacks.observation import Observation, check_one_step

_AGREE = 1e-3
"""Part of what known rows leave over of a neuron up to which a candidate explains it; float32 keeps 1e-6."""
_SURPLUS = 4
"""Numbers that are not zero and agree, beside one for each row that is fitted, from which a neuron counts."""
_DARK, _EXPLAINED = 1e-9, 1e-4
"""Of a neuron of length 1: numbers that are zero, and what is left of one that known rows explain."""
_ENOUGH = 8
"""Such numbers over all neurons, at least, of a candidate that is found."""


def match_neurons(observation: Observation, x: torch.Tensor) -> torch.Tensor:
    """How much of the neurons each candidate explains.

    Args:
        observation: of one local step, of a batch or an average with any number of rows.
        x: candidates, float of shape (candidates, *image_shape).

    Returns:
        float64 of shape (candidates,): how many numbers agree beyond those that were fitted, and below 1 for
        a candidate that no neuron tells. At most as many as there are rows are told.

    Raises:
        TypeError: something is of the wrong type.
        ValueError: the input goes into no fully connected layer with bias, several local steps were taken, or
            ``x`` does not fit.
    """
    _validate.instance("observation", observation, Observation, "an Observation")
    rows = with_ones(observation, x).T.contiguous()
    check_one_step(observation, "match candidates with neurons")
    layer = FirstGradient.of(observation)
    alive = layer.seen().double()
    seen = layer.both() * alive
    lengths = seen.norm(dim=1)
    strong = lengths > 1e-5 * lengths.max()
    neurons, alive = (seen / lengths.clamp(min=1e-300)[:, None])[strong], alive[strong]
    known: list[int] = []
    scores = torch.zeros(len(x), dtype=torch.float64)
    while len(known) < observation.batch_size:
        told = _told(neurons, alive, rows, known)
        told[known] = 0
        best = told.topk(min(len(told), observation.batch_size - len(known)))
        new = best.indices[best.values >= _ENOUGH].tolist()
        if not new:
            return scores.maximum(told.clamp(max=_ENOUGH - 1) / _ENOUGH)
        scores[new] = told[new]
        known += new
    return scores


def _told(neurons: torch.Tensor, alive: torch.Tensor, rows: torch.Tensor, known: list[int]) -> torch.Tensor:
    """For each candidate the numbers that agree beyond those fitted, over the neurons that it explains.

    Args:
        neurons: what is seen of each, of unit length, (neurons, size).
        alive: 1 where something is, (neurons, size).
        rows: candidates, (size, candidates).
        known: numbers of those that are fitted to every neuron first.
    """
    surplus = (neurons.abs() > _DARK).sum(dim=1) - len(known) - 1
    enough = surplus >= _SURPLUS
    neurons, alive, surplus = neurons[enough], alive[enough], surplus[enough]
    lengths, products = alive @ rows.square(), neurons @ rows
    told = torch.zeros(rows.shape[1], dtype=torch.float64)
    for number, here in enumerate(alive.bool()):
        length, along, unexplained = lengths[number], products[number], neurons[number].square().sum()
        if known:
            basis, values, _ = torch.linalg.svd(rows[here][:, known], full_matrices=False)
            basis = basis[:, values > _DARK * values[0]]
            on_known = basis.T @ neurons[number, here]
            unexplained = unexplained - on_known.square().sum()
            if unexplained <= _EXPLAINED**2:
                continue
            of_known = basis.T @ rows[here]
            length, along = length - of_known.square().sum(dim=0), along - on_known @ of_known
        left = unexplained - along.square() / length.clamp(min=_DARK)
        told += surplus[number] * (left <= _AGREE**2 * unexplained)
    return told
