"""How close a reconstruction is. Scoring sees the truth; an attack never does."""

from __future__ import annotations

import torch

from secretflow import _validate

Range = tuple[float, float]

PIXELS: Range = (0.0, 1.0)
"""Of images; what leaves the range is clipped, for every attacker knows that pixels lie there."""

SUCCESS_MSE = 0.01
"""A reconstruction succeeds below this error on pixels in [0, 1]; fixed before any measurement."""

_SSIM_WINDOW = 11
_AT_ONCE = 4096  # candidates, or all of MNIST would be in memory several times


def mean_squared_error(
    images: torch.Tensor, truth: torch.Tensor, value_range: Range | None = PIXELS
) -> float:
    """Mean squared error, 0 is perfect; of pixels at most 1.

    Args:
        images: reconstruction, float of any shape.
        truth: the true rows, of the same shape, within the range.
        value_range: smallest and largest number of a row, to which the reconstruction is clipped first; None
            clips nothing, for rows without bounds.

    Raises:
        TypeError: a value is of the wrong type.
        ValueError: the shapes differ, or the truth leaves the range.
    """
    from torchmetrics.functional import mean_squared_error as mse

    images = _comparable(images, truth, value_range)
    return float(mse(images.contiguous(), truth.contiguous()))


def peak_signal_to_noise(images: torch.Tensor, truth: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB on pixels in [0, 1], infinite is perfect.

    Args:
        images: reconstruction, clipped as in :func:`mean_squared_error`.
        truth: the true images, of the same shape, in [0, 1].

    Returns:
        The ratio in dB, at least 0.

    Raises:
        TypeError: a value is of the wrong type.
        ValueError: the shapes differ, or the truth leaves [0, 1].
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio

    return float(peak_signal_noise_ratio(_comparable(images, truth, PIXELS), truth, data_range=1.0))


def structural_similarity(images: torch.Tensor, truth: torch.Tensor) -> float:
    """Structural similarity on pixels in [0, 1], 1 is perfect.

    Args:
        images: reconstruction, float of shape (batch, channels, height, width), height and width at least
            11; clipped as in :func:`mean_squared_error`.
        truth: the true images, of the same shape, in [0, 1].

    Returns:
        The mean over windows and images, in [-1, 1].

    Raises:
        TypeError: a value is of the wrong type.
        ValueError: the shapes differ or are not those of images of at least 11x11 pixels, or the truth leaves
            [0, 1].
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    images = _comparable(images, truth, PIXELS)
    pictures = images.dim() == 4 and min(images.shape[2:]) >= _SSIM_WINDOW
    what = f"of shape (batch, channels, height, width) with sides of at least {_SSIM_WINDOW}"
    _validate.check(pictures, "images", tuple(images.shape), what)
    found = structural_similarity_index_measure(images, truth, data_range=1.0)
    return float(found[0] if isinstance(found, tuple) else found)  # a tuple only if the picture is asked for


def label_accuracy(labels: torch.Tensor, truth: torch.Tensor) -> float:
    """Fraction of labels that are right.

    Args:
        labels: int64 of shape (batch,).
        truth: of the same shape.

    Returns:
        A fraction in [0, 1].

    Raises:
        ValueError: the shapes differ.
    """
    for name, value in (("labels", labels), ("truth", truth)):
        _validate.instance(name, value, torch.Tensor, "a tensor")
    same = tuple(labels.shape) == tuple(truth.shape)
    _validate.check(same, "labels", tuple(labels.shape), f"of the shape of truth, {tuple(truth.shape)}")
    return float((labels.to(truth.device) == truth).float().mean())


def nearest(
    images: torch.Tensor, candidates: torch.Tensor, value_range: Range | None = PIXELS
) -> torch.Tensor:
    """For each reconstruction the candidate of the smallest squared error.

    Args:
        images: reconstructions, float of shape (batch, ...), clipped as in :func:`mean_squared_error`.
        candidates: rows of shape (candidates, ...), the true ones among them.
        value_range: as for :func:`mean_squared_error`.

    Returns:
        Numbers of candidates, int64 of shape (batch,).
    """
    found = _clipped(images.to(candidates.device), value_range)
    return torch.cdist(found.flatten(1).double(), candidates.flatten(1).double()).argmin(dim=1)


def rank(
    image: torch.Tensor,
    truth: torch.Tensor,
    candidates: torch.Tensor,
    value_range: Range | None = PIXELS,
) -> int:
    """How many candidates are at most as far from a reconstruction as its own image is.

    Args:
        image: a reconstruction, float of shape (1, ...), clipped as in :func:`mean_squared_error`.
        truth: its own row, of the same shape, within the range.
        candidates: rows of shape (candidates, ...) within the range, the true one among them.
        value_range: as for :func:`mean_squared_error`.

    Returns:
        From 1, the row is identified, to the number of candidates; chance is in the middle.

    Raises:
        TypeError: a value is of the wrong type.
        ValueError: the shapes differ, or the truth leaves the range.
    """
    found = _comparable(image, truth, value_range)
    limit = (found - truth).square().sum()
    distances = [(part - found).square().flatten(1).sum(dim=1) for part in candidates.split(_AT_ONCE)]
    return max(1, int((torch.cat(distances) <= limit).sum()))


def ranks(
    images: torch.Tensor,
    numbers: torch.Tensor,
    candidates: torch.Tensor,
    value_range: Range | None = PIXELS,
) -> torch.Tensor:
    """The :func:`rank` of many reconstructions at once, among as many candidates as there are.

    Args:
        images: reconstructions, float of shape (batch, ...), clipped as in :func:`mean_squared_error`.
        numbers: for each of them the number of its own row among the candidates, int64 of shape (batch,).
        candidates: rows of shape (candidates, ...) within the range.
        value_range: as for :func:`mean_squared_error`.

    Returns:
        int64 of shape (batch,), from 1 to the number of candidates. By chance one row in ``len(candidates)``
        has rank 1, and the median is in the middle.

    Raises:
        TypeError: a value is of the wrong type.
        ValueError: the shapes differ, or a candidate leaves the range.
    """
    _validate.instance("candidates", candidates, torch.Tensor, "a tensor")
    whole = isinstance(numbers, torch.Tensor) and numbers.dtype == torch.int64
    _validate.check(whole, "numbers", numbers, "an int64 tensor", TypeError)
    known = bool(((numbers >= 0) & (numbers < len(candidates))).all())
    _validate.check(known, "numbers", numbers.tolist(), f"from 0 to {len(candidates) - 1}")
    found = _comparable(images, candidates[numbers], value_range).flatten(1).double()
    limits = (found - candidates[numbers].flatten(1)).square().sum(dim=1)
    counts = torch.zeros(len(found), dtype=torch.int64)
    for part in candidates.flatten(1).split(_AT_ONCE):
        # Not by matrix products, whose rounding would tell apart what is equally far.
        distances = torch.cdist(found, part.double(), compute_mode="donot_use_mm_for_euclid_dist").square()
        counts += (distances <= limits[:, None] * (1 + 1e-9)).sum(dim=1)
    return counts.clamp(min=1)


def match(images: torch.Tensor, truth: torch.Tensor, value_range: Range | None = PIXELS) -> torch.Tensor:
    """Which reconstruction belongs to which true row: the assignment of the smallest total squared error.

    The gradient of a batch does not depend on the order of its images, so no attack can know it.

    Args:
        images: reconstructions, float of shape (batch, ...), clipped as in :func:`mean_squared_error`.
        truth: the true rows, of the same shape, within the range.
        value_range: as for :func:`mean_squared_error`.

    Returns:
        For each true row the number of its reconstruction, int64 of shape (batch,).

    Raises:
        TypeError: a value is of the wrong type.
        ValueError: the shapes differ, or the truth leaves the range.
    """
    from scipy.optimize import linear_sum_assignment

    found = _comparable(images, truth, value_range)
    costs = torch.cdist(truth.flatten(1).double(), found.flatten(1).double()).square()
    return torch.from_numpy(linear_sum_assignment(costs.numpy(force=True))[1])


def _comparable(images: torch.Tensor, truth: torch.Tensor, value_range: Range | None) -> torch.Tensor:
    """The reconstruction within the range, beside the truth, once it is clear that the two compare."""
    for name, value in (("images", images), ("truth", truth)):
        _validate.instance(name, value, torch.Tensor, "a tensor")
    same = tuple(images.shape) == tuple(truth.shape)
    _validate.check(same, "images", tuple(images.shape), f"of the shape of truth, {tuple(truth.shape)}")
    if value_range is not None and truth.numel():
        pair = isinstance(value_range, tuple) and len(value_range) == 2
        ordered = pair and value_range[0] < value_range[1]
        _validate.check(ordered, "value_range", value_range, "two numbers, the smaller one first, or None")
        low, high = value_range
        found = (float(truth.min()), float(truth.max()))
        within = low <= found[0] and found[1] <= high
        what = f"within value_range, {low} to {high}; None is without bounds"
        _validate.check(within, "truth", found, what)
    return _clipped(images.to(truth.device), value_range)


def _clipped(images: torch.Tensor, value_range: Range | None) -> torch.Tensor:
    return images if value_range is None else images.clamp(*value_range)
