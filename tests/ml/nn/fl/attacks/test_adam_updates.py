"""The gradient behind an update of Adam."""

import pytest
import torch

from secretflow.ml.nn.fl.attacks.adam_updates import gradient_of_adam


def updates(gradients, rate=0.1):
    """What each step of torch's Adam takes off a weight, over the learning rate, and its state before."""
    weight = torch.nn.Parameter(torch.zeros(gradients.shape[1], dtype=torch.float64))
    adam = torch.optim.Adam([weight], lr=rate)
    found, squares = [], []
    for gradient in gradients:
        squares.append(adam.state[weight]["exp_avg_sq"].clone() if adam.state[weight] else None)
        before, weight.grad = weight.detach().clone(), gradient.clone()
        adam.step()
        found.append((before - weight.detach()) / rate)
    return found, [*squares[1:], adam.state[weight]["exp_avg_sq"].clone()]


def test_the_newest_gradient_follows_from_two_updates():
    torch.manual_seed(0)
    gradients = torch.randn(200, 50, dtype=torch.float64)
    seen, squares = updates(gradients)
    found = gradient_of_adam([seen[-1]], [seen[-2]], [squares[-2]], step=200)[0]
    assert float((found - gradients[-1]).norm() / gradients[-1].norm()) < 0.02


def test_a_first_update_gives_the_gradient_with_its_squares():
    gradient = torch.tensor([[0.3, -2.0, 0.0]], dtype=torch.float64)
    seen, squares = updates(gradient)
    found = gradient_of_adam(seen, [torch.zeros(3)], squares, step=1)[0]
    torch.testing.assert_close(found, gradient[0], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"step": 0}, "step must be"),
        ({"betas": (0.9, 1.0)}, "betas must be"),
        ({"betas": 0.9}, "betas must be two numbers"),
        ({"eps": -1.0}, "eps must be"),
        ({"squares": [torch.zeros(2)]}, "squares must be of the shapes of update"),
        ({"previous": 3}, "previous must be a sequence of tensors"),
    ],
)
def test_what_is_no_update_is_refused(wrong, message):
    right = {"update": [torch.zeros(3)], "previous": [torch.zeros(3)], "squares": [torch.zeros(3)], "step": 1}
    with pytest.raises((TypeError, ValueError), match=message):
        gradient_of_adam(**{**right, **wrong})
