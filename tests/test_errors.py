"""This package's errors: one base, and what a Python user expects."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from secretflow import _validate
from secretflow.errors import ArgumentError, PruneError, StateError, WrongTypeError
from secretflow.party.errors import SetupError
from secretflow.security.aggregation.secagg.errors import AggregationError

FL = Path(__file__).resolve().parents[1] / "secretflow" / "ml" / "nn" / "fl"


@pytest.mark.parametrize(
    ("error", "built_in"),
    [
        (ArgumentError, ValueError),
        (WrongTypeError, TypeError),
        (StateError, RuntimeError),
        (AggregationError, ValueError),
        (AggregationError, AssertionError),
        (SetupError, ValueError),
    ],
)
def test_an_error_is_of_the_package_and_built_in_and_travels(error: type, built_in: type) -> None:
    assert issubclass(error, PruneError) and issubclass(error, built_in)
    there = pickle.loads(pickle.dumps(error("x must be y, got z")))
    assert type(there) is error and str(there) == "x must be y, got z"


def test_checks_of_arguments_raise_the_packages_own() -> None:
    with pytest.raises(ArgumentError, match=r"^epochs must be an integer of at least 1, got 0"):
        _validate.integer("epochs", 0, 1)
    with pytest.raises(WrongTypeError, match=r"^rate must be a number above 0, got '1'"):
        _validate.number("rate", "1", above=0)


def test_what_a_user_calls_raises_no_bare_built_in_error() -> None:
    for module in FL.glob("*.py"):
        bare = re.findall(
            r"raise (?:ValueError|TypeError|RuntimeError)\(", module.read_text(encoding="utf-8")
        )
        assert not bare, module.name
