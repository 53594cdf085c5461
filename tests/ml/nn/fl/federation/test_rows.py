"""Rows that cannot be trained on are named; what rounding miscounts is trained on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from secretflow.ml.nn import FLModel
from secretflow.utils.simulation.data.ndarray import create_ndarray

from .conftest import BATCH, data_of


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((40, 0), "x must have rows .*none at bob"),
        ((40, 9), "must be at most 9, the rows of bob, got 10"),
    ],
)
def test_too_few_rows_are_named(
    make_model: Callable[..., FLModel], parties: list[Any], rows: tuple[int, int], message: str
) -> None:
    x, y = data_of(0, sum(rows))
    parts = {parties[0]: (0, rows[0]), parties[1]: (rows[0], sum(rows))}
    held = [create_ndarray(array, parts=parts, axis=0) for array in (x, y)]
    with pytest.raises(ValueError, match=message):
        make_model().fit(*held, epochs=1, batch_size=BATCH, verbose=0)


def test_what_are_no_numbers_is_refused(make_model: Callable[..., FLModel], parties: list[Any]) -> None:
    x, y = data_of(0, 40)
    parts = {parties[0]: (0, 20), parties[1]: (20, 40)}
    held = [create_ndarray(array, parts=parts, axis=0) for array in (x.astype(str), y)]
    with pytest.raises(TypeError, match=r"x of alice must hold numbers, .*got the dtype <U\d+"):
        make_model().fit(*held, epochs=1, batch_size=BATCH, verbose=0)


@pytest.mark.parametrize("name", ["x", "batch_size"])
def test_an_argument_that_leaves_a_party_out_is_refused(
    make_model: Callable[..., FLModel], parties: list[Any], name: str
) -> None:
    x, y = data_of(0, 40)
    halves = {parties[0]: (0, 20), parties[1]: (20, 40)}
    alone = {parties[0]: (0, 40)}
    x_, y_ = (
        create_ndarray(array, parts=alone if name == "x" else halves, axis=0, is_label=is_label)
        for array, is_label in ((x, False), (y, True))
    )
    batch_size = {parties[0]: BATCH} if name == "batch_size" else BATCH
    with pytest.raises(ValueError, match=rf"{name} must be of .*\['alice', 'bob'\], got \['alice'\]"):
        make_model().fit(x_, y_, epochs=1, batch_size=batch_size, verbose=0)


def test_rows_that_rounding_counts_one_batch_too_many_for_are_trained_and_evaluated(
    make_model: Callable[..., FLModel], parties: list[Any]
) -> None:
    assert np.ceil(1 / (10 / 490)) == 50  # though 49 batches of 10 rows are all there are
    x, y = (np.concatenate([part, part]) for part in data_of(0, 490))
    halves = {parties[0]: (0, 490), parties[1]: (490, 980)}
    both = create_ndarray(x, parts=halves, axis=0), create_ndarray(y, parts=halves, axis=0, is_label=True)
    history = make_model().fit(
        *both, validation_data=both, epochs=2, batch_size=10, aggregate_freq=7, verbose=0
    )
    assert len(history.global_history["val_multiclassaccuracy"]) == 2
    assert len(history.local_history["alice_round_payload_bytes"][0]) == 7
