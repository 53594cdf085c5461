"""What :class:`~secretflow.ml.nn.fl.fl_model.FLModel` refuses before any worker has something to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any

import ray

import secretflow.distributed as sfd
from secretflow import _validate
from secretflow.device import PYU
from secretflow.distributed.primitive import DISTRIBUTION_MODE
from secretflow.errors import ArgumentError, WrongTypeError
from secretflow.ml.nn.fl.pruning import PruneSettings
from secretflow.ml.nn.fl.strategy_dispatcher import _strategy_dispatcher
from secretflow.ml.nn.fl.worker.capture import GradientCapture
from secretflow.security.aggregation.secure_prune_aggregator import SecurePruneAggregator
from secretflow.security.privacy import DPStrategyFL

PRUNE_STRATEGY = "fed_avg_w_prune"

_SEED_FOR_ZERO = 2**31 - 1  # the seeds that upstream draws are below 100,000


def upstreams_fit(
    strategy: str, fit: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments for upstream's fit by name; upstream takes seed 0 for none.

    Args:
        strategy: not ``fed_avg_w_prune``.
        fit: upstream's.
        args: what the user gave by position.
        kwargs: what the user gave by name.

    Raises:
        TypeError: ``fit`` has other arguments.
        ValueError: upstream would ignore one.
    """
    arguments = signature(fit).bind(*args, **kwargs).arguments
    if arguments.get("class_weight") is not None:
        raise ArgumentError(
            f"class_weight must be None with strategy={strategy!r}, which ignores it, got "
            f"{arguments['class_weight']!r}; {PRUNE_STRATEGY!r} with prune_end_rate=1 applies it"
        )
    seed = arguments.get("random_seed")
    return {**arguments, "random_seed": _SEED_FOR_ZERO} if seed is not None and seed == 0 else arguments


def check_server_agg_method(aggregator: Any, method: Any) -> None:
    """Refuses a method of averaging that an aggregator takes the place of."""
    if aggregator is not None and method is not None:
        raise ArgumentError(
            f"server_agg_method must be None with an aggregator, which averages, got {method!r}"
        )


def check_aggregator(aggregator: Any, device_list: list[PYU]) -> None:
    """Refuses an aggregator that takes no masks, or is of other parties."""
    if not isinstance(aggregator, SecurePruneAggregator):
        raise WrongTypeError(
            f"aggregator must be a SecurePruneAggregator with strategy={PRUNE_STRATEGY!r}, for it takes "
            f"masks, got {aggregator!r}"
        )
    pyus = isinstance(device_list, (list, tuple)) and all(isinstance(device, PYU) for device in device_list)
    _validate.check(pyus, "device_list", device_list, "a list of PYU, the parties", TypeError)
    if set(aggregator.participants) != set(device_list):
        raise ArgumentError(
            f"device_list must be the aggregator's participants, {aggregator.participants!r}, got "
            f"{device_list!r}"
        )


def check_privacy(
    dp_strategy: Any,
    settings: PruneSettings,
    parties: int,
    upload_bits: int | None = None,
    min_survivors: int | None = None,
) -> None:
    """Refuses noise whose account of privacy would not hold.

    Every party adds its part of the noise, so all parts must arrive at every weight. With masks of their own
    fewer do, and the masks come from weights without noise. Layers that are clipped one by one may be longer
    together than the norm that the noise is for.

    Where parties may be lost, the parts of the fewest who may be left must be the noise that the account is
    of: ``s`` of them have ``sqrt(s / min_survivors)`` times that, so any set of survivors has at least it.
    Who is left is no random sample of the parties, so the account must not count on one: upstream's takes
    ``num_updates / num_clients`` for the rate of one, which must be 1.

    Args:
        dp_strategy: upstream's ``DPStrategyFL``, or None.
        settings: what the user chose about pruning.
        parties: how many train.
        upload_bits: bits of an update; None if it travels whole.
        min_survivors: fewest of them who are in an average; None if all are.

    Raises:
        ValueError: masks are the parties' own, layers are clipped one by one, updates are rounded, or the
            noise is split over another number of parties.
    """
    noise = getattr(dp_strategy, "model_gdp", None)
    if noise is None:
        return
    if settings.mask_scope != "global":
        raise ArgumentError(
            "mask_scope must be 'global' with dp_strategy's model_gdp, for where few parties keep a weight "
            f"only their parts of the noise arrive, got {settings.mask_scope!r}"
        )
    if getattr(noise, "is_clip_each_layer", False):
        raise ArgumentError(
            "is_clip_each_layer of model_gdp must be False, for the clipped layers together may be longer "
            "than l2_norm_clip, which the noise is for, got True"
        )
    if upload_bits is not None:
        raise ArgumentError(
            "upload_bits must be None with dp_strategy's model_gdp, for what is rounded off one update is in "
            f"the next one, which the account of the noise does not know of, got {upload_bits!r}"
        )
    fewest, which = (
        (parties, "as many as train")
        if min_survivors is None
        else (min_survivors, "min_survivors, for an average may have no more parts of the noise")
    )
    for name in ("num_clients", "num_updates"):
        number = getattr(noise, name, fewest)
        if number != fewest:
            raise ArgumentError(f"{name} of model_gdp must be {fewest}, {which}, got {number}")


