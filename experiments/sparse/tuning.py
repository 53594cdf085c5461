"""What methods and their settings were chosen with: runs on other seeds than those of the measurement."""

from __future__ import annotations

import itertools
from typing import NamedTuple

SEEDS = (11, 12)
_MORE_SEEDS = (*SEEDS, 13)


class Tried(NamedTuple):
    """Runs that differ in method, density, learning rate and seed.

    Attributes:
        dataset: see :class:`~experiments.sparse.grid.Cell`, as well as the next three.
        model: of the task.
        parties: how many.
        optimizer: with which.
        learning_rates: of the optimiser.
        methods: of :data:`~experiments.sparse.grid.METHODS`, or arguments of
            :class:`~experiments.sparse.following.Following`; ``span=8`` is left out.
        densities: of each method.
        decay: see :class:`~experiments.sparse.grid.Cell`.
        seeds: of each.
    """

    dataset: str
    model: str
    parties: int
    optimizer: str
    learning_rates: tuple[float, ...]
    methods: tuple[str, ...]
    densities: tuple[float, ...]
    decay: str = "none"
    seeds: tuple[int, ...] = SEEDS


_CNN = ("fashion-mnist", "fedavg-cnn", 10, "adam")
_RESNET = ("fashion-mnist", "resnet20", 10, "adam")
_LSTM = ("digits", "lstm", 10)
_TABLE = ("breast-cancer", "table-net", 5, "adam")
_HALF, _MORE, _WHOLE = "step_power=0.5", "step_power=0.75", "step_power=1.0"
_LAMP = ",layers=lamp"
_TAILS = (("3.0", 40), ("3.0", 60), ("5.0", 60))
_OF_PEERS = (
    "FedDST:exchanged=0.1+steps",
    "FedRTS:exchanged=0.1+steps",
    "PruneFL:every=8+steps",
    "PruneFL:every=16+steps",
)
_SLOW_PARTS = ((8, 1 / 3, 60), (4, 1 / 2, 60), (4, 1 / 2, 72), (2, 1 / 2, 60))
"""Rounds of the fast part, what part of the way the slow one is, counted in factors, and when it ends."""


def _slow(density: float, span: int, part: float, end: int, power: str = _HALF) -> str:
    return f"span={span},tail={density**-part:.2f},tail_end={end},{power}{_LAMP}"


_POWER = (_HALF, _MORE, _WHOLE)
_POWERS = (*_POWER, _HALF + _LAMP, _MORE + _LAMP, _WHOLE + _LAMP)

