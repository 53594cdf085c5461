"""Columns of a gradient taken apart: where they are zero, what is zero there, and which are independent."""

from __future__ import annotations

import numpy as np
import torch

ZERO = 1e-4
"""Part of the largest number of a column below which another one counts as zero; float32 keeps about 1e-6."""
SAME = 1e-3
"""Length up to which what is left of a column of unit length counts as nothing."""
_MOST = 1000
"""Patterns at most that are taken at a time."""


def zeros(values: torch.Tensor, below: float = ZERO) -> torch.Tensor:
    """Which numbers count as zero beside the largest of their column, bool of the shape of ``values``."""
    sizes = values.abs()
    return sizes < below * sizes.amax(dim=0)


def patterns(zeros: torch.Tensor) -> torch.Tensor:
    """Each pattern once, for many starts end at one column, those of most zeros first."""
    distinct = torch.from_numpy(np.unique(zeros.numpy(force=True), axis=0))
    return distinct[distinct.sum(dim=1).argsort(descending=True)[:_MOST]].to(zeros.device)


def null(rows: torch.Tensor, count: int) -> torch.Tensor:
    """Unit vectors of the smallest products with some rows, (count, rank)."""
    return torch.linalg.svd(rows, full_matrices=True).Vh[-count:]


def independent(columns: torch.Tensor, rank: int) -> list[int]:
    """Numbers of the first columns that do not depend on those before, as many as the rank at most."""
    own: list[int] = []
    basis = columns[:0]
    for number, column in enumerate(columns):
        left = column - basis.T @ (basis @ column)
        if left.norm() > SAME:
            basis, own = torch.cat([basis, (left / left.norm())[None]]), [*own, number]
        if len(own) == rank:
            break
    return own
