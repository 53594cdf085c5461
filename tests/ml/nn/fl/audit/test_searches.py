"""What the searches of an audit are given."""

from __future__ import annotations

import torch

from secretflow.ml.nn.fl.attacks import PriorSettings
from secretflow.ml.nn.fl.audit.searches import prior_and_noise


def test_the_gaussian_leaves_nothing_of_exact_gradients_over_and_expects_the_noise_of_rounded_ones() -> None:
    public = torch.randn(400, 300, generator=torch.Generator().manual_seed(0))
    covariance = public.double().T.cov()
    exact, no_noise = prior_and_noise(public, None)
    torch.testing.assert_close(exact.basis @ exact.basis.T, covariance)
    rounded, some_noise = prior_and_noise(public, 8)
    left = covariance - rounded.basis @ rounded.basis.T
    assert left.diagonal().min() > 0.01
    assert no_noise == PriorSettings().noise < some_noise < prior_and_noise(public, 2)[1]
