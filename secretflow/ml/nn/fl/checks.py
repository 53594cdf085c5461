"""What :class:`~secretflow.ml.nn.fl.fl_model.FLModel` refuses before any worker has something to do."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import torch

from secretflow.data.horizontal import HDataFrame
from secretflow.data.ndarray import FedNdarray
from secretflow.device import PYU
from secretflow.ml.nn.core.torch import TorchModel
from secretflow.ml.nn.fl.attacks.capture import GradientCapture
from secretflow.ml.nn.fl.backend.torch.fl_base import prunable_weights
from secretflow.security.aggregation.secure_prune_aggregator import SecurePruneAggregator

PRUNE_STRATEGY = "fed_avg_w_prune"


def check_aggregator(aggregator: Any, device_list: list[PYU]) -> None:
    """Refuses an aggregator that takes no masks, or is of other parties."""
    if not isinstance(aggregator, SecurePruneAggregator):
        raise TypeError(
            f"aggregator={aggregator!r} cannot take masks: strategy {PRUNE_STRATEGY!r} needs a "
            "SecurePruneAggregator"
        )
    if set(aggregator.participants) != set(device_list):
        raise ValueError(
            f"device_list={device_list!r} is not allowed: the aggregator's participants are "
            f"{aggregator.participants!r}, and the two must be the same"
        )


def check_capture(gradient_capture: GradientCapture | None, device_list: list[PYU]) -> None:
    """Refuses a capture by somebody who does not train: nothing would ever be written."""
    names = [device.party for device in device_list]
    if gradient_capture is not None and gradient_capture.party not in names:
        raise ValueError(
            f"gradient_capture.party={gradient_capture.party!r} is not allowed: the parties are {names}"
        )


def check_backend(backend: str) -> None:
    """Refuses what is not torch."""
    if backend != "torch":
        raise ValueError(f"backend={backend!r} is not allowed with {PRUNE_STRATEGY!r}: only 'torch'")


def check_model(model: Any) -> None:
    """Refuses a model with nothing to prune, or with what cannot be averaged, before any worker starts.

    The model is built without memory for its weights. One that cannot be built so is left to the workers,
    which check theirs.
    """
    builder = model if isinstance(model, TorchModel) else TorchModel(model_fn=model)
    if builder.model_fn is None:
        raise ValueError(f"model={model!r} is not allowed: a TorchModel or a function that builds a module")
    try:
        with torch.device("meta"):
            module = builder.model_fn(**builder.kwargs)
    except Exception as error:
        logging.debug("the model cannot be built without memory: %r", error)
        return
    if not prunable_weights(module):
        raise ValueError(
            f"model={type(module).__name__} has nothing to prune: "
            "it needs a linear, convolution or embedding layer"
        )
    for name, value in module.state_dict().items():
        if value.dtype == torch.bool or value.dtype.is_complex:
            raise ValueError(
                f"model={type(module).__name__} cannot be averaged: {name} holds {value.dtype}, only real "
                "numbers can; register_buffer(..., persistent=False) keeps a buffer at each party"
            )


def check_fit(options: SimpleNamespace, parties: set[PYU]) -> None:
    """Refuses arguments of ``fit`` that the parties would stumble over later."""
    counts = ["epochs", "aggregate_freq", "validation_freq", "wait_steps"]
    if options.dp_spent_step_freq is not None:
        counts.append("dp_spent_step_freq")
    for name in counts:
        value = getattr(options, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}={value!r} is not allowed: an integer from 1 up")
    validation = options.validation_data
    parts = validation if isinstance(validation, (list, tuple)) else [validation]
    for name, held in {
        "x": options.x,
        "y": options.y,
        "sample_weight": options.sample_weight,
        "batch_size": options.batch_size,
        "dataset_builder": options.dataset_builder,
        **{f"validation_data[{k}]": part for k, part in enumerate(parts)},
    }.items():
        _check_parties(name, held, parties)
    if isinstance(options.x, dict):
        return
    if type(options.x) is not type(options.y):
        raise TypeError(f"x={type(options.x)} and y={type(options.y)} are not allowed: the same type")
    for device, shape in options.x.partition_shape().items():
        batch_size = (
            options.batch_size[device] if isinstance(options.batch_size, dict) else options.batch_size
        )
        if shape[0] == 0:
            raise ValueError(f"x has no rows at {device}: leave the party out of device_list")
        if options.batch_sampling_rate is None and not options.dataset_builder and shape[0] < batch_size:
            raise ValueError(
                f"batch_size={batch_size} is not allowed: {device} has {shape[0]} rows, so at most {shape[0]}"
            )


def _check_parties(name: str, held: Any, parties: set[PYU]) -> None:
    """Refuses an argument with an entry for each party whose parties are not those that train."""
    if isinstance(held, dict):
        found = set(held)
    elif isinstance(held, (HDataFrame, FedNdarray)):
        found = set(held.partitions)
    else:
        return
    if found != parties:
        raise ValueError(
            f"{name} of {sorted(device.party for device in found)} is not allowed: device_list has "
            f"{sorted(device.party for device in parties)}, and the two must be the same"
        )
