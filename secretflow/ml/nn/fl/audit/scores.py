"""How close a reconstruction is. Scoring sees the truth; an attack never does."""

from __future__ import annotations

import torch

SUCCESS_MSE = 0.01
"""A reconstruction succeeds below this error on pixels in [0, 1]; fixed before any measurement."""

_SSIM_WINDOW = 11
_AT_ONCE = 4096  # candidates, or all of MNIST would be in memory several times


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


def structural_similarity(images: torch.Tensor, truth: torch.Tensor) -> float:
    """Structural similarity on pixels in [0, 1], 1 is perfect.

    Args:
        images: reconstruction, float of shape (batch, channels, height, width), height and width at least
            11; clipped as in :func:`mean_squared_error`.
        truth: the true images, of the same shape, in [0, 1].

    Returns:
        The mean over windows and images, in [-1, 1].

    Raises:
        ValueError: the shapes differ, or are not those of images of at least 11x11 pixels.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    if images.shape != truth.shape or images.dim() != 4 or min(images.shape[2:]) < _SSIM_WINDOW:
        raise ValueError(
            f"images of shape {tuple(images.shape)} beside truth of shape {tuple(truth.shape)} are not "
            f"allowed: both (batch, channels, height, width) with sides of at least {_SSIM_WINDOW}"
        )
    found = structural_similarity_index_measure(images.clamp(0, 1), truth, data_range=1.0)
    return float(found[0] if isinstance(found, tuple) else found)  # a tuple only if the picture is asked for


def label_accuracy(labels: torch.Tensor, truth: torch.Tensor) -> float:
    """Fraction of labels that are right.

    Args:
        labels: int64 of shape (batch,).
        truth: of the same shape.

    Returns:
        A fraction in [0, 1].
    """
    return float((labels == truth).float().mean())


def nearest(images: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    """For each reconstruction the candidate of the smallest squared error.

    Args:
        images: reconstructions, float of shape (batch, ...), clipped as in :func:`mean_squared_error`.
        candidates: images of shape (candidates, ...), the true ones among them.

    Returns:
        Numbers of candidates, int64 of shape (batch,).
    """
    return torch.cdist(images.clamp(0, 1).flatten(1).double(), candidates.flatten(1).double()).argmin(dim=1)


def rank(image: torch.Tensor, truth: torch.Tensor, candidates: torch.Tensor) -> int:
    """How many candidates are at most as far from a reconstruction as its own image is.

    Args:
        image: a reconstruction, float of shape (1, ...), clipped as in :func:`mean_squared_error`.
        truth: its own image, of the same shape, in [0, 1].
        candidates: images of shape (candidates, ...) in [0, 1], the true one among them.

    Returns:
        From 1, the image is identified, to the number of candidates; chance is in the middle.
    """
    found = image.clamp(0, 1)
    limit = (found - truth).square().sum()
    distances = [(part - found).square().flatten(1).sum(dim=1) for part in candidates.split(_AT_ONCE)]
    return max(1, int((torch.cat(distances) <= limit).sum()))


def match(images: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Which reconstruction belongs to which true image: the assignment of the smallest total squared error.

    The gradient of a batch does not depend on the order of its images, so no attack can know it.

    Args:
        images: reconstructions, float of shape (batch, ...), clipped as in :func:`mean_squared_error`.
        truth: the true images, of the same shape.

    Returns:
        For each true image the number of its reconstruction, int64 of shape (batch,).
    """
    from scipy.optimize import linear_sum_assignment

    costs = torch.cdist(truth.flatten(1).double(), images.clamp(0, 1).flatten(1).double()).square()
    return torch.from_numpy(linear_sum_assignment(costs.numpy(force=True))[1])
