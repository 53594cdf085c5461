"""What runs in a process that several parties of a simulation share, see :mod:`.shared_process`."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import jax
import numpy as np
import ray

_Held = TypeVar("_Held")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class _Randomness:
    """Where the generators of a process stand that are shared by all that runs in it."""

    pythons: Any
    numpys: dict[str, Any]
    torchs: Any
    gpus: Any

    @classmethod
    def now(cls) -> _Randomness:
        torch = sys.modules.get("torch")  # who has not imported it has drawn nothing from it
        return cls(
            random.getstate(),
            np.random.get_state(legacy=False),  # type: ignore[arg-type]
            None if torch is None else torch.get_rng_state(),
            torch.cuda.get_rng_state_all() if torch is not None and torch.cuda.is_initialized() else None,
        )

    def restore(self) -> None:
        random.setstate(self.pythons)
        np.random.set_state(self.numpys)
        if self.torchs is not None:
            sys.modules["torch"].set_rng_state(self.torchs)
        if self.gpus is not None:
            sys.modules["torch"].cuda.set_rng_state_all(self.gpus)


class Tenant(Generic[_Held]):
    """A party's object in a process.

    Args:
        held: the object.
        randomness: where its random generators begin; None if it has the process to itself.

    Attributes:
        held: the object.
    """

    def __init__(self, held: _Held, randomness: _Randomness | None = None) -> None:
        self.held = held
        self._randomness = randomness

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Has the process's random generators stand where this party has left them, as in one of its own."""
        if self._randomness is None:
            yield
            return
        others = _Randomness.now()
        self._randomness.restore()
        try:
            yield
        finally:
            self._randomness = _Randomness.now()
            others.restore()


class SharedProcess:
    """What runs in a process: the objects of several parties, of which one works at a time."""

    def __init__(self) -> None:
        import torch  # noqa: F401 - so that its generator has a beginning to go back to

        self._tenants: dict[str, Tenant[Any]] = {}
        self._errors: dict[str, Exception] = {}  # of those who could not be made
        self._fresh = _Randomness.now()

    def admit(self, party: str, kind: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Makes the object of a party.

        Args:
            party: its name.
            kind: what makes it.
            *args: for ``kind``.
            **kwargs: for ``kind``.
        """
        self._fresh.restore()
        random.seed()  # a process of its own would not draw what another one draws
        np.random.seed()
        tenant: Tenant[Any] = Tenant(None, _Randomness.now())
        try:
            with tenant.turn():
                args, kwargs = _fetched((args, kwargs))
                tenant.held = kind(*args, **kwargs)
        except Exception as error:
            self._errors[party] = error
            raise
        self._tenants[party] = tenant

    def call(self, party: str, method: str, *args: Any, **kwargs: Any) -> Any:
        """Calls a method of a party's object.

        Raises:
            Exception: what its making or the method has failed with.
        """
        tenant = self._tenant(party)
        args, kwargs = _fetched((args, kwargs))
        with tenant.turn():
            return getattr(tenant.held, method)(*args, **kwargs)

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


def _fetched(values: Any) -> Any:
    """Values in place of Ray's references, which may be anywhere in them."""
    leaves, tree = jax.tree_util.tree_flatten(values)
    places = [k for k, leaf in enumerate(leaves) if isinstance(leaf, ray.ObjectRef)]
    if not places:
        return values
    for place, value in zip(places, ray.get([leaves[place] for place in places]), strict=True):
        leaves[place] = value
    return jax.tree_util.tree_unflatten(tree, leaves)
