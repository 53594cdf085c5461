"""Nets that replace, step or share their weights as people write it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn, optim
from torch.nn import functional as F

from secretflow.ml.nn.core.torch import BaseModule

from .conftest import CLASSES, FEATURES


class Net(BaseModule):
    """A perceptron with a training step of its own, which subclasses spoil."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(FEATURES, 12)
        self.b = nn.Linear(12, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.relu(self.a(x)))

    def training_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0, **kwargs: Any) -> Any:
        x, y = batch
        return F.cross_entropy(self(x), y)


class ClampedData(Net):
    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        self.a.weight.data = self.a.weight.data.clamp(-0.5, 0.5)
        return super().training_step(*args, **kwargs)


class NewParameter(Net):
    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        self.b.weight = nn.Parameter(self.b.weight.detach() + 0.01)
        return super().training_step(*args, **kwargs)


class NewLayer(Net):
    """Takes a fresh layer every second step, after an old one was used."""

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().training_step(*args, **kwargs)
        fresh = nn.Linear(FEATURES, 12)
        fresh.load_state_dict({name: value + 0.01 for name, value in self.a.state_dict().items()})
        self.a = fresh
        return loss


class WrittenInPlace(Net):
    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        self.a.weight.data.add_(0.01)
        with torch.no_grad():
            self.b.weight[:] += 0.01
        loss = super().training_step(*args, **kwargs)
        self.a.weight.data = self.a.weight.data + 0.01
        return loss


class Loaded(Net):
    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        self.load_state_dict({name: value + 0.01 for name, value in self.state_dict().items()})
        return super().training_step(*args, **kwargs)


class SteppedByHand(Net):
    """Descends without an optimiser that anybody knows of, and with one of which nobody was told."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, *args: Any, **kwargs: Any) -> None:
        hidden = optim.SGD(self.a.parameters(), lr=0.1, momentum=0.9)
        super().training_step(*args, **kwargs).backward()
        hidden.step()
        with torch.no_grad():
            for parameter in self.b.parameters():
                parameter -= 0.1 * parameter.grad + 0.001
        self.zero_grad()


class Averaged(Net):
    """Keeps a running mean of its weights, and takes it at each step."""

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        if not hasattr(self, "mean"):
            object.__setattr__(self, "mean", {n: p.detach().clone() for n, p in self.named_parameters()})
        for name, parameter in self.named_parameters():
            self.mean[name] = 0.9 * self.mean[name] + 0.1 * parameter.detach()
            parameter.data = self.mean[name].clone()
        return super().training_step(*args, **kwargs)


class MovedByLooking(Net):
    """Moves its weights whenever it computes an output, in evaluation too."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (self.a, self.b):
            layer.weight.data = layer.weight.data + 0.01
        return super().forward(x)


class OfDoubles(Net):
    """Comes back from double precision with other tensors."""

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        self.double()
        self.a.weight.data += 0.01
        self.float()
        return super().training_step(*args, **kwargs)


class TiedByView(Net):
    """An autoencoder beside a classifier; the decoder is the encoder's transpose."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.d = nn.Linear(FEATURES, 12), nn.Linear(12, FEATURES)
        self.d.weight = nn.Parameter(self.e.weight.t())

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        x, _ = args[0]
        return super().training_step(*args, **kwargs) + F.mse_loss(self.d(torch.relu(self.e(x))), x)


class TiedSquare(TiedByView):
    def __init__(self) -> None:
        super().__init__()
        self.e, self.d = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, FEATURES)
        self.d.weight = nn.Parameter(self.e.weight.t())


class TiedToConvolution(Net):
    """A linear layer over the same numbers as a convolution of another shape, and a buffer beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 6, 4)
        self.flat = nn.Linear(FEATURES, 6)
        self.flat.weight = nn.Parameter(self.conv.weight.view(6, FEATURES))
        self.register_buffer("seen", self.conv.weight.detach().permute(2, 0, 1))

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        x, _ = args[0]
        both = self.conv(x.view(-1, 2, 4)).flatten(1) - self.flat(x)
        return super().training_step(*args, **kwargs) + both.square().mean()


class PartOfAnother(Net):
    """The head looks at a part of an embedding's rows, and a matrix of its own is the embedding once more."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 12)
        self.b.weight = nn.Parameter(self.table.weight[2 : 2 + CLASSES])
        self.again = nn.Parameter(self.table.weight.t())

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        x, _ = args[0]
        rows = self.table(x.argmax(dim=1)) @ self.again
        return super().training_step(*args, **kwargs) + rows.square().mean()


class Untied(TiedByView):
    """Comes apart in training."""

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        self.e.weight.data = self.e.weight.data.clamp(-0.4, 0.4)
        return super().training_step(*args, **kwargs)


REBOUND = [
    ClampedData,
    NewParameter,
    NewLayer,
    WrittenInPlace,
    Loaded,
    SteppedByHand,
    Averaged,
    OfDoubles,
    MovedByLooking,
]
A_B = ("a.weight", "b.weight")
TIED: dict[type[Net], tuple[str, ...]] = {
    TiedByView: (*A_B, "e.weight"),
    TiedSquare: (*A_B, "e.weight"),
    TiedToConvolution: (*A_B, "conv.weight"),
    PartOfAnother: ("a.weight", "table.weight"),
}
