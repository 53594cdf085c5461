"""Single rows from the average of many."""

import dataclasses

import pytest
import torch
from torch import nn

from secretflow.ml.nn.fl.attacks import distance_from_average, read_average
from secretflow.ml.nn.fl.attacks.sparse_directions import sparse_directions
from secretflow.ml.nn.fl.audit.views import Knowledge, PartyStep, observe, party_gradient

PIXELS, NEURONS, CLASSES = 60, 48, 4


def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, NEURONS), nn.ReLU(), nn.Linear(NEURONS, CLASSES))


def dark_rows(count, seed=0):
    """Rows with a few bright numbers, the largest of them 1."""
    drawn = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 1, 6, 10, generator=drawn) * (torch.rand(count, 1, 6, 10, generator=drawn) < 0.25)
    return x / x.amax(dim=(1, 2, 3), keepdim=True), torch.randint(CLASSES, (count,), generator=drawn)


def average(x, y, shares):
    torch.manual_seed(3)
    weights = net().state_dict()
    steps = [PartyStep(net, weights, x[k : k + 1], y[k : k + 1], {}) for k in range(len(x))]
    uploads = [party_gradient(step) for step in steps]
    seen = [sum(w * a for w, a in zip(shares, arrays, strict=True)) for arrays in zip(*uploads, strict=True)]
    return observe(steps[0], seen, Knowledge.MASK_KNOWN, classes=CLASSES, parties=len(steps))


def in_order(reading, x):
    """For each true row the number of the one that was read."""
    return torch.cdist(x.flatten(1).double(), reading.images.flatten(1)).argmin(dim=1)


@pytest.mark.parametrize("rows", [1, 4, 12])
def test_every_row_of_an_average_is_read_with_its_label_and_weight(rows):
    x, y = dark_rows(rows)
    shares = torch.arange(1.0, rows + 1) / sum(range(1, rows + 1))
    reading = read_average(average(x, y, shares.tolist()))
    order = in_order(reading, x)
    assert len(reading.images) == rows and reading.unexplained < 1e-3
    torch.testing.assert_close(reading.images[order], x.double(), rtol=0, atol=1e-3)
    assert torch.equal(reading.labels[order], y)
    torch.testing.assert_close(reading.weights[order], shares.double(), rtol=1e-2, atol=0)


def test_nothing_is_read_off_noise():
    x, y = dark_rows(12)
    noise = average(x, y, [1 / 12] * 12)
    torch.manual_seed(0)
    noise = dataclasses.replace(noise, gradients=tuple(torch.randn_like(g) for g in noise.gradients))
    reading = read_average(noise)
    assert reading.images.shape == (0, 1, 6, 10) and reading.unexplained == 1
    assert distance_from_average(noise, x, y).min() > 0.3


def test_rows_of_an_average_are_told_from_others():
    x, y = dark_rows(30)
    distances = distance_from_average(average(x[:15], y[:15], [1 / 15] * 15), x, y)
    assert distances[:15].max() < 1e-3 and distances[15:].min() > 0.1
    wrong = distance_from_average(average(x[:15], y[:15], [1 / 15] * 15), x[:15], (y[:15] + 1) % CLASSES)
    assert wrong.min() > 0.01


def test_with_more_rows_than_neurons_nobody_is_told_from_others():
    x, y = dark_rows(2 * 70)
    distances = distance_from_average(average(x[:70], y[:70], [1 / 70] * 70), x, y)
    assert distances.min() > 0.05


def test_what_cannot_be_read_is_refused():
    x, y = dark_rows(50)
    with pytest.raises(ValueError, match=r"batch_size must be below the number of neurons .* 48"):
        read_average(average(x, y, [1 / 50] * 50))
    one = average(x[:1], y[:1], [1.0])
    with pytest.raises(ValueError, match="local_steps must be 1"):
        read_average(dataclasses.replace(one, local_steps=2, learning_rate=0.1))

    def sigmoid():
        return nn.Sequential(
            nn.Flatten(), nn.Linear(PIXELS, NEURONS), nn.Sigmoid(), nn.Linear(NEURONS, CLASSES)
        )

    with pytest.raises(ValueError, match="model must be two fully connected layers"):
        read_average(dataclasses.replace(one, model=sigmoid))


def test_sparse_vectors_are_found_in_the_space_that_they_span():
    torch.manual_seed(0)
    vectors = torch.randn(6, 80).double() * (torch.rand(6, 80) < 0.2)
    basis = torch.linalg.qr((torch.randn(6, 6).double() @ vectors).T).Q
    found = sparse_directions(basis, torch.arange(80)[basis.norm(dim=1) > 1e-9]) @ basis.T
    cosines = nn.functional.normalize(found) @ nn.functional.normalize(vectors).T
    assert cosines.abs().amax(dim=0).min() > 1 - 1e-6
