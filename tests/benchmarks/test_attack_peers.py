"""What is said of both sides of the benchmark of attacks."""

from __future__ import annotations

import torch

from benchmarks.attack import cases
from benchmarks.attack_peers import attack_here, label_of, row
from secretflow.ml.nn.fl.attacks import InvertingSettings


def test_successes_are_images_that_came_back_and_speed_is_of_all() -> None:
    truth = [torch.zeros(1, 1, 28, 28)] * 4
    found = [torch.full((1, 1, 28, 28), value) for value in (0.0, 0.05, 0.2, 0.5)]
    counted = row(found, truth, 8.0)
    assert counted["successes"] == 2
    assert counted["images_per_second"] == 0.5


def test_both_sides_are_told_the_label_that_the_gradient_shows() -> None:
    observations, truth = cases(2)
    labels = torch.stack([label_of(seen) for seen in observations])
    assert labels.flatten().tolist() == [5, 0]
    settings = InvertingSettings(iterations=1, lanes=2, tv_weight=0.0)
    found, seconds = attack_here(observations, labels, settings)
    assert [image.shape for image in found] == [image.shape for image in truth]
    assert seconds > 0
