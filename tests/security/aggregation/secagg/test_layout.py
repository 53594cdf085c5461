"""Layouts: which numbers travel, and how everybody knows that the others mean the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from secretflow.security.aggregation.secagg.errors import AggregationError
from secretflow.security.aggregation.secagg.inputs import align_mask, as_arrays
from secretflow.security.aggregation.secagg.layout import Layout

CONV, BIAS, COUNTER = np.zeros((2, 3), "f4"), np.zeros(3, "f4"), np.zeros((2, 2), "i8")


def test_arrays_frames_and_lists_of_them_are_taken() -> None:
    arrays, is_list = as_arrays([np.ones(2), pd.Series([1, 2]), pd.DataFrame({"a": [1.0], "b": [2.0]})])
    assert is_list and [array.shape for array in arrays] == [(2,), (2,), (1, 2)]
    assert as_arrays(np.ones(2))[1] is False
    assert as_arrays((np.ones(2),))[1] is True


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("text", "Accept ndarray or dataframe/series only"),
        (None, "Accept ndarray or dataframe/series only"),
        (1.5, "Accept ndarray or dataframe/series only"),
        ([np.ones(2), [1.0]], r"data\[1\] must be an array \(Accept ndarray"),
        (np.array(["a"]), "neither integer nor float"),
        (np.array([True]), "neither integer nor float"),
        (np.array([1j]), "neither integer nor float"),
        (pd.DataFrame({"a": ["x"]}), "neither integer nor float"),
        ([], "empty list"),
    ],
)
def test_anything_else_is_refused(data: Any, message: str) -> None:
    with pytest.raises(AggregationError, match=message):
        as_arrays(data)


def test_a_mask_has_an_entry_for_each_array_or_for_each_matrix() -> None:
    mask = np.array([[1, 0, 1], [0, 0, 1]])
    for entries in ([mask, None], [mask]):
        living, everything = align_mask(entries, [CONV, BIAS])
        assert living is not None and living.tolist() == [True, False, True, False, False, True]
        assert everything is None
    both = align_mask([mask, np.array([0, 1, 1])], [CONV, BIAS])
    assert both[1] is not None and both[1].tolist() == [False, True, True]
    between = align_mask([mask.astype(bool), mask.astype("f4")], [CONV, BIAS, CONV])
    assert [entry is None for entry in between] == [False, True, False]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([], "of the 2 arrays.*got 0 entries"),
        ([None] * 3, "of the 2 arrays.*got 3 entries"),
        ([np.ones((3, 2)), None], r"prune_mask\[0\] must have the shape .*, got \(3, 2\)"),
        ([np.full((2, 3), 0.5), None], r"prune_mask\[0\] must hold 0 and 1 alone"),
        ([np.full((2, 3), np.nan), None], "must hold 0 and 1 alone"),
        ([np.full((2, 3), -1), None], "must hold 0 and 1 alone"),
        (["text", None], r"prune_mask\[0\] must have the shape .*, got \(\)"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(mask: list[Any], message: str) -> None:
    with pytest.raises(AggregationError, match=message):
        align_mask(mask, [CONV, BIAS])


def test_integers_cannot_be_masked() -> None:
    with pytest.raises(AggregationError, match="not of floats, got one of int"):
        align_mask([np.ones((2, 2))], [COUNTER])


def test_what_enough_parties_keep_travels_and_the_rest_of_them_is_partial() -> None:
    dense = Layout.dense([BIAS, CONV, COUNTER, CONV], True)
    assert dense.sizes == (3, 6, 4, 6) and dense.partial.size == 0
    everybody, mixed = np.full(6, 3, np.uint8), np.array([3, 0, 2, 1, 3, 2], np.uint8)
    layout = dense.narrowed([None, mixed, None, everybody], parties=3, at_least=2)
    assert layout.sizes == (3, 4, 4, 6)
    assert layout.support[1] is not None and layout.support[1].tolist() == [0, 2, 4, 5]
    assert layout.support[3] is None
    # In the vector of floats the bias takes 0 to 2; elements 2 and 5 of the matrix come to 4 and 6.
    assert layout.partial.tolist() == [4, 6]
    assert (layout.float_size, layout.integer_size) == (13, 4)
    assert layout.float_places == ((0, slice(0, 3)), (1, slice(3, 7)), (3, slice(7, 13)))
    assert layout.integer_places == ((2, slice(0, 4)),)


def test_an_element_kept_by_nobody_never_travels() -> None:
    layout = Layout.dense([CONV], True).narrowed([np.zeros(6, np.uint8)], parties=3, at_least=1)
    assert layout.sizes == (0,) and layout.partial.size == 0


def test_the_digest_changes_when_anything_changes() -> None:
    base = Layout(((2, 3),), ("<f4",), True, (np.array([1, 2]),), np.array([0]))
    others = [
        replace(base, shapes=((3, 2),)),
        replace(base, dtypes=("<f8",)),
        replace(base, is_list=False),
        replace(base, support=(np.array([1, 3]),)),
        replace(base, support=(np.array([1]),)),
        replace(base, support=(None,)),
        replace(base, support=(np.array([], np.int64),)),
        replace(base, partial=np.array([1])),
        replace(base, partial=np.array([], np.int64)),
        # The same numbers, moved over the border between support and partial.
        replace(base, support=(np.array([1]),), partial=np.array([2, 0])),
    ]
    assert len({layout.digest for layout in [base, *others]}) == len(others) + 1
    assert replace(base).digest == base.digest


def test_a_layout_fits_arrays_of_its_shapes_and_types_only() -> None:
    layout = Layout.dense([CONV, BIAS], True)
    assert layout.fits([CONV + 1, BIAS], True)
    assert not layout.fits([CONV, BIAS], False)
    assert not layout.fits([CONV], True)
    assert not layout.fits([CONV.T, BIAS], True)
    assert not layout.fits([CONV.astype("f8"), BIAS], True)
