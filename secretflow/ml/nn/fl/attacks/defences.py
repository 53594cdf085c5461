"""What a party can do to its weights or its upload before anyone sees it, as pure functions of tensors.

To compare with each other: pruning thins out the net itself, the others change only what is uploaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

Arrays = tuple[torch.Tensor, ...]


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


def add_noise(
    upload: Sequence[torch.Tensor], noise_multiplier: float, l2_norm_clip: float, generator: torch.Generator
) -> Arrays:
    """Clips an upload by its norm over all arrays and adds Gaussian noise.

    What upstream's ``GaussianModelDP`` does for one client and one update, with a generator of the caller's.

    Args:
        upload: gradient or weight update.
        noise_multiplier: standard deviation of the noise in units of ``l2_norm_clip``, at least 0.
        l2_norm_clip: largest norm that is left as it is, above 0.
        generator: of the noise.

    Returns:
        Arrays of the same shapes.

    Raises:
        ValueError: a number is out of its range.
    """
    if not 0 <= noise_multiplier < float("inf"):
        raise ValueError(f"noise_multiplier={noise_multiplier!r} is not allowed: at least 0")
    if not 0 < l2_norm_clip < float("inf"):
        raise ValueError(f"l2_norm_clip={l2_norm_clip!r} is not allowed: above 0")
    flat = _flatten(upload)
    norm = float(flat.norm())
    clipped = flat * min(1.0, l2_norm_clip / norm) if norm else flat
    noise = torch.randn(flat.shape, generator=generator, dtype=flat.dtype)
    return _split(clipped + noise_multiplier * l2_norm_clip * noise, upload)


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
