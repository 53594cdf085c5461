"""The noise that the audit attacks: upstream's own."""

from __future__ import annotations

from secretflow.security.privacy import DPStrategyFL
from secretflow.security.privacy.mechanism.mechanism_fl import GaussianModelDP


def gaussian_dp(multiplier: float, clip: float) -> DPStrategyFL:
    """Upstream's differential privacy for one party that does not count on the noise of others.

    Args:
        multiplier: standard deviation of the noise in units of ``clip``, at least 0.
        clip: largest norm of an upload that is left as it is, above 0.
    """
    return DPStrategyFL(GaussianModelDP(noise_multiplier=multiplier, num_clients=1, l2_norm_clip=clip))
