"""Start and end of a program: upstream's, but a Ray cluster of its own is small and starts quickly.

What takes long to import is imported in the functions, so that the fork server can begin before it.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import importlib.metadata
import logging
import os
import sys
import warnings
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

from secretflow import _overlay
from secretflow.device.fork_server import ForkServer

_SWITCH = "SECRETFLOW_FAST_START"
_RAY_VERSION = "2.9.3"
"""The quick start replaces private parts of this version, and others need not have them."""

_PYTHONS_THRESHOLDS = (700, 10, 10)
_RARE_THRESHOLDS = (50_000, 10, 10)
"""The imports that follow make hundreds of thousands of objects and no garbage, and Python looks through all
of them again and again: a quarter of the time of importing torch."""

_running = ExitStack()
_logger = logging.getLogger(__name__)


def init(
    parties: str | list[str] | None = None,
    ray_mode: bool = True,
    address: str | None = None,
    *args: Any,
    debug_mode: bool = False,
    log_to_driver: bool = True,
    **kwargs: Any,
) -> None:
    """Starts SecretFlow; see ``secretflow.device.driver.init``, which has the same arguments.

    Where this process starts a Ray cluster of its own (``address="local"``, no ``debug_mode``) on Linux, that
    has no autoscaler, its workers are forked from one process, and until :func:`shutdown` Python looks for
    garbage in cycles less often in this one, unless its thresholds have been set; the rest is upstream's.
    With the environment variable ``SECRETFLOW_FAST_START=0``, and with another version of Ray than 2.9.3, all
    is upstream's; a debug line in the log says so.

    Args:
        parties: names of the parties of a simulation; None in production.
        ray_mode: False, in production, has threads instead of Ray.
        address: of a Ray cluster; "local" starts one.
        *args: see upstream.
        debug_mode: simulates all parties in this process.
        log_to_driver: whether what workers print comes to this process.
        **kwargs: see upstream; what upstream does not know is given to ``ray.init``.

    Raises:
        RuntimeError: the working directory holds another package ``secretflow``, which Ray's workers would
            import.
        ValueError: ``SECRETFLOW_FAST_START`` is neither 0 nor 1.
    """
    options = {"debug_mode": debug_mode, "log_to_driver": log_to_driver, **kwargs}
    with ExitStack() as started:
        small: AbstractContextManager[None] = nullcontext()
        uses_ray = not debug_mode if parties else ray_mode
        if uses_ray:
            _overlay.check_working_directory()
        if uses_ray and address == "local" and sys.platform == "linux" and _starts_fast():
            server = ForkServer()
            started.callback(server.close)
            _change_thresholds(_PYTHONS_THRESHOLDS, _RARE_THRESHOLDS)
            started.callback(_change_thresholds, _RARE_THRESHOLDS, _PYTHONS_THRESHOLDS)

            from secretflow.device.small_cluster import SYSTEM_CONFIG, quiet_about_workers, small_cluster

            started.enter_context(quiet_about_workers())
            small = small_cluster(server.address, log_to_driver)
            options["_system_config"] = {**SYSTEM_CONFIG, **(kwargs.get("_system_config") or {})}
        from secretflow.device import driver

        importlib.import_module("secretflow.device.kernels")  # they register how objects move between devices
        with small, warnings.catch_warnings():
            # JAX warns of every program that is started, although that one takes nothing over.
            warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
            driver.init(parties, ray_mode, address, *args, **options)
        _running.push(started.pop_all())
    if parties and uses_ray:
        atexit.unregister(_end_simulation)
        atexit.register(_end_simulation)  # before Ray's own, which was registered earlier


def shutdown(*args: Any, **kwargs: Any) -> None:
    """Ends what :func:`init` started; see ``secretflow.device.driver.shutdown``, whose arguments it has."""
    from secretflow.device import driver

    with _running:
        driver.shutdown(*args, **kwargs)


def _end_simulation() -> None:
    """Ends a simulation that the program has left running: its tables, when Python collects them, give their
    parties work, and would start another Ray for it."""
    from secretflow import distributed

    if distributed.get_current_cluster_idx() >= 0:
        with _running:
            distributed.shutdown()


def _starts_fast() -> bool:
    """Whether the quick start is wanted, and can be; it says in the log why not."""
    wanted = os.environ.get(_SWITCH, "1")
    if wanted not in ("0", "1"):
        raise ValueError(f"{_SWITCH} must be 0 or 1, got {wanted!r}")
    version = importlib.metadata.version("ray")
    if wanted == "0":
        _logger.debug("Ray starts as usual: %s=0", _SWITCH)
    elif version != _RAY_VERSION:
        _logger.debug("Ray starts as usual: the quick start is for %s, this is %s", _RAY_VERSION, version)
    else:
        return True
    return False


def _change_thresholds(old: tuple[int, int, int], new: tuple[int, int, int]) -> None:
    """Sets how often Python looks for garbage, unless the user has set something else since."""
    if gc.get_threshold() == old:
        gc.set_threshold(*new)
