"""A party's largest updates, kept out of its upload and put on top of the next average."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from secretflow import _validate

Arrays = tuple[torch.Tensor, ...]


def withhold(update: Sequence[torch.Tensor], withheld: float) -> Arrays:
    """Keeps the largest entries of an update at home, over all arrays together, and uploads the others.

    Source: Chu et al., "PriPrune", 2023, arXiv 2310.19958: the entries that tell most about the rows.

    Args:
        update: weight update or gradient.
        withheld: part of the entries that is set to zero, in [0, 1); at least one stays.

    Returns:
        Arrays of the same shapes.

    Raises:
        ValueError: ``withheld`` is out of its range.
    """
    _validate.number("withheld", withheld, at_least=0, below=1)
    size = sum(array.numel() for array in update)
    largest = largest_entries(update, min(size - 1, round(size * withheld)))
    return tuple(array * (1 - entry) for array, entry in zip(update, largest, strict=True))


def largest_entries(arrays: Sequence[torch.Tensor], count: int) -> Arrays:
    """1 at the entries of the largest magnitude, over all arrays together, 0 elsewhere.

    Args:
        arrays: of one dtype.
        count: how many entries are marked, from 0 to all of them; of equal ones the first.

    Returns:
        Arrays of the same shapes and dtype.
    """
    flat = torch.cat([array.detach().flatten() for array in arrays])
    order = flat.abs().argsort(descending=True, stable=True)
    marked = torch.zeros_like(flat)
    marked[order[:count]] = 1
    parts = marked.split([array.numel() for array in arrays])
    return tuple(part.view_as(array) for part, array in zip(parts, arrays, strict=True))


class Withholding:
    """What a party keeps to itself (Chu et al., "PriPrune", 2023, arXiv 2310.19958).

    Args:
        part: of what lives, whose update is kept, in (0, 1).
        parameters: what is trained and uploaded; the methods take the same ones.

    Attributes:
        differences: what is kept, of each parameter, zero where nothing is.
    """

    def __init__(self, part: float, parameters: Sequence[torch.Tensor]) -> None:
        self._part = part
        self._start: list[torch.Tensor] = []
        self.differences = [torch.zeros_like(parameter) for parameter in parameters]

    def begin(self, parameters: Sequence[torch.Tensor]) -> None:
        """Puts what is kept on top of the average, which a round begins with."""
        self._start = [parameter.clone() for parameter in parameters]
        for parameter, difference in zip(parameters, self.differences, strict=True):
            parameter += difference

    def give_up(self, parameters: Sequence[torch.Tensor]) -> None:
        """Goes back to the round's start, which the others know, when the round has failed."""
        for parameter, start in zip(parameters, self._start, strict=True):
            parameter.copy_(start)

    def end(self, parameters: Sequence[torch.Tensor], living: Sequence[torch.Tensor]) -> None:
        """Sets those elements back that differ most from the round's start, and keeps the differences.

        Args:
            parameters: changed in place.
            living: of each parameter which elements the own mask keeps, boolean.
        """
        differences = [p - start for p, start in zip(parameters, self._start, strict=True)]
        told = withhold(
            [difference[lives] for difference, lives in zip(differences, living, strict=True)], self._part
        )
        for k, lives in enumerate(living):
            hidden = torch.zeros_like(lives)
            hidden[lives] = (told[k] == 0) & (differences[k][lives] != 0)
            self.differences[k] = torch.where(hidden, differences[k], 0)
            parameters[k].copy_(torch.where(hidden, self._start[k], parameters[k]))
