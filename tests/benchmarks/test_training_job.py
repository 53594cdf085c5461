from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.arithmetic_job import ArithmeticJob, run
from benchmarks.training_job import load_nets, own_rows


def _images(folder: Path, rows: int) -> str:
    images = folder / "images.npz"
    pixels = np.full((rows, 28, 28), 255, np.uint8)
    np.savez(images, x=pixels, y=np.arange(rows, dtype=np.uint8) % 10)
    return str(images)


def test_images_are_repeated_and_framed_for_nets_that_take_larger_ones(tmp_path):
    x, _ = own_rows(_images(tmp_path, 4), party=1, rows=2, shape=(3, 32, 32))
    assert x.shape == (2, 3, 32, 32) and x.dtype == np.float32
    assert (x[:, :, :28, :28] == 1).all()
    assert x.sum() == 2 * 3 * 28 * 28


def test_the_large_net_has_the_weights_of_resnet_18_and_ten_classes():
    net = load_nets("benchmarks/large_net.py").ResNet18()
    assert sum(p.numel() for p in net.parameters()) == 11_173_962
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.slow
def test_the_bare_arithmetic_is_timed_by_epoch(tmp_path):
    report = run(ArithmeticJob(_images(tmp_path, 64), rounds=2, epochs=3))
    assert len(report["epochs"]) == 3
    assert all(seconds > 0 for seconds in report["epochs"])
