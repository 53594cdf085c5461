"""Processes that the parties of a simulation share: a party is an object there, and no process.

A process with torch takes hundreds of megabytes before it has done anything, so a machine has room for a
dozen parties with a process each. What upstream's ``proxy`` gives one party, :class:`SharedProcesses` gives
many.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
import ray

from secretflow.device import PYU, DeviceObject, PYUObject
from secretflow.device.tenants import Randomness, Tenant

_Result = TypeVar("_Result")

_SPREAD_BYTES = 1 << 20


class SharedProcess:
    """What runs in a process: the objects of several parties, of which one works at a time.

    The names of its own arguments begin with an underscore, for others may have any name.
    """

    def __init__(self) -> None:
        import torch  # noqa: F401 - so that its generator has a beginning to go back to

        self._tenants: dict[str, Tenant[Any]] = {}
        self._errors: dict[str, Exception] = {}  # of those who could not be made
        self._fresh = Randomness.now()

    def admit(self, _party: str, _kind: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Makes the object of a party.

        Args:
            _party: its name.
            _kind: what makes it.
            *args: for ``_kind``.
            **kwargs: for ``_kind``.
        """
        self._fresh.restore()
        random.seed()  # a process of its own would not draw what another one draws
        np.random.seed()
        tenant: Tenant[Any] = Tenant(None, Randomness.now())
        try:
            with tenant.turn():
                args, kwargs = _fetched((args, kwargs))
                tenant.held = _kind(*args, **kwargs)
        except Exception as error:
            self._errors[_party] = error
            raise
        self._tenants[_party] = tenant

    def call(self, _party: str, _method: str, *args: Any, **kwargs: Any) -> Any:
        """Calls a method of a party's object.

        Args:
            _party: its name.
            _method: name of the method.
            *args: for the method.
            **kwargs: for the method.

        Raises:
            Exception: what its making or the method has failed with.
        """
        tenant = self._tenant(_party)
        args, kwargs = _fetched((args, kwargs))
        with tenant.turn():
            return getattr(tenant.held, _method)(*args, **kwargs)

    def together(self, work: Callable[..., _Result], parties: Sequence[str], *args: Any) -> _Result:
        """Does work of several parties at once.

        Args:
            work: what is done, given their :class:`Tenant` objects.
            parties: their names.
            *args: what ``work`` is given besides.
        """
        return work([self._tenant(party) for party in parties], *args)

    def _tenant(self, party: str) -> Tenant[Any]:
        if party in self._errors:
            raise self._errors[party]
        return self._tenants[party]


class SharedProcesses:
    """Starts processes for parties, from the driver. They end when nobody holds their objects any more.

    Ray spreads them over the machines of its cluster. They need none of the parties' resources: in a
    simulation it does not matter which machine a party's object is on.

    Args:
        count: how many processes, at least 1.
        num_gpus: of each process.
    """

    def __init__(self, count: int, num_gpus: float = 0) -> None:
        made: Any = ray.remote(SharedProcess)
        # No core is set aside for them: others load rows there, and without enough none would ever begin. But
        # Ray spreads only what needs something.
        actor = made.options(
            num_cpus=0, num_gpus=num_gpus, memory=_SPREAD_BYTES, scheduling_strategy="SPREAD"
        )
        self._processes = [Process(actor.remote()) for _ in range(count)]
        self._placed = 0

    def place(self, kind: type, device: PYU, **options: Any) -> PlacedObject:
        """Has one of the processes, in turn, make a party's object.

        Args:
            kind: its class.
            device: the party.
            **options: for the class.
        """
        process = self._processes[self._placed % len(self._processes)]
        self._placed += 1
        process.actor.admit.remote(device.party, kind, **_plain(options, device))
        return PlacedObject(device, process, kind)


class Process:
    """A process of :class:`SharedProcesses`, seen from the driver.

    Args:
        actor: Ray's handle of its :class:`SharedProcess`.
    """

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    def together(self, work: Callable[..., Any], parties: Sequence[PYU], *args: Any) -> PYUObject:
        """Does work of several parties at once, see :meth:`SharedProcess.together`.

        Args:
            work: a function of a module that the process can import.
            parties: who.
            *args: also objects of these parties.
        """
        data = [arg.data if isinstance(arg, DeviceObject) else arg for arg in args]
        names = [party.party for party in parties]
        return PYUObject(parties[0], self.actor.together.remote(work, names, *data))


class PlacedObject(PYUObject):
    """A party's object in a shared process, with its methods, as upstream's ``proxy`` gives them.

    Args:
        device: the party.
        process: where the object is.
        kind: its class.

    Attributes:
        process: where the object is.
    """

    device: PYU

    def __init__(self, device: PYU, process: Process, kind: type) -> None:
        super().__init__(device, process.actor)
        self.process = process
        self._kind = kind

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__") or "_kind" not in self.__dict__ or not hasattr(self._kind, name):
            raise AttributeError(name)
        returns = getattr(self._kind, name).__annotations__.get("return")
        # As upstream's proxy counts them.
        count = len(returns.__args__) if getattr(returns, "_name", None) == "Tuple" else 1

        def method(*args: Any, **kwargs: Any) -> Any:
            wanted = kwargs.pop("_num_returns", count)
            args, kwargs = _plain((args, kwargs), self.device)
            call = self.process.actor.call.options(num_returns=wanted)
            refs = call.remote(self.device.party, name, *args, **kwargs)
            if wanted == 1:
                return PYUObject(self.device, refs)
            return [PYUObject(self.device, ref) for ref in refs]

        return method


def _plain(values: Any, device: PYU) -> Any:
    """Values with references of Ray's in place of a device's objects.

    Raises:
        ValueError: an object is at another device.
    """

    def reference(value: Any) -> Any:
        if not isinstance(value, DeviceObject):
            return value
        if value.device != device:
            raise ValueError(f"an argument must be at {device}, got an object at {value.device}")
        return value.data

    return jax.tree_util.tree_map(reference, values)


def _fetched(values: Any) -> Any:
    """Values in place of Ray's references, which may be anywhere in them."""
    leaves, tree = jax.tree_util.tree_flatten(values)
    places = [k for k, leaf in enumerate(leaves) if isinstance(leaf, ray.ObjectRef)]
    if not places:
        return values
    for place, value in zip(places, ray.get([leaves[place] for place in places]), strict=True):
        leaves[place] = value
    return jax.tree_util.tree_unflatten(tree, leaves)
