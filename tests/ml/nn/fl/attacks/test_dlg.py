import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from experiments.data import load_images
from experiments.dgl_utils import CLASSES, IMAGE_SHAPE, LeNet, attacked_net
from secretflow.ml.nn.fl.attacks import DLGSettings, Observation, dlg, dlg_attack
from secretflow.ml.nn.fl.attacks.observation import Target
from secretflow.ml.nn.fl.attacks.scores import SUCCESS_MSE, mean_squared_error, peak_signal_to_noise

SEED = 1


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """A net this small gains nothing by a second thread, and loses much when the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def image():
    """The first training image of MNIST, float32 of shape (1, 1, 28, 28) in [0, 1], and its one-hot label."""
    images = load_images()
    x = torch.from_numpy(images.x_train[:1]).float().div(255).unsqueeze(1)
    return x, F.one_hot(torch.tensor([int(images.y_train[0])]), CLASSES).float()


def prune(net, rate):
    """Keeps the largest weights of each layer; returns the mask."""
    mask = {}
    for name, weight in net.named_parameters():
        if weight.dim() > 1:
            keep = weight.detach().abs().flatten().topk(round(weight.numel() * rate)).indices
            entry = torch.zeros(weight.numel())
            entry[keep] = 1
            mask[name] = entry.view_as(weight)
            weight.data *= mask[name]
    return mask


def observe(image, rate=1.0):
    """What a mask-aware and what a mask-oblivious attacker see of the same gradient."""
    torch.manual_seed(SEED)
    net = attacked_net()
    dense = {name: value.clone() for name, value in net.state_dict().items()}
    mask = prune(net, rate)
    gradients = torch.autograd.grad(F.cross_entropy(net(image[0]), image[1]), list(net.parameters()))
    aware = Observation(IMAGE_SHAPE, CLASSES, gradients, LeNet, net.state_dict(), mask)
    return aware, dataclasses.replace(aware, weights=dense, mask=None)


def tiny_net():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(8, 3)).double()


def tiny_observation(mask=None):
    torch.manual_seed(SEED)
    net = tiny_net()
    x, y = torch.rand(2, 1, 4, 4).double(), F.one_hot(torch.tensor([0, 2]), 3).double()
    gradients = torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters()))
    return Observation((1, 4, 4), 3, gradients, tiny_net, net.state_dict(), mask, batch_size=2), x, y


def test_the_undefended_control_is_recovered(image):
    _, oblivious = observe(image)
    result = dlg_attack(oblivious, DLGSettings(iterations=60, restarts=4, seed=SEED))
    assert mean_squared_error(result.images, image[0]) < SUCCESS_MSE
    assert torch.equal(result.labels, image[1].argmax(dim=-1))
    assert result.history[0].iteration == 0 and result.history[-1].loss == result.loss


def test_knowing_the_mask_beats_not_knowing_it_at_half_the_weights(image):
    aware, oblivious = observe(image, 0.5)
    settings = DLGSettings(iterations=25, restarts=1, seed=SEED)
    knowing = mean_squared_error(dlg_attack(aware, settings).images, image[0])
    not_knowing = mean_squared_error(dlg_attack(oblivious, settings).images, image[0])
    assert knowing < SUCCESS_MSE < not_knowing


def test_the_true_batch_matches_its_gradient():
    observation, x, y = tiny_observation()
    assert Target(observation).loss(x, y).item() == pytest.approx(0, abs=1e-25)


@pytest.mark.parametrize("masked", [False, True])
def test_the_gradient_of_the_matching_loss_agrees_with_finite_differences(masked):
    mask = {"3.weight": (torch.rand(3, 8) < 0.5).double()} if masked else None
    observation, _, _ = tiny_observation(mask)
    target = Target(observation)
    images = torch.rand(2, 1, 4, 4).double().requires_grad_()
    logits = torch.randn(2, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, z: target.loss(x, z.softmax(dim=-1)), (images, logits))


def test_the_matching_loss_is_the_squared_distance_over_living_coordinates():
    entry = torch.zeros(3, 8).double()
    entry[0, :4] = 1
    observation, x, y = tiny_observation({"3.weight": entry})
    net = tiny_net()
    net.load_state_dict({**observation.weights, "3.weight": observation.weights["3.weight"] * entry})
    guess = torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters()))
    expected = sum((a - b).square().sum() for a, b in zip(guess, observation.gradients, strict=True))
    expected -= ((guess[2] - observation.gradients[2]) * (1 - entry)).square().sum()
    assert Target(observation).loss(x, y).item() == pytest.approx(expected.item(), rel=1e-12)


def test_an_attack_changes_nothing_it_was_given():
    observation, _, _ = tiny_observation()
    before = {name: value.clone() for name, value in observation.weights.items()}
    dlg_attack(observation, DLGSettings(iterations=2, restarts=1))
    assert all(torch.equal(before[name], value) for name, value in observation.weights.items())


def test_a_restart_that_diverges_fails_and_another_one_wins(monkeypatch):
    observation, _, _ = tiny_observation()
    random_start = dlg._random_start

    def broken_first_start(observation, seed, restart):
        images, logits = random_start(observation, seed, restart)
        return (images * math.nan).detach().requires_grad_() if restart == 0 else images, logits

    monkeypatch.setattr(dlg, "_random_start", broken_first_start)
    result = dlg_attack(observation, DLGSettings(iterations=3, restarts=2))
    assert (result.diverged, result.restart) == (1, 1)
    assert math.isfinite(result.loss) and torch.isfinite(result.images).all()


def test_an_attack_of_which_every_restart_diverges_has_an_infinite_loss(monkeypatch):
    observation, _, _ = tiny_observation()
    real = Target.loss
    monkeypatch.setattr(Target, "loss", lambda *guess: real(*guess) * math.nan)
    result = dlg_attack(observation, DLGSettings(iterations=3, restarts=2))
    assert result.diverged == 2 and math.isinf(result.loss)
    assert torch.isfinite(result.images).all()


def test_the_restart_with_the_smallest_matching_loss_is_chosen():
    observation, _, _ = tiny_observation()
    settings = DLGSettings(iterations=3, restarts=4, loss_reached=0)
    losses = {}
    result = dlg_attack(observation, settings, lambda restart, _, loss: losses.__setitem__(restart, loss))
    assert len(losses) == 4
    assert result.loss == min(losses.values()) == losses[result.restart]


def test_a_restart_without_progress_is_given_up():
    observation, _, _ = tiny_observation()
    nobodys = tuple(torch.ones_like(gradient) for gradient in observation.gradients)
    observation = dataclasses.replace(observation, gradients=nobodys)
    losses = {}
    settings = DLGSettings(iterations=500, restarts=1, loss_reached=0, patience=3)
    result = dlg_attack(observation, settings, lambda _, iteration, loss: losses.__setitem__(iteration, loss))
    tail = [losses[step] for step in range(result.iteration - 3, result.iteration + 1)]
    assert result.iteration < 500
    assert min(tail[1:]) >= 0.99 * min(losses[step] for step in range(1, result.iteration - 2))


def test_a_match_ends_the_attack_early():
    observation, _, _ = tiny_observation()
    result = dlg_attack(observation, DLGSettings(iterations=50, restarts=4, loss_reached=1e3))
    assert (result.iteration, result.restart) == (1, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gradients": ()}, "gradients"),
        ({"weights": {}}, "weights"),
        ({"mask": {"3.bias": torch.ones(2)}}, "mask"),
        ({"classes": 1}, "classes"),
        ({"image_shape": (28, 28)}, "image_shape"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_an_observation_that_does_not_fit_the_net_is_refused_by_name(change, message):
    observation, _, _ = tiny_observation()
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(observation, **change)


@pytest.mark.parametrize(
    "chosen",
    [{"iterations": 0}, {"restarts": 0}, {"patience": 0}, {"record_every": 0}, {"loss_reached": -1.0}],
)
def test_settings_out_of_range_are_refused_by_name(chosen):
    with pytest.raises(ValueError, match=next(iter(chosen))):
        DLGSettings(**chosen)


def test_scores_are_those_computed_by_hand():
    truth = torch.tensor([[0.0, 1.0]])
    guess = torch.tensor([[0.2, 7.0]])  # clipped to 1
    assert mean_squared_error(guess, truth) == pytest.approx(0.02)
    assert peak_signal_to_noise(guess, truth) == pytest.approx(10 * math.log10(1 / 0.02), rel=1e-5)
