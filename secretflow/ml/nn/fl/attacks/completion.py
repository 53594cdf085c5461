"""Fills in a matrix of low rank of which some numbers are seen: the gradient of a pruned layer.

The gradient of a fully connected layer has the rank of the rows behind it. A mask hides most of its numbers,
but those that it shows are more than a matrix of that rank is free to choose as long as rows are few.

Source: Jain, Netrapalli, Sanghavi, "Low-rank matrix completion using alternating minimization", STOC 2013,
algorithm 1; from its spectral start without its split of what is seen.
"""

from __future__ import annotations

import torch

_STEPS = 1000
EXACT = 1e-5
"""Relative error of what is seen at which a matrix counts as exact; float32 keeps about 1e-7."""
_LAST = 1e-13
"""Last weight of the penalty, relative to the first."""


def completed(
    values: torch.Tensor, seen: torch.Tensor, rank: int, good: float = EXACT
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """A matrix of a rank that agrees with what is seen.

    Args:
        values: float64 of shape (rows, columns); what is not seen does not count.
        seen: bool of the same shape.
        rank: at least 1.
        good: relative error of what is seen at which the matrix counts as found.

    Returns:
        Factors of shapes (rows, rank) and (rank, columns); None if none was found. Where too little is seen
        there are many such matrices, and one of them is given.
    """
    counts = seen.to(values)
    given = values * counts
    # At unit length of each row that is seen, for neurons differ by orders of magnitude.
    lengths = given.norm(dim=1, keepdim=True)
    scale = torch.where(lengths > 0, lengths, torch.ones_like(lengths))
    given = given / scale
    left, singular, right = torch.linalg.svd(given, full_matrices=False)
    rows = left[:, :rank] * singular[:rank].sqrt()
    columns = right[:rank].T * singular[:rank].sqrt()
    for step in range(_STEPS):
        penalty = 0.1 * _LAST ** min(1.0, step / 60)
        columns = _solved(given.T, counts.T, rows, penalty)
        rows = _solved(given, counts, columns, penalty)
        if step % 20 == 19:
            error = ((rows @ columns.T - given) * counts).norm() / given.norm().clamp(min=1e-300)
            if error < good:
                return scale * rows, columns.T
    return None


def _solved(given: torch.Tensor, counts: torch.Tensor, others: torch.Tensor, penalty: float) -> torch.Tensor:
    """For each row of a matrix the factor that explains it best beside the other factor."""
    rank = others.shape[1]
    products = (others[:, :, None] * others[:, None, :]).flatten(1)
    system = (counts @ products).view(-1, rank, rank)
    diagonal = penalty * system.diagonal(dim1=1, dim2=2).mean().clamp(min=1e-300)
    system = system + diagonal * torch.eye(rank, dtype=given.dtype)
    return torch.linalg.solve(system, given @ others)
