"""Twenty small nets of different families, each with rows, a loss and optimisers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn, optim
from torch.nn import functional as F

from secretflow.ml.nn.core.torch import BaseModule

CLASSES, FEATURES, VOCABULARY = 3, 8, 11


class Classifier(BaseModule):
    """A net that is trained on the cross entropy of numbers of classes; subclasses say how else."""

    def optimizers_of(self) -> list[optim.Optimizer]:
        return [optim.Adam(self.parameters(), lr=0.01)]

    def loss_of(self, x: Any, y: torch.Tensor, step: int) -> torch.Tensor:
        return F.cross_entropy(self(x), y.long())

    def step(self, optimizers: Sequence[optim.Optimizer], x: Any, y: torch.Tensor, step: int) -> None:
        """A step in plain torch."""
        (optimizer,) = optimizers
        optimizer.zero_grad()
        self.loss_of(x, y, step).backward()
        optimizer.step()

    # What SecretFlow calls.
    def configure_optimizers(self) -> Any:
        found = self.optimizers_of()
        return found if len(found) > 1 else found[0]

    def training_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0, **_: Any) -> Any:
        return self.loss_of(*batch, batch_idx)


class Mlp(Classifier):
    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(FEATURES, 12, bias), nn.ReLU(), nn.Linear(12, CLASSES, bias=bias))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class BiasFree(Mlp):
    def __init__(self) -> None:
        super().__init__(bias=False)

    def optimizers_of(self) -> list[optim.Optimizer]:
        return [optim.SGD(self.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)]


class NormedCnn(Classifier):
    """Convolutions with batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16, CLASSES),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x.view(-1, 1, 4, 4))


class Recurrent(Classifier):
    kind: type[nn.RNNBase] = nn.LSTM

    def __init__(self) -> None:
        super().__init__()
        self.body = self.kind(4, 6, batch_first=True)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x.view(-1, 4, 4))[0][:, -1])


class Gru(Recurrent):
    kind = nn.GRU


class Transformer(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(4, 2, 8, dropout=0, batch_first=True), 2, enable_nested_tensor=False
        )
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x.view(-1, 4, 4)).mean(dim=1))


class Attention(Classifier):
    """Attention under a causal mask, a buffer of minus infinity, which has no average."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, CLASSES)
        self.register_buffer("mask", torch.full((4, 4), float("-inf")).triu(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.view(-1, 4, 4)
        return self.head(self.body(x, x, x, attn_mask=self.mask, need_weights=False)[0].mean(dim=1))


class Gan(Classifier):
    """A generator and a discriminator, each with an optimiser of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, FEATURES))
        self.discriminator = nn.Sequential(nn.Linear(FEATURES, 10), nn.LeakyReLU(), nn.Linear(10, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.discriminator(x)

    def optimizers_of(self) -> list[optim.Optimizer]:
        return [
            optim.Adam(self.generator.parameters(), lr=0.01, betas=(0.5, 0.99)),
            optim.RMSprop(self.discriminator.parameters(), lr=0.01),
        ]

    def step(self, optimizers: Sequence[optim.Optimizer], x: Any, y: torch.Tensor, step: int) -> None:
        of_generator, of_discriminator = optimizers
        made = self.generator(x[:, :4])
        of_discriminator.zero_grad()
        real, false = self.discriminator(x), self.discriminator(made.detach())
        (F.softplus(-real).mean() + F.softplus(false).mean()).backward()
        of_discriminator.step()
        of_generator.zero_grad()
        F.softplus(-self.discriminator(made)).mean().backward()
        of_generator.step()

    def training_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0, **_: Any) -> None:
        self.step(self.optimizers(), *batch, batch_idx)


class Autoencoder(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(FEATURES, 4), nn.Linear(4, FEATURES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(torch.tanh(self.encoder(x)))

    def loss_of(self, x: Any, y: torch.Tensor, step: int) -> torch.Tensor:
        return F.mse_loss(self(x), x)


class TwoInputs(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 5), nn.Linear(4, 5)
        self.head = nn.Linear(5, CLASSES)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.left(left) * self.right(right)))

    def loss_of(self, x: Any, y: torch.Tensor, step: int) -> torch.Tensor:
        return F.cross_entropy(self(*x), y.long())


class Tied(Classifier):
    """A model of language whose head has the embedding's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 6)
        self.hidden = nn.Linear(6, 6)
        self.head = nn.Linear(6, VOCABULARY)
        self.head.weight = self.embedding.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.hidden(self.embedding(x.long()).mean(dim=1))))


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.GroupNorm(2, outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.GroupNorm(2, outputs),
        )
        self.way = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.way(x))


class ResNet(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(Block(1, 4), Block(4, 6), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x.view(-1, 1, 4, 4)))


class Bag(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(VOCABULARY, 6, mode="sum")
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.bag(x.long()))


class Transposed(Classifier):
    """A transposed convolution, and instance normalisation with statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ConvTranspose1d(2, 3, 3, stride=2),
            nn.InstanceNorm1d(3, affine=True, track_running_stats=True),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(27, CLASSES),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x.view(-1, 2, 4))


