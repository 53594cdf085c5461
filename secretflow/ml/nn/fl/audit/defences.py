"""What a party can do to its weights or its upload before anyone sees it, as pure functions of tensors.

To compare with each other: pruning thins out the net itself, the others change only what is uploaded. Pruning
is training's own, and so is withholding (:mod:`~secretflow.ml.nn.fl.backend.torch.withholding`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from secretflow import _validate
from secretflow.ml.nn.fl.backend.torch.masked_model import (
    entry_as_tensor,
    full_mask_of,
    masked_weights,
    prune_model,
)
from secretflow.ml.nn.fl.backend.torch.withholding import Arrays, largest_entries
from secretflow.ml.nn.fl.pruning import PruneSettings


class DPStrategy(Protocol):
    """Upstream's ``DPStrategyFL``, named here by what is used of it, so that this needs no SecretFlow."""

    model_gdp: Any


def magnitude_mask(
    model: Callable[[], nn.Module], weights: Mapping[str, torch.Tensor], pruned: float
) -> dict[str, torch.Tensor]:
    """The mask that a training has come to whose only step of pruning removes one part of every layer.

    It is training's own step (:func:`~secretflow.ml.nn.fl.backend.torch.masked_model.prune_model`), so it
    prunes the layers that training prunes, and rounds as training does.

    Args:
        model: builds the net.
        weights: its ``state_dict``; left as it is.
        pruned: part of the prunable weights that goes, in [0, 1); at least one weight of each layer stays.

    Returns:
        For each prunable parameter by name 0 where it is pruned and 1 where it lives, of the weight's dtype.

    Raises:
        ValueError: ``pruned`` is out of its range.
    """
    settings, net = one_step(pruned), model()
    net.load_state_dict(weights)
    mask = prune_model(net, full_mask_of(net), settings, epoch=1)
    return {name: entry_as_tensor(entry, weight) for name, weight, entry in masked_weights(net, mask)}


def one_step(pruned: float) -> PruneSettings:
    """Settings of a training that prunes once, at the end of its first epoch, every layer to one density.

    Args:
        pruned: part of the prunable weights that goes, in [0, 1).

    Raises:
        ValueError: ``pruned`` is out of its range.
    """
    _validate.number("pruned", pruned, at_least=0, below=1)
    return PruneSettings(
        prune_end_rate=1 - pruned, prune_preset="lottery", prune_schedule="cubic", prune_end_epoch=1
    )


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
    _validate.number("dropped", dropped, at_least=0, below=1)
    size = sum(array.numel() for array in upload)
    largest = largest_entries(upload, max(1, round(size * (1 - dropped))))
    return tuple(array * entry for array, entry in zip(upload, largest, strict=True))


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
    seeded = mechanism is not None and not mechanism.is_secure_generator
    _validate.check(seeded, "model_gdp", mechanism, "a mechanism without the secure generator")
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        noisy = mechanism([array.numpy(force=True) for array in upload])
    finally:
        np.random.set_state(state)
    return tuple(torch.from_numpy(array).to(like) for array, like in zip(noisy, upload, strict=True))


def round_stochastically(upload: Sequence[torch.Tensor], bits: int, seed: int | None = None) -> Arrays:
    """Rounds each array to equal steps between minus and plus its largest entry, up or down at random.

    The mean over many draws is the array itself. Source: Alistarh et al., "QSGD: Communication-efficient SGD
    via gradient quantization and encoding", NeurIPS 2017, section 3.1, with the largest entry for the norm.
    Training does not do this yet: it is here to be attacked before it does.

    Args:
        upload: gradient or weight update.
        bits: of one entry with its sign, from 2; zero is one of the ``2**bits - 1`` steps.
        seed: of the draws; None draws from torch's own generator, also inside of ``torch.func.vmap``.

    Returns:
        Arrays of the same shapes.

    Raises:
        ValueError: a number is out of its range.
    """
    _validate.integer("bits", bits, 2)
    _validate.integer("seed", seed, 0, optional=True)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    steps = 2 ** (bits - 1) - 1
    found = []
    for array in upload:
        step = array.abs().amax().clamp(min=torch.finfo(array.dtype).tiny) / steps
        drawn = torch.rand_like(array) if generator is None else torch.rand(array.shape, generator=generator)
        found.append(((array / step) + drawn.to(array)).floor() * step)
    return tuple(found)


def relative_noise(bits: int) -> float:
    """Deviation that rounding at random adds to a coordinate, relative to the largest one of its array.

    Stochastic rounding to steps of 1 has a variance of 1/6 where the fraction is uniform.

    Args:
        bits: of a rounded coordinate, at least 2.
    """
    return float((1 / (2 ** (bits - 1) - 1)) / 6**0.5)


def support(upload: Sequence[torch.Tensor], names: Sequence[str]) -> dict[str, torch.Tensor]:
    """The support that an upload in the clear shows by its zeros: 0 where it is zero and 1 elsewhere.

    Args:
        upload: arrays.
        names: their names.
    """
    return {name: (array != 0).to(array.dtype) for name, array in zip(names, upload, strict=True)}
