"""What a user gives is refused with its name, what must hold, and what came."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secretflow import _validate


@pytest.mark.parametrize(
    ("refuse", "error", "message"),
    [
        (lambda: _validate.check(False, "x", 3, "even"), ValueError, "x must be even, got 3"),
        (lambda: _validate.check(False, "x", "", "named", KeyError), KeyError, "x must be named, got ''"),
        (
            lambda: _validate.check(False, "x", np.zeros((9, 2)), "b"),
            ValueError,
            "x must be b, got a numpy.ndarray of shape (9, 2)",
        ),
        (
            lambda: _validate.check(False, "x", "y" * 999, "b"),
            ValueError,
            "x must be b, got '" + "y" * 299 + "...",
        ),
        (lambda: _validate.integer("x", 0, 1), ValueError, "x must be an integer of at least 1, got 0"),
        (lambda: _validate.integer("x", 7, 1, 6), ValueError, "x must be an integer from 1 to 6, got 7"),
        (lambda: _validate.integer("x", 1.0, 1), ValueError, "x must be an integer of at least 1, got 1.0"),
        (lambda: _validate.integer("x", True, 0), ValueError, "x must be an integer of at least 0, got True"),
        (lambda: _validate.integer("x", None, 0), ValueError, "x must be an integer of at least 0, got None"),
        (
            lambda: _validate.integer("x", "2", 0, optional=True),
            ValueError,
            "x must be an integer of at least 0 or None, got '2'",
        ),
        (lambda: _validate.number("x", 0, above=0), ValueError, "x must be a number above 0, got 0"),
        (
            lambda: _validate.number("x", 2, above=0, at_most=1),
            ValueError,
            "x must be a number above 0 and at most 1, got 2",
        ),
        (
            lambda: _validate.number("x", 100, at_least=0, below=100),
            ValueError,
            "x must be a number at least 0 and below 100, got 100",
        ),
        (lambda: _validate.number("x", "1"), TypeError, "x must be a finite number, got '1'"),
        (lambda: _validate.number("x", True), TypeError, "x must be a finite number, got True"),
        (
            lambda: _validate.number("x", [], at_least=0, optional=True),
            TypeError,
            "x must be a number at least 0 or None, got []",
        ),
        (lambda: _validate.one_of("x", "c", ("a", "b")), ValueError, "x must be one of 'a', 'b', got 'c'"),
        (lambda: _validate.one_of("x", [], ("a", "b")), ValueError, "x must be one of 'a', 'b', got []"),
        (lambda: _validate.flag("x", 1), TypeError, "x must be True or False, got 1"),
        (lambda: _validate.instance("x", 1, str, "a string"), TypeError, "x must be a string, got 1"),
    ],
)
def test_a_refusal_says_name_and_what_must_hold_and_what_came(
    refuse: Callable[[], None], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        refuse()


@given(st.integers(-9, 9), st.integers(-9, 9), st.integers(-9, 9))
def test_an_integer_is_allowed_exactly_within_its_bounds(value: int, low: int, high: int) -> None:
    assert _passes(lambda: _validate.integer("x", value, low, high)) == (low <= value <= high)
    assert _passes(lambda: _validate.integer("x", value, low)) == (low <= value)


@given(st.floats() | st.integers(-3, 3), st.integers(-3, 3), st.integers(-3, 3))
def test_a_number_is_allowed_exactly_within_its_bounds_if_it_is_finite(
    value: float, low: int, high: int
) -> None:
    finite = abs(value) < float("inf")
    assert _passes(lambda: _validate.number("x", value)) == finite
    assert _passes(lambda: _validate.number("x", value, above=low, at_most=high)) == (low < value <= high)
    assert _passes(lambda: _validate.number("x", value, at_least=low, below=high)) == (low <= value < high)


def test_what_is_allowed_passes() -> None:
    _validate.check(True, "x", 1, "odd")
    _validate.integer("x", None, 1, optional=True)
    _validate.number("x", None, optional=True)
    _validate.one_of("x", "a", iter(("a", "b")))
    _validate.flag("x", False)
    _validate.instance("x", 1.0, (int, float), "a number")


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int64, np.uint64])
def test_an_integer_of_numpys_is_one(kind: Any) -> None:
    _validate.integer("x", kind(5), 1, 5)
    _validate.number("x", kind(5), above=4)
    with pytest.raises(ValueError, match="x must be an integer of at least 6, got"):
        _validate.integer("x", kind(5), 6)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.longdouble])
def test_a_number_of_numpys_is_one(kind: Any) -> None:
    _validate.number("x", kind(0.5), above=0, at_most=1)
    for wrong in (kind("nan"), kind("inf"), kind(2)):
        with pytest.raises(ValueError, match="x must be a number"):
            _validate.number("x", wrong, above=0, at_most=1)
    with pytest.raises(ValueError, match="x must be an integer"):
        _validate.integer("x", kind(1), 1)


def test_a_flag_of_numpys_is_one_and_no_number() -> None:
    _validate.flag("x", np.bool_(True))
    with pytest.raises(TypeError, match="x must be a finite number"):
        _validate.number("x", np.bool_(True))


@dataclass(frozen=True)
class Settings:
    value: Any

    def __post_init__(self) -> None:
        _validate.plain_fields(self)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (np.int64(5), 5),
        (np.float32(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        ((np.uint8(1), 2, "b"), (1, 2, "b")),
        ([np.int64(1)], [1]),
        (None, None),
    ],
    ids=str,
)
def test_what_settings_keep_is_pythons(given: Any, kept: Any) -> None:
    value = Settings(given).value
    assert value == kept and type(value) is type(kept)
    if isinstance(kept, tuple):
        assert [type(part) for part in value] == [type(part) for part in kept]


def _passes(check: Callable[[], Any]) -> bool:
    try:
        check()
    except ValueError:
        return False
    return True
