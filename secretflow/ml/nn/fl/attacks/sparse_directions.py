"""Sparse vectors in a subspace: rows with dark numbers, found in what their mixtures span."""

from __future__ import annotations

import torch

_STEPS = 40
_POWER = 0.5
_LAST = 1e-6


def sparse_directions(basis: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """Vectors of a subspace with few numbers that are not zero, each the sparsest with a 1 at its start.

    Minimises the sum of the square roots of the absolute values by least squares that are weighted anew.
    Source: Spielman, Wang, Wright, "Exact recovery of sparsely-used dictionaries", COLT 2012, section 3, for
        the problem
    (there with absolute values); Chartrand and Yin, "Iteratively reweighted algorithms for compressive
    sensing", ICASSP 2008, section 2, for the minimiser. It may end at a vector that is not the sparsest, so
    check it.

    Args:
        basis: of the subspace, float64 of shape (size, rank).
        starts: numbers of the coordinates that are held at 1, int64 of shape (starts,).

    Returns:
        Coefficients of the vectors, (starts, rank).
    """
    held = basis[starts]
    weights = basis.new_ones(len(starts), len(basis))
    identity = torch.eye(basis.shape[1], dtype=basis.dtype)
    coefficients = held
    for step in range(_STEPS):
        gram = (weights[:, :, None] * basis).mT @ basis
        gram = gram + 1e-12 * gram.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None] * identity
        solved = torch.linalg.solve(gram, held)
        coefficients = solved / (solved * held).sum(dim=1, keepdim=True)
        smoothing = _LAST ** (step / (_STEPS - 1))
        weights = ((coefficients @ basis.T).square() + smoothing**2) ** (_POWER / 2 - 1)
    return coefficients
