import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F

from secretflow.ml.nn.fl.attacks.objective import (
    Objective,
    cosine_distance,
    squared_distance,
    total_variation,
)
from secretflow.ml.nn.fl.audit.views import Knowledge, observe, party_gradient, weight_update

CLASSES = 3


def observed(party, knowledge=Knowledge.MASK_KNOWN, **options):
    return observe(party, party_gradient(party), knowledge, classes=CLASSES, **options)


def guess_of(party):
    """The truth as a guess: scores so far apart that their softmax is the label."""
    return torch.cat([party.x.flatten(), (1e4 * F.one_hot(party.y, CLASSES)).flatten()])[None]


@pytest.mark.parametrize("pruned", [0.0, 0.5])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_truth_matches_what_was_seen(make_party, batch, pruned):
    party = make_party(batch=batch, pruned=pruned)
    loss, gradient = Objective([observed(party)]).bind([0])(guess_of(party))
    assert loss.item() == pytest.approx(0, abs=1e-25)
    assert gradient.abs().max() < 1e-12


@pytest.mark.parametrize("steps", [2, 5])
def test_the_truth_matches_an_update_of_several_steps(make_party, steps):
    party = make_party(batch=2, pruned=0.3)
    seen = weight_update(party, steps, 0.7)
    known = observe(party, seen, Knowledge.MASK_KNOWN, classes=CLASSES, local_steps=steps, learning_rate=0.7)
    wrong = dataclasses.replace(known, learning_rate=0.1)
    assert Objective([known]).bind([0])(guess_of(party))[0].item() == pytest.approx(0, abs=1e-25)
    assert Objective([wrong]).bind([0])(guess_of(party))[0].item() > 1e-6


@pytest.mark.parametrize("distance", [squared_distance, cosine_distance])
@pytest.mark.parametrize("tv_weight", [0.0, 0.1])
@pytest.mark.parametrize("steps", [1, 2])
def test_the_gradient_of_the_objective_agrees_with_finite_differences(make_party, distance, tv_weight, steps):
    party = make_party(batch=2, pruned=0.5)
    seen = weight_update(party, steps, 0.5)
    known = observe(party, seen, Knowledge.MASK_KNOWN, classes=CLASSES, local_steps=steps, learning_rate=0.5)
    objective = Objective([known], distance, tv_weight=tv_weight)
    evaluate = objective.bind([0])
    torch.manual_seed(0)
    guess, width = torch.randn(1, objective.size).double(), 1e-6
    steps_aside = width * torch.eye(objective.size).double()
    numeric = torch.stack(
        [(evaluate(guess + aside)[0] - evaluate(guess - aside)[0])[0] / (2 * width) for aside in steps_aside]
    )
    torch.testing.assert_close(evaluate(guess)[1][0], numeric, rtol=1e-5, atol=1e-7)


def test_guesses_side_by_side_are_judged_as_if_alone(make_party):
    parties = [make_party(pruned=0.3 * k, seed=k) for k in range(3)]
    together = Objective([observed(party) for party in parties])
    torch.manual_seed(0)
    guesses, rows = torch.randn(4, together.size).double(), [2, 0, 1, 2]
    losses, gradients = together.bind(rows)(guesses)
    for place, row in enumerate(rows):
        loss, gradient = Objective([observed(parties[row])]).bind([0])(guesses[place : place + 1])
        torch.testing.assert_close(losses[place], loss[0])
        torch.testing.assert_close(gradients[place], gradient[0])


def test_distances_are_those_computed_by_hand():
    guess, seen = (
        [torch.tensor([1.0, 2.0]), torch.tensor([[2.0]])],
        [torch.tensor([1.0, 0.0]), torch.tensor([[4.0]])],
    )
    assert squared_distance(guess, seen).item() == 8
    assert cosine_distance(guess, seen).item() == pytest.approx(1 - 9 / (3 * math.sqrt(17)))
    assert cosine_distance(guess, [3 * array for array in guess]).item() == pytest.approx(0, abs=1e-6)


def test_total_variation_is_that_computed_by_hand():
    images = torch.tensor([[[[0.0, 1.0, 1.0], [0.0, 0.0, 3.0]]]])
    assert total_variation(images).item() == pytest.approx((0 + 1 + 2) / 3 + (1 + 0 + 0 + 3) / 4)


def test_only_coordinates_of_the_mask_count_and_the_net_is_evaluated_pruned(make_party):
    party = make_party(pruned=0.5)
    known, weights_only = observed(party), observed(party, Knowledge.WEIGHTS_ONLY)
    evaluate, evaluate_all = Objective([known]).bind([0]), Objective([weights_only]).bind([0])
    torch.manual_seed(0)
    guess = torch.randn(1, Objective([known]).size).double()
    images, scores = Objective([known]).split(guess[0])
    net = party.model()
    net.load_state_dict(party.pruned_weights())
    gradients = torch.autograd.grad(
        F.cross_entropy(net(images), scores.softmax(dim=-1)), list(net.parameters())
    )
    names = [name for name, _ in net.named_parameters()]
    living = [gradient * party.mask.get(name, 1) for name, gradient in zip(names, gradients, strict=True)]
    expected = squared_distance(living, known.gradients)
    expected_all = squared_distance(gradients, known.gradients)
    assert evaluate(guess)[0].item() == pytest.approx(expected.item(), rel=1e-10)
    assert evaluate_all(guess)[0].item() == pytest.approx(expected_all.item(), rel=1e-10)
    assert expected < expected_all


def test_observations_of_different_batches_are_not_attacked_together(make_party):
    with pytest.raises(ValueError, match="batch_size"):
        Objective([observed(make_party()), observed(make_party(batch=2))])
    with pytest.raises(ValueError, match="observations"):
        Objective([])
