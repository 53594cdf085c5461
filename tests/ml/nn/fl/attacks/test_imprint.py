"""A first layer that a server has chosen, and rows read off averages with it."""

import pytest
import torch
from torch import nn

from secretflow.ml.nn.fl.attacks import PublicRows, imprint_weights, read_imprint
from secretflow.ml.nn.fl.audit.intervals import wilson_interval
from secretflow.ml.nn.fl.audit.views import Knowledge, PartyStep, observe, party_gradient, plain_aggregate

PIXELS, CLASSES = 36, 4


def net(units=256):
    layers = nn.Linear(PIXELS, units), nn.ReLU(), nn.Linear(units, 16), nn.Tanh(), nn.Linear(16, CLASSES)
    return nn.Sequential(nn.Flatten(), *layers)


def rows_of(count, seed):
    """Images whose numbers all differ."""
    drawn = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 1, 6, 6, generator=drawn).sigmoid()
    return PublicRows(x, torch.randint(CLASSES, (count,), generator=drawn))


def average(rows, weights, parties, model=net):
    """What a server opens of parties of equally many rows."""
    shares = zip(rows.x.chunk(parties), rows.y.chunk(parties), strict=True)
    steps = [PartyStep(model, weights, x, y, {}) for x, y in shares]
    seen = plain_aggregate([party_gradient(step) for step in steps])
    return observe(steps[0], seen, Knowledge.MASK_KNOWN, classes=CLASSES, parties=parties)


def fresh(model=net):
    torch.manual_seed(3)
    return model().state_dict()


@pytest.mark.parametrize("parties", [1, 8, 16])
def test_rows_are_read_off_the_average_of_many_parties(parties):
    rows, public = rows_of(64, 1), rows_of(4000, 2)
    found = read_imprint(average(rows, imprint_weights(net, fresh(), public), parties))
    apart = torch.cdist(rows.x.flatten(1).double(), found.flatten(1)).amin(dim=1)
    # Of 64 rows in 256 bins, 78 % are alone in theirs.
    assert int((apart < 0.01).sum()) >= 44
    assert len(found) < 64


def test_rows_that_share_bins_are_identified_as_seldom_as_by_chance():
    def few():
        return net(8)

    weights, others = imprint_weights(few, fresh(few), rows_of(4000, 2)), rows_of(7952, 3)
    identified = tried = 0
    for seed in range(10, 20):
        rows = rows_of(2048, seed)
        found = read_imprint(average(rows, weights, 16, few)).flatten(1)
        candidates = torch.cat([rows.x, others.x]).flatten(1).double()
        identified += int((torch.cdist(found, candidates).argmin(dim=1) < len(rows.x)).sum())
        tried += len(found)
    # A guess is nearest to one of the average's rows 2,048 times in 10,000.
    assert tried > 20 and wilson_interval(identified, tried)[0] <= 2048 / 10_000


def test_weights_that_nobody_has_chosen_give_no_row_away():
    rows = rows_of(64, 1)
    found = read_imprint(average(rows, fresh(), 8))
    apart = torch.cdist(rows.x.flatten(1).double(), found.flatten(1)) if len(found) else torch.ones(1)
    assert apart.amin() > 0.1


def test_it_needs_a_fully_connected_layer_and_a_relu():
    rows = rows_of(4, 1)

    def tanh():
        return nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 8), nn.Tanh(), nn.Linear(8, CLASSES))

    with pytest.raises(ValueError, match="model must be one that begins with a fully connected layer"):
        imprint_weights(tanh, tanh().state_dict(), rows)
    with pytest.raises(ValueError, match="model must be one that begins with a fully connected layer"):
        read_imprint(average(rows, fresh(tanh), 1, tanh))
