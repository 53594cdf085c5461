"""Which parameters are pruned: by default those of layers with weights, else those that a user chooses."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from secretflow.ml.nn.fl.backend.torch.masked_model import prunable_shapes
from secretflow.ml.nn.fl.pruning import PruneSettings

from .conftest import CLASSES, FEATURES, Mlp, Task
from .density_checks import assert_true, trained


class Recurrent(nn.Module):
    """Reads the features one by one, in both directions and in two layers."""

    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.reads = kind(1, 5, num_layers=2, bidirectional=True, batch_first=True, **options)  # type: ignore[call-arg]
        self.fc = nn.Linear(2 * options.get("proj_size", 5), CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.reads(x.unsqueeze(-1))[0][:, -1])


class Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(2, 6)
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = x.new_zeros(len(x), 6)
        for part in x.split(2, dim=1):
            state = self.cell(part, state)
        return self.fc(state)


class Attention(nn.Module):
    """Attends to the features with keys and values of a width."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.attends = nn.MultiheadAttention(4, 2, batch_first=True, kdim=width, vdim=width)
        self.fc = nn.Linear(4, CLASSES)
        self.width = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        queries = x.view(-1, 2, 4)
        keys = x.view(-1, 8 // self.width, self.width)
        return self.fc(self.attends(queries, keys, keys)[0].mean(dim=1))


class Transformer(nn.Module):
    """Numbers of features as tokens; the head is the embedding's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(CLASSES, 4)
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
        self.head = nn.Linear(4, CLASSES, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = (x > 0).long() + (x > 1).long()
        return self.head(self.layer(self.tokens(tokens)).mean(dim=1))


class Transposed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose1d(2, 3, 4)
        self.fc = nn.Linear(21, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.up(x.view(-1, 2, 4))).flatten(1))


class Own(nn.Module):
    """A matrix of no layer, a stack of them, and a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(FEATURES, 6) / 4)
        self.stack = nn.ParameterList([torch.randn(6, 6) / 4 for _ in range(2)])
        self.bias = nn.Parameter(torch.zeros(6))
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(x @ self.matrix + self.bias)
        for matrix in self.stack:
            x = torch.relu(x @ matrix)
        return self.fc(x)


def recurrent(*layers: str) -> tuple[str, ...]:
    ends = [f"_l{layer}{way}" for layer in (0, 1) for way in ("", "_reverse")]
    return tuple(f"reads.weight_{name}{end}" for name in layers for end in ends)


def scaled_reading() -> nn.Module:
    net = Recurrent(nn.LSTM)
    nn.utils.spectral_norm(net.reads, "weight_hh_l0")
    return net


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "LSTM": (lambda: Recurrent(nn.LSTM), (*recurrent("ih", "hh"), "fc.weight")),
    "LSTM, one weight scaled": (
        scaled_reading,
        (
            *(name for name in recurrent("ih", "hh") if name != "reads.weight_hh_l0"),
            "reads.weight_hh_l0_orig",
            "fc.weight",
        ),
    ),
    "LSTM, projected": (
        lambda: Recurrent(nn.LSTM, proj_size=3),
        (*recurrent("ih", "hh", "hr"), "fc.weight"),
    ),
    "GRU": (lambda: Recurrent(nn.GRU), (*recurrent("ih", "hh"), "fc.weight")),
    "RNN": (lambda: Recurrent(nn.RNN), (*recurrent("ih", "hh"), "fc.weight")),
    "cell": (Cell, ("cell.weight_ih", "cell.weight_hh", "fc.weight")),
    "attention": (Attention, ("attends.in_proj_weight", "attends.out_proj.weight", "fc.weight")),
    "attention, widths": (
        lambda: Attention(width=2),
        (*(f"attends.{name}_proj_weight" for name in "qkv"), "attends.out_proj.weight", "fc.weight"),
    ),
    "transformer, tied": (
        Transformer,
        (
            "tokens.weight",
            "layer.self_attn.in_proj_weight",
            "layer.self_attn.out_proj.weight",
            "layer.linear1.weight",
            "layer.linear2.weight",
        ),
    ),
    "transposed convolution": (Transposed, ("up.weight", "fc.weight")),
}


