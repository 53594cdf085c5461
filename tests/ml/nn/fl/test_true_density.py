"""What is reported as living is what lives: in the model, its checkpoint, its export and its upload."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, optim
from torch.nn.utils import parametrizations, prune

import secretflow as sf
from secretflow.ml.nn.core.torch import optim_wrapper
from secretflow.ml.nn.fl.backend.torch.masked_model import full_mask_of
from secretflow.ml.nn.fl.backend.torch.strategy.fed_avg_w_prune import mask_model, prune_by_percentile
from secretflow.ml.nn.fl.worker.masked import MaskedModel

from .conftest import CLASSES, FEATURES, Task
from .density_checks import RATE, assert_true, density, trained
from .nets_that_replace import A_B, REBOUND, TIED, Net, TiedByView, TiedSquare, Untied


@pytest.mark.parametrize("mask_scope", ["local", "global"])
@pytest.mark.parametrize("net", REBOUND)
def test_however_weights_are_replaced_or_stepped(
    task: Task, tmp_path: Path, net: type[Net], mask_scope: str
) -> None:
    model, columns = trained(task, net, mask_scope=mask_scope)
    assert_true(model, columns, net, A_B, tmp_path)


@pytest.mark.parametrize("options", [{}, {"mask_scope": "global"}, {"prune_scope": "global"}], ids=str)
@pytest.mark.parametrize("net", TIED)
def test_weights_that_share_memory_have_one_mask_and_count_once(
    task: Task, tmp_path: Path, net: type[Net], options: dict[str, Any]
) -> None:
    model, columns = trained(task, net, **options)
    assert_true(model, columns, net, TIED[net], tmp_path)


@pytest.mark.parametrize("options", [{"regrow_percent": 10}, {"prune_criterion": "snip"}], ids=str)
@pytest.mark.parametrize("net", [TiedByView, TiedSquare])
def test_the_gradient_of_shared_memory_is_that_of_all_its_views(
    task: Task, tmp_path: Path, net: type[Net], options: dict[str, Any]
) -> None:
    model, columns = trained(task, net, **options)
    for device, worker in model._workers.items():
        state = dict(zip(net().state_dict(), sf.reveal(worker.get_weights()), strict=True))
        assert np.array_equal(state["e.weight"], state["d.weight"].T)
        found = {name: torch.tensor(value) for name, value in state.items()}
        assert density(found, TIED[net]) <= columns[f"{device.party}_density"][-1] + 1e-9


def test_weights_that_come_apart_stay_under_their_mask(task: Task) -> None:
    model, _ = trained(task, Untied)
    for worker in model._workers.values():
        state = dict(zip(Untied().state_dict(), sf.reveal(worker.get_weights()), strict=True))
        for name in ("e.weight", "d.weight"):
            assert np.count_nonzero(state[name]) / state[name].size == pytest.approx(RATE, abs=0.02)


def test_withholding_takes_shared_memory_once(task: Task) -> None:
    """What is kept back would be added twice, and the parties' nets drift away."""
    model, _ = trained(task, TiedByView, withhold_percent=20)
    for worker in model._workers.values():
        assert all(np.abs(array).max() < 3 for array in sf.reveal(worker.get_weights()))


class HalfAnother(Net):
    """Half of one weight is half of another."""

    def __init__(self) -> None:
        super().__init__()
        memory = torch.randn(3 * 12 * 4)
        self.c, self.d = nn.Linear(12, 8), nn.Linear(12, 8)
        self.c.weight = nn.Parameter(memory[:96].view(8, 12))
        self.d.weight = nn.Parameter(memory[48:].view(8, 12))


class FlatView(Net):
    def __init__(self) -> None:
        super().__init__()
        self.all = nn.Parameter(self.a.weight.view(-1))


class PartOfMore(Net):
    """A layer's weight is a part of a matrix that is not pruned."""

    def __init__(self) -> None:
        super().__init__()
        self.more = nn.Parameter(torch.randn(20, FEATURES))
        self.a.weight = nn.Parameter(self.more[:12])


@pytest.mark.parametrize(
    ("net", "both"),
    [(HalfAnother, "d.weight .*c.weight"), (FlatView, "all .*a.weight"), (PartOfMore, "more .*a.weight")],
)
def test_weights_that_overlap_in_part_are_refused_before_training(
    task: Task, net: type[Net], both: str
) -> None:
    with pytest.raises(ValueError, match=f"model must share memory between whole weights.*got {both}"):
        task.make_model(net)


def test_neighbours_in_one_piece_of_memory_share_nothing(task: Task, tmp_path: Path) -> None:
    class Neighbours(Net):
        def __init__(self) -> None:
            super().__init__()
            memory = torch.randn(FEATURES * 12 + 12 * CLASSES) / 4
            self.a.weight = nn.Parameter(memory[: FEATURES * 12].view(12, FEATURES))
            self.b.weight = nn.Parameter(memory[FEATURES * 12 :].view(CLASSES, 12))

    model, columns = trained(task, Neighbours)
    assert_true(model, columns, Neighbours, A_B, tmp_path)


def reparametrised(how: Callable[[nn.Module], nn.Module]) -> Callable[[], Net]:
    def build() -> Net:
        net = Net()
        net.a = how(nn.Linear(FEATURES, 12))
        return net

    return build


class Doubled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x + 1


