import dataclasses

import pytest
import torch
from torch import nn

from secretflow.ml.nn.fl.attacks import InvertingSettings, inverting_attack
from secretflow.ml.nn.fl.attacks.idlg import labels_from_gradient
from secretflow.ml.nn.fl.audit.scores import SUCCESS_MSE, match, mean_squared_error
from secretflow.ml.nn.fl.audit.views import Knowledge, observe, party_gradient

from .conftest import tiny_net

SETTINGS = InvertingSettings(iterations=30, restarts=2, tv_weight=0.0)


def observed(party):
    return observe(party, party_gradient(party), Knowledge.MASK_KNOWN, classes=3)


def test_an_image_is_recovered_from_the_direction_of_its_gradient_alone(make_party):
    party = make_party()
    known = observed(party)
    longer = dataclasses.replace(known, gradients=tuple(7 * array for array in known.gradients))
    found = inverting_attack([known, longer], SETTINGS)
    assert mean_squared_error(found[0].images, party.x) < SUCCESS_MSE
    torch.testing.assert_close(found[1].images, found[0].images, rtol=1e-3, atol=1e-3)
    assert torch.equal(found[0].labels, party.y)


def test_pixels_stay_in_their_range(make_party):
    images = inverting_attack([observed(make_party(batch=2))], SETTINGS)[0].images
    assert images.min() >= 0 and images.max() <= 1


def test_images_of_a_batch_are_recovered_in_some_order(make_party):
    party = make_party(batch=2)
    result = inverting_attack([observed(party)], dataclasses.replace(SETTINGS, restarts=6))[0]
    order = match(result.images, party.x)
    assert torch.equal(result.labels[order], party.y)
    assert mean_squared_error(result.images[order], party.x) < mean_squared_error(
        torch.full_like(party.x, 0.5), party.x
    )


def test_the_total_variation_makes_images_smoother(make_party):
    known = observed(make_party(pruned=0.6))
    rough, smooth = (
        inverting_attack([known], dataclasses.replace(SETTINGS, tv_weight=weight))[0].images
        for weight in (0.0, 1.0)
    )
    assert smooth.diff(dim=-1).abs().mean() < rough.diff(dim=-1).abs().mean()


@pytest.mark.parametrize("chosen", [{"tv_weight": -1.0}, {"iterations": 0}])
def test_settings_out_of_range_are_refused_by_name(chosen):
    with pytest.raises(ValueError, match=next(iter(chosen))):
        InvertingSettings(**chosen)


class Scaled(nn.Module):
    """A net with a parameter that is one number."""

    def __init__(self):
        super().__init__()
        self.net, self.scale = tiny_net(), nn.Parameter(torch.tensor(1.0).double())

    def forward(self, x):
        return self.net(x) * self.scale.abs()


def test_a_parameter_that_is_one_number_has_no_say_about_labels(make_party):
    party = make_party(Scaled)
    assert torch.equal(labels_from_gradient(observed(party)), party.y)
