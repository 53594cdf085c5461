import torch
from torch import nn

from experiments.attack import Case, score
from experiments.summary import verdict
from secretflow.ml.nn.fl.attacks import Observation, Reconstruction
from secretflow.ml.nn.fl.audit import Capture

CANDIDATES = torch.stack([torch.full((1, 12, 12), grey) for grey in (0.0, 0.5, 1.0)])


def scored(image):
    """The scores of a reconstruction whose true image is the second of three candidates."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(144, 2))
    gradients = tuple(torch.ones_like(weight) for weight in net.parameters())
    seen = Capture(CANDIDATES[1:2], torch.tensor([[0.0, 1.0]]), {}, {}, gradients, "alice", 0, 0.05)
    case = Case("", "nobody", seen, Observation((1, 12, 12), 2, gradients, lambda: net, net.state_dict()))
    result = Reconstruction(image, torch.tensor([1]), 0.1, (), 3, 0, 0, 1.0)
    return score(case, result, CANDIDATES)


def test_an_image_that_is_not_got_back_can_be_identified_and_is_said_to_be():
    scores = scored(torch.full((1, 1, 12, 12), 0.7))
    assert scores["mse"] > 0.01 and not scores["got_back"]
    assert scores["identified"] and scores["rank"] == 1 and scores["candidates"] == 3
    assert verdict(scores) == "not below 0.01, yet recognisable: nearest of 3"


def test_an_image_that_is_nearer_to_another_one_is_not_identified():
    scores = scored(torch.full((1, 1, 12, 12), 0.9))
    assert not scores["identified"] and scores["rank"] == 2
    assert verdict(scores) == "not recognisable: 1 of 3 others are nearer"
