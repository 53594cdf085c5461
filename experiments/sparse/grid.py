"""Which runs there are, in the order of what they are worth."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from experiments.sparse import tuning
from experiments.sparse.following import Following
from experiments.sparse.local import Local
from experiments.sparse.methods import Dense, Method, Product
from experiments.sparse.peers import FedDst, FedRts, LotteryFl, PruneFl
from experiments.sparse.tasks import SPLITS
from secretflow.ml.nn.fl.pruning import PruneSettings

Made = tuple[Method, "PruneSettings | None"]
SEEDS = (1, 2, 3)
MORE_SEEDS = (4, 5, 6)
"""For the tasks in which three leave open how much is lost."""
DENSITIES = (0.1, 0.05, 0.02, 0.01)
_OF_SMALL_NET = (0.5, 0.3)
"""Densities at which a net of 1,947 prunable weights is looked at besides."""
PARTS = ("measured", "tuning", "why")

_LEARNING_RATES = {"fedavg-cnn": 2e-3, "resnet20": 3e-3, "lstm": 1e-2, "table-net": 3e-3, "convnet": 2e-2}


class Cell(NamedTuple):
    """One run; the names are those of a row of the results.

    Attributes:
        dataset: as for :func:`~experiments.sparse.tasks.load`.
        model: of :data:`~experiments.sparse.tasks.NETS`.
        split: of :data:`~experiments.sparse.tasks.SPLITS`.
        parties: how many.
        method: as for :func:`made`.
        density: in the end; 1 of the dense method.
        seed: of weights, rows, split and order.
        optimizer: see :class:`~experiments.sparse.engine.Recipe`.
        learning_rate: of the optimiser; the best of those tried with other seeds.
        decay: see :class:`~experiments.sparse.engine.Run`.
    """

    dataset: str
    model: str
    split: str
    parties: int
    method: str
    density: float
    seed: int
    optimizer: str
    learning_rate: float
    decay: str = "none"


def _product(density: float, upload_bits: int | None = None, **options: object) -> Made:
    settings = PruneSettings(prune_end_rate=density, **options)  # type: ignore[arg-type]
    return Product(settings, upload_bits=upload_bits), settings


METHODS: dict[str, Callable[[float], Made]] = {
    "dense": lambda density: (Dense(), None),
    "preset-lottery": lambda density: _product(density, prune_preset="lottery"),
    "local": lambda density: _product(
        density,
        prune_preset="lottery",
        prune_scope="global",
        prune_schedule="cubic",
        prune_end_epoch=6,
        prune_freq=1,
    ),
    "ours-8-bits": lambda density: _product(density, upload_bits=8),
    "ours-4-bits": lambda density: _product(density, upload_bits=4),
    "magnitude": lambda density: _product(
        density, prune_criterion="magnitude", step_power=0.0, prune_schedule="cubic"
    ),
    "cubic": lambda density: _product(density, prune_schedule="cubic"),
    "ours": lambda density: _product(density),
    "FedDST": lambda density: (FedDst(density), None),
    "FedRTS": lambda density: (FedRts(density), None),
    "PruneFL": lambda density: (PruneFl(density), None),
    "LotteryFL": lambda density: (LotteryFl(density), None),
}
"""How each method is made for a density. "ours" is ``fed_avg_w_prune`` as it is without any argument but
``prune_end_rate``, "preset-lottery" its first version."""

_WITH_ARGUMENTS: dict[str, Callable[..., Method]] = {
    "following": Following,
    "local": Local,
    "FedDST": FedDst,
    "FedRTS": FedRts,
    "PruneFL": PruneFl,
}

_PEERS = ("FedDST+steps", "FedRTS+steps", "PruneFL+steps", "LotteryFL")

_SKEWED = ("iid", "dirichlet-0.5", "dirichlet-0.1")
_SPLITS_OF_LSTM = {10: SPLITS, 30: SPLITS, 5: _SKEWED, 2: _SKEWED}
_SPLITS_OF_TABLE = {10: _SKEWED[:2], 30: _SKEWED[:1], 5: _SKEWED, 2: _SKEWED}
_SPLITS_OF_IMAGES = {10: SPLITS, 30: SPLITS, 2: _SKEWED, 5: SPLITS}
"""By parties. Other parts of the small data leave some parties fewer rows than batches; of two parties none
is small."""

_OTHERS = ((10, "dirichlet-0.1"), (30, "dirichlet-0.5"), (10, "unequal"), (10, "iid"), (30, "dirichlet-0.1"))
"""Parties and splits of the image tasks that are worth the most after ten parties with Dirichlet 0.5."""

_ROUNDED = ("ours-8-bits", "ours-4-bits")

_WHY = (
    "local:span=24",
    "local:span=24,divisor=all",
    "local:span=24,at_least=5",
    "local:span=24,own=0.5",
    "local:span=24,own=0.0",
    "local:warm_up=40,span=1",
    "local:span=24,shows_union=1",
    "local:span=24,step_power=1.0",
    "local:span=24,divisor=all,step_power=1.0",
    "local:span=24,divisor=all,lone=own",
    "local:span=24,lone=pruned",
)


def made(name: str, density: float) -> Made:
    """A method for one run, and the settings of the product's plan where it has one.

    Args:
        name: of :data:`METHODS`; or arguments of :class:`~experiments.sparse.following.Following`,
            :class:`~experiments.sparse.local.Local` or a class of :mod:`~experiments.sparse.peers`, as in
            ``following:span=8,regrow=probe``. "+steps" behind it scales the optimiser's steps as "ours" does.
        density: of the run.
    """
    base, _, steps = name.partition("+")
    kind, _, words = base.partition(":")
    if words:
        options = dict(word.split("=") for word in words.split(","))
        method, settings = (
            _WITH_ARGUMENTS[kind](density, **{key: _value(text) for key, text in options.items()}),
            None,
        )
    else:
        method, settings = METHODS[kind](density)
    if steps:
        method.step_power = PruneSettings().step_power
    return method, settings


def _value(text: str) -> float | int | str:
    if text.isalpha():
        return text
    return float(text) if "." in text else int(text)


def cells(part: str = "measured") -> list[Cell]:
    """The runs of a part of the evaluation, those of the greatest worth first.

    Args:
        part: of :data:`PARTS`; "tuning" is what the methods and their settings were chosen with, on other
            seeds than those of "measured", "why" what local masks were studied with.
    """
    if part == "tuning":
        return list(dict.fromkeys(Cell(*run) for run in tuning.runs()))
    found: list[Cell] = []
    if part == "why":
        for split in ("dirichlet-0.5", "iid"):
            found += _of("digits", "lstm", split, 10, [("dense", 1.0), *((m, 0.1) for m in _WHY)], (1,))
        again = [(method, 0.1) for method in _WHY if "divisor" in method or "lone" in method]
        return found + _of("digits", "lstm", "dirichlet-0.5", 10, again, SEEDS[1:])
    ours = [("dense", 1.0), *(("ours", density) for density in DENSITIES)]
    cubic = [("cubic", density) for density in DENSITIES]
    images = list(itertools.product(("fashion-mnist", "mnist"), ("fedavg-cnn", "resnet20")))
    for dataset, model in images:
        found += _of(dataset, model, "dirichlet-0.5", 10, ours, SEEDS)
    found += _of("fashion-mnist", "resnet20", "dirichlet-0.5", 10, ours[:3], MORE_SEEDS)
    for dataset, model in images:
        found += _of(dataset, model, "dirichlet-0.5", 10, cubic, SEEDS)
    for dataset, model in images:
        rounded = [*((each, 0.1) for each in _ROUNDED), (_ROUNDED[0], 0.05)]
        found += _of(dataset, model, "dirichlet-0.5", 10, rounded, SEEDS)
    others = [*((peer, 0.05) for peer in _PEERS), ("preset-lottery", 0.1), ("local", 0.1), ("magnitude", 0.1)]
    small = [("digits", "lstm", 10), ("breast-cancer", "table-net", 5)]
    for dataset, model, parties in small:
        found += _of(dataset, model, "dirichlet-0.5", parties, [*ours[:3], *cubic[:2], *others], SEEDS)
        found += _of(dataset, model, "dirichlet-0.5", parties, [(peer, 0.1) for peer in _PEERS], SEEDS)
        found += _of(dataset, model, "dirichlet-0.5", parties, [(each, 0.1) for each in _ROUNDED], SEEDS)
    for dataset in ("fashion-mnist", "mnist"):
        more = [("ours", density) for density in _OF_SMALL_NET]
        found += _of(dataset, "convnet", "dirichlet-0.5", 10, [*ours[:3], *more], SEEDS)
    for parties in _SPLITS_OF_TABLE:
        for split in _SPLITS_OF_LSTM[parties]:
            found += _of("digits", "lstm", split, parties, ours[:3], SEEDS)
        for split in _SPLITS_OF_TABLE[parties]:
            found += _of("breast-cancer", "table-net", split, parties, ours[:3], SEEDS)
    for parties, splits in _SPLITS_OF_IMAGES.items():
        for split in splits:
            found += _of("fashion-mnist", "convnet", split, parties, ours[:3], SEEDS)
    for (parties, split), (dataset, model) in itertools.product(_OTHERS, images):
        found += _of(dataset, model, split, parties, ours[:3], SEEDS)
    for dataset, model in images:
        found += _of(dataset, model, "dirichlet-0.5", 10, [*others, ("FedDST", 0.05)], SEEDS)
    for (dataset, model), (parties, splits) in itertools.product(images, _SPLITS_OF_IMAGES.items()):
        for split in splits:
            found += _of(dataset, model, split, parties, ours[:3], SEEDS)
    for dataset, model in images:
        found += _of(dataset, model, "dirichlet-0.5", 10, [(each, 0.05) for each in _ROUNDED], SEEDS)
    for (dataset, model), density in itertools.product(images, (0.1, 0.02, 0.01)):
        found += _of(dataset, model, "dirichlet-0.5", 10, [(peer, density) for peer in _PEERS], SEEDS)
    return list(dict.fromkeys(found))


def _of(
    dataset: str,
    model: str,
    split: str,
    parties: int,
    methods: Sequence[tuple[str, float]],
    seeds: Sequence[int],
) -> list[Cell]:
    return [
        Cell(
            dataset,
            model,
            split,
            parties,
            method,
            density,
            seed,
            "adam",
            _LEARNING_RATES[model],
        )
        for (method, density), seed in itertools.product(methods, seeds)
    ]
