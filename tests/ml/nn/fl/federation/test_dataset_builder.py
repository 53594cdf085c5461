"""Batches may come from functions of the user, one at every party."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import secretflow as sf
from secretflow.data.core import partition
from secretflow.data.horizontal import HDataFrame
from secretflow.data.ndarray import FedNdarray, PartitionWay
from secretflow.ml.nn import FLModel

from .conftest import BATCH, ROWS, data_of, weights_of


def batches_of(rows: int, drop: int = 0) -> Callable[..., tuple[DataLoader, int]]:
    """A builder of batches of so many rows; it says that there are ``drop`` fewer."""

    def build(arrays: list[np.ndarray], stage: str) -> tuple[DataLoader, int]:
        assert stage in ("train", "eval")
        loader = DataLoader(TensorDataset(*map(torch.as_tensor, arrays)), batch_size=rows)
        return loader, len(loader) - drop

    return build


@pytest.mark.parametrize("weighted", [False, True])
def test_batches_may_come_from_a_function_of_the_user(
    make_model: Callable[..., FLModel],
    data: tuple[FedNdarray, FedNdarray],
    parties: list[Any],
    weighted: bool,
) -> None:
    x, y = data
    weights = FedNdarray(
        {
            device: device(lambda n=n: np.linspace(0.5, 2, n, dtype=np.float32))()
            for device, n in zip(parties, ROWS, strict=True)
        },
        PartitionWay.HORIZONTAL,
    )
    own, built = make_model(prune_end_rate=0.5), make_model(prune_end_rate=0.5)
    given = {"sample_weight": weights} if weighted else {}
    how: dict[str, Any] = {"epochs": 2, "verbose": 0, "random_seed": 3, "validation_data": data, **given}
    expected = own.fit(x, y, batch_size=BATCH, **how)
    # Three batches each, as upstream makes of the smaller party's batch size.
    builders = {device: batches_of(size) for device, size in zip(parties, (16, 10), strict=True)}
    history = built.fit(x, y, dataset_builder=builders, **how)
    assert (
        history.global_history["val_multiclassaccuracy"] == expected.global_history["val_multiclassaccuracy"]
    )
    for one, other in zip(weights_of(own), weights_of(built), strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
    predicted = sf.reveal(built.predict(x, batch_size=BATCH, dataset_builder=builders))
    assert [len(predicted[device]) for device in parties] == list(ROWS)


def test_a_function_that_makes_unequal_numbers_of_batches_is_refused(
    make_model: Callable[..., FLModel], data: tuple[FedNdarray, FedNdarray], parties: list[Any]
) -> None:
    builders = dict(zip(parties, (batches_of(16), batches_of(10, drop=1)), strict=True))
    with pytest.raises(ValueError, match=r"dataset_builder must make as many.*'alice': 3, 'bob': 2"):
        make_model().fit(*data, epochs=1, verbose=0, dataset_builder=builders)


def test_batches_may_come_from_files_by_a_function_of_the_user(
    make_model: Callable[..., FLModel],
    data: tuple[FedNdarray, FedNdarray],
    parties: list[Any],
    tmp_path: Path,
) -> None:
    files = {device: str(tmp_path / device.party) + ".npz" for device in parties}
    for seed, (path, rows) in enumerate(zip(files.values(), ROWS, strict=True)):
        np.savez(path, *data_of(seed, rows))

    def build(path: str, stage: str) -> tuple[DataLoader, int]:
        with np.load(path) as arrays:
            return batches_of(16 if "alice" in path else 10)(list(arrays.values()), stage)

    own, built = make_model(prune_end_rate=0.5), make_model(prune_end_rate=0.5)
    own.fit(*data, batch_size=BATCH, epochs=2, verbose=0, random_seed=3)
    builders = dict.fromkeys(parties, build)
    built.fit(files, "label", epochs=2, verbose=0, random_seed=3, dataset_builder=builders)
    for one, other in zip(weights_of(own), weights_of(built), strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_function_for_batches_is_needed_at_every_party(
    make_model: Callable[..., FLModel], data: tuple[FedNdarray, FedNdarray], parties: list[Any]
) -> None:
    with pytest.raises(ValueError, match=r"dataset_builder must have an entry .*, got none for \['bob'\]"):
        make_model().predict(data[0], batch_size=BATCH, dataset_builder={parties[0]: batches_of(16)})


def test_batches_may_come_from_data_frames(
    make_model: Callable[..., FLModel], data: tuple[FedNdarray, FedNdarray], parties: list[Any]
) -> None:
    def frame(arrays: FedNdarray) -> HDataFrame:
        return HDataFrame(
            {device: partition(device(pd.DataFrame)(part)) for device, part in arrays.partitions.items()}
        )

    builders = {device: batches_of(size) for device, size in zip(parties, (16, 10), strict=True)}
    own, framed = make_model(), make_model()
    for model, (x, y) in ((own, data), (framed, tuple(map(frame, data)))):
        model.fit(x, y, epochs=1, verbose=0, random_seed=3, dataset_builder=builders)
    for one, other in zip(weights_of(own), weights_of(framed), strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_paths_without_a_function_are_told_of_read_csv(
    make_model: Callable[..., FLModel], parties: list[Any]
) -> None:
    with pytest.raises(ValueError, match=r"^dataset_builder must be given with paths.*read_csv"):
        make_model().fit(dict.fromkeys(parties, "rows.csv"), "label", epochs=1)
