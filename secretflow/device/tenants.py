"""A party's object in a process that may hold those of other parties, too, see :mod:`.shared_process`."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

_Held = TypeVar("_Held")


@dataclass(frozen=True)
class Randomness:
    """Where the generators of a process stand that are shared by all that runs in it."""

    pythons: Any
    numpys: dict[str, Any]
    torchs: Any
    gpus: Any

    @classmethod
    def now(cls) -> Randomness:
        torch = sys.modules.get("torch")  # who has not imported it has drawn nothing from it
        return cls(
            random.getstate(),
            np.random.get_state(legacy=False),
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

    def __init__(self, held: _Held, randomness: Randomness | None = None) -> None:
        self.held = held
        self._randomness = randomness

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Has the process's random generators stand where this party has left them, as in one of its own."""
        if self._randomness is None:
            yield
            return
        others = Randomness.now()
        self._randomness.restore()
        try:
            yield
        finally:
            self._randomness = Randomness.now()
            others.restore()
