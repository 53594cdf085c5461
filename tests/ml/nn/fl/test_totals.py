"""What drivers of a network are told of all parties together, and what each is told of its own."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

import secretflow as sf
import secretflow.distributed as sfd
from secretflow.distributed.primitive import DISTRIBUTION_MODE
from secretflow.ml.nn.fl.audience import Audience
from secretflow.ml.nn.fl.epoch_reports import overall_columns, own_measures, total_columns
from secretflow.ml.nn.fl.totals import Totals
from secretflow.ml.nn.metrics import Default, aggregate_metrics

from .conftest import Task
from .measures import BATCH


@pytest.mark.parametrize("server_blind", [False, True])
def test_secure_sums_are_the_columns_that_a_driver_who_is_told_everything_finds(
    task: Task, devices: SimpleNamespace, server_blind: bool
) -> None:
    parties = [devices.alice, devices.bob]
    model = task.make_model(aggregator_options={"server_blind": server_blind})
    history = model.fit(
        task.x, task.y, validation_data=(task.x, task.y), epochs=1, batch_size=BATCH, verbose=0
    )
    totals = Totals(
        model._workers, model._aggregator, Audience(parties, devices.carol, server_blind=server_blind)
    )
    measured = {party: worker.measured() for party, worker in model._workers.items()}
    found = total_columns(totals.of({party: party(own_measures)(own) for party, own in measured.items()}))
    expected = overall_columns(sf.reveal(list(measured.values())))
    assert found == pytest.approx(expected, rel=1e-9)
    for name in ("loss", "density", "multiclassaccuracy", "val_multiclassaccuracy"):
        assert found[name] == pytest.approx(history.global_history[name][-1], rel=1e-6)
    evaluated = {party: worker.evaluate(9) for party, worker in model._workers.items()}
    [accuracy] = totals.of(evaluated)
    [theirs] = aggregate_metrics(sf.reveal(list(evaluated.values())))
    assert repr(accuracy) == repr(theirs)


def test_training_goes_on_after_secure_sums(task: Task, devices: SimpleNamespace) -> None:
    model = task.make_model()
    audience = Audience([devices.alice, devices.bob], devices.carol, server_blind=False)
    model.fit(task.x, task.y, epochs=1, batch_size=BATCH, verbose=0, random_seed=1)
    Totals(model._workers, model._aggregator, audience).of(
        {party: worker.get_local_metrics() for party, worker in model._workers.items()}
    )
    model.fit(task.x, task.y, epochs=1, batch_size=BATCH, verbose=0, random_seed=1)
    assert model.epochs_trained() == 2


def test_what_has_no_total_is_said_once(
    task: Task, devices: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:

    model = task.make_model()
    audience = Audience([devices.alice, devices.bob], devices.carol, server_blind=False)
    totals = Totals(model._workers, model._aggregator, audience)
    own = {party: party(lambda: [Default("auc", 1.0, 2.0)])() for party in model._workers}
    with caplog.at_level(logging.WARNING):
        assert totals.of(own) == [] and totals.of(own) == []
    assert caplog.text.count("auc of all parties together: not told over the network") == 1


def test_without_ray_a_fit_over_the_network_is_refused(devices: SimpleNamespace) -> None:
    before = sfd.get_distribution_mode()
    sfd.set_distribution_mode(DISTRIBUTION_MODE.PRODUCTION)
    try:
        with pytest.raises(ValueError, match=r"ray_mode of sf\.init must be True over the network"):
            Audience([devices.alice, devices.bob], devices.carol, server_blind=False)
    finally:
        sfd.set_distribution_mode(before)
