"""Five hospitals of unequal size train on a CSV file each: ``python examples/hospitals.py``."""

from pathlib import Path

from torch import nn, optim
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC

import secretflow as sf
from secretflow.data.horizontal import read_csv
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.core.torch import TorchModel, metric_wrapper, optim_wrapper
from secretflow.security.aggregation import SecurePruneAggregator

FOLDER = Path(__file__).resolve().parent / "hospitals"
NAMES = ["north", "east", "south", "west", "island"]

sf.init([*NAMES, "server"], address="local")
hospitals, server = [sf.PYU(name) for name in NAMES], sf.PYU("server")
table = read_csv({hospital: f"{FOLDER}/{hospital.party}.csv" for hospital in hospitals})


def net() -> nn.Module:
    """From ten measures the score of malignant."""
    return nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))


model = FLModel(
    server=server,
    device_list=hospitals,
    model=TorchModel(
        net,
        nn.BCEWithLogitsLoss,
        optim_wrapper(optim.Adam, lr=0.01),
        # With thresholds the area under the curve is exact over all hospitals' rows.
        [metric_wrapper(BinaryAccuracy), metric_wrapper(BinaryAUROC, thresholds=200)],
    ),
    backend="torch",
    aggregator=SecurePruneAggregator(server, hospitals),
    strategy="fed_avg_w_prune",
    prune_end_rate=0.3,
    prune_percent=10,
    mask_scope="global",  # the hospitals differ in size
    random_seed=1,
)
x, y = table.drop(columns="malignant"), table["malignant"]
history = model.fit(x, y, validation_data=(x, y), epochs=12, batch_size=16, random_seed=1)
overall, of_each = model.evaluate(x, y, return_dict=True)
print(overall, of_each["island"], sep="\n")
history.plot().savefig("hospitals.png")
sf.shutdown()