_TRIED = (
    # How fast to learn.
    Tried(*_CNN, (5e-4, 1e-3, 2e-3, 3e-3, 4e-3), ("dense",), (1.0,)),
    Tried(*_CNN[:3], "sgd", (0.05, 0.1, 0.2, 0.3), ("dense",), (1.0,)),
    Tried(*_RESNET, (2e-3, 3e-3, 4.5e-3, 1e-2), ("dense",), (1.0,)),
    Tried(*_RESNET[:3], "sgd", (0.3,), ("dense",), (1.0,)),
    Tried(*_LSTM, "adam", (3e-3, 5e-3, 1e-2, 2e-2), ("dense",), (1.0,)),
    Tried(*_LSTM, "adam", (5e-3, 1e-2, 2e-2), (_HALF + _LAMP,), (0.1,)),
    Tried(*_TABLE, (3e-3, 1e-2), ("dense",), (1.0,)),
    Tried(*_TABLE, (3e-3, 1e-2), (_HALF + _LAMP,), (0.1,)),
    # How much longer steps, and which weights.
    Tried(*_CNN, (2e-3,), (_HALF, _MORE, _HALF + _LAMP, _MORE + _LAMP), (0.1, 0.05, 0.01)),
    Tried(*_CNN, (2e-3,), (_HALF + _LAMP,), (0.02,)),
    Tried(*_CNN, (1e-3,), (_WHOLE + _LAMP,), (0.05, 0.01)),
    Tried(*_CNN, (2e-3,), (_WHOLE, _MORE + ",layers=fan"), (0.05, 0.01)),
    Tried(*_CNN, (4e-3,), (_HALF, _MORE, _HALF + _LAMP), (0.05, 0.01)),
    Tried(*_RESNET, (3e-3,), (_HALF, _MORE, _WHOLE), (0.05, 0.02)),
    Tried(*_RESNET, (3e-3,), (_HALF + _LAMP, _MORE + _LAMP, _WHOLE + _LAMP), (0.05, 0.02)),
    Tried(*_RESNET, (3e-3,), (_HALF, _MORE, _HALF + _LAMP), (0.1,)),
    Tried(*_RESNET, (3e-3,), (_HALF + _LAMP,), (0.01,)),
    Tried(*_RESNET, (6e-3,), (_HALF, _HALF + _LAMP), (0.05, 0.02)),
    Tried(*_RESNET, (3e-3,), (_MORE + ",layers=fan", _MORE + ",warm_up=4"), (0.05, 0.02)),
    Tried(
        *_RESNET, (3e-3,), (_HALF + _LAMP + ",regrow=probe", _MORE + _LAMP + ",regrow=probe"), (0.05, 0.02)
    ),
    Tried(*_LSTM, "adam", (3e-3,), _POWERS, (0.1, 0.05)),
    Tried(*_LSTM, "sgd", (0.5, 1.5), ("dense",), (1.0,)),
    Tried(*_LSTM, "sgd", (0.5, 1.5), ("step_power=0.0" + _LAMP, _HALF + _LAMP, _WHOLE + _LAMP), (0.1,)),
    Tried(*_CNN[:3], "sgd", (0.3,), ("step_power=0.0" + _LAMP, _HALF + _LAMP), (0.05,)),
    Tried(*_RESNET, (3e-3,), ("span=16,step_power=0.5,layers=lamp",), (0.02,)),
    # How long to prune.
    Tried(
        *_RESNET,
        (3e-3,),
        tuple(f"span={span},{_HALF}{_LAMP}" for span in (24, 40, 60)),
        (0.1, 0.05, 0.02, 0.01),
    ),
    Tried(*_RESNET, (3e-3,), (f"span=16,{_HALF}{_LAMP}",), (0.1, 0.05, 0.01)),
    Tried(*_RESNET, (3e-3,), (f"span=24,geometric=1,{_HALF}{_LAMP}",), (0.1, 0.02)),
    Tried(*_RESNET, (6e-3,), (f"span=24,{_HALF}{_LAMP}",), (0.1, 0.05, 0.02, 0.01)),
    Tried(*_RESNET, (3e-3,), (f"span=24,{_MORE}{_LAMP}",), (0.02, 0.01)),
    Tried(
        *_RESNET,
        (3e-3,),
        tuple(f"tail={tail},tail_end={end},{_HALF}{_LAMP}" for tail, end in _TAILS),
        (0.1, 0.05, 0.02, 0.01),
    ),
    # How soon to begin the slow part.
    Tried(*_RESNET, (3e-3,), (f"span=4,tail=5.0,tail_end=60,{_HALF}{_LAMP}",), (0.05, 0.02)),
    *(
        Tried(*task, (rate,), (_slow(density, *part),), (density,), seeds=seeds)
        for task, rate, parts, densities, seeds in (
            ((*_LSTM, "adam"), 1e-2, _SLOW_PARTS[:2], (0.1, 0.05), SEEDS),
            (_RESNET, 3e-3, _SLOW_PARTS, (0.1, 0.05, 0.02, 0.01), _MORE_SEEDS),
            (_CNN, 2e-3, _SLOW_PARTS[:2], (0.1, 0.01), SEEDS),
        )
        for part in parts
        for density in densities
    ),
    Tried(*_RESNET, (3e-3,), ("dense",), (1.0,), seeds=_MORE_SEEDS),
    # The same times the density for all densities, for fewer bytes, beside the best peer for as many.
    Tried(*_RESNET, (3e-3,), (f"span=4,tail=4.0,tail_end=60,{_HALF}{_LAMP}",), (0.1,), seeds=_MORE_SEEDS),
    Tried(
        *_RESNET,
        (3e-3,),
        (f"span=2,tail=4.0,tail_end=60,{_HALF}{_LAMP}",),
        (0.05, 0.02, 0.01),
        seeds=_MORE_SEEDS,
    ),
    Tried(*_RESNET, (3e-3,), (f"span=2,tail=2.0,tail_end=60,{_HALF}{_LAMP}",), (0.03,), seeds=_MORE_SEEDS),
    Tried(*_RESNET, (3e-3,), ("FedDST",), (0.05,), seeds=_MORE_SEEDS),
    # Steps that come back to the optimiser's once nothing is pruned any more.
    *(
        Tried(*_RESNET, (3e-3,), (_slow(density, 4, 1 / 2, 60) + ",calm=1",), (density,), seeds=_MORE_SEEDS)
        for density in (0.1, 0.05)
    ),
    # Longer steps where there are many parties, and so few steps; thirty have three rounds in an epoch.
    *(
        Tried("digits", "lstm", parties, "adam", (1e-2,), methods, (density,), seeds=_MORE_SEEDS)
        for parties, fast, slow in ((10, 4, 60), (30, 3, 45))
        for methods, density in (
            (("dense",), 1.0),
            *(
                (tuple(_slow(density, fast, 1 / 2, slow, power) for power in _POWER), density)
                for density in (0.1, 0.05)
            ),
        )
    ),
    Tried("fashion-mnist", "convnet", 10, "adam", (3e-3, 1e-2, 2e-2, 3e-2), ("dense",), (1.0,)),
    # What the published methods exchange, and how often.
    Tried(
        *(*_LSTM, "adam"),
        (1e-2,),
        ("FedDST+steps", "FedRTS+steps", "PruneFL+steps", *_OF_PEERS),
        (0.1, 0.05),
        seeds=_MORE_SEEDS,
    ),
    Tried(*_RESNET, (3e-3,), ("FedDST:exchanged=0.1",), (0.05,), seeds=_MORE_SEEDS),
    Tried(*_RESNET, (3e-3,), (f"warm_up=8,{_HALF}{_LAMP}", f"warm_up=loss,{_HALF}{_LAMP}"), (0.1, 0.02)),
    # Shorter steps, reparametrisation and more regrowth with LAMP.
    Tried(*_RESNET, (3e-3,), ("step_power=0.0" + _LAMP, "step_power=0.25" + _LAMP), (0.1, 0.02)),
    Tried(
        *_RESNET, (3e-3,), (_HALF + _LAMP + ",exponent=1.1", _HALF + _LAMP + ",exponent=1.25"), (0.1, 0.02)
    ),
    Tried(
        *_RESNET,
        (3e-3,),
        (
            _HALF + _LAMP + ",regrow=trial,candidates=0.05",
            _HALF + _LAMP + ",regrow=probe,candidates=1.0,exchanged=0.3",
        ),
        (0.1, 0.02),
    ),
    Tried(*_RESNET, (2e-3,), (_HALF + _LAMP,), (0.1, 0.02)),
    # Steps that shrink to nothing.
    Tried(*_CNN, (1e-3, 2e-3, 4e-3), ("dense",), (1.0,), "cosine"),
    Tried(*_CNN, (1e-3,), (_WHOLE, _WHOLE + _LAMP, _WHOLE + ",layers=erk"), (0.05, 0.01), "cosine"),
    Tried(*_CNN, (2e-3,), (_HALF, _WHOLE, _WHOLE + _LAMP), (0.05, 0.01), "cosine"),
    Tried(*_CNN, (4e-3,), (_HALF, _MORE), (0.05, 0.01), "cosine"),
    Tried(*_RESNET, (3e-3, 6e-3, 1e-2), ("dense",), (1.0,), "cosine"),
    Tried(*_RESNET, (3e-3, 6e-3), ("step_power=0.0", _HALF), (0.05, 0.02), "cosine"),
    Tried(*_RESNET, (3e-3,), (_WHOLE, _HALF + _LAMP, _HALF + ",layers=erk"), (0.05, 0.02), "cosine"),
    Tried(*_RESNET, (3e-3,), ("span=16,step_power=0.5",), (0.05, 0.02), "cosine"),
    Tried(*_CNN, (1e-3,), ("span=16,step_power=1.0",), (0.05, 0.01), "cosine"),
)