@pytest.mark.parametrize(
    ("how", "named"),
    [
        (nn.utils.weight_norm, "WeightNorm"),
        (parametrizations.weight_norm, "_WeightNorm"),
        (lambda layer: nn.utils.parametrize.register_parametrization(layer, "weight", Doubled()), "Doubled"),
        (lambda layer: prune.l1_unstructured(layer, "weight", 0.5), "L1Unstructured"),
        (lambda layer: parametrizations.orthogonal(layer), "_Orthogonal"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_a_weight_that_is_computed_anew_is_refused_by_name(
    task: Task, how: Callable[[nn.Module], nn.Module], named: str
) -> None:
    with pytest.raises(ValueError, match=rf"got a\.weight, which {named} computes anew .*with prunable"):
        task.make_model(reparametrised(how))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("how", [nn.utils.weight_norm, parametrizations.weight_norm])
def test_it_trains_dense_where_the_user_leaves_it_out(
    task: Task, how: Callable[[nn.Module], nn.Module]
) -> None:
    _, columns = trained(task, reparametrised(how), prunable=["b.*"])
    assert columns["alice_density"][-1] == columns["alice_density.b.weight"][-1]
    with pytest.raises(ValueError, match=r"got a\.weight, which"):
        task.make_model(reparametrised(how), prunable="a.*")


@pytest.mark.parametrize(
    ("how", "stored"),
    [
        (nn.utils.spectral_norm, "a.weight_orig"),
        (parametrizations.spectral_norm, "a.parametrizations.weight.original"),
    ],
)
def test_a_weight_that_is_only_scaled_is_pruned_where_it_is_stored(
    task: Task, tmp_path: Path, how: Callable[[nn.Module], nn.Module], stored: str
) -> None:
    build = reparametrised(how)
    model, columns = trained(task, build)
    assert_true(model, columns, build, ("b.weight", stored), tmp_path)


def test_a_weight_without_a_shape_is_refused(task: Task) -> None:
    class Lazy(Net):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.LazyLinear(12)

    with pytest.raises(ValueError, match=r"got a\.weight without one"):
        task.make_model(Lazy)


def test_a_graph_that_holds_another_nets_weights_is_not_spoilt() -> None:
    """The losses of two optimisers are computed first, then each takes its step, as some GANs do."""
    net = nn.Sequential(nn.Linear(FEATURES, 12), nn.Linear(12, 12), nn.Linear(12, CLASSES))
    optimizers = [optim.SGD(net[0].parameters(), lr=0.1), optim.SGD(net[1:].parameters(), lr=0.1)]
    masked = MaskedModel(net, optimizers, full_mask_of(net))
    mask = {name: np.tri(*entry.shape, dtype=np.uint8) for name, entry in masked.mask.items()}
    masked.use(mask)
    hidden = net[0](torch.randn(5, FEATURES))
    losses = [hidden.square().mean(), net[2](torch.relu(net[1](hidden.detach()))).square().mean()]
    for loss, optimizer in zip(losses, optimizers, strict=True):
        loss.backward()
        optimizer.step()
    for name, entry in mask.items():
        assert np.array_equal(net.get_parameter(name).detach() != 0, entry != 0)


def test_a_copy_of_a_net_has_a_mask_of_its_own_and_a_net_can_be_pickled() -> None:
    net = nn.Linear(FEATURES, CLASSES)
    masked = MaskedModel(net, [], full_mask_of(net))
    masked.use({"weight": np.tri(CLASSES, FEATURES, dtype=np.uint8)})
    twin = copy.deepcopy(net)
    ones = {"weight": torch.ones(CLASSES, FEATURES), "bias": torch.ones(CLASSES)}
    before = net.weight.detach().clone()
    twin.load_state_dict(ones)
    assert torch.equal(net.weight, before)
    assert torch.equal(twin.weight.detach(), torch.ones(CLASSES, FEATURES).tril())
    assert torch.equal(pickle.loads(pickle.dumps(net)).weight, before)


def test_a_mask_by_hand_must_be_the_same_where_memory_is() -> None:
    net = TiedByView()
    mask = [np.ones(v.shape, np.uint8) for v in net.state_dict().values() if v.dim() >= 2]
    pruned = prune_by_percentile(net, mask, 50)
    assert all(entry is not None for entry in pruned)
    names = [name for name, value in net.state_dict().items() if value.dim() >= 2]
    by_name = dict(zip(names, pruned, strict=True))
    assert np.array_equal(by_name["e.weight"], by_name["d.weight"].T)  # type: ignore[union-attr]
    assert np.count_nonzero(net.e.weight.detach()) == by_name["e.weight"].sum()  # type: ignore[union-attr]
    by_name["d.weight"] = np.ones((FEATURES, 12), np.uint8)
    with pytest.raises(ValueError, match=r"mask of d\.weight must be that of e\.weight"):
        mask_model(net, list(by_name.values()))


def test_the_optimiser_wrapper_of_the_fixture_serves_plain_nets(task: Task, tmp_path: Path) -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(FEATURES, 12)
            self.b = nn.Linear(12, CLASSES)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.a.weight.data = self.a.weight.data.clamp(-0.5, 0.5)
            return self.b(torch.relu(self.a(x)))

    model, columns = trained(task, Plain, optimizer=optim_wrapper(optim.SGD, lr=0.1, momentum=0.9))
    assert_true(model, columns, Plain, A_B, tmp_path)