def check_capture(gradient_capture: GradientCapture | None, device_list: list[PYU]) -> None:
    """Refuses a capture by somebody who does not train: nothing would ever be written."""
    names = [device.party for device in device_list]
    kinds = (GradientCapture, type(None))
    _validate.instance("gradient_capture", gradient_capture, kinds, "a GradientCapture or None")
    if gradient_capture is not None and gradient_capture.party not in names:
        raise ArgumentError(f"gradient_capture.party must be one of {names}, got {gradient_capture.party!r}")


def check_backend(backend: str) -> None:
    """Refuses what is not torch."""
    if backend != "torch":
        raise ArgumentError(f"backend must be 'torch' with {PRUNE_STRATEGY!r}, got {backend!r}")


def check_worker_processes(worker_processes: int | None) -> None:
    """Refuses processes for the parties to share where each has machines of its own.

    Args:
        worker_processes: how many; None are not shared.

    Raises:
        TypeError: it is no integer.
        ValueError: it is below 1, or this is no simulation.
    """
    _validate.integer("worker_processes", worker_processes, 1, optional=True)
    simulated = sfd.get_distribution_mode() in (DISTRIBUTION_MODE.SIMULATION, DISTRIBUTION_MODE.DEBUG)
    if worker_processes is not None and not simulated:
        raise ArgumentError(
            "worker_processes must be None outside of a simulation, where every party has a process of its "
            f"own, got {worker_processes}"
        )


def check_gpus(num_gpus: float, device_list: Sequence[PYU], processes: int | None = None) -> None:
    """Refuses to wait for GPUs that the simulation does not have.

    Args:
        num_gpus: of each party, or of each process where parties share them.
        device_list: the parties.
        processes: how many the parties share; None gives each one of its own.

    Raises:
        TypeError: ``num_gpus`` is no number.
        ValueError: it is negative, or there are fewer.
    """
    _validate.number("num_gpus", num_gpus, at_least=0)
    if not num_gpus or sfd.get_distribution_mode() != DISTRIBUTION_MODE.SIMULATION:
        return
    there = ray.cluster_resources().get("GPU", 0.0)
    count = len(device_list) if processes is None else min(processes, len(device_list))
    if num_gpus * count > there:
        raise ArgumentError(
            f"num_gpus must be at most {there / count:g}, for Ray has {there:g} GPUs for "
            f"{count} {'parties' if processes is None else 'processes'}, got {num_gpus!r}; a part of a GPU, "
            "such as 0.5, is allowed, and "
            "sf.init(num_gpus=...) says how many there are"
        )


def check_choices(
    server: Any,
    random_seed: int | None,
    skip_bn: bool,
    wp_strategy: bool | None,
    consensus_num: int = 1,
    dp_strategy: DPStrategyFL | None = None,
    simulation: bool = False,
) -> None:
    """Refuses what upstream would pass on as it is.

    Args:
        server: as ``FLModel`` gets it, also for the rest.
        random_seed: of the initial weights.
        skip_bn: whether batch normalisation stays at the parties.
        wp_strategy: the name of the first version for the strategy.
        consensus_num: upstream's, of strategies that stop early.
        dp_strategy: upstream's.
        simulation: upstream's.

    Raises:
        TypeError: one is of another type.
        ValueError: one is out of its range.
    """
    _validate.instance("server", server, PYU, "a PYU")
    _validate.integer("random_seed", random_seed, 0, 2**32 - 1, optional=True)
    _validate.flag("skip_bn", skip_bn)
    _validate.integer("consensus_num", consensus_num, 1)
    adds_noise = dp_strategy is None or hasattr(dp_strategy, "model_gdp")
    _validate.check(adds_noise, "dp_strategy", dp_strategy, "a DPStrategyFL or None", TypeError)
    _validate.flag("simulation", simulation)
    allowed = wp_strategy is None or wp_strategy is True
    _validate.check(allowed, "wp_strategy", wp_strategy, f"True or None with strategy={PRUNE_STRATEGY!r}")


def refuse_pruning(strategy: str, chosen: Mapping[str, Any]) -> None:
    """Refuses arguments of pruning with a strategy that does not prune.

    Args:
        strategy: of upstream's or the user's own.
        chosen: the arguments, by name.

    Raises:
        ValueError: there is one.
    """
    for name, value in chosen.items():
        raise ArgumentError(f"strategy must be {PRUNE_STRATEGY!r} with {name}={value!r}, got {strategy!r}")


def check_strategy(strategy: Any, backend: str) -> None:
    """Refuses a strategy that nobody has registered, when the backend's have been imported.

    Args:
        strategy: its name.
        backend: "torch" or "tensorflow".

    Raises:
        ValueError: there is none of that name.
    """
    end = f"_{backend}"
    known = sorted(name.removesuffix(end) for name in _strategy_dispatcher._ops if name.endswith(end))
    _validate.one_of("strategy", strategy, known)
