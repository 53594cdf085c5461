"""Reads single rows off the average gradient of many, in nets of two fully connected layers and a ReLU.

The gradient of the first layer is a sum of outer products, one for each row: of what comes back to the layer,
which is zero at a neuron that the row does not switch on, and the row itself. A neuron that one row alone
switches on holds that row, exactly. Rows with many dark numbers are also the sparsest vectors of the space
that the gradient's rows span. Once a row is read its whole gradient is known, with its label and its weight
in the average, and is taken off; then neurons that two rows switched on hold the other one, and so on.

Source: Marchand et al., "SRATTA: Sample re-attribution attack of secure aggregation in federated learning",
ICML 2023, section 3, for neurons of a single row; Dimitrov et al., "SPEAR: Exact gradient inversion of
batches in federated learning", NeurIPS 2024, section 3, for the gradient's low rank, by which each reading
is checked here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.observation import Observation, check_one_step
from secretflow.ml.nn.fl.attacks.sparse_directions import sparse_directions

_TOLERANCE = 1e-3
"""Relative error up to which a reading counts as explained; float32 keeps about 1e-6 of an average."""

_STARTS = 128
"""Coordinates at most from which sparse rows are searched at a time."""


@dataclass(frozen=True)
class Reading:
    """Rows that were read off an average.

    Attributes:
        images: float64 of shape (read, *image_shape), in the order in which they were read.
        labels: int64 of shape (read,).
        weights: of each row in the average, float64 of shape (read,): its party's aggregation weight over the
            rows of that party's batch. Parties of unequal weights are told apart by it.
        unexplained: part of the norm of the first layer's gradient that stays once all of them are taken
            off, 0 is nothing; it can exceed 1.
    """

    images: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor
    unexplained: float


def read_average(observation: Observation) -> Reading:
    """Reads as many rows as can be read one after the other.

    Args:
        observation: of the average; its ``batch_size`` is the number of all rows in it, which need not have
            equal weights and must be fewer than the first layer has neurons.

    Returns:
        The rows, none of them twice; none at all where none can be read.

    Raises:
        TypeError: it is no observation.
        ValueError: the net is another one, several local steps were taken, or too many rows were averaged.
    """
    average = _Average.of(observation)
    neurons = len(average.first)
    _validate.check(
        observation.batch_size < neurons,
        "batch_size",
        observation.batch_size,
        f"below the number of neurons of the first layer, {neurons}, to read rows off their average",
    )
    left = average.gradient
    found: list[Found] = []
    while len(found) < observation.batch_size:
        remaining = observation.batch_size - len(found)
        new = average.accepted(_of_single_neurons(left), found, observation.bounds)
        if not new:
            new = average.accepted(_sparse(average.without(found), remaining), found, observation.bounds)
        if not new:
            break
        for row, label, weight in new[:remaining]:
            found.append((row, label, weight))
            left = left - weight * torch.outer(average.backs([(row, label, weight)])[0], row)
    found = average.weighed(found) if len(found) == observation.batch_size else found
    left = average.gradient - average.explained(found)
    rows = torch.stack([row[:-1] for row, _, _ in found]) if found else average.gradient[:0, :-1]
    return Reading(
        rows.reshape(len(found), *observation.image_shape),
        torch.tensor([label for _, label, _ in found], dtype=torch.int64),
        torch.tensor([weight for _, _, weight in found], dtype=torch.float64),
        float(left.norm() / average.gradient.norm().clamp(min=1e-300)),
    )


def distance_from_average(observation: Observation, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """How far each of some rows is from being in an average: a test of membership.

    A row that is in it lies in the space that the rows of the first layer's gradient span, and what it sends
    back to that layer in the space of the columns. As long as fewer rows were averaged than the layer has
    neurons, other rows do not.

    Args:
        observation: see :func:`read_average`; with as many rows as neurons, or more, nothing is told apart.
        x: rows to ask for, float of shape (rows, *image_shape).
        y: their labels, int64 of shape (rows,).

    Returns:
        The larger one of the two relative distances, float64 of shape (rows,), in [0, 1]; near 0 is in.

    Raises:
        TypeError: it is no observation, or rows or labels are no tensor.
        ValueError: the net is another one, several local steps were taken, or rows or labels do not fit it.
    """
    average = _Average.of(observation)
    for name, value in (("x", x), ("y", y)):
        _validate.instance(name, value, torch.Tensor, "a tensor")
    shape = observation.image_shape
    _validate.check(tuple(x.shape[1:]) == shape, "x", tuple(x.shape), f"rows of shape {shape}")
    labels = y.dtype == torch.int64 and y.shape == x.shape[:1]
    _validate.check(labels, "y", (y.dtype, tuple(y.shape)), f"int64 of shape {tuple(x.shape[:1])}")
    fit = bool(((y >= 0) & (y < observation.classes)).all())
    _validate.check(fit, "y", y.tolist(), f"from 0 to {observation.classes - 1}")
    rows = _with_one(x.flatten(1).double())
    return average.distance(rows, average.back(rows, y))


Found = tuple[torch.Tensor, int, float]
"""A row with a 1 behind it, its label, and its weight in the average."""


@dataclass(frozen=True)
class _Average:
    """A net of two layers, and the average gradient of the first one: weights and, as last column, bias."""

    first: torch.Tensor
    second: torch.Tensor
    second_bias: torch.Tensor
    gradient: torch.Tensor
    columns: torch.Tensor
    values: torch.Tensor
    rows: torch.Tensor

    @staticmethod
    def of(observation: Observation) -> _Average:
        """Takes apart what was observed, in double precision."""
        _validate.instance("observation", observation, Observation, "an Observation")
        check_one_step(observation, "read rows off an average")
        net = observation.model()
        layers = [module for module in net.modules() if not list(module.children())]
        kinds = [type(layer) for layer in layers if not isinstance(layer, nn.Flatten)]
        biased = all(layer.bias is not None for layer in layers if isinstance(layer, nn.Linear))
        what = "two fully connected layers with bias and a ReLU between them, to read rows off its gradient"
        fits = kinds == [nn.Linear, nn.ReLU, nn.Linear] and biased
        _validate.check(fits, "model", [kind.__name__ for kind in kinds], what)
        tensors = observation.pruned_weights()
        first, bias, second, second_bias = (
            tensors[name].detach().cpu().double() for name, _ in net.named_parameters()
        )
        weight, of_bias = (gradient.detach().cpu().double() for gradient in observation.gradients[:2])
        gradient = torch.cat([weight, of_bias[:, None]], dim=1)
        spaces = _spaces(gradient, observation.batch_size)
        return _Average(torch.cat([first, bias[:, None]], dim=1), second, second_bias, gradient, *spaces)

    def back(self, rows: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """What comes back to the first layer's neurons from rows with a 1 behind them, (rows, neurons)."""
        before = rows @ self.first.T
        errors = (before.relu() @ self.second.T + self.second_bias).softmax(dim=1)
        errors = errors - nn.functional.one_hot(labels, len(self.second)).to(errors)
        return (errors @ self.second) * (before > 0)

    def backs(self, found: list[Found]) -> torch.Tensor:
        """What comes back from rows that were read, (found, neurons)."""
        if not found:
            return self.gradient.new_zeros(0, len(self.gradient))
        labels = torch.tensor([label for _, label, _ in found])
        return self.back(torch.stack([row for row, _, _ in found]), labels)

    def explained(self, found: list[Found]) -> torch.Tensor:
        """The part of the gradient that rows that were read make up."""
        weights = self.gradient.new_tensor([weight for _, _, weight in found])
        rows = [row for row, _, _ in found]
        inputs = torch.stack(rows) if rows else self.gradient[:0]
        return (self.backs(found) * weights[:, None]).T @ inputs

    def without(self, found: list[Found]) -> torch.Tensor:
        """The gradient at right angles to what rows that were read send back, whatever their weights are."""
        basis = torch.linalg.qr(self.backs(found).T).Q
        return self.gradient - basis @ (basis.T @ self.gradient)

    def weighed(self, found: list[Found]) -> list[Found]:
        """All rows of the average with the weights that explain it best."""
        rows, backs = torch.stack([row for row, _, _ in found]), self.backs(found)
        products = ((backs @ self.gradient) * rows).sum(dim=1)
        weights = torch.linalg.lstsq((backs @ backs.T) * (rows @ rows.T), products[:, None]).solution
        return [(row, label, float(w)) for (row, label, _), w in zip(found, weights[:, 0], strict=True)]

    def distance(self, rows: torch.Tensor, backs: torch.Tensor) -> torch.Tensor:
        """See :func:`distance_from_average`."""
        return torch.maximum(_outside(rows, self.rows), _outside(backs, self.columns))

    def accepted(
        self, candidates: torch.Tensor, before: list[Found], bounds: tuple[float, float]
    ) -> list[Found]:
        """The candidates that are rows of the average, none of them twice, with label and weight.

        The weight is the one with which taking the row off lowers the rank of the gradient. Source:
        Wedderburn, "Lectures on matrices" (1934), section 5.
        """
        slack = _TOLERANCE * max(1.0, *(abs(end) for end in bounds)) if bounds[1] < float("inf") else 0.0
        inputs = candidates[:, :-1]
        within = ((inputs >= bounds[0] - slack) & (inputs <= bounds[1] + slack)).all(dim=1)
        candidates = candidates[within]
        if not len(candidates):
            return []
        distances, weights = [], []
        for label in range(len(self.second)):
            backs = self.back(candidates, torch.full((len(candidates),), label))
            inverse = ((candidates @ self.rows / self.values) * (backs @ self.columns)).sum(dim=1)
            weight = 1 / inverse
            distance = self.distance(candidates, backs)
            distances.append(torch.where((weight > 0) & (weight < 1 + _TOLERANCE), distance, torch.inf))
            weights.append(weight)
        best, labels = torch.stack(distances).min(dim=0)
        found: list[Found] = []
        for number in best.argsort().tolist():
            if not best[number] < _TOLERANCE:
                break
            row, label = candidates[number], int(labels[number])
            if all((row - other).abs().max() > 0.01 for other, _, _ in (*before, *found)):
                found.append((row, label, float(weights[label][number])))
        return found


