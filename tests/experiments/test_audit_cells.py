import json
import pickle

import numpy as np
import pytest
import torch

from experiments.audit import accuracy
from experiments.audit.accuracy import accuracy_under
from experiments.audit.attack_cell import filled_in, measure
from experiments.audit.cells import (
    INFERRED,
    KNOWN,
    OBLIVIOUS,
    PRUNING,
    REMOVED,
    SECURE,
    SPARSE,
    WEIGHTS_ONLY,
    ZEROS_LEFT_OUT,
    Cell,
    plan,
)
from experiments.audit.data import SEED_IMAGE, cifar100, crops, mnist
from experiments.audit.effort import Effort
from experiments.audit.scoring import SHOWN, baselines
from experiments.data import load_images


def test_both_attackers_meet_every_pruning_rate():
    cells = plan(["MNIST", "colour crops"])
    assert REMOVED[0] == 0 and Cell("MNIST", "DLG", "gradient", PRUNING, 0.0, KNOWN) in cells
    for level in REMOVED[1:]:
        for knowledge in (OBLIVIOUS, WEIGHTS_ONLY, KNOWN, INFERRED):
            assert Cell("MNIST", "DLG", "gradient", PRUNING, level, knowledge) in cells
        for attack in ("iDLG", "Inverting Gradients", "closed form"):
            for knowledge in (OBLIVIOUS, KNOWN):
                assert Cell("MNIST", attack, "gradient", PRUNING, level, knowledge) in cells
    for view in ("update k=5", "aggregate n=2", "aggregate n=4", "aggregate n=8"):
        for knowledge in (OBLIVIOUS, KNOWN, INFERRED):
            assert any((c.view, c.level, c.knowledge) == (view, 0.5, knowledge) for c in cells)
    assert len(set(cells)) == len(cells)


@pytest.mark.parametrize(
    "cell",
    [
        Cell("MNIST", "DLG", "update k=5", PRUNING, 0.5, KNOWN),
        Cell("MNIST", "DLG", "aggregate n=2", PRUNING, 0.5, KNOWN),
        Cell("MNIST", "closed form", "gradient", PRUNING, 0.5, INFERRED),
        Cell("MNIST", "Inverting Gradients", "gradient", "Gaussian noise", 0.1, "nothing to know"),
        Cell("MNIST", "iDLG", "gradient", SPARSE, 0.5, ZEROS_LEFT_OUT),
        Cell("MNIST", "iDLG", "padded upload", SECURE, 0.0, KNOWN),
        Cell("colour crops", "iDLG", "gradient", PRUNING, 0.9, WEIGHTS_ONLY),
    ],
)
def test_every_kind_of_cell_is_measured(cell):
    dataset = mnist() if cell.data == "MNIST" else crops()
    row = measure(cell, dataset, Effort(images=2, restarts=1, iterations=1, adam_iterations=1))
    assert row["images"] == (8 if cell.view == "padded upload" else 2)
    assert 0 <= row["interval"][0] <= row["interval"][1] <= 1
    assert len(row["examples"]) == min(row["images"], SHOWN) and row["attack"] == cell.attack
    json.dumps(row)


def test_a_mask_inferred_without_a_mistake_is_not_attacked_twice():
    effort = Effort(images=2, restarts=1, iterations=1)
    inferred, known = (
        measure(Cell("MNIST", "DLG", "gradient", PRUNING, 0.5, knowledge), mnist(), effort)
        for knowledge in (INFERRED, KNOWN)
    )
    other = {**known, "level": 0.8, "median_mse": 7.0}
    filled = filled_in(inferred, [other, known])
    assert filled["median_mse"] == known["median_mse"] and filled["knowledge"] == INFERRED
    assert filled_in(inferred, [other]) is None
    assert filled_in(known, []) is known


def test_guessing_without_seeing_anything_fails():
    for row in baselines(mnist(), Effort(images=20)):
        assert row["successes"] == row["identified"] == 0


def test_crops_are_different_colour_images_all_that_the_two_pictures_hold():
    dataset = crops()
    assert dataset.x.shape == (120, 3, 32, 32) and dataset.x.min() >= 0 and dataset.x.max() <= 1
    assert len(torch.unique(dataset.x.flatten(1), dim=0)) == 120


def write_cifar(folder, content):
    (folder / "cifar-100-python").mkdir()
    (folder / "cifar-100-python" / "train").write_bytes(pickle.dumps(content, protocol=2))


def test_cifar_is_read_from_torchvisions_layout_the_seeds_image_first(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (120, 3072)).astype(np.uint8)
    write_cifar(tmp_path, {b"data": pixels, b"fine_labels": list(range(100)) + [7] * 20})
    dataset = cifar100(tmp_path)
    expected = torch.from_numpy(pixels[SEED_IMAGE].reshape(3, 32, 32)) / 255
    assert torch.equal(dataset.x[0], expected) and dataset.y[0] == SEED_IMAGE
    assert dataset.x.shape == (120, 3, 32, 32) and dataset.classes == 100


class _Trap:
    def __reduce__(self):
        return (pytest.fail, ("code in the data was run",))


@pytest.mark.parametrize(
    "content", [{b"data": _Trap(), b"fine_labels": []}, {b"data": np.zeros((2, 3072), "u1")}, 3]
)
def test_what_is_not_cifar_is_refused_and_runs_nothing(tmp_path, content):
    write_cifar(tmp_path, content)
    with pytest.raises(ValueError, match="not CIFAR-100"):
        cifar100(tmp_path)


def test_a_defence_that_removes_nothing_costs_nothing(monkeypatch):
    monkeypatch.setattr(accuracy, "ROUNDS", 300)
    images = load_images().first(500)
    whole, same = (accuracy_under(defence, 0.0, images, seeds=[1]) for defence in (PRUNING, SPARSE))
    assert whole["accuracy"] == same["accuracy"] > 0.3


@pytest.mark.slow
def test_accuracy_is_the_mean_over_seeds():
    images = load_images().first(500)
    both = accuracy_under(PRUNING, 0.5, images, seeds=[1, 2])
    each = [accuracy_under(PRUNING, 0.5, images, seeds=[seed])["accuracy"] for seed in (1, 2)]
    assert both["accuracies"] == each and each[0] != each[1]
    assert both["accuracy"] == pytest.approx(sum(each) / 2, abs=1e-4)
