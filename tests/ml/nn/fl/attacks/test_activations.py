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
    for scale in (1.0, 1e-9):
        gradients = tuple(scale * array for array in observation.gradients)
        change = as_activations(dataclasses.replace(observation, gradients=gradients))
        found = change(gradients)[2]
        alive = party.mask["3.weight"] if pruned else torch.ones_like(found)
        torch.testing.assert_close(found, alive * given, rtol=1e-6, atol=1e-9)


def test_the_other_arrays_have_length_one(make_party):
    party = make_party(sure)
    observation = observe(party, party_gradient(party), Knowledge.MASK_KNOWN, classes=3)
    found = as_activations(observation)(observation.gradients)
    others = torch.cat([array.flatten() for number, array in enumerate(found) if number != 2])
    torch.testing.assert_close(others.norm(), torch.ones(()).double())


def test_an_observation_is_asked_for():
    with pytest.raises(TypeError, match="observation must be an Observation"):
        as_activations(None)
