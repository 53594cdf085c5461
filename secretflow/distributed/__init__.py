"""How work is given to a party. The names are upstream's.

In a simulation upstream gives work to whatever Ray there is, starts one in silence where there is none, and
waits for ever for a party that it does not have. Here either is an error.
"""

from __future__ import annotations

from pkgutil import extend_path
from typing import Any

__path__ = extend_path(__path__, __name__)

import ray

from secretflow.errors import ArgumentError, StateError

from .primitive import (
    DISTRIBUTION_MODE,
    active_sf_cluster,
    get,
    get_cluster_avaliable_resources,
    get_current_cluster_idx,
    get_distribution_mode,
    in_ic_mode,
    kill,
    set_distribution_mode,
    shutdown,
)
from .primitive import remote as _upstreams_remote


def remote(*args: Any, **kwargs: Any) -> Any:
    """Makes of a function or a class one whose work a party does; see ``secretflow.distributed.remote``.

    Raises:
        RuntimeError: a simulation has not been started.
        ValueError: the simulation has no party of the name that is given to ``party``.
    """
    if get_distribution_mode() != DISTRIBUTION_MODE.SIMULATION:
        return _upstreams_remote(*args, **kwargs)
    if not ray.is_initialized():
        raise StateError(
            'sf.init must be called before work is given to a party, as in sf.init(["alice", "bob"], '
            'address="local"), got none, or a shutdown since'
        )
    made = _upstreams_remote(*args, **kwargs)
    name_party = getattr(made, "party", None)
    if name_party is not None:

        def party(name: str) -> Any:
            _check_party(name)
            return name_party(name)

        made.party = party
    return made


def _check_party(name: str) -> None:
    """Refuses a party that the cluster does not have."""
    from secretflow.device import global_state

    known = global_state.parties()
    # Ray, which is asked last because it takes a while, may have been started for others before.
    if name not in known and name not in ray.cluster_resources():
        raise ArgumentError(
            f"a PYU must be of one of the parties that sf.init started, {sorted(known)}, got {name!r}"
        )


__all__ = [
    "active_sf_cluster",
    "get",
    "get_cluster_avaliable_resources",
    "get_current_cluster_idx",
    "get_distribution_mode",
    "in_ic_mode",
    "kill",
    "remote",
    "set_distribution_mode",
    "shutdown",
]
