"""Where each party's file lies, on a disk of its own or on one that the parties share."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TypeAlias

import secretflow.distributed as sfd
from secretflow import _validate
from secretflow.device import PYU
from secretflow.distributed.primitive import DISTRIBUTION_MODE

Paths: TypeAlias = "str | PathLike[str] | Mapping[PYU, str | PathLike[str]]"
"""One path for all parties, or one for each."""


def share_a_disk(path: Paths) -> bool:
    """Whether one path would be one file of all parties: they are simulated on this machine."""
    simulated = (DISTRIBUTION_MODE.SIMULATION, DISTRIBUTION_MODE.DEBUG)
    return isinstance(path, (str, PathLike)) and sfd.get_distribution_mode() in simulated


def path_of(device: PYU, path: Paths, is_test: bool, name: str = "path") -> str:
    """A party's own file.

    Args:
        device: the party.
        path: folder and name of the file, one for all parties or one for each.
        is_test: adds the party's name to the folder; so does a simulation where there is one path for all.
        name: of the argument, for messages.

    Raises:
        TypeError: the party has no path.
    """
    own = path.get(device) if isinstance(path, Mapping) else path
    _validate.instance(name, own, (str, PathLike), f"a path, or one for each party, {device.party} included")
    assert own is not None  # no path is refused above
    target = Path(own)
    return str(target.parent / device.party / target.name if is_test or share_a_disk(path) else target)
