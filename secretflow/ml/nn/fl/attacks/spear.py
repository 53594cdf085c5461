"""Inverts a batch exactly behind a fully connected layer and a ReLU, whatever comes after them.

The gradient of the layer's weights is the product of what comes back to its neurons, (neurons, rows), and
the rows. Its rank is the number of rows, so both are known but for one small invertible matrix. A ReLU lets
nothing back to a neuron that a row does not switch on, so a row's column of the matrix is a direction in
which about half of the neurons come to zero. Such directions are searched from random starts. Of a pruned
layer the gradient is filled in first (:mod:`~.completion`). To use for batches and averages in nets that
begin so, of up to about a tenth as many rows as the layer has neurons.

Limit: rows that switch on the same neurons, as rows of one label that resemble each other do where the layer
has few, are not told apart: any mixture of them has the same signs. So each row is put through the net once
more (:mod:`~.sent_back`), and one that does not send back what the gradient shows counts as not found. Then
fewer rows come back than there are, or none. In a pruned layer numbers of a row that too few living weights
show may be wrong in a row that is right otherwise.

Source: Dimitrov, Baader, Müller, Vechev, "SPEAR: Exact gradient inversion of batches in federated learning",
NeurIPS 2024, sections 3 and 4: the low rank, the scales by the gradient of the bias, and the choice among
candidates by the signs that the rows give. The paper draws neurons until a row switches none of them on,
which takes twice as long for each row more; :func:`~.sparse_directions.sparse_units` replaces that.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.columns import SAME, ZERO, independent, null, patterns, zeros
from secretflow.ml.nn.fl.attacks.first_gradients import FirstGradient
from secretflow.ml.nn.fl.attacks.net import by_first_name
from secretflow.ml.nn.fl.attacks.observation import Observation, check_one_step
from secretflow.ml.nn.fl.attacks.sent_back import explained
from secretflow.ml.nn.fl.attacks.sparse_directions import sparse_units

_AT_ONCE, _MORE_AT_ONCE = 128, 16
_EXACT_ZERO = 1e-5
"""Part of the largest number of a direction of the search below which another one counts as zero."""
_MORE = 4
"""Neurons where a column must be zero, beside as many as any direction can be zero at."""
_PAIRED = 64
"""Columns at most of which all pairs are mixed."""


@dataclass(frozen=True)
class SpearSettings:
    """How hard to try.

    Attributes:
        starts: of the search at most, at least 1. With ten neurons for each row most batches of pictures take
            a few hundred.
        agreement: part of the neurons to which anything comes back that a row must switch on just where
            something comes back from it, to count as read, in (0, 1]; less than all, for parties with masks
            of their own have other nets.
        seed: of the starts.
        seconds: after which the best that was found counts, above 0; some starts are always made. None
            goes on to the last one.
        explained: whether a row only counts as read if it sends back what the gradient shows of it. Without,
            mixtures of rows that resemble each other count as rows; for parties with masks of their own,
            whose nets are others than the one that is seen.

    Raises:
        TypeError: a value is of the wrong type.
        ValueError: a number is out of its range.
    """

    starts: int = 5_000
    agreement: float = 0.95
    seed: int = 0
    seconds: float | None = None
    explained: bool = True

    def __post_init__(self) -> None:
        _validate.plain_fields(self)
        _validate.integer("starts", self.starts, 1)
        _validate.integer("seed", self.seed, 0)
        _validate.number("agreement", self.agreement, above=0, at_most=1)
        _validate.number("seconds", self.seconds, above=0, optional=True)
        _validate.flag("explained", self.explained)


def spear_attack(observation: Observation, settings: SpearSettings = SpearSettings()) -> torch.Tensor:
    """The rows of a batch or an average.

    Args:
        observation: of one local step; its ``batch_size`` is the number of all rows, which need not have
            equal weights and must be fewer than the first layer has neurons.
        settings: how hard to try.

    Returns:
        float64 of shape (read, *image_shape): the rows that switch on just those neurons to which something
        comes back from them, and that explain it; none where too few columns were found. Rows that were not
        told apart are missing.

    Raises:
        TypeError: something is of the wrong type.
        ValueError: the input goes into no fully connected layer with bias, several local steps were taken, or
            there are too many rows.
    """
    _validate.instance("observation", observation, Observation, "an Observation")
    _validate.instance("settings", settings, SpearSettings, "SpearSettings")
    end = math.inf if settings.seconds is None else time.perf_counter() + settings.seconds
    layer = _Layer.of(observation)
    shape = observation.image_shape
    best, agreeing = layer.inputs.new_zeros(0, layer.inputs.shape[1]), layer.inputs.new_zeros(0)
    columns = layer.inputs.new_zeros(0, layer.rank)
    for candidates in layer.searched(settings):
        columns = layer.distinct(torch.cat([columns, candidates]))
        columns = layer.distinct(torch.cat([columns, layer.simpler(columns)]))
        if len(columns) >= layer.rank:
            best, agreeing = layer.chosen(columns, settings.agreement, end)
            if len(best) and bool((agreeing >= settings.agreement).all()):
                break
        if time.perf_counter() > end:
            break
    agrees = agreeing >= settings.agreement
    found = best[agrees].reshape(-1, *shape)
    if settings.explained:
        found = found[explained(observation, layer.bias_number, found, layer.shown(best)[agrees])]
    return found


@dataclass(frozen=True)
class _Layer:
    """The first layer and its gradient, taken apart: ``outputs @ q @ inverse(q) @ inputs`` for some ``q``."""

    weight: torch.Tensor
    bias: torch.Tensor
    of_bias: torch.Tensor
    outputs: torch.Tensor
    inputs: torch.Tensor
    bias_number: int

    @property
    def rank(self) -> int:
        """How many rows there are."""
        return len(self.inputs)

    @staticmethod
    def of(observation: Observation) -> _Layer:
        """Checks and takes apart, in double precision."""
        check_one_step(observation, "invert a batch exactly")
        layer = FirstGradient.of(observation)
        net = observation.model()
        names = [name for name, _ in net.named_parameters()]
        tensors = by_first_name(net, observation.pruned_weights())
        weight, bias = (tensors[names[number]].detach().cpu().double() for number in layer.numbers)
        rows, neurons = observation.batch_size, len(weight)
        what = f"below the number of neurons of the first layer, {neurons}, to invert a batch"
        _validate.check(rows < neurons, "batch_size", rows, what)
        of_weight = layer.weight
        if not bool(layer.living.all()):
            factors = layer.factors(rows)
            of_weight = torch.zeros_like(of_weight) if factors is None else factors[0] @ factors[1][:, :-1]
        left, values, right = torch.linalg.svd(of_weight, full_matrices=False)
        kept = min(rows, int((values > 1e-7 * values[0]).sum())) if bool(values[0] > 0) else 0
        inputs = values[:kept, None] * right[:kept]
        return _Layer(weight, bias, layer.bias, left[:, :kept], inputs, layer.numbers[1])

    @cached_property
    def alive(self) -> torch.Tensor:
        """Neurons to which something comes back; to others nothing can where later layers are pruned."""
        lengths = self.outputs.norm(dim=1)
        return lengths > ZERO * lengths.max() if self.rank else lengths > 0

    def searched(self, settings: SpearSettings) -> Iterator[torch.Tensor]:
        """Candidates for columns of the matrix, of unit length, (candidates, rank), start by start."""
        outputs = self.outputs[self.alive]
        outputs = outputs / outputs.norm(dim=1, keepdim=True)
        if self.rank == 1:
            yield torch.ones(1, 1, dtype=outputs.dtype)
        if self.rank < 2 or len(outputs) < self.rank + _MORE:
            return
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        at_once = _AT_ONCE * (_MORE_AT_ONCE if device.type == "cuda" else 1)
        # At unit length of each neuron and in an orthonormal basis, for rows and neurons differ by orders.
        basis, mixed = torch.linalg.qr(outputs.to(device))
        generator = torch.Generator(device).manual_seed(settings.seed)
        for first in range(0, settings.starts, at_once):
            shape = (min(at_once, settings.starts - first), self.rank)
            starts = torch.randn(shape, generator=generator, dtype=basis.dtype, device=device)
            values = sparse_units(basis, starts) @ basis.T
            off = zeros(values.T, _EXACT_ZERO).T
            sparse = off.sum(dim=1) >= self.rank - 1 + _MORE
            # Two, for where two rows of one class are both off their difference is zero as well.
            rows = [null(basis[own], 2) for own in patterns(off[sparse])]
            found = torch.cat(rows) if rows else basis[:0]
            found = torch.linalg.solve_triangular(mixed, found.T, upper=True).T
            yield (found / found.norm(dim=1, keepdim=True)).cpu()

    def distinct(self, columns: torch.Tensor) -> torch.Tensor:
        """Each direction once, those of most zeros first."""
        if not len(columns):
            return columns
        counts = zeros(self.outputs @ columns.T).sum(dim=0)
        columns = columns[counts.argsort(descending=True, stable=True)]
        close = (columns @ columns.T).abs() > 1 - SAME
        return columns[close.int().argmax(dim=1) == torch.arange(len(columns))]

    def simpler(self, columns: torch.Tensor) -> torch.Tensor:
        """Mixtures of two columns, of unit length, that are zero at more neurons than both are.

        Of two rows that resemble each other the search finds one, and their difference, which is small at
        the neurons that both switch on. Where only one of them is on tells how much to take off.

        Args:
            columns: those of most zeros first, (columns, rank).
        """
        outputs = self.outputs[self.alive]
        if self.rank < 2 or len(outputs) < self.rank + _MORE:
            return columns[:0]
        some = columns[:_PAIRED]
        values = outputs @ some.T
        zero = zeros(values)
        found = []
        for number, column in enumerate(some):
            ratios = torch.where(zero, torch.inf, values[:, number, None] / values)
            ratios = torch.where(zero[:, number, None], torch.inf, ratios).sort(dim=0).values
            gaps, places = (ratios[_MORE:] - ratios[:-_MORE]).nan_to_num(torch.inf).min(dim=0)
            part = ratios.gather(0, places[None])[0]
            same = gaps < ZERO * part.abs()
            found.append(column - part[same, None] * some[same])
        mixed = torch.cat(found) if found else columns[:0]
        mixed = mixed[mixed.norm(dim=1) > SAME]
        mixed = mixed / mixed.norm(dim=1, keepdim=True)
        off = zeros(outputs @ mixed.T)
        more = off.sum(dim=0) >= self.rank - 1 + _MORE
        rows = [null(outputs[own], 1) for own in patterns(off[:, more].T)]
        return torch.cat(rows) if rows else columns[:0]

    def chosen(self, columns: torch.Tensor, enough: float, end: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of the columns that agree best with the signs that they give, and how far each agrees.

        Args:
            columns: candidates, those of most zeros first, (candidates, rank).
            enough: agreement from which on a row is not exchanged.
            end: time, as of ``time.perf_counter``, after which no row is exchanged any more.

        Returns:
            Rows, (rank, inputs), and the part of the neurons that each switches on where it should, (rank,);
            none where the candidates do not span the space.
        """
        own = independent(columns, self.rank)
        if len(own) < self.rank:
            return self.inputs[:0], self.inputs.new_zeros(0)
        rows, agreeing = self._rows(columns[own])
        for candidate in (number for number in range(len(columns)) if number not in own):
            worst = int(agreeing.argmin())
            if agreeing[worst] >= enough or time.perf_counter() > end:
                break
            other = [*own[:worst], candidate, *own[worst + 1 :]]
            if len(independent(columns[other], self.rank)) < self.rank:
                continue
            changed, agree = self._rows(columns[other])
            if agree.sum() > agreeing.sum():
                own, rows, agreeing = other, changed, agree
        return rows, agreeing

    def shown(self, rows: torch.Tensor) -> torch.Tensor:
        """What the gradient shows to come back from each of all rows, (rows, neurons)."""
        return (self.outputs @ self.inputs @ torch.linalg.pinv(rows)).T

    def _rows(self, columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of as many columns, scaled by the gradient of the bias, and how far each agrees."""
        scales = torch.linalg.solve(columns.T, self.outputs.T @ self.of_bias)
        matrix = columns.T * scales
        rows = torch.linalg.pinv(matrix) @ self.inputs
        back = (self.outputs @ matrix).abs()
        on = rows @ self.weight.T + self.bias > 0
        shown = (back > ZERO * back.amax(dim=0)).T
        return rows, (on == shown)[:, self.alive].double().mean(dim=1)
