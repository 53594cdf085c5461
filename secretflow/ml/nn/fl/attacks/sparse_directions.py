"""Sparse vectors in a subspace: rows with dark numbers, or neurons that a row does not switch on."""

from __future__ import annotations

import torch

_STEPS = 40
_POWER = 0.5
_LAST = 1e-6
_SPHERE_STEPS = 50
_SPHERE_POWER = 0.7
_SPHERE_LAST = 1e-5


def sparse_directions(basis: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """Vectors of a subspace with few numbers that are not zero, each the sparsest with a 1 at its start.

    Minimises the sum of the square roots of the absolute values by least squares that are weighted anew.
    Source: Spielman, Wang, Wright, "Exact recovery of sparsely-used dictionaries", COLT 2012, section 3, for
    the problem (there with absolute values); Chartrand and Yin, "Iteratively reweighted algorithms for
    compressive sensing", ICASSP 2008, section 2, for the minimiser. It may end at a vector that is not the
    sparsest, so check it.

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


def sparse_units(basis: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """Unit vectors of a subspace with few numbers that are not zero.

    Minimises a power of the absolute values over the sphere by least squares that are weighted anew, of which
    each takes two steps of the inverse iteration. Where about half of the numbers of sparse vectors are zero
    and there are ten numbers for each dimension, many starts end at one of them; with half as many few do.
    Check what comes back.
    Source: Qu, Sun, Wright, "Finding a sparse vector in a subspace", NeurIPS 2014, section 2, for the
    problem; Chartrand and Yin, "Iteratively reweighted algorithms for compressive sensing", ICASSP 2008,
    section 2, for the minimiser.

    Args:
        basis: orthonormal, float64 of shape (size, rank).
        starts: coefficients of the vectors to start from, none of them all zeros, float64 of shape
            (starts, rank).

    Returns:
        Coefficients of unit length, (starts, rank).
    """
    identity = 1e-12 * torch.eye(basis.shape[1], dtype=basis.dtype, device=basis.device)
    units = _of_unit_length(starts)
    for step in range(_SPHERE_STEPS):
        smoothing = _SPHERE_LAST ** ((step / (_SPHERE_STEPS - 1)) ** 2)
        values = units @ basis.T * len(basis) ** 0.5
        weights = (values.square() + smoothing**2) ** (_SPHERE_POWER / 2 - 1)
        gram = (weights[:, :, None] * basis).mT @ basis
        gram = gram + gram.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None] * identity
        for _ in range(2):
            units = _of_unit_length(torch.linalg.solve(gram, units))
    return units


def _of_unit_length(vectors: torch.Tensor) -> torch.Tensor:
    return vectors / vectors.norm(dim=1, keepdim=True)
