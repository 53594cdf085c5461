"""Whose drivers are told what the parties say of themselves.

Over the network each party and the server have a driver of their own, which run one program, and ``reveal``
tells all of them. What parties say of their rows, losses, metrics and densities is not for the driver of a
blind server: it travels from party to party. What all drivers must know to take the same turns is what the
parties' drivers decide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import ray
from jax.tree_util import tree_flatten, tree_unflatten

from secretflow.device import PYU, global_state, reveal, wait
from secretflow.distributed.primitive import DISTRIBUTION_MODE, get_distribution_mode
from secretflow.errors import ArgumentError, StateError

_Decision = TypeVar("_Decision")


class Audience:
    """The drivers that are told values of the parties: all, or with a blind server the parties' own.

    In a simulation there is one driver, which is told everything.

    Args:
        parties: who train; the drivers of the same name are told.
        server_blind: whether no other driver is told.

    Attributes:
        is_closed: whether there may be a driver that is not told.
        is_here: whether the driver of this process is told.

    Raises:
        ValueError: the server shall be blind, and SecretFlow runs over the network without Ray.
    """

    def __init__(self, parties: Sequence[PYU], server_blind: bool) -> None:
        mode = get_distribution_mode()
        if server_blind and mode is DISTRIBUTION_MODE.PRODUCTION:
            raise ArgumentError(
                "ray_mode of sf.init must be True with server_blind=True over the network, got False"
            )
        self._parties = list(parties)
        self.is_closed = server_blind and mode is DISTRIBUTION_MODE.RAY_PRODUCTION
        self.is_here = not self.is_closed or global_state.self_party() in map(str, self._parties)

    def told(self, values: Any) -> Any:
        """Tells values of the parties.

        Args:
            values: device objects of the parties in lists, tuples and dictionaries.

        Returns:
            What they hold, in the same structure; None at a driver that is not told. It learns only that they
            were there, and their number.

        Raises:
            Exception: a party has failed to find its value; all drivers raise one.
        """
        if not self.is_closed:
            return reveal(values)
        objects, structure = tree_flatten(values)
        copies = {party: party(_together)(*(value.to(party) for value in objects)) for party in self._parties}
        wait(list(copies.values()))
        for party, copy in copies.items():
            if party.party == global_state.self_party():
                # The party's own object, from its own Ray: RayFed's get would send it to all.
                return tree_unflatten(structure, ray.get(copy.data.get_ray_object_ref()))
        return None

    def decided(self, decide: Callable[[], _Decision]) -> _Decision:
        """What the drivers that are told come to; all drivers are told that.

        Args:
            decide: comes to the same at every driver that is told, and is called at no other. What it returns
                must be fit to travel.

        Raises:
            Exception: whatever ``decide`` raises; another one at the drivers that are not told.
        """
        if not self.is_closed:
            return decide()
        decision, error = None, None
        if self.is_here:
            try:
                decision = decide()
            except Exception as raised:  # it is raised when the others know
                error = raised
        try:
            # At the first party its driver's own value is passed on.
            told: _Decision = reveal(self._parties[0](_passed_on)(decision, error is not None))
        finally:
            if error is not None:
                raise error
        return told


def _together(*values: Any) -> list[Any]:
    return list(values)


def _passed_on(decision: Any, failed: bool) -> Any:
    if failed:
        raise StateError("the drivers of the parties must go on, got an error there: their logs say which")
    return decision
