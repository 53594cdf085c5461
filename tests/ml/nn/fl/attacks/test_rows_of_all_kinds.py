"""Attacks work for tables and sequences, and for nets with attention, recurrence, ties and modes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from secretflow.ml.nn.fl.attacks import (
    DLGSettings,
    InvertingSettings,
    LBFGSSettings,
    Observation,
    closed_form_attack,
    dlg_attack,
    idlg_attack,
    inverting_attack,
)
from secretflow.ml.nn.fl.attacks.objective import Objective, cosine_distance, total_variation
from secretflow.ml.nn.fl.audit.scores import mean_squared_error, nearest, rank
from secretflow.ml.nn.fl.audit.views import Knowledge, PartyStep, observe, party_gradient

from .nets import (
    CLASSES,
    FEATURES,
    STEPS,
    Attention,
    Encoder,
    Normed,
    Recurrent,
    Tied,
    TiedTokens,
    dropping,
    encoder_with_dropout,
    flat_net,
    gru,
    table_net,
)

Net = Callable[[], nn.Module]
SEQUENCE, TABLE = (STEPS, FEATURES), (FEATURES,)
EXACT = LBFGSSettings(tolerance_grad=0, tolerance_change=0)
SHAPES: dict[Net, tuple[int, ...]] = {
    Recurrent: SEQUENCE,
    gru: SEQUENCE,
    Encoder: SEQUENCE,
    Attention: SEQUENCE,
    Tied: TABLE,
    table_net: TABLE,
    flat_net: (1, 1, 8),
}


def party_of(net: Net, shape: tuple[int, ...], batch: int = 1, seed: int = 0, **how: object) -> PartyStep:
    torch.manual_seed(seed)
    weights = {name: value.double() for name, value in net().state_dict().items()}
    x, y = torch.randn(batch, *shape).double(), torch.randperm(CLASSES)[:batch]
    return PartyStep(lambda: net().double(), weights, x, y, {}, **how)  # type: ignore[arg-type]


def observed(party: PartyStep) -> Observation:
    return observe(party, party_gradient(party), Knowledge.MASK_KNOWN, classes=CLASSES)


@pytest.mark.parametrize("net", SHAPES)
def test_the_truth_matches_what_was_seen_of_every_kind_of_row(net: Net) -> None:
    party = party_of(net, SHAPES[net], batch=2)
    known = observed(party)
    truth = torch.cat([party.x.flatten(), 1e4 * nn.functional.one_hot(party.y, CLASSES).flatten()])[None]
    loss, gradient = Objective([known]).bind([0])(truth)
    assert loss.item() < 1e-20 and gradient.abs().max() < 1e-8
    result = dlg_attack([known], DLGSettings(iterations=2, restarts=1))[0]
    assert math.isfinite(result.loss) and result.images.shape == party.x.shape


@pytest.mark.parametrize("net", [Recurrent, gru, table_net, flat_net])
def test_rows_that_are_no_images_are_found(net: Net) -> None:
    party = party_of(net, SHAPES[net])
    settings = DLGSettings(iterations=60, restarts=6, loss_reached=1e-14, lbfgs=EXACT)
    result = dlg_attack([observed(party)], settings)[0]
    assert mean_squared_error(result.images, party.x, None) < 0.01
    assert torch.equal(result.labels, party.y)


@pytest.mark.parametrize("net", [table_net, flat_net])
def test_a_table_is_found_by_inverting_gradients_outside_of_the_range_of_pixels(net: Net) -> None:
    party = party_of(net, SHAPES[net])
    assert party.x.min() < 0
    settings = InvertingSettings(iterations=40, restarts=2, tv_weight=0.1)
    result = inverting_attack([observed(party)], settings)[0]
    assert math.isfinite(result.loss) and torch.equal(result.labels, party.y)
    assert mean_squared_error(result.images, party.x, None) < 0.01


def test_a_range_that_the_attacker_knows_holds_the_search(make_party: Callable[..., PartyStep]) -> None:
    known = dataclasses.replace(observed(party_of(table_net, TABLE)), value_range=(-0.5, 0.25))
    images = inverting_attack([known], InvertingSettings(iterations=3))[0].images
    assert images.min() >= -0.5 and images.max() <= 0.25 and images.min() < 0


@pytest.mark.parametrize("net", [Recurrent, gru, Encoder, Attention])
def test_second_derivatives_of_layers_with_quick_kernels_are_right(net: Net) -> None:
    objective = Objective([observed(party_of(net, SHAPES[net], batch=2))], cosine_distance)
    evaluate = objective.bind([0])
    torch.manual_seed(0)
    guess, width = torch.randn(1, objective.size).double(), 1e-6
    asides = width * torch.eye(objective.size).double()[:8]
    numeric = [(evaluate(guess + a)[0] - evaluate(guess - a)[0])[0] / (2 * width) for a in asides]
    torch.testing.assert_close(evaluate(guess)[1][0, :8], torch.stack(numeric), rtol=1e-4, atol=1e-7)


def test_what_is_switched_off_for_second_derivatives_is_switched_on_again() -> None:
    before = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cudnn.enabled
    dlg_attack([observed(party_of(Encoder, SEQUENCE))], DLGSettings(iterations=1, restarts=1))
    assert (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cudnn.enabled) == before


def test_a_direction_without_neighbours_has_no_variation() -> None:
    row = torch.tensor([[[[0.0, 1.0, 3.0]]]])
    assert total_variation(row).item() == pytest.approx(1.5)
    assert total_variation(row.mT).item() == pytest.approx(1.5)
    assert total_variation(row[..., :1]).item() == 0


def test_weights_that_are_tied_are_one_weight() -> None:
    known = observed(party_of(Tied, TABLE))
    assert len(known.gradients) == 4  # embedding, hidden layer and its bias, bias of the head
    apart = {**known.weights, "head.weight": known.weights["embedding.weight"] + 1}
    with pytest.raises(ValueError, match="weights must be equal under 'head"):
        dataclasses.replace(known, weights=apart)


def test_a_mask_may_name_a_tied_weight_as_it_likes() -> None:
    party = party_of(Tied, TABLE)
    entry = (torch.rand(CLASSES, 6) > 0.5).double()
    losses = []
    for name in ("embedding.weight", "head.weight"):
        both = {n: v * entry if v.shape == entry.shape else v for n, v in party.weights.items()}
        pruned = dataclasses.replace(party, mask={name: entry}, weights=both)
        objective = Objective([observed(pruned)])
        torch.manual_seed(0)
        losses.append(objective.bind([0])(torch.randn(1, objective.size).double())[0].item())
    assert losses[0] == losses[1]


def test_whole_tokens_leave_a_gradient_whose_labels_no_last_layer_shows() -> None:
    """Its weights are the embedding's, so the equation does not hold."""
    party = party_of(TiedTokens, (STEPS,))
    known = observed(dataclasses.replace(party, x=torch.tensor([[0.0, 2.0, 2.0]]).double()))
    with pytest.raises(ValueError, match="model must end in a fully connected layer of its own"):
        idlg_attack([known])
    assert math.isfinite(dlg_attack([known], DLGSettings(iterations=2, restarts=1))[0].loss)


