"""Methods whose arguments are declared elsewhere, once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Owner = TypeVar("_Owner")
_Result = TypeVar("_Result")


def takes_arguments_of(
    declared: Callable[_Arguments, object],
) -> Callable[
    [Callable[Concatenate[_Owner, ...], _Result]], Callable[Concatenate[_Owner, _Arguments], _Result]
]:
    """A decorator of a method that hands its arguments on to a class or a function.

    Type checkers and ``inspect.signature`` see the method's own ``self`` and result, and between them the
    arguments of ``declared``.

    Args:
        declared: what declares the arguments.
    """

    def decorate(
        method: Callable[Concatenate[_Owner, ...], _Result],
    ) -> Callable[Concatenate[_Owner, _Arguments], _Result]:
        own = inspect.signature(method)
        owner = next(iter(own.parameters.values()))
        arguments = inspect.signature(declared).parameters.values()
        method.__signature__ = own.replace(parameters=[owner, *arguments])  # type: ignore[attr-defined]
        return method

    return decorate
