import dataclasses
import math

import pytest
import torch

from secretflow.ml.nn.fl.attacks import closed_form_attack
from secretflow.ml.nn.fl.attacks.closed_form import input_of_first_layer
from secretflow.ml.nn.fl.audit.views import Knowledge, observe, party_gradient
from tests.ml.nn.fl.attacks.conftest import tiny_perceptron


def observed(party, knowledge=Knowledge.MASK_KNOWN):
    return observe(party, party_gradient(party), knowledge, classes=3)


@pytest.mark.parametrize("seed", range(5))
def test_the_image_is_recovered_exactly_from_a_first_fully_connected_layer(make_party, seed):
    party = make_party(tiny_perceptron, seed=seed)
    result = closed_form_attack([observed(party)])[0]
    torch.testing.assert_close(result.images, party.x, rtol=1e-9, atol=1e-9)
    assert result.loss == 0 and torch.equal(result.labels, party.y)


def test_pruning_hides_only_pixels_without_a_living_path(make_party):
    party = make_party(tiny_perceptron, pruned=0.8)
    bias_gradient = party_gradient(party)[1]  # zero where pruning cut a neuron off
    covered = ((party.mask["1.weight"] != 0) & (bias_gradient != 0)[:, None]).any(dim=0)
    assert 0 < covered.sum() < covered.numel()
    result = closed_form_attack([observed(party)])[0]
    image, truth = result.images.flatten(), party.x.flatten()
    torch.testing.assert_close(image[covered], truth[covered], rtol=1e-9, atol=1e-9)
    assert torch.all(image[~covered] == 0)
    assert result.loss == pytest.approx(float((~covered).double().mean()))


def test_an_attacker_who_takes_pruned_zeros_for_gradients_is_misled(make_party):
    party = make_party(tiny_perceptron, pruned=0.5)
    knowing, not_knowing = (
        (closed_form_attack([observed(party, knowledge)])[0].images - party.x).abs().max()
        for knowledge in (Knowledge.MASK_INFERRED, Knowledge.OBLIVIOUS)
    )
    assert knowing < 1e-9 < 0.01 < not_knowing


def test_the_estimate_is_that_computed_by_hand():
    weight, bias = torch.tensor([[2.0, 4.0], [3.0, 9.0], [5.0, 0.0]]), torch.tensor([2.0, 1.0, 0.0])
    counts = torch.tensor([[1, 1], [1, 0], [0, 0]])
    image, known = input_of_first_layer(weight, bias, counts)
    assert image.tolist() == pytest.approx([(2 * 2 + 1 * 3) / 5, 2.0])
    assert known.tolist() == [True, True]
    assert input_of_first_layer(weight, torch.zeros(3))[1].tolist() == [False, False]


def test_tiny_gradients_of_a_saturated_net_do_not_vanish(make_party):
    party = make_party(tiny_perceptron)
    known = observed(party)
    tiny = dataclasses.replace(known, gradients=tuple(1e-200 * array for array in known.gradients))
    torch.testing.assert_close(closed_form_attack([tiny])[0].images, party.x, rtol=1e-9, atol=1e-9)


def test_a_gradient_of_nothing_is_a_failure_and_no_crash(make_party):
    known = observed(make_party(tiny_perceptron))
    nothing = dataclasses.replace(known, gradients=tuple(0 * array for array in known.gradients))
    result = closed_form_attack([nothing])[0]
    assert math.isinf(result.loss) and result.diverged == 1 and torch.isfinite(result.images).all()


def test_a_net_or_batch_without_a_closed_form_is_refused(make_party):
    with pytest.raises(ValueError, match="model must start with a fully connected layer"):
        closed_form_attack([observed(make_party())])
    with pytest.raises(ValueError, match=r"batch_size must be 1 .*got 2"):
        closed_form_attack([observed(make_party(tiny_perceptron, batch=2))])
