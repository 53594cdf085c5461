"""What a party looks at in weights that come from outside, before it trains on them.

They come as averages, which a server or a party that lies can bring to any value, from the party of which one
that comes back takes the last average, and from files. They must be of the agreed names and shapes, and no
fully connected layer may sort rows into bins (:mod:`.degenerate`). That is an error and no warning: once the
next upload is out, rows are, and no later round takes them back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from secretflow.errors import ArgumentError
from secretflow.ml.nn.fl.pruning import Mask
from secretflow.ml.nn.fl.worker.degenerate import LEAST_INPUTS, LEAST_ROWS, nested_units, parallel_units

SWITCH = "accept_degenerate_layers"
"""The argument of ``FLModel`` with which a user accepts such layers."""

_MOST_UNITS, _MOST_ROWS = 64, 128
"""Of a layer's units, which are drawn anew each time, and of a batch, for the time it takes."""


class IncomingWeights:
    """The checks at one party.

    Args:
        net: the party's model, as all have agreed on it.
        party: own name.
        accepts: whether a layer that sorts rows into bins is warned of, once, and trained.
    """

    def __init__(self, net: nn.Module, party: str, accepts: bool) -> None:
        self._net = net
        self._party = party
        self._accepts = accepts
        self._draws = np.random.default_rng()  # or a server would know which units nobody looks at
        self._warned: set[str] = set()
        self._inputs: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def check_arrays(self, own: Mapping[str, torch.Tensor], arrays: Sequence[np.ndarray]) -> None:
        """Refuses what is not of the shapes of the model; else it would be stretched to them.

        Args:
            own: what is averaged, by name.
            arrays: that came, in that order.

        Raises:
            ValueError: their number, or a shape, is another one, or they are no real numbers.
        """
        came = [np.shape(array) for array in arrays]
        expected = [tuple(value.shape) for value in own.values()]
        if came != expected:
            raise ArgumentError(
                f"weights that come to {self._party} must be of the model's shapes, {expected}, got {came}"
            )
        for name, array in zip(own, arrays, strict=True):
            if np.asarray(array).dtype.kind not in "fiub":
                raise ArgumentError(f"{name} must be real numbers, got {np.asarray(array).dtype}")

    def check_layers(self, tensors: Mapping[str, np.ndarray | torch.Tensor], mask: Mask) -> None:
        """Looks for layers whose weights sort rows into bins.

        Args:
            tensors: weights by name; a layer that is not whole among them is not looked at.
            mask: of these weights.

        Raises:
            ValueError: there is one, and it is not accepted.
        """
        for name, layer in self._layers():
            weight, bias = (tensors.get(f"{name}.{part}".lstrip(".")) for part in ("weight", "bias"))
            if weight is None or bias is None:
                continue
            drawn = self._drawn(name, layer, mask)
            units = parallel_units(_array(weight, drawn), _array(bias, drawn))
            if units:
                what = "weigh their inputs alike, each against a bias of its own"
                self._found(name, f"{units} of {len(drawn)} units that {what}")

    @contextmanager
    def watching(self, mask: Mask) -> Iterator[None]:
        """Looks at what each layer makes of the first batch of at least 16 rows, ahead of its gradient.

        Args:
            mask: of the model.

        Raises:
            ValueError: a layer sorts rows into bins, whatever its weights look like, and is not accepted.
        """
        handles = [layer.register_forward_hook(self._hook(name, mask)) for name, layer in self._layers()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, name: str, mask: Mask) -> Callable[[nn.Linear, Any, object], None]:
        looked = False

        def look(layer: nn.Linear, _: Any, outputs: object) -> None:
            nonlocal looked
            if looked or not isinstance(outputs, torch.Tensor):  # a subclass may give something else
                return
            rows = outputs.detach().reshape(-1, layer.out_features)[:_MOST_ROWS]
            if len(rows) < LEAST_ROWS:
                return
            looked, drawn = True, self._drawn(name, layer, mask)
            units = nested_units(_numpy(rows)[:, drawn])
            if units:
                what = "tell the party's rows apart by one number alone"
                self._found(name, f"{units} of {len(drawn)} units that {what}")

        return look

    def _drawn(self, name: str, layer: nn.Linear, mask: Mask) -> np.ndarray:
        """Numbers of the units that are looked at: some of those that have enough living inputs."""
        if layer.in_features < LEAST_INPUTS:
            return np.arange(0)
        drawn = np.arange(layer.out_features)
        if len(drawn) > _MOST_UNITS:
            drawn = self._draws.choice(len(drawn), _MOST_UNITS, replace=False)
        entry = mask.get(f"{name}.weight".lstrip("."))
        if entry is not None:
            drawn = drawn[self._living_inputs(name, entry)[drawn] >= LEAST_INPUTS]
        return drawn

    def _living_inputs(self, name: str, entry: np.ndarray) -> np.ndarray:
        """Of each unit; counted once for an entry of a mask, which is not changed but replaced."""
        if name not in self._inputs or self._inputs[name][0] is not entry:
            self._inputs[name] = entry, np.count_nonzero(entry, axis=1)
        return self._inputs[name][1]

    def _layers(self) -> Iterator[tuple[str, nn.Linear]]:
        for name, module in self._net.named_modules():
            if isinstance(module, nn.Linear):
                yield name, module

    def _found(self, name: str, what: str) -> None:
        message = (
            f"weights that come to {self._party} must sort no rows into bins, of which the average of any "
            f"number of parties gives them away, got layer {name!r} with {what}; "
            f"{SWITCH}=True of FLModel accepts it"
        )
        if not self._accepts:
            raise ArgumentError(message)
        if name not in self._warned:
            self._warned.add(name)
            logging.warning("%s", message)


def _array(values: np.ndarray | torch.Tensor, drawn: np.ndarray) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        return _numpy(values.detach()[torch.from_numpy(drawn)])  # no copy of the whole layer
    return values[drawn]


def _numpy(values: torch.Tensor) -> np.ndarray:
    """In float32, or float64 where they are; there is no array of bfloat16."""
    return (values if values.dtype == torch.float64 else values.float()).numpy(force=True)
