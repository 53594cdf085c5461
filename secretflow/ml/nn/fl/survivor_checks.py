"""What ``min_survivors`` does not go with."""

from __future__ import annotations

import secretflow.distributed as sfd
from secretflow.device import PYU
from secretflow.distributed.primitive import DISTRIBUTION_MODE
from secretflow.errors import ArgumentError
from secretflow.ml.nn.fl.options import ALL_ROWS, FitOptions
from secretflow.ml.nn.fl.pruning import PruneSettings
from secretflow.ml.nn.fl.pruning.scores import CRITERIA


def check_survivors(settings: PruneSettings, worker_processes: int | None, random_seed: int | None) -> None:
    """Refuses what does not go with ``min_survivors``.

    Args:
        settings: what the user chose about pruning.
        worker_processes: in how many processes parties share; None for one each.
        random_seed: of the initial weights.

    Raises:
        ValueError: the parties are not processes, or a party that comes back could not make up for what it
            has missed.
    """
    mode = sfd.get_distribution_mode()
    if mode not in (DISTRIBUTION_MODE.SIMULATION, DISTRIBUTION_MODE.RAY_PRODUCTION):
        raise ArgumentError(
            f"min_survivors must be None where parties are not processes of Ray, got it in mode {mode.name}"
        )
    if worker_processes is not None:
        raise ArgumentError(
            "worker_processes must be None with min_survivors, for parties that share a process are lost "
            f"together, got {worker_processes}"
        )
    if mode is DISTRIBUTION_MODE.RAY_PRODUCTION and random_seed is None:
        raise ArgumentError(
            "random_seed of FLModel must be a number with min_survivors over a network, the same at all "
            "parties, for one that comes late cannot ask which weights the others begin with, got None"
        )
    for name in ("regrow_percent", "withhold_percent"):
        if value := getattr(settings, name):
            raise ArgumentError(f"{name} must be 0 with min_survivors, got {value!r}")
    if CRITERIA[settings.prune_criterion].needs_gradient:
        raise ArgumentError(
            "prune_criterion must be one that needs no gradients with min_survivors, got "
            f"{settings.prune_criterion!r}"
        )


def check_surviving_fit(options: FitOptions, over_a_network: bool) -> None:
    """Refuses arguments of ``fit`` that do not go with ``min_survivors``.

    Args:
        options: the arguments.
        over_a_network: whether each party has a driver of its own.

    Raises:
        ValueError: there is one.
    """
    for name, given in (
        ("x", options.x if options.from_files else None),
        ("dataset_builder", options.dataset_builder),
        ("audit_log_dir", options.audit_log_dir),
    ):
        if given is not None:
            what = "an HDataFrame or a FedNdarray" if name == "x" else "None"
            raise ArgumentError(f"{name} must be {what} with min_survivors, got {given!r}")
    if options.sampler_method != "batch":
        raise ArgumentError(
            f"sampler_method must be 'batch' with min_survivors, got {options.sampler_method!r}"
        )
    if over_a_network and options.steps_per_epoch in (None, ALL_ROWS):
        raise ArgumentError(
            "steps_per_epoch must be a number with min_survivors over a network, for a party that comes back "
            f"cannot ask all others for their rows, got {options.steps_per_epoch!r}"
        )
    if over_a_network and options.random_seed is not None:
        raise ArgumentError(
            "random_seed of fit must be None with min_survivors over a network, for in a second fit the same "
            "rows would come in the same order, and who is missing there would show its updates, got "
            f"{options.random_seed!r}; random_seed of FLModel still gives the initial weights"
        )


def check_all_there(expected: set[PYU], there: set[PYU]) -> None:
    """Refuses to begin a fit in a simulation that has lost a party for good.

    Raises:
        ValueError: it has.
    """
    if gone := sorted(device.party for device in expected - there):
        raise ArgumentError(
            f"all parties must be there when fit begins, gone: {', '.join(gone)}; make a new FLModel and "
            "load what was saved"
        )