def test_a_batch_of_a_net_that_was_trained_with_batch_statistics_is_found() -> None:
    party = party_of(Normed, TABLE, batch=2)
    before = {name: value.clone() for name, value in party.weights.items()}
    known = observed(party)
    assert known.evaluating == ()
    guess = torch.cat([party.x.flatten(), 1e4 * nn.functional.one_hot(party.y, CLASSES).flatten()])[None]
    assert Objective([known]).bind([0])(guess)[0].item() < 1e-20
    otherwise = dataclasses.replace(known, evaluating=("norm",))
    assert Objective([otherwise]).bind([0])(guess)[0].item() > 1e-6
    for name, value in before.items():
        assert torch.equal(party.weights[name], value), f"{name} was written into"


def test_the_gradient_of_a_party_is_the_one_that_torch_has_in_training_mode() -> None:
    for frozen in ((), ("norm",), ("",)):
        party = party_of(Normed, TABLE, batch=4, evaluating=frozen)
        net = party.model()
        net.load_state_dict(party.weights)
        net.train()
        for name in frozen:
            net.get_submodule(name).eval()
        nn.functional.cross_entropy(net(party.x), party.y).backward()
        for parameter, seen in zip(net.parameters(), party_gradient(party), strict=True):
            torch.testing.assert_close(seen, parameter.grad)


@pytest.mark.parametrize("net", [dropping, encoder_with_dropout])
@pytest.mark.parametrize("attack", [dlg_attack, inverting_attack])
def test_what_no_attacker_can_repeat_is_said_not_to_be_measured(
    net: Net, attack: Callable[..., object]
) -> None:
    shape = TABLE if net is dropping else SEQUENCE
    known = observed(party_of(net, shape))
    with pytest.raises(ValueError, match="would measure nothing"):
        attack([known])
    evaluated = observed(party_of(net, shape, evaluating=("",)))
    assert dlg_attack([evaluated], DLGSettings(iterations=2, restarts=1))


def test_dropout_behind_the_first_layer_does_not_hide_the_input() -> None:
    party = party_of(dropping, TABLE)
    result = closed_form_attack([observed(party)])[0]
    torch.testing.assert_close(result.images, party.x)
    assert torch.equal(result.labels, party.y)


def test_a_net_that_torch_cannot_do_for_many_at_once_is_done_one_by_one() -> None:
    def spectral() -> nn.Module:
        hidden = nn.utils.parametrizations.spectral_norm(nn.Linear(FEATURES, 6))
        return nn.Sequential(hidden, nn.Sigmoid(), nn.Linear(6, CLASSES))

    result = dlg_attack([observed(party_of(spectral, TABLE))], DLGSettings(iterations=3, restarts=2))[0]
    assert math.isfinite(result.loss)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_shape": (FEATURES + 1,)}, r"image_shape must be what the net takes, 1 rows .* got \(5,\)"),
        ({"classes": CLASSES + 1}, r"classes must be the number of scores .* got 5"),
        ({"evaluating": ("nrom",)}, "evaluating must name modules of the net, .* got 'nrom'"),
        ({"value_range": (1.0, 0.0)}, r"value_range must be two numbers, .* got \(1\.0, 0\.0\)"),
    ],
)
def test_an_observation_that_does_not_fit_is_refused_by_name(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(observed(party_of(table_net, TABLE)), **change)


def test_scores_of_rows_without_bounds_clip_nothing() -> None:
    truth = torch.tensor([[-2.0, 3.0], [5.0, 0.5]])
    assert mean_squared_error(truth, truth, None) == 0
    assert mean_squared_error(truth + 1, truth, None) == 1
    assert nearest(truth, truth, None).tolist() == [0, 1]
    assert rank(truth[:1], truth[:1], truth, None) == 1
    with pytest.raises(ValueError, match=r"truth must be within value_range, 0\.0 to 1\.0"):
        mean_squared_error(truth, truth)
