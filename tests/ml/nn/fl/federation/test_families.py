"""Nets of twenty families are trained as plain torch trains them, and their densities are true."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import secretflow as sf
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.core.torch import TorchModel
from secretflow.ml.nn.fl.backend.torch.masked_model import full_mask_of
from secretflow.ml.nn.fl.sparse_model import load_sparse
from secretflow.security.aggregation import SecurePruneAggregator
from secretflow.utils.simulation.data.ndarray import create_ndarray

from ..bring import worker_of
from .families import FAMILIES, Classifier, Family, TwoInputs

ROWS, STEPS, EPOCHS = (12, 8), 2, 2
RATE = 0.3
SEED = 5


def rows_of(family: Family) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [family.rows(count, seed) for seed, count in enumerate(ROWS)]


def as_inputs(family: Family, x: torch.Tensor) -> Any:
    return (x[:, :4], x[:, 4:]) if family.net is TwoInputs else x


def federated(
    devices: SimpleNamespace, family: Family, **options: Any
) -> tuple[FLModel, list[Any], dict[str, Any]]:
    """The model of two parties, their rows, and how to fit it."""
    parties = [devices.alice, devices.bob]
    x, y = (torch.cat(both).numpy() for both in zip(*rows_of(family), strict=True))
    parts = {parties[0]: (0, ROWS[0]), parties[1]: (ROWS[0], sum(ROWS))}
    held = [create_ndarray(array, parts=parts, axis=0) for array in (x, y)]
    model = FLModel(
        server=devices.carol,
        device_list=parties,
        model=TorchModel(family.net),
        aggregator=SecurePruneAggregator(devices.carol, parties, ring_bits=64),
        strategy="fed_avg_w_prune",
        backend="torch",
        random_seed=SEED,
        **options,
    )

    def batches(arrays: list[np.ndarray], stage: str) -> tuple[list[Any], int]:
        x, y = map(torch.as_tensor, arrays)
        size = len(x) // STEPS
        return [(as_inputs(family, x[k : k + size]), y[k : k + size]) for k in (0, size)], STEPS

    own = {"dataset_builder": dict.fromkeys(parties, batches)} if family.net is TwoInputs else {}
    fit = {"epochs": EPOCHS, "batch_size": ROWS[1] // STEPS, "verbose": 0, **own}
    return model, held, fit


def fitted(devices: SimpleNamespace, family: Family, **options: Any) -> tuple[FLModel, dict[str, list[Any]]]:
    """The model of two parties when it has been trained, and what their histories say."""
    model, held, fit = federated(devices, family, **options)
    return model, model.fit(*held, **fit).local_history


def in_plain_torch(family: Family) -> list[Classifier]:
    """Federated averaging with nothing of SecretFlow's: after each step the parties' weighted mean."""
    nets = []
    for _ in ROWS:
        torch.manual_seed(SEED)
        nets.append(family.net().train())
    optimizers = [net.optimizers_of() for net in nets]
    data = rows_of(family)
    for step in range(EPOCHS * STEPS):
        for net, own, (x, y) in zip(nets, optimizers, data, strict=True):
            size = len(x) // STEPS
            batch = slice(step % STEPS * size, (step % STEPS + 1) * size)
            net.step(own, as_inputs(family, x[batch]), y[batch], step)
        states = [net.state_dict() for net in nets]
        for name in states[0]:
            both = [state[name].double() for state in states]
            mean = (ROWS[0] * both[0] + ROWS[1] * both[1]) / sum(ROWS)
            for state, value in zip(states, both, strict=True):
                state[name].copy_(mean if value.isfinite().all() else value)
    return nets


@pytest.mark.parametrize("name", FAMILIES)
def test_at_density_one_it_is_federated_averaging_in_plain_torch(devices: SimpleNamespace, name: str) -> None:
    family = FAMILIES[name]
    model, columns = fitted(devices, family, prune_end_rate=1)
    for party, net in enumerate(in_plain_torch(family)):
        found = worker_of(model, party).model.state_dict()
        untrained = family.net().state_dict()
        assert found.keys() == untrained.keys()
        for key, value in net.state_dict().items():
            torch.testing.assert_close(found[key], value, rtol=1e-4, atol=2e-6, msg=lambda m: f"{key}: {m}")  # noqa: B023
    assert columns["alice_density"] == columns["bob_density"] == [1.0] * EPOCHS


def living(state: dict[str, torch.Tensor], names: list[str]) -> float:
    return sum(int(torch.count_nonzero(state[n])) for n in names) / sum(state[n].numel() for n in names)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_reported_density_is_the_real_one_wherever_one_looks(
    devices: SimpleNamespace, tmp_path: Path, name: str
) -> None:
    family = FAMILIES[name]
    model, columns = fitted(devices, family, prune_end_rate=RATE, prune_percent=50, prune_freq=1)
    model.save_model(f"{tmp_path}/model", is_test=True)
    model.export_sparse(f"{tmp_path}/sparse", is_test=True)
    names = list(full_mask_of(family.net()))
    for party, (device, worker) in enumerate(model._workers.items()):
        reported = columns[f"{device.party}_density"][-1]
        assert reported == pytest.approx(RATE, abs=0.05)  # of a small net a part is no whole number
        own = worker_of(model, party)
        saved = torch.load(tmp_path / device.party / "model", weights_only=True)["model_state_dict"]
        uploaded = sf.reveal(worker.get_weights(return_numpy=False))
        states = {
            "the party": own.model.state_dict(),
            "the checkpoint": saved,
            "the export": load_sparse(tmp_path / device.party / "sparse"),
            "the evaluation": evaluated(own.model, family),
            "the upload": dict(zip(own._averaged(), uploaded, strict=True)),
        }
        for where, state in states.items():
            assert living(state, names) == pytest.approx(reported, abs=1e-9), where
            for layer in names:
                column = columns[f"{device.party}_density.{layer}"][-1]
                assert living(state, [layer]) == pytest.approx(column, abs=1e-9), (where, layer)


def evaluated(net: Classifier, family: Family) -> dict[str, torch.Tensor]:
    """The weights that a net in evaluation mode computes its output from."""
    seen: dict[str, torch.Tensor] = {}
    hook = net.register_forward_hook(
        lambda *_: seen.update({name: value.clone() for name, value in net.state_dict().items()})
    )
    x = as_inputs(family, rows_of(family)[0][0])
    with torch.no_grad():
        net.eval()
        net(*x) if isinstance(x, tuple) else net(x)
    hook.remove()
    return seen
