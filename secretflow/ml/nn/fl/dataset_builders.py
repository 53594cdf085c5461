"""Datasets that a function of the user builds at each party."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from secretflow import _validate
from secretflow.data.horizontal import HDataFrame
from secretflow.device import PYU
from secretflow.errors import ArgumentError
from secretflow.ml.nn.fl.audience import Audience


def parts_of(*held: Any) -> list[Mapping[PYU, Any]]:
    """What each party holds of data frames and arrays of all; None is left out."""
    return [
        (data.values if isinstance(data, HDataFrame) else data).partitions
        for data in held
        if data is not None
    ]


def build_datasets(
    workers: Mapping[PYU, Any],
    builders: Mapping[PYU, Any],
    parts: Sequence[Mapping[PYU, Any]],
    stage: str,
    audience: Audience,
) -> int:
    """Has every party build its dataset.

    Args:
        workers: at each party its model.
        builders: of each party the function, see
            :meth:`~secretflow.ml.nn.fl.backend.torch.strategy.fed_avg_w_prune.FedAvgWPrune.build_dataset_from_builder`.
        parts: what each party holds: its path; or its features, its labels and its weights.
        stage: "train" or "eval".
        audience: of it the parties are told how many batches each makes.

    Returns:
        How many batches each party has.

    Raises:
        TypeError: what a party has is no function.
        ValueError: a party has no function, or the parties have unequal numbers of batches, or none.
    """
    if missing := sorted(device.party for device in workers if device not in builders):
        raise ArgumentError(f"dataset_builder must have an entry for every party, got none for {missing}")
    for builder in builders.values():
        what = "a function for every party"
        _validate.check(callable(builder), "dataset_builder", builder, what, TypeError)
    steps = audience.told(
        {
            device: worker.build_dataset_from_builder(
                builders[device], *(part[device] for part in parts), stage=stage
            )
            for device, worker in workers.items()
        }
    )
    return audience.decided(lambda: _common({device.party: own for device, own in (steps or {}).items()}))


def _common(steps: Mapping[str, int]) -> int:
    if len(set(steps.values())) != 1 or min(steps.values()) < 1:
        raise ArgumentError(
            f"dataset_builder must make as many batches for every party, at least 1, got {dict(steps)}"
        )
    return min(steps.values())
