"""A simulation goes on when the process of a party dies, stands still, or wakes up again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray

import secretflow as sf
from secretflow.device import PYU
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.callbacks import Callback
from secretflow.ml.nn.fl.callbacks import Checkpoint
from secretflow.security.aggregation.secagg.errors import AggregationError, TooFewSurvivorsError
from secretflow.security.privacy import DPStrategyFL, GaussianModelDP
from tests.faults_table import Table, faults_table
from tests.security.aggregation.dropouts.proxy import Link

from .surviving import BATCH, EPOCHS, NAMES, ROUNDS, At, BehindLink, Clock, make_data, make_model


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    with faults_table("fits") as table:
        yield table


@pytest.fixture
def parties(ray_devices: SimpleNamespace) -> list[PYU]:
    return [ray_devices.alice, ray_devices.bob, ray_devices.carol]


def fit(
    model: FLModel, parties: list[PYU], *callbacks: Callback, epochs: int = EPOCHS, **options: Any
) -> Any:
    return model.fit(
        **make_data(parties),
        batch_size=BATCH,
        epochs=epochs,
        verbose=0,
        random_seed=5,
        callbacks=list(callbacks),
        **options,
    )


def noise_of(parties: int, clip: float = 1.0) -> DPStrategyFL:
    return DPStrategyFL(GaussianModelDP(0.01, num_clients=parties, l2_norm_clip=clip))


def at_party(folder: Path, fault: str, number: int) -> Callable[[], object]:
    """Has the process of a party meet a fault in the middle of its next round."""
    return (folder / f"{fault}-{number}").touch


def flat(history: Any) -> list[list[str]]:
    return [names for epoch in history.participants for names in epoch]


@pytest.mark.parametrize("mask_scope", ["local", pytest.param("global", marks=pytest.mark.faults)])
def test_with_all_there_training_is_that_without_the_option(
    ray_devices: SimpleNamespace, parties: list[PYU], tmp_path: Path, mask_scope: str
) -> None:
    models = [make_model(ray_devices, tmp_path, least, mask_scope=mask_scope) for least in (None, 2)]
    plain, history = (fit(model, parties, epochs=2) for model in models)
    assert plain.participants == []
    assert history.participants == [[NAMES] * ROUNDS] * 2
    for name, column in plain.global_history.items():
        if name == "payload_bytes":  # what survivors say of masks is in whole words
            assert np.all(np.array(column) <= history.global_history[name])
            assert np.all(np.array(history.global_history[name]) < 1.1 * np.array(column))
        elif not name.endswith("seconds"):
            np.testing.assert_allclose(history.global_history[name], column, atol=1e-6, err_msg=name)
    assert set(history.local_history) == set(plain.local_history)
    weights = [sf.reveal([w.get_weights() for w in model._workers.values()]) for model in models]
    for one, other in zip(*weights, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_party_whose_process_dies_drops_out_and_the_others_go_on(
    ray_devices: SimpleNamespace, parties: list[PYU], tmp_path: Path, table: Table
) -> None:
    model, clock = make_model(ray_devices, tmp_path), Clock()
    history = fit(model, parties, At(ROUNDS + 3, at_party(tmp_path, "SIGKILL", 1)), clock)
    table.add("a party", "SIGKILL", "in its training", "others go on", clock.longest(ROUNDS + 3), 60)
    assert len(history.global_history["multiclassaccuracy"]) == EPOCHS
    taken = flat(history)
    assert taken[: ROUNDS + 3] == [NAMES] * (ROUNDS + 3)
    assert taken[ROUNDS + 3 :] == [["alice", "carol"]] * (len(taken) - ROUNDS - 3)
    assert len(taken) == EPOCHS * ROUNDS
    assert [device.party for device in model._workers] == ["alice", "carol"]
    assert model.epochs_trained() == EPOCHS
    assert np.isnan(history.local_history["bob_density"][1:]).all()
    model.save_model(str(tmp_path / "run" / "model"))
    with pytest.raises(ValueError, match="gone: bob"):
        fit(model, parties)


def test_with_noise_training_goes_on_without_a_party_and_the_account_counts_each_round(
    ray_devices: SimpleNamespace, parties: list[PYU], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    strategy = noise_of(2, clip=10.0)
    model = make_model(ray_devices, tmp_path, mask_scope="global", dp_strategy=strategy)
    lose = At(3, at_party(tmp_path, "SIGKILL", 1))
    with caplog.at_level("DEBUG"):
        history = fit(model, parties, lose, epochs=2, dp_spent_step_freq=ROUNDS)
    assert flat(history)[0] == NAMES and flat(history)[-1] == ["alice", "carol"]
    spent = [record.args for record in caplog.records if "privacy spent" in record.msg]
    assert spent == [strategy.get_privacy_spent(ROUNDS * epoch) for epoch in (1, 2)]


@pytest.mark.faults
def test_an_actor_that_is_killed_between_rounds_drops_out(
    ray_devices: SimpleNamespace, parties: list[PYU], tmp_path: Path, table: Table
) -> None:
    model, clock = make_model(ray_devices, tmp_path), Clock()
    worker = model._workers[ray_devices.carol].data
    history = fit(model, parties, At(3, lambda: ray.kill(worker)), clock)
    table.add("a party", "`ray.kill`", "between two rounds", "others go on", clock.longest(3), 60)
    assert flat(history)[-1] == ["alice", "bob"]
    assert len(flat(history)) == EPOCHS * ROUNDS


@pytest.mark.faults
@pytest.mark.parametrize(
    ("mask_scope", "upload_bits"), [("local", None), ("global", None), ("local", 4), ("global", 8)]
)
def test_a_party_that_stands_still_is_gone_after_the_deadline_and_in_again_when_it_wakes_up(
    ray_devices: SimpleNamespace,
    parties: list[PYU],
    tmp_path: Path,
    table: Table,
    mask_scope: str,
    upload_bits: int | None,
) -> None:
    options = {"round_deadline": 5.0, "mask_scope": mask_scope, "upload_bits": upload_bits}
    model, clock = make_model(ray_devices, tmp_path, **options), Clock()

    def wake_up() -> None:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGCONT)

    class Slow(Callback):
        """Leaves the party that has woken up time to come back."""

        def on_epoch_end(self, epoch: Any = None, logs: Any = None) -> None:
            if epoch and epoch > 1:
                time.sleep(3)

    history = fit(
        model,
        parties,
        At(3, at_party(tmp_path, "SIGSTOP", 1)),
        At(ROUNDS + 5, wake_up),
        Slow(),
        clock,
        epochs=6,
    )
    when = f"in its training, {mask_scope} masks" + (f", {upload_bits} bits" if upload_bits else "")
    seen = "others go on; awake again it is in from the next round"
    table.add("a party", "SIGSTOP", when, seen, clock.longest(3), 5)
    taken = flat(history)
    assert len(taken) == 6 * ROUNDS
    assert taken[2] == NAMES and taken[4] == ["alice", "carol"] and taken[-1] == NAMES
    assert [device.party for device in model._workers] == NAMES
    densities = [history.local_history[f"{name}_density"][-1] for name in NAMES]
    assert densities == pytest.approx([densities[0]] * 3)
    assert model.epochs_trained() == 6
    if mask_scope == "global":
        first, *others = [sf.reveal(worker.get_weights()) for worker in model._workers.values()]
        for other in others:
            for one, own in zip(first, other, strict=True):
                np.testing.assert_array_equal(one, own)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [signal.SIGSTOP, signal.SIGKILL])
def test_nobody_waits_for_a_party_that_is_lost_between_two_rounds_to_save(
    ray_devices: SimpleNamespace, parties: list[PYU], tmp_path: Path, fault: signal.Signals
) -> None:
    model = make_model(ray_devices, tmp_path, round_deadline=5.0)
    bob = ray.get(model._workers[ray_devices.bob].data.__ray_call__.remote(lambda _: os.getpid()))

    class LosesBob(Callback):
        def on_epoch_end(self, epoch: Any = None, logs: Any = None) -> None:
            if epoch == 0:
                os.kill(bob, fault)

    saves = Checkpoint(str(tmp_path / "run" / "model"))
    try:
        history = fit(model, parties, LosesBob(), saves, epochs=2)
        assert flat(history)[0] == NAMES and flat(history)[-1] == ["alice", "carol"]
        with pytest.raises(ValueError, match="gone: bob"):
            fit(model, parties)
    finally:
        with suppress(ProcessLookupError):
            os.kill(bob, signal.SIGKILL)


@pytest.mark.faults
def test_too_few_survivors_end_the_run_with_a_checkpoint_and_the_names_of_who_is_gone(
    ray_devices: SimpleNamespace, parties: list[PYU], tmp_path: Path, table: Table
) -> None:
    model, clock = make_model(ray_devices, tmp_path, min_survivors=3), Clock()
    checkpoint = Checkpoint(str(tmp_path / "run" / "model"))
    with pytest.raises(TooFewSurvivorsError, match="got 2; gone: bob"):
        fit(model, parties, clock, At(ROUNDS + 3, at_party(tmp_path, "SIGKILL", 1)), checkpoint)
    seen = "too few are left: `TooFewSurvivorsError` names who is gone, a checkpoint is written"
    table.add("a party", "SIGKILL", "in its training", seen, clock.since_last(), 60)
    other = make_model(ray_devices, tmp_path)
    other._workers.pop(ray_devices.bob)
    other.load_model(str(tmp_path / "run" / "model"))
    assert other.epochs_trained() == 1


@pytest.mark.faults
def test_a_server_that_dies_ends_the_run_within_the_deadline(
    ray_devices: SimpleNamespace,
    parties: list[PYU],
    tmp_path: Path,
    table: Table,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from secretflow.ml.nn.fl import surviving_session

    sessions: list[Any] = []
    run = surviving_session.SurvivingSession._train

    def kept(self: Any, *arguments: Any) -> None:
        sessions.append(self)
        run(self, *arguments)

    monkeypatch.setattr(surviving_session.SurvivingSession, "_train", kept)
    model, clock = make_model(ray_devices, tmp_path, round_deadline=5.0), Clock()
    with pytest.raises(AggregationError, match="stream"):
        fit(model, parties, clock, At(3, lambda: ray.kill(sessions[0]._host.data)))
    table.add("the server", "`ray.kill`", "between two rounds", "the fit ends", clock.since_last(), 5)


@pytest.mark.faults
def test_a_blind_server_serves_a_fit_that_loses_a_party(
    ray_devices: SimpleNamespace, parties: list[PYU], tmp_path: Path
) -> None:
    model = make_model(ray_devices, tmp_path, server_blind=True)
    history = fit(model, parties, At(3, at_party(tmp_path, "SIGKILL", 0)))
    assert flat(history)[-1] == ["bob", "carol"] and len(flat(history)) == EPOCHS * ROUNDS


def weights_of(model: FLModel) -> list[np.ndarray]:
    """Of one of its parties; all have the same but for what does not travel."""
    weights: list[np.ndarray] = sf.reveal(next(iter(model._workers.values())).get_weights())
    return weights


@pytest.mark.faults
@pytest.mark.parametrize(
    ("link", "what"),
    [(Link(delay=0.05), "50 ms"), (Link(bits_per_second=64_000), "64 kbit/s")],
    ids=str,
)
def test_a_fit_over_a_slow_or_far_link_is_that_without_it(
    ray_devices: SimpleNamespace, parties: list[PYU], tmp_path: Path, table: Table, link: Link, what: str
) -> None:
    models = [make_model(ray_devices, tmp_path) for _ in range(2)]
    fit(models[0], parties, epochs=2)
    behind = BehindLink(models[1]._workers[ray_devices.bob], link)
    models[1]._workers[ray_devices.bob] = behind
    clock = Clock()
    history = fit(models[1], parties, clock, epochs=2)
    assert behind.proxy is not None
    behind.proxy.close()
    assert history.participants == [[NAMES] * ROUNDS] * 2
    for one, other in zip(*map(weights_of, models), strict=True):
        np.testing.assert_array_equal(one, other)
    table.add("a link", what, "all the time", "all take part in each round", clock.longest(1), 60)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("link", "what"),
    [
        (Link(breaks_after=30_000, once=True), "breaks in the middle of a message"),
        (Link(silent_after=30_000, once=True), "loses all that is sent"),
    ],
    ids=str,
)
def test_a_party_whose_link_breaks_or_falls_silent_in_a_fit_comes_back_over_a_new_one(
    ray_devices: SimpleNamespace, parties: list[PYU], tmp_path: Path, table: Table, link: Link, what: str
) -> None:
    """The others leave it time to; a connection that answers nothing is noticed after 20 seconds."""
    model, clock = make_model(ray_devices, tmp_path, round_deadline=8.0), Clock()
    behind = BehindLink(model._workers[ray_devices.bob], link)
    model._workers[ray_devices.bob] = behind

    class Slow(Callback):
        def on_epoch_end(self, epoch: Any = None, logs: Any = None) -> None:
            if epoch and epoch > 1 and self.params["history"].participants[-1][-1] != NAMES:
                time.sleep(5)

    history = fit(model, parties, Slow(), clock, epochs=10)
    assert behind.proxy is not None
    assert behind.proxy.connections > 1
    behind.proxy.close()
    taken = flat(history)
    assert len(taken) == 10 * ROUNDS
    assert taken[0] == taken[-1] == NAMES and ["alice", "carol"] in taken
    seen = "the others go on; it is in again from the next round"
    table.add("a link", what, "in the training", seen, clock.longest(1), 8)


@pytest.mark.slow
def test_a_fit_does_not_go_by_the_time_of_day(
    ray_devices: SimpleNamespace, parties: list[PYU], tmp_path: Path
) -> None:
    """The clock of one party is an hour ahead from the first round on."""
    models = [make_model(ray_devices, tmp_path) for _ in range(2)]
    fit(models[0], parties, epochs=2)
    (tmp_path / "clock-1").touch()
    history = fit(models[1], parties, epochs=2)
    assert not (tmp_path / "clock-1").exists()
    assert history.participants == [[NAMES] * ROUNDS] * 2
    for one, other in zip(*map(weights_of, models), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("options", "arguments", "match"),
    [
        ({"regrow_percent": 10.0}, {}, "regrow_percent must be 0 with min_survivors"),
        ({"withhold_percent": 10.0}, {}, "withhold_percent must be 0 with min_survivors"),
        ({"prune_criterion": "snip"}, {}, "prune_criterion must be one that needs no gradients"),
        ({}, {"sampler_method": "poisson", "batch_sampling_rate": 0.1}, "sampler_method must be 'batch'"),
        ({}, {"audit_log_dir": "log"}, "audit_log_dir must be None with min_survivors"),
        (
            {"upload_bits": 8, "mask_scope": "global", "dp_strategy": DPStrategyFL(GaussianModelDP(1.0, 2))},
            {},
            "upload_bits must be None with dp_strategy",
        ),
        ({"dp_strategy": noise_of(3), "mask_scope": "global"}, {}, "num_clients of model_gdp must be 2"),
        ({"dp_strategy": noise_of(2), "mask_scope": "local"}, {}, "mask_scope must be 'global'"),
    ],
    ids=str,
)
def test_what_does_not_go_with_survivors_is_refused(
    ray_devices: SimpleNamespace,
    parties: list[PYU],
    tmp_path: Path,
    options: dict[str, Any],
    arguments: dict[str, Any],
    match: str,
) -> None:
    with pytest.raises(ValueError, match=match):
        make_model(ray_devices, tmp_path, **options).fit(**make_data(parties), verbose=0, **arguments)
