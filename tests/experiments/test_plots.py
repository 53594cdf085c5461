import torch
from matplotlib import image as pictures

from experiments.plots import draw_attackers
from secretflow.ml.nn.fl.attacks import Reconstruction, Snapshot


def test_attackers_are_drawn_beside_the_true_image(tmp_path):
    truth = torch.rand(1, 1, 28, 28)
    found = Reconstruction(truth / 2, torch.tensor([1]), 0.1, (Snapshot(0, 0.1, truth),), 3, 0, 0, 1.0)
    draw_attackers([("mask-aware", found, "got back")], truth, "One attacker", tmp_path / "one.jpg")
    draw_attackers(
        [("mask-aware", found, "got back"), ("other", found, "not")], truth, "Two", tmp_path / "two.jpg"
    )
    one, two = (pictures.imread(tmp_path / name).shape for name in ("one.jpg", "two.jpg"))
    assert two[0] == one[0] and two[1] > 1.4 * one[1]
