"""Sizes of the task, and what its models hold."""

from __future__ import annotations

import numpy as np

import secretflow as sf
from secretflow.ml.nn import FLModel

from .conftest import CLASSES, FEATURES, ROWS_EACH

PRUNABLE = FEATURES * 6 + 6 * CLASSES
DENSE = 6 + CLASSES
BATCH = 8
STEPS = ROWS_EACH // BATCH
# Of 48 and 18 weights 40 percent, rounded down, go in each step, until 0.3 of all 66 live.
LIVING = (29 + 11, 18 + 7, 19, 19)


def weights_of(model: FLModel) -> dict[str, list[np.ndarray]]:
    return {party.party: sf.reveal(worker.get_weights()) for party, worker in model._workers.items()}


def zero_fractions(weights: list[np.ndarray]) -> list[float]:
    return [1 - np.count_nonzero(array) / array.size for array in weights if array.ndim >= 2]
