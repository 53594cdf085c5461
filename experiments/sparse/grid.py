"""Which runs there are, in the order of what they are worth."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from experiments.sparse.following import Following
from experiments.sparse.local import Local
from experiments.sparse.methods import Dense, Method, Product
from experiments.sparse.peers import FedDst, FedRts, LotteryFl, PruneFl
from secretflow.ml.nn.fl.pruning import PruneSettings

_STUDIED: dict[str, Callable[..., Method]] = {"following": Following, "local": Local}
Made = tuple[Method, "PruneSettings | None"]
SEEDS = (1, 2, 3)
DENSITIES = (0.1, 0.05, 0.02, 0.01)


class Cell(NamedTuple):
    """One run of the grid; the names are those of a row of the results.

    Attributes:
        dataset: of :data:`~experiments.sparse.tasks.DATASETS`.
        model: of :data:`~experiments.sparse.tasks.NETS`.
        split: of :data:`~experiments.sparse.tasks.SPLITS`.
        parties: how many.
        method: of :data:`METHODS`.
        density: in the end; 1 of the dense method.
        seed: of weights, rows, split and order.
    """

    dataset: str
    model: str
    split: str
    parties: int
    method: str
    density: float
    seed: int


def _product(density: float, **options: object) -> Made:
    settings = PruneSettings(prune_end_rate=density, **options)  # type: ignore[arg-type]
    return Product(settings), settings


METHODS: dict[str, Callable[[float], Made]] = {
    "dense": lambda density: (Dense(), None),
    "seed": lambda density: _product(density),
    "local": lambda density: _product(
        density, prune_scope="global", prune_schedule="cubic", prune_end_epoch=6, prune_freq=1
    ),
    "shared": lambda density: _product(
        density,
        mask_scope="global",
        prune_scope="global",
        prune_schedule="cubic",
        prune_end_epoch=2,
        prune_freq=1,
    ),
    "ours": lambda density: (Following(density, span=8, step_power=1.0), None),
    "FedDST": lambda density: (FedDst(density), None),
    "FedRTS": lambda density: (FedRts(density), None),
    "PruneFL": lambda density: (PruneFl(density), None),
    "LotteryFL": lambda density: (LotteryFl(density), None),
}
"""How each method is made for a density."""


def made(name: str, density: float) -> Made:
    """A method for one run, and the settings of the product's plan where it has one.

    Args:
        name: of :data:`METHODS`, where "+steps" behind it scales the optimiser's steps as our own method does; or
            arguments of :class:`~experiments.sparse.following.Following` or
            :class:`~experiments.sparse.local.Local`, as in ``following:span=8,regrow=probe``.
        density: of the run.
    """
    base, _, steps = name.partition("+")
    kind, _, words = base.partition(":")
    if words or kind == "following":
        options = dict(word.split("=") for word in words.split(",") if word)
        method, settings = _STUDIED[kind](density, **{key: _value(text) for key, text in options.items()}), None
    else:
        method, settings = METHODS[kind](density)
    if steps:
        method.step_power = 1.0
    return method, settings


def _value(text: str) -> float | int | str:
    if text.isalpha():
        return text
    return float(text) if "." in text else int(text)


