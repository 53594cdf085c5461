"""What a party can do to its weights or its upload before anyone sees it, as pure functions of tensors.

To compare with each other: pruning thins out the net itself, the others change only what is uploaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

Arrays = tuple[torch.Tensor, ...]


class DPStrategy(Protocol):
    """Upstream's ``DPStrategyFL``, named here by what is used of it, so that this needs no SecretFlow."""

    model_gdp: Any


def magnitude_mask(weights: Mapping[str, torch.Tensor], pruned: float) -> dict[str, torch.Tensor]:
    """The mask of weight pruning: of each array of two or more dimensions the smallest weights go.

    Args:
        weights: by name; arrays of fewer dimensions are not prunable.
        pruned: part of each array that goes, in [0, 1); at least one weight of each stays.

    Returns:
        For each prunable array 0 where it is pruned and 1 where it lives.

    Raises:
        ValueError: ``pruned`` is out of its range.
    """
    if not 0 <= pruned < 1:
        raise ValueError(f"pruned={pruned!r} is not allowed: a part in [0, 1)")
    return {
        name: _largest(weight, max(1, round(weight.numel() * (1 - pruned))))
        for name, weight in weights.items()
        if weight.dim() >= 2
    }


def sparsify(upload: Sequence[torch.Tensor], dropped: float) -> Arrays:
    """Keeps the largest entries of an upload, over all arrays together, and sets the others to zero.

    Source: Zhu, Liu, Han, "Deep Leakage from Gradients", NeurIPS 2019, section 5.2 ("gradient compression
    and sparsification"), there by array.

    Args:
        upload: gradient or weight update.
        dropped: part of the entries that is set to zero, in [0, 1); at least one stays.

    Returns:
        Arrays of the same shapes.

    Raises:
        ValueError: ``dropped`` is out of its range.
    """
    if not 0 <= dropped < 1:
        raise ValueError(f"dropped={dropped!r} is not allowed: a part in [0, 1)")
    flat = _flatten(upload)
    return _split(flat * _largest(flat, max(1, round(flat.numel() * (1 - dropped)))), upload)


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
    if not 0 <= withheld < 1:
        raise ValueError(f"withheld={withheld!r} is not allowed: a part in [0, 1)")
    flat = _flatten(update)
    return _split(flat * (1 - _largest(flat, min(flat.numel() - 1, round(flat.numel() * withheld)))), update)


def through_dp(upload: Sequence[torch.Tensor], dp_strategy: DPStrategy, seed: int) -> Arrays:
    """What upstream's ``dp_strategy`` makes of an upload: clipped by its norm, and with Gaussian noise.

    Upstream's strategies that upload gradients (``fed_avg_g``) send ``dp_strategy.model_gdp(gradients)``,
    and that is what is called here.

    Args:
        upload: gradient or weight update, float32.
        dp_strategy: upstream's ``DPStrategyFL``; its ``model_gdp`` must not use the secure generator, which
            has no seed.
        seed: of the noise, which upstream draws from numpy's global generator; that is left as it was.

    Returns:
        Arrays of the same shapes.

    Raises:
        ValueError: there is no ``model_gdp``, or one with the secure generator.
    """
    mechanism = dp_strategy.model_gdp
    if mechanism is None or mechanism.is_secure_generator:
        raise ValueError(f"model_gdp={mechanism!r} is not allowed: one without the secure generator")
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        noisy = mechanism([array.numpy(force=True) for array in upload])
    finally:
        np.random.set_state(state)
    return tuple(torch.from_numpy(array).to(like) for array, like in zip(noisy, upload, strict=True))


def support(upload: Sequence[torch.Tensor], names: Sequence[str]) -> dict[str, torch.Tensor]:
    """The support that an upload in the clear shows by its zeros: 0 where it is zero and 1 elsewhere.

    Args:
        upload: arrays.
        names: their names.
    """
    return {name: (array != 0).to(array.dtype) for name, array in zip(names, upload, strict=True)}


def _largest(array: torch.Tensor, count: int) -> torch.Tensor:
    """1 at the ``count`` entries of the largest magnitude, 0 elsewhere; of equal ones the first stay."""
    order = array.detach().abs().flatten().argsort(descending=True, stable=True)
    kept = torch.zeros(array.numel(), dtype=array.dtype)
    kept[order[:count]] = 1
    return kept.view_as(array)


def _flatten(arrays: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([array.flatten() for array in arrays])


def _split(flat: torch.Tensor, like: Sequence[torch.Tensor]) -> Arrays:
    parts = flat.split([array.numel() for array in like])
    return tuple(part.view_as(array) for part, array in zip(parts, like, strict=True))
