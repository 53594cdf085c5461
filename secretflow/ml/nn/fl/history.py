"""What a training run recorded."""

from __future__ import annotations

from typing import Any


class History(dict[str, Any]):
    """Upstream's dictionary, readable as attributes too.

    Attributes:
        global_history: for each metric of all parties together its value after each epoch.
        local_history: the same for each party's own, under ``<party>_<metric>``.
    """

    @property
    def global_history(self) -> dict[str, list[Any]]:
        return self["global_history"]

    @property
    def local_history(self) -> dict[str, list[Any]]:
        return self["local_history"]
