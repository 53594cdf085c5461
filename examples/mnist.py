"""Three parties train a convolutional net on 1,500 images of MNIST: ``python examples/mnist.py``."""

from pathlib import Path

import numpy as np
from torch import nn, optim
from torchmetrics.classification import MulticlassAccuracy

import secretflow as sf
from secretflow.data.ndarray import FedNdarray, PartitionWay
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.core.torch import TorchModel, metric_wrapper, optim_wrapper
from secretflow.security.aggregation import SecurePruneAggregator

FILE = Path(__file__).resolve().parent / "mnist.npz"

sf.init(["alice", "bob", "carol", "server"], address="local")
server, *parties = (sf.PYU(name) for name in ["server", "alice", "bob", "carol"])


def images(part: str, party: int) -> np.ndarray:
    """Every third image of a part of the file, (rows, 1, 28, 28) from 0 to 1."""
    return np.load(FILE)[f"x_{part}"][party::3, None] / 255


def labels(part: str, party: int) -> np.ndarray:
    """Their digits."""
    return np.load(FILE)[f"y_{part}"][party::3]


def net() -> nn.Module:
    """Two convolutions and two fully connected layers."""
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 5, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 5, stride=2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(16 * 4 * 4, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


def held(part: str) -> tuple[FedNdarray, FedNdarray]:
    """Images and labels of all parties; each loads its own."""
    x, y = (
        FedNdarray({party: party(load)(part, k) for k, party in enumerate(parties)}, PartitionWay.HORIZONTAL)
        for load in (images, labels)
    )
    return x, y


accuracy = metric_wrapper(MulticlassAccuracy, num_classes=10, average="micro")
model = FLModel(
    server=server,
    device_list=parties,
    model=TorchModel(net, nn.CrossEntropyLoss, optim_wrapper(optim.Adam, lr=0.003), [accuracy]),
    backend="torch",
    aggregator=SecurePruneAggregator(server, parties),
    strategy="fed_avg_w_prune",
    prune_end_rate=0.2,
    prune_schedule="cubic",
    prune_start_epoch=1,
    prune_end_epoch=6,
    mask_scope="global",
    random_seed=1,
)
history = model.fit(*held("train"), validation_data=held("test"), epochs=10, batch_size=10, random_seed=1)
history.plot().savefig("mnist.png")

overall, of_each = model.evaluate(*held("test"), return_dict=True)
model.save_model("mnist/model")  # mnist/alice/model and so on, for the parties share this disk
print(overall, "density", round(history.global_history["density"][-1], 3))
sf.shutdown()
