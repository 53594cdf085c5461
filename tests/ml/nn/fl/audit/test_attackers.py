"""The attackers of an audit: which representation they learn from, and for what they are."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import nn

from secretflow.ml.nn.fl.attacks import PublicRows
from secretflow.ml.nn.fl.audit import AuditSettings, Rows
from secretflow.ml.nn.fl.audit.attackers import ATTACKERS, regressed
from secretflow.ml.nn.fl.audit.attempt import Attempt
from secretflow.ml.nn.fl.audit.scenes import scenes_of
from secretflow.ml.nn.fl.audit.subject import Subject


def convolutions() -> nn.Module:
    body = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
    return nn.Sequential(*body, nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))


def test_a_trained_net_is_inverted_by_what_its_layers_were_given() -> None:
    """The gradient of a row of which the net is sure says less than what a layer was given."""
    found = load_digits()
    x, y = torch.tensor(found.data / 16).float().view(-1, 1, 8, 8), torch.tensor(found.target)
    torch.manual_seed(0)
    net = convolutions()
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    for _ in range(8):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
    private = Rows(x[:20], y[:20], "images", tuple("0123456789"))
    subject = Subject(convolutions, private, weights=net.state_dict())
    (scene,) = scenes_of(subject, private, 10, AuditSettings(parties=()))
    public = PublicRows(x[20:720], y[20:720])
    attempt = Attempt(scene, private, public, 30.0, 0, lambda part: None)
    errors = [regressed(own, 0).error for own in (attempt.row_gradients()[0], attempt.activations()[1])]
    assert errors[1] < 0.7 * errors[0]


def test_each_attacker_is_for_single_rows_or_for_several_or_says_why_not() -> None:
    for attacker in ATTACKERS:
        kind = attacker.kinds[0]
        assert None in (attacker.unfit(kind, 1), attacker.unfit(kind, 8))
    by_name = {attacker.name: attacker for attacker in ATTACKERS}
    assert by_name["rows read off"].unfit("table", 1) == "for several rows together"
    assert by_name["closed form"].unfit("table", 8) == "for one row alone"
    assert by_name["tokens"].unfit("images", 1) == "for tokens"
