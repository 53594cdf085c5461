"""What a net learns from updates of a few bits, beside whole numbers: the same fit, the same seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn, optim

import secretflow as sf
from experiments.data import Images, share_out
from experiments.dgl_utils import FedAvgCNN
from experiments.sparse.nets import ResNet20
from experiments.training import torch_model
from secretflow.device import PYU
from secretflow.ml.nn import FLModel
from secretflow.security.aggregation import SecurePruneAggregator

PARTIES = 4
SEEDS = (0, 1, 2)
BITS = (None, 8, 4, 2)
DENSITY = 0.1


class Perceptron(nn.Module):
    """784 pixels, two hidden layers of 128: 118,016 prunable weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
        )

    def forward(self, x: Any) -> Any:
        """Class scores of images of shape (rows, 1, 28, 28)."""
        return self.layers(x)


NETS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "perceptron": (Perceptron, {"rows": 12_000, "epochs": 16, "lr": 1e-3, "aggregate_freq": 4}),
    "fedavg-cnn": (FedAvgCNN, {"rows": 6_000, "epochs": 8, "lr": 1e-3, "aggregate_freq": 4}),
    "resnet20": (ResNet20, {"rows": 6_000, "epochs": 8, "lr": 3e-3, "aggregate_freq": 4}),
}
"""By name a net and how it is trained."""


def fit(name: str, seed: int, bits: int | None, images: Images) -> dict[str, Any]:
    """Trains one net.

    Args:
        name: of the net.
        seed: of weights, rows and batches.
        bits: of an update; None for whole numbers.
        images: the whole dataset; rows are drawn from it, and its test rows validate.

    Returns:
        The accuracy in percent, over the parties, and what one of them has uploaded.
    """
    net, how = NETS[name]
    names = [f"party{k}" for k in range(PARTIES)]
    sf.init([*names, "server"], debug_mode=True)
    parties = [PYU(party) for party in names]
    chosen = np.random.default_rng(seed).permutation(len(images.x_train))[: how["rows"]]
    parts = dict.fromkeys(parties, 1 / PARTIES)
    data = share_out(images.x_train[chosen], images.y_train[chosen], parts)
    model = FLModel(
        server=PYU("server"),
        device_list=parties,
        model=torch_model(net, optim.Adam, how["lr"]),
        aggregator=SecurePruneAggregator(PYU("server"), parties, upload_bits=bits),
        strategy="fed_avg_w_prune",
        backend="torch",
        random_seed=seed,
        mask_scope="global",
        prune_end_rate=DENSITY,
        prune_schedule="cubic",
        prune_end_epoch=how["epochs"] // 2,
    )
    history = model.fit(
        *data,
        validation_data=share_out(images.x_test, images.y_test, parts),
        validation_freq=how["epochs"],
        epochs=how["epochs"],
        batch_size=32,
        aggregate_freq=how["aggregate_freq"],
        shuffle=True,
        random_seed=seed,
        verbose=0,
    )
    sf.shutdown()
    columns = history.global_history
    return {
        "net": name,
        "seed": seed,
        "bits": bits,
        "accuracy": round(100 * float(columns["val_multiclassaccuracy"][-1]), 3),
        "bytes": round(sum(columns["payload_bytes"]) / PARTIES),
        "density": columns["density"][-1],
        "clipped": max(columns.get("clipped", [0.0])),
        **how,
    }
