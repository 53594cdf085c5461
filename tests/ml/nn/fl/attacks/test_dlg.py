import dataclasses
import math

import pytest
import torch

from experiments.data import load_images
from experiments.dgl_utils import CLASSES, LeNet, attacked_net
from secretflow.ml.nn.fl.attacks import DLGSettings, LBFGSSettings, dlg_attack, idlg_attack
from secretflow.ml.nn.fl.attacks.idlg import labels_from_gradient
from secretflow.ml.nn.fl.attacks.objective import Objective
from secretflow.ml.nn.fl.audit.defences import magnitude_mask
from secretflow.ml.nn.fl.audit.scores import SUCCESS_MSE, match, mean_squared_error
from secretflow.ml.nn.fl.audit.views import (
    Knowledge,
    PartyStep,
    observe,
    party_gradient,
    plain_aggregate,
    weight_update,
)

SEED = 1


def lenet_party(number, pruned=0.0):
    """The LeNet of a seed of its own, and one training image of MNIST."""
    images = load_images()
    torch.manual_seed(SEED + number)
    weights = attacked_net().state_dict()
    x = torch.from_numpy(images.x_train[number : number + 1]).float().div(255).unsqueeze(1)
    y = torch.tensor([int(images.y_train[number])])
    return PartyStep(LeNet, weights, x, y, magnitude_mask(LeNet, weights, pruned) if pruned else {})


def observed(party, knowledge=Knowledge.MASK_KNOWN, classes=3, **options):
    return observe(party, party_gradient(party), knowledge, classes=classes, **options)


@pytest.mark.slow
def test_undefended_controls_are_recovered_together():
    parties = [lenet_party(number) for number in range(3)]
    found = dlg_attack(
        [observed(party, classes=CLASSES) for party in parties],
        DLGSettings(iterations=40, restarts=2, patience=5, seed=SEED),
    )
    good = [mean_squared_error(f.images, p.x) < SUCCESS_MSE for f, p in zip(found, parties, strict=True)]
    assert sum(good) >= 2
    for ok, result, party in zip(good, found, parties, strict=True):
        assert not ok or torch.equal(result.labels, party.y)


@pytest.mark.slow
def test_knowing_the_mask_beats_not_knowing_it_at_half_the_weights():
    party = lenet_party(0, pruned=0.5)
    settings = DLGSettings(iterations=25, restarts=2, patience=5, seed=SEED)
    errors = {
        knowledge: mean_squared_error(
            dlg_attack([observed(party, knowledge, CLASSES)], settings)[0].images, party.x
        )
        for knowledge in (Knowledge.OBLIVIOUS, Knowledge.WEIGHTS_ONLY, Knowledge.MASK_KNOWN)
    }
    assert errors[Knowledge.MASK_KNOWN] < SUCCESS_MSE < errors[Knowledge.OBLIVIOUS]
    assert errors[Knowledge.WEIGHTS_ONLY] > SUCCESS_MSE


def test_idlg_recovers_what_dlg_does(make_party):
    party = make_party()
    result = idlg_attack([observed(party)], DLGSettings(iterations=30))[0]
    assert torch.equal(result.labels, party.y)
    assert mean_squared_error(result.images, party.x) < SUCCESS_MSE


def test_an_update_of_several_steps_is_inverted_by_simulating_them(make_party):
    party = make_party(pruned=0.2)
    known = observe(
        party,
        weight_update(party, 3, 0.5),
        Knowledge.MASK_KNOWN,
        classes=3,
        local_steps=3,
        learning_rate=0.5,
    )
    result = dlg_attack([known], DLGSettings(iterations=30))[0]
    assert mean_squared_error(result.images, party.x) < SUCCESS_MSE


def test_the_aggregate_of_two_parties_gives_both_images_in_some_order(make_party):
    first, other = make_party(seed=4), make_party(seed=5)
    second = dataclasses.replace(first, x=other.x, y=(first.y + 1) % 3)
    seen = plain_aggregate([party_gradient(first), party_gradient(second)])
    known = observe(first, seen, Knowledge.MASK_KNOWN, classes=3, parties=2)
    # The tiny net's gradient is so small that the usual tolerances, which are absolute, end too early.
    exact = LBFGSSettings(tolerance_grad=0, tolerance_change=0)
    result = dlg_attack([known], DLGSettings(iterations=100, restarts=8, loss_reached=1e-16, lbfgs=exact))[0]
    truth = torch.cat([first.x, second.x])
    order = match(result.images, truth)
    assert mean_squared_error(result.images[order], truth) < SUCCESS_MSE
    assert torch.equal(result.labels[order], torch.cat([first.y, second.y]))


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_labels_are_read_off_the_last_layer(make_party, batch):
    for seed in range(5):
        party = make_party(batch=batch, seed=seed)
        labels = labels_from_gradient(observed(party))
        assert sorted(labels.tolist()) == sorted(party.y.tolist())


def test_idlg_takes_single_images_only(make_party):
    with pytest.raises(ValueError, match=r"batch_size must be 1 .*got 2"):
        idlg_attack([observed(make_party(batch=2))])


def test_an_attack_changes_nothing_it_was_given(make_party):
    known = observed(make_party(pruned=0.5))
    before = {name: value.clone() for name, value in known.weights.items()}
    dlg_attack([known], DLGSettings(iterations=2, restarts=1))
    assert all(torch.equal(before[name], value) for name, value in known.weights.items())


