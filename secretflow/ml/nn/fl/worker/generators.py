"""Generators of a party's process, which draw the order of its rows and what its layers drop."""

from __future__ import annotations

import random

import torch

from secretflow.ml.nn.fl.worker.training import PartyFit


def reseed(fit: PartyFit) -> None:
    """Draws seeds that nobody knows, for a fit without one.

    What has seeded the generators before, such as initial weights, others may know.

    Args:
        fit: what the user chose for this fit.
    """
    if fit.random_seed is None:
        torch.seed()
        random.seed()
