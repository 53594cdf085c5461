"""Whose drivers are told what the parties say of themselves.

Over the network each party and the server have a driver of their own, which run one program, and ``reveal``
tells all of them. What a party measures on its rows is for its own driver alone. What all drivers must know
to take the same turns is what the first party's driver decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import ray

from secretflow.device import PYU, PYUObject, global_state, reveal, wait
from secretflow.distributed.primitive import DISTRIBUTION_MODE, get_distribution_mode
from secretflow.errors import ArgumentError, StateError

_Decision = TypeVar("_Decision")


class Audience:
    """Tells each driver what is for it.

    Args:
        parties: who train; each has a driver of its name.
        server: has one, too, unless it is one of them; None where there is none.
        server_blind: whether that is not told what the parties have in common either.
        tells_all: whether whoever asks is told everything, over the network too.

    Attributes:
        tells_all: whether this driver is told everything that it asks for. In a simulation, which has one
            driver, it always is.

    Raises:
        ValueError: SecretFlow runs over the network without Ray, where a value cannot stay at its party.
    """

    def __init__(
        self, parties: Sequence[PYU], server: PYU | None, *, server_blind: bool, tells_all: bool = False
    ) -> None:
        mode = get_distribution_mode()
        if mode is DISTRIBUTION_MODE.PRODUCTION and not tells_all:
            raise ArgumentError(
                "ray_mode of sf.init must be True over the network, for without Ray all drivers would be "
                "told what each party measures, got False"
            )
        self._parties = list(parties)
        self._others = [] if server_blind or server is None or server in self._parties else [server]
        self.tells_all = tells_all or mode is not DISTRIBUTION_MODE.RAY_PRODUCTION

    def own(self, values: Mapping[PYU, PYUObject]) -> dict[PYU, Any]:
        """Tells each driver its own party's value.

        Args:
            values: one at each party.

        Returns:
            What this driver is told, by party. Of another party's value it learns that it is there.

        Raises:
            Exception: a party has failed to find its value; all drivers raise one.
        """
        if self.tells_all:
            told = reveal(dict(values))
            return {party: told[party] for party in values}
        wait(list(values.values()))
        return {
            # The party's own object, from its own Ray: RayFed's get would send it to all.
            party: ray.get(value.data.get_ray_object_ref())
            for party, value in values.items()
            if party.party == global_state.self_party()
        }

    def common(self, values: Mapping[PYU, PYUObject]) -> Any:
        """Tells what all parties have in common; None at the driver of a blind server.

        Args:
            values: at each party, the same at all.
        """
        first = self._parties[0]
        copies = {server: server(_passed_on)(values[first].to(server)) for server in self._others}
        return next(iter(self.own({**values, **copies}).values()), None)

    def told(self, values: Mapping[PYU, PYUObject]) -> dict[PYU, Any] | None:
        """Tells the parties' drivers everybody's values; None at the driver of another server.

        Args:
            values: one at each party.
        """
        if self.tells_all:
            return self.own(values)
        copies = {party: party(_together)(*(v.to(party) for v in values.values())) for party in self._parties}
        told = list(self.own(copies).values())
        return dict(zip(values, told[0], strict=True)) if told else None

    def decided(self, decide: Callable[[], _Decision]) -> _Decision:
        """What the driver of the first party comes to; all drivers are told that.

        Args:
            decide: is called at no other driver. What it returns must be fit to travel.

        Raises:
            Exception: whatever ``decide`` raises; another one at the other drivers.
        """
        return decide() if self.tells_all else self._found_by(self._parties[:1], decide)

    def checked(self, check: Callable[[], None]) -> None:
        """Has the driver of each party look at its own numbers; all are told that they are well.

        Args:
            check: raises an error if they are not.

        Raises:
            Exception: whatever ``check`` raises; another one at the other drivers.
        """
        if self.tells_all:
            check()
        else:
            self._found_by(self._parties, check)

    def _found_by(self, parties: Sequence[PYU], find: Callable[[], _Decision]) -> _Decision:
        found, error = None, None
        if global_state.self_party() in [party.party for party in parties]:
            try:
                found = find()
            except Exception as raised:  # it is raised when the others know
                error = raised
        # At each party its driver's own value is passed on. An error is told as a value: where one travels,
        # RayFed ends its party's program.
        told = reveal([party(_together)(found, error is not None) for party in parties])
        if error is not None:
            raise error
        failed = [party.party for party, (_, has_failed) in zip(parties, told, strict=True) if has_failed]
        if failed:
            raise StateError(
                "the drivers of all parties must go on, got an error, which the log there says, at "
                f"{', '.join(failed)}"
            )
        first: _Decision = told[0][0]
        return first


def _together(*values: Any) -> list[Any]:
    return list(values)


def _passed_on(value: Any) -> Any:
    return value
