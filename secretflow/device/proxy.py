"""Classes whose objects live at a party. The names are upstream's.

Ray asks an actor whether it is true before it tells of an error in it, and Python then asks for its length.
That of upstream's tables takes an argument: an error in a function that reads a file would end the actor, and
nobody would see it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from secretflow._overlay import upstream

_upstream = upstream(__name__)


def proxy(*args: Any, **kwargs: Any) -> Callable[[type], Any]:
    """Makes of a class one whose objects live at a party; see ``secretflow.device.proxy``."""
    of_upstream = _upstream.proxy(*args, **kwargs)

    def make_proxy(cls: type) -> Any:
        if hasattr(cls, "__len__") and not hasattr(cls, "__bool__"):
            cls.__bool__ = _is_true  # type: ignore[attr-defined]
        return of_upstream(cls)

    return make_proxy


def _is_true(self: object) -> bool:
    return True