_FIRST = (
    "span=8",
    "span=4",
    "span=16",
    "span=32",
    "warm_up=4,span=8",
    "warm_up=loss,span=8",
    "span=8,regrow=probe",
    "span=4,regrow=probe",
    "span=8,step_power=0.5",
    "span=8,step_power=1.0",
    "span=16,step_power=0.5",
    "span=32,step_power=0.5",
    "span=16,step_power=0.5,regrow=probe",
    "span=16,step_power=0.5,regrow=trial",
    "span=16,step_power=0.5,exponent=1.25",
)
"""What was tried first, with the FedAvg CNN and one seed: how long to prune, regrowth, reparametrisation."""

_FIRST_ONCE = (
    "following:span=16,step_power=1.0",
    "following:span=60,step_power=0.5",
    "following:span=16,step_power=0.5,votes=1",
    "following:warm_up=loss,span=12,step_power=0.5",
    "FedDST",
    "FedRTS",
    "local:span=24",
)
"""Likewise, at density 0.05 only."""


def runs() -> list[tuple[str, str, str, int, str, float, int, str, float, str]]:
    """The values of :class:`~experiments.sparse.grid.Cell` of each run that was tried."""
    found = []
    for tried in _TRIED:
        for rate, method, density, seed in itertools.product(
            tried.learning_rates, tried.methods, tried.densities, tried.seeds
        ):
            ours = "=" in method and ":" not in method
            name = f"following:{_with_span(method)}" if ours else method
            task = (tried.dataset, tried.model, "dirichlet-0.5", tried.parties)
            found.append((*task, name, density, seed, tried.optimizer, rate, tried.decay))
    first = [(f"following:{method}", density) for method in _FIRST for density in (0.05, 0.01)]
    for name, density in [*first, *((name, 0.05) for name in _FIRST_ONCE)]:
        task = ("fashion-mnist", "fedavg-cnn", "dirichlet-0.5", 10)
        found.append((*task, name, density, SEEDS[0], "adam", 1e-3, "none"))
    found.append(
        (*_RESNET[:2], "dirichlet-0.5", 10, "following:span=8", 0.05, SEEDS[0], "adam", 3e-3, "none")
    )
    return found


def _with_span(method: str) -> str:
    return method if "span=" in method else f"span=8,{method}"
