"""How close a reconstruction is. Scoring sees the truth; an attack never does."""

from __future__ import annotations

import torch

SUCCESS_MSE = 0.01
"""A reconstruction succeeds below this error on pixels in [0, 1]; fixed before any measurement."""


def mean_squared_error(images: torch.Tensor, truth: torch.Tensor) -> float:
    """Mean squared error on pixels in [0, 1], 0 is perfect.

    The reconstruction is clipped to [0, 1] first: every attacker knows that pixels lie there.

    Args:
        images: reconstruction, float of any shape.
        truth: the true images, of the same shape, in [0, 1].

    Returns:
        The error, in [0, 1].
    """
    from torchmetrics.functional import mean_squared_error as mse

    return float(mse(images.clamp(0, 1).contiguous(), truth.contiguous()))


def peak_signal_to_noise(images: torch.Tensor, truth: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB on pixels in [0, 1], infinite is perfect.

    Args:
        images: reconstruction, clipped as in :func:`mean_squared_error`.
        truth: the true images, of the same shape, in [0, 1].

    Returns:
        The ratio in dB, at least 0.
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio

    return float(peak_signal_noise_ratio(images.clamp(0, 1), truth, data_range=1.0))
