"""Training goes on with those who are there, and throws away what was released for nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
from torch import optim

from secretflow.ml.nn import FLModel
from secretflow.ml.nn.core.torch import optim_wrapper
from secretflow.ml.nn.fl.plan import Round, plan_epochs
from secretflow.ml.nn.fl.worker.kept_updates import UpdatesState
from secretflow.ml.nn.fl.worker.training import PartyFit
from secretflow.security.aggregation import SecurePruneAggregator
from secretflow.security.aggregation.secagg.dropouts.client import SurvivingClient
from secretflow.security.aggregation.secagg.dropouts.protocol import with_survivors
from secretflow.security.aggregation.secagg.dropouts.rules import SurvivorRules
from secretflow.security.aggregation.secagg.dropouts.server import Step, SurvivorServer
from secretflow.security.aggregation.secagg.keyring import agree_all
from secretflow.security.aggregation.secagg.protocol import Exchanges
from secretflow.security.aggregation.secagg.ring import Ring
from secretflow.security.aggregation.secagg.rules import Rules
from secretflow.security.aggregation.secagg.stages import Stage
from secretflow.security.privacy import DPStrategyFL, GaussianModelDP
from secretflow.utils.simulation.data.ndarray import create_ndarray
from tests.security.aggregation.dropouts.network import Network

from ..conftest import Mlp, model_def
from .conftest import BATCH, LR, data_of

ROWS = 40
STEPS = ROWS // BATCH


class Federation:
    """Four workers with a model and their rows, whose clients can go on without each other.

    Args:
        devices: of the parties.
        mask_scope: see ``FLModel``.
        upload_bits: of an update; None for whole numbers.
        dp_strategy: see ``FLModel``.
        starts_anew: has the parties begin with an average, also where they have the last one.
        shuffle: see ``FLModel.fit``, as well as ``random_seed``.
        random_seed: see above.

    Attributes:
        names: of the parties.
        workers: by name the object that is an actor elsewhere.
    """

    def __init__(
        self,
        devices: SimpleNamespace,
        mask_scope: str,
        upload_bits: int | None = None,
        dp_strategy: Any = None,
        starts_anew: bool = False,
        shuffle: bool = False,
        random_seed: int | None = 3,
    ) -> None:
        parties = [devices.alice, devices.bob, devices.carol, devices.davy]
        self.names = [party.party for party in parties]
        model = FLModel(
            server=devices.carol,
            device_list=parties,
            model=model_def(Mlp, optim_wrapper(optim.SGD, lr=LR)),
            aggregator=SecurePruneAggregator(devices.carol, parties, upload_bits=upload_bits),
            strategy="fed_avg_w_prune",
            backend="torch",
            random_seed=5,
            prune_end_rate=0.3,
            prune_percent=20,
            prune_freq=2,
            mask_scope=mask_scope,
        )
        x, y = data_of(0, 4 * ROWS)
        parts = {party: (k * ROWS, (k + 1) * ROWS) for k, party in enumerate(parties)}
        model.fit(
            create_ndarray(x, parts=parts, axis=0),
            create_ndarray(y, parts=parts, axis=0, is_label=True),
            epochs=1,
            batch_size=BATCH,
            shuffle=shuffle,
            random_seed=3,
            verbose=0,
        )
        self.settings = model._prune_settings
        self.workers: dict[str, Any] = {
            party.party: worker.data._actor_handle for party, worker in model._workers.items()
        }
        rules = Rules.make(Ring.make(32, None, 4), 4, 2, upload_bits=upload_bits)
        survivor_rules = SurvivorRules.make(4, 3, 2)
        clients = [SurvivingClient(name, self.names, rules, survivor_rules) for name in self.names]
        agree_all([client.keys for client in clients])
        for worker, client in zip(self.workers.values(), clients, strict=True):
            worker._client = client
        self.fit = PartyFit(steps=STEPS, random_seed=random_seed, dp_strategy=dp_strategy, epochs_trained=1)
        self.starts_anew = starts_anew
        self.plan = self._planned()
        self.upload_bits = upload_bits
        self.ended: dict[str, list[list[np.ndarray]]] = {name: [] for name in self.names}
        self.kept: dict[str, list[UpdatesState]] = {name: [] for name in self.names}
        self.network = Network(
            SurvivorServer(self.names, survivor_rules),
            {
                name: with_survivors(worker._client, self.run(name, worker))
                for name, worker in self.workers.items()
            },
            self.ended,
        )

    def _planned(self) -> list[Round]:
        sizes, living = self.workers[self.names[0]]._masked.counts()
        (rounds,) = plan_epochs(
            self.settings, sizes, living, trained=1, epochs=1, steps=STEPS, aggregate_freq=1
        )
        return rounds

    def run(self, name: str, worker: Any) -> Exchanges[None]:
        """A fit of one epoch; what a party has after each round is kept."""
        worker.begin_fit(1, self.fit, True)
        if self.starts_anew:
            worker._begin(1, worker._rounds.start(keeps_weights=False), anew=True)
        yield from worker._exchanges
        worker._client.transcript.end()
        self._keep(name, worker)
        for start, this in enumerate(self.plan, start=2):
            worker.begin_rounds(start, [this])
            yield from worker._exchanges
            worker._client.transcript.end()
            self._keep(name, worker)

    def _keep(self, name: str, worker: Any) -> None:
        self.ended[name].append(worker.get_weights())
        self.kept[name].append(copy.deepcopy(worker._training.updates.state()))

    def until(self, reached: Callable[[], bool]) -> None:
        network = self.network
        while not reached():
            for name in self.names:
                if network.up[name] and not reached():
                    network.deliver_up(name)
            for name in self.names:
                if network.down[name] and not reached():
                    network.deliver_down(name)

    def in_round(self, number: int, step: Step) -> bool:
        """Whether all parties are in a round, from 1, and the server waits for this in a call of it."""
        return all(len(ended) == number for ended in self.ended.values()) and self.network.server.step is step

    def in_average(self, number: int, step: Step) -> bool:
        """Whether the call is that of the average."""
        clients = [worker._client for worker in self.workers.values()]
        return self.in_round(number, step) and all(client.stage is Stage.UPLOADED for client in clients)


def watched(federation: Federation, name: str) -> list[list[np.ndarray]]:
    """What a party uploads, as it comes."""
    training: Any = federation.workers[name]._training
    uploads: list[list[np.ndarray]] = []
    noised = training.noised

    def kept(arrays: Sequence[np.ndarray], fit: Any) -> Any:
        upload = noised(arrays, fit)
        uploads.append([array.copy() for array in upload])
        return upload

    training.noised = kept
    return uploads


def flat(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([array.astype(np.float64).ravel() for array in arrays])


def equal(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def same_kept(one: UpdatesState, other: UpdatesState, what: Literal["references", "rests"]) -> bool:
    return equal(list(one[what].values()), list(other[what].values()))


@pytest.fixture(params=[("local", None), ("global", None), ("local", 4), ("global", 2)], ids=str)
def federation(request: pytest.FixtureRequest, devices: SimpleNamespace) -> Federation:
    return Federation(devices, *request.param)


def test_training_goes_on_without_a_party_that_is_lost(federation: Federation) -> None:
    federation.until(lambda: federation.in_round(2, Step.UPLOADS))
    federation.network.cut("davy")
    federation.network.drain()
    left = federation.names[:3]
    assert all(federation.network.ended[name] is None for name in left)
    assert all(len(federation.ended[name]) == STEPS + 1 for name in left)
    for name in left:
        assert not equal(federation.ended[name][-1], federation.ended[name][-2])
        assert federation.workers[name]._client.survivors == tuple(left)
        assert same_kept(federation.kept[name][-1], federation.kept[left[0]][-1], "references")


def test_a_round_that_was_lost_after_releases_is_thrown_away(federation: Federation) -> None:
    """Else the next upload would be what was released and a little more, for other parties."""
    federation.until(lambda: federation.in_average(2, Step.RELEASES))
    federation.network.cut("davy")
    federation.network.drain()
    for name in federation.names[:3]:
        ended, kept = federation.ended[name], federation.kept[name]
        if federation.settings.mask_scope == "global":  # own masks were agreed on before
            assert equal(ended[2], ended[1])
        assert same_kept(kept[2], kept[1], "references") and same_kept(kept[2], kept[1], "rests")
        assert bool(kept[2]["rests"]) == (federation.upload_bits is not None)
        assert not kept[2]["rests"] or not same_kept(kept[3], kept[2], "rests")
        assert not equal(ended[3], ended[2])
        assert len(ended) == STEPS + 1


def test_a_mask_that_was_agreed_on_stays_when_the_average_under_it_is_lost(federation: Federation) -> None:
    """A party that has contributed without an element may not go back to contributing it."""
    federation.until(lambda: federation.in_average(2, Step.RELEASES))
    federation.network.cut("davy")
    federation.network.drain()
    for name in federation.names[:3]:
        assert federation.network.ended[name] is None
        ended = federation.ended[name]
        assert len(ended) == STEPS + 1
        for began, lost in zip(ended[1], ended[2], strict=True):
            assert ((lost == began) | (lost == 0)).all()
        assert not equal(ended[3], ended[2])


@pytest.mark.parametrize("upload_bits", [None, 4])
def test_after_a_start_that_was_lost_the_first_round_averages_whole_weights(
    devices: SimpleNamespace, upload_bits: int | None
) -> None:
    """There is no average then of which an update could be."""
    federation = Federation(devices, "global", upload_bits, starts_anew=True)
    left = federation.names[:3]
    uploads = [watched(federation, name) for name in left]
    federation.until(lambda: federation.in_average(0, Step.RELEASES))
    federation.network.cut("davy")
    federation.network.drain()
    average = np.mean([flat(of_party[0]) for of_party in uploads], axis=0)
    for name in left:
        assert federation.network.ended[name] is None
        ended, references = federation.ended[name], federation.kept[name][1]["references"]
        assert len(ended) == STEPS + 1
        np.testing.assert_allclose(flat(ended[1]), average, atol=1e-5)
        assert bool(references) == (upload_bits is not None)
        assert same_kept(federation.kept[name][1], federation.kept[left[0]][1], "references")


@pytest.mark.parametrize("lost", [False, True])
def test_the_noise_in_an_average_of_survivors_is_that_of_the_account_or_more(
    devices: SimpleNamespace, lost: bool
) -> None:
    """Clipped to a norm next to nothing, what is averaged is noise alone, so its spread can be seen.

    The sum over ``s`` parties has ``sqrt(s / 3)`` times the noise of the account.
    """
    clip, multiplier, fewest = 1e-2, 200.0, 3
    noise = GaussianModelDP(multiplier, num_clients=fewest, l2_norm_clip=clip)
    federation = Federation(devices, "global", dp_strategy=DPStrategyFL(noise))
    np.random.seed(4)  # upstream draws the noise from it
    if lost:
        federation.until(lambda: federation.in_round(1, Step.UPLOADS))
        federation.network.cut("davy")
    federation.network.drain()
    there = len(federation.names) - lost
    averages = federation.ended["alice"][2:]
    numbers = np.concatenate([array[array != 0].ravel() for one in averages for array in one])
    expected = multiplier * clip * np.sqrt(there / fewest) / there
    assert numbers.std() == pytest.approx(expected, rel=0.1)
    assert expected * there >= multiplier * clip