def poisoned(monkeypatch, is_poisoned):
    """Makes the objective NaN for the guesses of some observations at some evaluations."""
    real, evaluations = Objective.bind, iter(range(10**9))

    def bind(self, rows):
        evaluate = real(self, rows)

        def broken(guesses):
            losses, gradients = evaluate(guesses)
            number = next(evaluations)
            bad = torch.tensor([is_poisoned(row, number) for row in rows])
            return torch.where(bad, math.nan, losses), gradients

        return broken

    monkeypatch.setattr(Objective, "bind", bind)


def test_a_restart_that_diverges_fails_and_another_one_wins(make_party, monkeypatch):
    poisoned(monkeypatch, lambda row, number: number == 1)
    result = dlg_attack([observed(make_party())], DLGSettings(iterations=3, restarts=2, lanes=1))[0]
    assert (result.diverged, result.restart) == (1, 1)
    assert math.isfinite(result.loss) and torch.isfinite(result.images).all()


def test_an_observation_of_which_every_restart_diverges_has_an_infinite_loss_and_harms_no_other(
    make_party, monkeypatch
):
    parties = [make_party(seed=seed) for seed in (1, 2)]
    settings = DLGSettings(iterations=3, restarts=3)
    alone = dlg_attack([observed(parties[1])], settings)[0]
    poisoned(monkeypatch, lambda row, number: row == 0)
    broken, sound = dlg_attack([observed(party) for party in parties], settings)
    assert broken.diverged == 3 and math.isinf(broken.loss) and torch.isfinite(broken.images).all()
    torch.testing.assert_close(sound.images, alone.images)


def test_gradients_of_nan_are_a_failure_and_no_crash(make_party):
    known = observed(make_party())
    broken = dataclasses.replace(known, gradients=tuple(g * math.nan for g in known.gradients))
    result = dlg_attack([broken], DLGSettings(iterations=3, restarts=2))[0]
    assert result.diverged == 2 and math.isinf(result.loss)


def test_the_restart_with_the_smallest_matching_loss_is_chosen_whatever_the_truth_is(make_party):
    known = observed(make_party(pruned=0.7))
    settings = DLGSettings(iterations=3, restarts=4, loss_reached=0)
    together = dlg_attack([known], settings)[0]
    singly = [
        dlg_attack([known], dataclasses.replace(settings, restarts=1, seed=7919 * restart))[0].loss
        for restart in range(4)
    ]
    assert together.restart == singly.index(min(singly))
    assert together.loss == pytest.approx(min(singly), rel=1e-6)


def test_the_answer_does_not_depend_on_how_many_lanes_there_are(make_party):
    known = [observed(make_party(seed=seed, pruned=0.5)) for seed in range(3)]
    settings = DLGSettings(iterations=4, restarts=3, loss_reached=0)
    one, many = (dlg_attack(known, dataclasses.replace(settings, lanes=lanes)) for lanes in (1, 9))
    for a, b in zip(one, many, strict=True):
        assert a.restart == b.restart
        torch.testing.assert_close(a.images, b.images, rtol=1e-4, atol=1e-6)


def test_the_history_goes_from_the_start_to_the_answer(make_party):
    result = dlg_attack([observed(make_party())], DLGSettings(iterations=5, restarts=1, record_every=1))[0]
    assert result.history[0].iteration == 0
    assert result.history[-1].iteration == result.iteration
    assert result.history[-1].loss == result.loss
    assert torch.equal(result.history[-1].images, result.images)


def test_a_start_has_the_mean_and_deviation_that_were_chosen(make_party):
    settings = DLGSettings(iterations=1, restarts=1, start_mean=0.5, start_deviation=0)
    first = dlg_attack([observed(make_party())], settings)[0].history[0]
    assert torch.equal(first.images, torch.full_like(first.images, 0.5))


def test_a_restart_without_progress_is_given_up(make_party):
    known = observed(make_party())
    nobodys = dataclasses.replace(known, gradients=tuple(torch.ones_like(g) for g in known.gradients))
    settings = DLGSettings(iterations=500, restarts=1, loss_reached=0, patience=3, record_every=1)
    done = []
    dlg_attack([nobodys], settings, done.append)
    assert len(done) < 500 and done[-1] == 1 and done == sorted(done)


def test_a_match_ends_the_attack_early(make_party):
    result = dlg_attack([observed(make_party())], DLGSettings(iterations=50, restarts=4, loss_reached=1e3))[0]
    assert result.iteration == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gradients": ()}, "gradients"),
        ({"weights": {}}, "weights"),
        ({"mask": {"3.bias": torch.ones(2)}}, "mask"),
        ({"compared": {"3.bias": torch.ones(2)}}, "compared"),
        ({"classes": 1}, "classes"),
        ({"image_shape": (28, 28)}, "image_shape"),
        ({"batch_size": 0}, "batch_size"),
        ({"local_steps": 0}, "local_steps"),
        ({"local_steps": 2}, "learning_rate"),
        ({"learning_rate": 0.0}, "learning_rate"),
    ],
)
def test_an_observation_that_does_not_fit_is_refused_by_name(make_party, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(observed(make_party()), **change)


@pytest.mark.parametrize(
    "chosen",
    [
        {"iterations": 0},
        {"restarts": 0},
        {"patience": 0},
        {"record_every": 0},
        {"lanes": 0},
        {"loss_reached": -1.0},
        {"start_deviation": -1.0},
        {"start_mean": math.inf},
    ],
)
def test_settings_out_of_range_are_refused_by_name(chosen):
    with pytest.raises(ValueError, match=next(iter(chosen))):
        DLGSettings(**chosen)
