"""Checks of what a user gives, with one form of message: ``NAME must be WHAT, got VALUE``.

===================== ============================================ =======================================
function              accepts                                      message
===================== ============================================ =======================================
:func:`check`         whatever a condition holds for               ``x must be <what>, got <value>``
:func:`integer`       an ``int`` within bounds                     ``x must be an integer from 1 to 9, ...``
:func:`number`        a finite ``int`` or ``float`` within bounds  ``x must be a number above 0, ...``
:func:`one_of`        one of some values                           ``x must be one of 'a', 'b', ...``
:func:`flag`          True or False                                ``x must be True or False, ...``
:func:`instance`      an object of a type                          ``x must be <what>, got <value>``
===================== ============================================ =======================================

All take the argument's name, then its value (:func:`check` takes the condition before both).
A value of the wrong type raises TypeError, one out of its range ValueError. An integer and a choice raise
ValueError for both: to whoever made it, 1.5 epochs or a misspelt word is one and the same mistake. The
message shows the value, of arrays the shape alone, so check no secrets with these functions. NumPy's scalars
are taken as Python's; :func:`plain_fields` makes them so, for they compute in fewer bits and travel worse.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from secretflow.errors import ArgumentError, WrongTypeError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_OF_ARRAYS = ("numpy", "pandas", "torch")
_LONGEST = 300
_OWN: dict[type[Exception], type[Exception]] = {ValueError: ArgumentError, TypeError: WrongTypeError}


def check(holds: bool, name: str, value: object, what: str, error: type[Exception] = ValueError) -> None:
    """Refuses a value for which a condition does not hold.

    Args:
        holds: whether the value is allowed.
        name: of the argument, as the user wrote it.
        value: what the user gave.
        what: what the value must be, and with which other arguments; completes "NAME must be". What to do
            about it may follow after a semicolon.
        error: type of the exception; of ValueError and TypeError this package's own
            (:mod:`secretflow.errors`) is raised.

    Raises:
        Exception: of type ``error``, if the condition does not hold.
    """
    if not holds:
        raise _OWN.get(error, error)(f"{name} must be {what}, got {shown(value)}")


def shown(value: object) -> str:
    """A value as a message shows it: of an array or a table the shape, of what is long the beginning."""
    kind = type(value)
    shape = tuple(getattr(value, "shape", ())) if kind.__module__.split(".")[0] in _OF_ARRAYS else ()
    if shape:
        return f"a {kind.__module__.split('.')[0]}.{kind.__qualname__} of shape {shape}"
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def integer(
    name: str, value: object, at_least: int, at_most: int | None = None, *, optional: bool = False
) -> None:
    """Refuses what is no integer within bounds; a bool is none.

    Args:
        name: of the argument.
        value: what the user gave.
        at_least: the smallest integer allowed.
        at_most: the largest one; None is no bound.
        optional: None is allowed, too.

    Raises:
        ValueError: the value is no integer, or out of bounds.
    """
    if value is None and optional:
        return
    fits = (
        isinstance(value, (int, np.integer))
        and not isinstance(value, bool)
        and value >= at_least
        and (at_most is None or value <= at_most)
    )
    bounds = f"of at least {at_least}" if at_most is None else f"from {at_least} to {at_most}"
    check(bool(fits), name, value, f"an integer {bounds}{' or None' if optional else ''}")


def number(
    name: str,
    value: object,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    optional: bool = False,
) -> None:
    """Refuses what is no finite number within bounds; a bool is none, NaN is within no bounds.

    Args:
        name: of the argument.
        value: what the user gave.
        above: a bound that the value must exceed.
        at_least: the smallest value allowed.
        below: a bound that the value must stay under.
        at_most: the largest value allowed.
        optional: None is allowed, too.

    Raises:
        TypeError: the value is no number.
        ValueError: it is not finite, or out of bounds.
    """
    if value is None and optional:
        return
    bounds = {"above": above, "at least": at_least, "below": below, "at most": at_most}
    told = " and ".join(f"{word} {bound}" for word, bound in bounds.items() if bound is not None)
    what = " ".join(filter(None, ("a number" if told else "a finite number", told)))
    what += " or None" if optional else ""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise WrongTypeError(f"{name} must be {what}, got {shown(value)}")
    fits = (
        math.isfinite(value)
        and (above is None or value > above)
        and (at_least is None or value >= at_least)
        and (below is None or value < below)
        and (at_most is None or value <= at_most)
    )
    check(bool(fits), name, value, what)


def one_of(name: str, value: object, choices: Iterable[object]) -> None:
    """Refuses what is none of some values.

    Args:
        name: of the argument.
        value: what the user gave.
        choices: what is allowed, in the order to name it.

    Raises:
        ValueError: the value is none of them.
    """
    allowed = list(choices)
    check(value in allowed, name, value, f"one of {', '.join(map(repr, allowed))}")


def flag(name: str, value: object) -> None:
    """Refuses what is neither True nor False.

    Args:
        name: of the argument.
        value: what the user gave.

    Raises:
        TypeError: the value is no bool.
    """
    check(isinstance(value, (bool, np.bool_)), name, value, "True or False", TypeError)


def instance(name: str, value: object, types: type | tuple[type, ...], what: str) -> None:
    """Refuses an object of another type.

    Args:
        name: of the argument.
        value: what the user gave.
        types: what is allowed.
        what: the types in words, with an article: "a SecurePruneAggregator".

    Raises:
        TypeError: the value is of none of the types.
    """
    check(isinstance(value, types), name, value, what, TypeError)


def plain(value: Any) -> Any:
    """A scalar of NumPy's, and those in a tuple, as Python's; all else as it is.

    Args:
        value: what the user gave.
    """
    if type(value) is tuple:
        return tuple(map(plain, value))
    if isinstance(value, np.floating):
        return float(value)  # a longdouble has no Python number of its own
    return value.item() if isinstance(value, (np.bool_, np.integer, np.str_)) else value


def plain_fields(settings: DataclassInstance) -> None:
    """Makes the fields of a dataclass :func:`plain`, in place; for the beginning of ``__post_init__``.

    Args:
        settings: may be frozen.
    """
    for field in fields(settings):
        object.__setattr__(settings, field.name, plain(getattr(settings, field.name)))
