"""What fully connected layers were given, read off gradients."""

import dataclasses

import pytest
import torch
from torch import nn

from secretflow.ml.nn.fl.attacks.activations import as_activations
from secretflow.ml.nn.fl.audit.views import Knowledge, observe, party_gradient


def sure():
    """A net whose loss can be as small as one likes."""
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3), nn.Softmax(1)).double()


@pytest.mark.parametrize("pruned", [0.0, 0.5])
def test_what_the_layer_was_given_is_read_however_sure_the_net_is(make_party, pruned):
    party = make_party(sure, pruned=pruned)
    net = sure()
    net.load_state_dict(party.pruned_weights())
    given = net[:3](party.x)[0]
    observation = observe(party, party_gradient(party), Knowledge.MASK_KNOWN, classes=3)
    for scale in (1.0, 1e-20):
        gradients = tuple(scale * array for array in observation.gradients)
        change = as_activations(dataclasses.replace(observation, gradients=gradients))
        found = change(gradients)[2]
        alive = party.mask["3.weight"] if pruned else torch.ones_like(found)
        torch.testing.assert_close(found, alive * given, rtol=1e-6, atol=1e-9)


def test_classes_that_the_net_is_sure_of_tell_as_much_as_others(make_party):
    party = make_party(sure)
    observation = observe(party, party_gradient(party), Knowledge.MASK_KNOWN, classes=3)
    given = as_activations(observation)(observation.gradients)[2][0]
    weight, bias = torch.outer(torch.tensor([1.0, -1.0, 1e-15]).double(), given), torch.tensor([1, -1, 1e-15])
    mask = torch.tensor([[1.0] * 4 + [0.0] * 4, [0.0] * 8, [0.0] * 4 + [1.0] * 4])
    gradients = (*observation.gradients[:2], weight * mask, bias.double())
    pruned = dataclasses.replace(observation, gradients=gradients, mask={"3.weight": mask.double()})
    found = as_activations(pruned)(pruned.gradients)
    torch.testing.assert_close(found[2].sum(dim=0), given, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found[3], torch.tensor([1.0, -1.0, 0.0]).double())
    doubtful = as_activations(pruned, noise=1e-3)
    noisy = (*gradients[:2], gradients[2] + 1e-15 * torch.rand(3, 8).double() * mask, gradients[3])
    torch.testing.assert_close(doubtful(noisy)[2][0], found[2][0], rtol=1e-6, atol=1e-9)


def test_the_other_arrays_have_length_one(make_party):
    party = make_party(sure)
    observation = observe(party, party_gradient(party), Knowledge.MASK_KNOWN, classes=3)
    found = as_activations(observation)(observation.gradients)
    others = torch.cat([array.flatten() for array in found[:2]])
    torch.testing.assert_close(others.norm(), torch.ones(()).double())


def test_a_net_without_such_a_layer_is_refused(make_party):
    def plain():
        return nn.Sequential(nn.Conv2d(1, 3, 4), nn.Flatten()).double()

    party = make_party(plain)
    observation = observe(party, party_gradient(party), Knowledge.MASK_KNOWN, classes=3)
    with pytest.raises(ValueError, match="model must be one with a fully connected layer with bias"):
        as_activations(observation)


def test_an_observation_is_asked_for():
    with pytest.raises(TypeError, match="observation must be an Observation"):
        as_activations(None)
