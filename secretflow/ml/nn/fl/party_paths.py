"""Where each party's file lies, on a disk of its own or on one that the parties share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from secretflow.device import PYU


def path_of(device: PYU, path: str | Mapping[PYU, str], is_test: bool) -> str:
    """A party's own file.

    Args:
        device: the party.
        path: folder and name of the file, one for all parties or one for each.
        is_test: adds the party's name to the folder, for parties that share a disk.
    """
    target = Path(path[device] if isinstance(path, Mapping) else path)
    return str(target.parent / device.party / target.name if is_test else target)
