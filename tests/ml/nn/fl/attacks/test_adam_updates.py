"""The gradient behind an update of Adam."""

import pytest
import torch

from secretflow.ml.nn.fl.attacks.adam_updates import gradient_of_adam


def updates(gradients, rate=0.1):
    """What each step of torch's Adam takes off a weight, over the learning rate, and its squares then."""
    weight = torch.nn.Parameter(torch.zeros(gradients.shape[1], dtype=torch.float64))
    adam = torch.optim.Adam([weight], lr=rate)
    found, squares = [], []
    for gradient in gradients:
        before, weight.grad = weight.detach().clone(), gradient.clone()
        adam.step()
        found.append((before - weight.detach()) / rate)
        squares.append(adam.state[weight]["exp_avg_sq"].clone())
    return found, squares


def test_the_newest_gradient_follows_from_two_updates():
    torch.manual_seed(0)
    gradients = torch.randn(200, 50, dtype=torch.float64)
    seen, squares = updates(gradients)
    found = gradient_of_adam([seen[-1]], [seen[-2]], [squares[-2]], step=200)[0]
    torch.testing.assert_close(found, gradients[-1], rtol=1e-5, atol=1e-7)


def test_squares_that_are_a_little_off_scale_the_gradient_and_leave_small_ones_small():
    torch.manual_seed(0)
    gradients = torch.randn(200, 50, dtype=torch.float64)
    gradients[-1] *= 0.01
    seen, squares = updates(gradients)
    found = gradient_of_adam([seen[-1]], [seen[-2]], [1.2 * squares[-2]], step=200)[0]
    torch.testing.assert_close(found, 1.2**0.5 * gradients[-1], rtol=0.05, atol=1e-4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"step": 1}, "step must be"),
        ({"betas": (0.9, 1.0)}, "betas must be"),
        ({"betas": 0.9}, "betas must be two numbers"),
        ({"eps": -1.0}, "eps must be"),
        ({"squares": [torch.zeros(2)]}, "squares must be of the shapes of update"),
        ({"previous": 3}, "previous must be a sequence of tensors"),
    ],
)
def test_what_is_no_update_is_refused(wrong, message):
    right = {"update": [torch.zeros(3)], "previous": [torch.zeros(3)], "squares": [torch.zeros(3)], "step": 2}
    with pytest.raises((TypeError, ValueError), match=message):
        gradient_of_adam(**{**right, **wrong})
