"""A party of Flower's: one step of Adam a round on its own rows.

Flower's actors import this module by name and serve any party with any message, so what belongs to a party
is in its context and travels with it; only what never changes is kept in the process.
"""

from __future__ import annotations

import sys
from functools import cache
from types import ModuleType
from typing import Any

import torch
from flwr.client import Client, ClientApp, NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.common import Array, ArrayRecord, Context
from torch import nn, optim
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_precision

from benchmarks.flower_rounds import FlowerJob
from benchmarks.training_job import load_nets, own_rows

MOMENTS = "moments"
SEED = 1
"""Of the initial weights, as in :mod:`benchmarks.training_job`."""


def client_app(job: FlowerJob) -> ClientApp:
    """The app that Flower runs for every message to a party."""

    def client_fn(context: Context) -> Client:
        return Party(job, context).to_client()

    return ClientApp(client_fn=client_fn, mods=[secaggplus_mod] if job.secure else [])


class Party(NumPyClient):
    """Trains for one message.

    Args:
        job: what to run.
        context: the party's; has Adam's state between rounds.
    """

    def __init__(self, job: FlowerJob, context: Context) -> None:
        self._job = job
        self._context = context

    def fit(self, parameters: list[Any], config: dict[str, Any]) -> tuple[list[Any], int, dict[str, Any]]:
        """Takes the average up and trains on the batch of the round."""
        job = self._job
        number = self._context.node_config["partition-id"]
        x, y = (part[job.batch(config["round"])] for part in own_tensors(job.images, number, job.rows))
        net = initial_net()
        set_weights(net, parameters)
        optimizer = optim.Adam(net.parameters(), lr=job.learning_rate)
        self._recall(optimizer)
        net.train()
        output = net(x)
        loss = nn.functional.cross_entropy(output, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        self._keep(optimizer)
        return weights_of(net), len(x), metrics(output, y)

    def _recall(self, optimizer: optim.Optimizer) -> None:
        if MOMENTS not in self._context.state.array_records:
            return
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, array in self._context.state.array_records[MOMENTS].items():
            index, name = key.split(".")
            state.setdefault(int(index), {})[name] = torch.from_numpy(array.numpy())
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})

    def _keep(self, optimizer: optim.Optimizer) -> None:
        moments = {
            f"{index}.{name}": Array(value.numpy())
            for index, values in optimizer.state_dict()["state"].items()
            for name, value in values.items()
        }
        self._context.state.array_records[MOMENTS] = ArrayRecord(moments)


def initial_net() -> nn.Module:
    """The net with the weights that training starts from."""
    torch.manual_seed(SEED)
    return nets().ConvNet()


def weights_of(net: nn.Module) -> list[Any]:
    """Its weights as arrays."""
    return [value.detach().numpy() for value in net.parameters()]


def set_weights(net: nn.Module, weights: list[Any]) -> None:
    """Copies arrays into its weights."""
    with torch.no_grad():
        for own, value in zip(net.parameters(), weights, strict=True):
            own.copy_(torch.from_numpy(value))


def metrics(output: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
    """What the fork's parties measure of a batch, before its step."""
    kind = {"num_classes": nets().CLASSES, "average": "micro"}
    labels = y.argmax(-1)
    return {
        "multiclassaccuracy": float(multiclass_accuracy(output, labels, **kind)),
        "multiclassprecision": float(multiclass_precision(output, labels, **kind)),
    }


@cache
def own_tensors(images: str, party: int, rows: int) -> tuple[torch.Tensor, ...]:
    """A party's rows, read once by a process."""
    return tuple(torch.from_numpy(part) for part in own_rows(images, party, rows))


@cache
def nets() -> Any:
    """The module of the nets. All that it needs of SecretFlow is a base class; here torch's stands for it."""
    for name in ("", ".ml", ".ml.nn", ".ml.nn.core", ".ml.nn.core.torch"):
        sys.modules[f"secretflow{name}"] = ModuleType(f"secretflow{name}")
    sys.modules["secretflow.ml.nn.core.torch"].BaseModule = nn.Module  # type: ignore[attr-defined]
    return load_nets()