class Shared(Classifier):
    """One layer under two names, used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(FEATURES, FEATURES)
        self.second = self.first
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))))


class Listed(Classifier):
    """A list of parameters beside a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(FEATURES, 6)
        self.listed = nn.ParameterList([torch.randn(6, 6) / 3, torch.randn(6, CLASSES) / 3])
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.first(x)) @ self.listed[0] @ self.listed[1] * self.scale


class Regression(Mlp):
    def loss_of(self, x: Any, y: torch.Tensor, step: int) -> torch.Tensor:
        return F.huber_loss(self(x), y)


class Multilabel(Mlp):
    def loss_of(self, x: Any, y: torch.Tensor, step: int) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(self(x), y)

    def optimizers_of(self) -> list[optim.Optimizer]:
        groups = [{"params": [p]} for p in self.parameters()]
        return [optim.AdamW(groups, lr=0.02, amsgrad=True)]


class Dropping(Mlp):
    """Dropout of a seed that the step gives, so that it is the same wherever it is computed."""

    def loss_of(self, x: Any, y: torch.Tensor, step: int) -> torch.Tensor:
        with torch.random.fork_rng([]):
            torch.manual_seed(step)
            hidden = F.dropout(self.body[:2](x), 0.5, self.training)
        return F.cross_entropy(self.body[2](hidden), y.long())


class Buffers(Mlp):
    """Numbers that are no weights: a running mean, a count, and one that every party keeps to itself."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("last", torch.zeros(FEATURES), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.mean.mul_(0.9).add_(x.mean(dim=0), alpha=0.1)
            self.count += 1
            self.last.copy_(x[-1])
        return self.body(x - self.mean)


@dataclass(frozen=True)
class Family:
    """A net and its rows.

    Attributes:
        net: builds it.
        x: numbers of a row, or the string "tokens".
        y: the labels, "classes", "tokens", "numbers" or "columns" of 0 and 1.
    """

    net: Callable[[], Classifier]
    x: int | str = FEATURES
    y: str = "classes"

    def rows(self, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """So many rows, float32 as a party holds them."""
        made = torch.Generator().manual_seed(seed)
        if isinstance(self.x, int):
            x = torch.randn(count, self.x, generator=made)
        else:
            x = torch.randint(0, VOCABULARY, (count, 5), generator=made).float()
        labels = {
            "classes": torch.randint(0, CLASSES, (count,), generator=made).float(),
            "tokens": torch.randint(0, VOCABULARY, (count,), generator=made).float(),
            "numbers": torch.randn(count, CLASSES, generator=made),
            "columns": torch.randint(0, 2, (count, CLASSES), generator=made).float(),
        }
        return x, labels[self.y]


FAMILIES = {
    "MLP": Family(Mlp),
    "MLP without bias": Family(BiasFree),
    "CNN with batch normalisation": Family(NormedCnn, 16),
    "LSTM": Family(Recurrent, 16),
    "GRU": Family(Gru, 16),
    "transformer encoder": Family(Transformer, 16),
    "multihead attention": Family(Attention, 16),
    "GAN": Family(Gan),
    "autoencoder": Family(Autoencoder),
    "two inputs": Family(TwoInputs),
    "tied embedding": Family(Tied, "tokens", "tokens"),
    "ResNet with group normalisation": Family(ResNet, 16),
    "embedding bag": Family(Bag, "tokens"),
    "transposed convolution": Family(Transposed),
    "shared layer": Family(Shared),
    "parameter list": Family(Listed),
    "regression": Family(Regression, y="numbers"),
    "multilabel": Family(Multilabel, y="columns"),
    "dropout": Family(Dropping),
    "buffers": Family(Buffers),
}
