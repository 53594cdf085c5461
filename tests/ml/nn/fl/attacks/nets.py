"""Nets with modes, ties, recurrence and attention, for rows that are no images."""

from __future__ import annotations

import torch
from torch import nn

CLASSES = 4
STEPS, FEATURES = 3, 4


class Recurrent(nn.Module):
    """The last step of a recurrent layer, classified."""

    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM) -> None:
        super().__init__()
        self.body = kind(FEATURES, 6, batch_first=True)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x)[0][:, -1])


def gru() -> nn.Module:
    return Recurrent(nn.GRU)


class Encoder(nn.Module):
    """A transformer's encoder layer."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.body = nn.TransformerEncoderLayer(FEATURES, 2, 8, dropout, batch_first=True)
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean(dim=1))


def encoder_with_dropout() -> nn.Module:
    return Encoder(0.1)


class Attention(nn.Module):
    """Causal attention without weights to give back, which takes the quickest kernel there is."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.MultiheadAttention(FEATURES, 2, batch_first=True)
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype, device=x.device)
        return self.head(self.body(x, x, x, attn_mask=mask, need_weights=False)[0].mean(dim=1))


class Tied(nn.Module):
    """Soft tokens through an embedding whose weight is the head's, too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CLASSES, 6)
        self.hidden = nn.Linear(6, 6)
        self.head = nn.Linear(6, CLASSES)
        self.head.weight = self.embedding.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.hidden(x @ self.embedding.weight)))


class TiedTokens(nn.Module):
    """Whole tokens through an embedding whose weight is the head's, which has no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CLASSES, 6)
        self.head = nn.Linear(6, CLASSES, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.embedding(x.long().clamp(0, CLASSES - 1))).mean(dim=1))


class Normed(nn.Module):
    """Batch normalisation between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(FEATURES, 12)
        self.norm = nn.BatchNorm1d(12)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.sigmoid(self.norm(self.first(x))))


def table_net() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.Sigmoid(), nn.Linear(8, CLASSES))


def flat_net() -> nn.Module:
    """For rows of shape (1, 1, 8)."""
    return nn.Sequential(nn.Flatten(), nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, CLASSES))


def dropping() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 16), nn.Dropout(0.5), nn.Sigmoid(), nn.Linear(16, CLASSES))
