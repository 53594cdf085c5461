"""What a party runs: the user's own training function."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from secretflow.party.cluster import Cluster
from secretflow.party.errors import SetupError


@dataclass(frozen=True)
class Run:
    """What a training function is given. At all parties but for the last three it is the same.

    Attributes:
        cluster: the cluster file; its ``settings`` are the function's own.
        party: the name of the party that this process is.
        out: the party's own folder for what it keeps; it need not be there.
        options: the party's own, from ``--option name=value``.
    """

    cluster: Cluster
    party: str
    out: Path
    options: Mapping[str, str]


TrainingFunction = Callable[[Run], None]


def parse_name(name: str | None) -> tuple[str, str]:
    """The module and the function of ``module:function``.

    Raises:
        SetupError: it is not of that form.
    """
    module, _, function = (name or "").partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), function)):
        raise SetupError(f"--train (or train in the cluster file) must be module:function, got {name!r}")
    return module, function


def find_function(module_name: str, function_name: str) -> TrainingFunction:
    """Imports a training function.

    Args:
        module_name: as Python imports it from the current folder.
        function_name: of a function in it.

    Raises:
        SetupError: there is no such function.
    """
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there, and what it imports is not
        raise SetupError(f"--train must name a module that Python finds, got {module_name!r}") from None
    function = getattr(module, function_name, None)
    if not callable(function):
        raise SetupError(f"--train must name a function of {module_name}, got {function_name!r}")
    return function