@pytest.mark.parametrize("options", [{}, {"mask_scope": "global", "prune_scope": "global"}], ids=str)
@pytest.mark.parametrize("net", NETS)
def test_layers_with_weights_are_pruned(
    task: Task, tmp_path: Path, net: str, options: dict[str, Any]
) -> None:
    build, names = NETS[net]
    model, columns = trained(task, build, **options)
    assert_true(model, columns, build, names, tmp_path)


@pytest.mark.parametrize(
    ("prunable", "names"),
    [
        ("matrix", ("matrix",)),
        (["fc.weight", "matrix"], ("matrix", "fc.weight")),
        (("stack.*",), ("stack.0", "stack.1")),
        ("*", ("matrix", "stack.0", "stack.1", "fc.weight")),
        (lambda name, parameter: parameter.shape[0] == 6, ("stack.0", "stack.1")),
        (lambda name, parameter: name != "matrix", ("stack.0", "stack.1", "fc.weight")),
        (None, ("fc.weight",)),
    ],
)
def test_a_user_chooses_what_is_pruned(
    task: Task, tmp_path: Path, prunable: Any, names: tuple[str, ...]
) -> None:
    assert set(prunable_shapes(Own(), PruneSettings(prunable=prunable).prunable)) == set(names)
    model, columns = trained(task, Own, prunable=prunable)
    if len(names) > 1:
        assert_true(model, columns, Own, names, tmp_path)
    layers = {name.removeprefix("alice_density.") for name in columns if "alice_density." in name}
    assert layers == set(names)


def test_functions_that_choose_alike_are_the_same_choice(task: Task) -> None:
    """In a process of its own every party's function looks different; the parties agree on what it chose."""

    class Chooser:
        looks = itertools.count()

        def __call__(self, name: str, parameter: torch.Tensor) -> bool:
            return name.startswith("stack")

        def __repr__(self) -> str:
            return f"function {next(self.looks)}"

    _, columns = trained(task, Own, prunable=Chooser())
    assert columns["alice_density"][-1] == columns["bob_density"][-1] < 0.35


def test_a_choice_is_kept_with_the_checkpoint_and_another_one_is_refused(task: Task, tmp_path: Path) -> None:
    model, _ = trained(task, Own, prunable="stack.*")
    model.save_model(f"{tmp_path}/model", is_test=True)
    task.make_model(Own, prunable=["stack.0", "stack.1"]).load_model(f"{tmp_path}/model", is_test=True)
    with pytest.raises(ValueError, match="it holds another model or its masks"):
        task.make_model(Own, prunable="matrix").load_model(f"{tmp_path}/model", is_test=True)


@pytest.mark.parametrize(
    ("prunable", "error", "message"),
    [
        ("hiden.weight", ValueError, r"got 'hiden\.weight', which names none; did you mean hidden\.weight\?"),
        (
            ["out.*", "encoder.*"],
            ValueError,
            r"each pattern at least one, got 'encoder\.\*', which names none",
        ),
        ("hidden.bias", ValueError, "of two or more dimensions, .*got 'hidden.bias', which names none"),
        (
            lambda name, parameter: False,
            ValueError,
            r"got <lambda>, which chooses none of hidden\.weight, out",
        ),
        ([], TypeError, r"prunable must be names or patterns .* or a function .*, got \[\]"),
        (3, TypeError, r"prunable must be names .*, got 3"),
        ([""], TypeError, r"prunable must be names .*, got \[''\]"),
        (["out.weight", 1], TypeError, r"prunable must be names .*, got \['out"),
    ],
)
def test_a_choice_of_nothing_is_refused_before_training(
    task: Task, prunable: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        task.make_model(Mlp, prunable=prunable)