def _with_one(rows: torch.Tensor) -> torch.Tensor:
    """Rows as the first layer gets them, with a 1 for its bias."""
    return torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)


def _spaces(gradient: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Orthonormal bases of columns and rows, (neurons, rank) and (inputs, rank), and the singular values."""
    left, values, right = torch.linalg.svd(gradient, full_matrices=False)
    kept = min(rank, int((values > 1e-7 * values[0]).sum()))
    return left[:, :kept], values[:kept], right[:kept].T


def _outside(vectors: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    """Which part of each vector's length lies outside of a space."""
    left = vectors - (vectors @ basis) @ basis.T
    return left.norm(dim=1) / vectors.norm(dim=1).clamp(min=1e-300)


def _of_single_neurons(gradient: torch.Tensor) -> torch.Tensor:
    """Candidates: for each neuron the row that it holds if it holds one alone."""
    bias = gradient[:, -1]
    strong = bias.abs() > 1e-6 * bias.abs().max()
    return gradient[strong] / bias[strong, None]


def _sparse(gradient: torch.Tensor, rank: int) -> torch.Tensor:
    """Candidates: the sparsest vectors of the space of rows."""
    _, _, basis = _spaces(gradient, rank)
    inputs = basis[:-1]
    lit = inputs.norm(dim=1)
    # Where little of the space is lit, few rows are.
    order = lit.argsort()
    order = order[lit[order] > 1e-3 * lit.max()]
    starts = order[torch.linspace(0, len(order) - 1, min(_STARTS, len(order))).long()]
    found = sparse_directions(inputs, starts) @ basis.T
    strong = found[:, -1].abs() > 1e-9
    return found[strong] / found[strong, -1:]
