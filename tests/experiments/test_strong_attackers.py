"""The measurement of the strong attackers, on few images."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from experiments.audit import strong, strong_adam, strong_noise, strong_own_masks, strong_trained
from experiments.audit.strong_averages import candidates_in_averages
from experiments.audit.strong_exact import batches_of_one_label, deep, whole_batches
from experiments.audit.strong_fedavg import pictures
from experiments.audit.strong_pruned import prune
from experiments.audit.strong_rounds import Collection
from experiments.audit.strong_scores import Material, in_order, load_material, picked, score
from experiments.audit.strong_settings import largest_hundredth
from experiments.audit.strong_tables import tables
from experiments.dgl_utils import ConvNet
from secretflow.ml.nn.fl.attacks import OwnMasksSettings, PublicRows, spear_attack
from secretflow.ml.nn.fl.audit.defences import relative_noise, round_stochastically
from secretflow.ml.nn.fl.audit.views import Knowledge, PartyStep, observe, party_gradient

KEYS = {
    "attack",
    "knowledge",
    "density",
    "bits",
    "parties",
    "images",
    "successes",
    "identified",
    "candidates",
}
SMALL = ["--images", "8", "--public", "300", "--settings", "baselines", "perceptron 5 %", "average of 8"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    out = tmp_path_factory.mktemp("strong") / "leakage.json"
    assert strong.main(["--out", str(out), *SMALL]) == 0
    return out


def rows_of(out):
    return json.loads(out.read_text(encoding="utf-8"))["rows"]


@pytest.mark.slow
def test_every_row_says_what_was_attacked_and_how(measured):
    rows = rows_of(measured)
    assert all(row.keys() >= KEYS for row in rows)
    by_attack = {row["attack"]: row for row in rows}
    assert by_attack["noise (sees nothing)"]["identified"] == 0
    assert by_attack["rows read off"]["successes"] == 8
    assert by_attack["membership"]["identified"] == 16
    filled, blank = by_attack["closed form, Gaussian"], by_attack["closed form"]
    assert filled["median_mse"] < blank["median_mse"]


@pytest.mark.slow
def test_what_is_measured_is_not_measured_again(measured, capsys):
    before = measured.read_bytes()
    capsys.readouterr()
    assert strong.main(["--out", str(measured), *SMALL]) == 0
    assert measured.read_bytes() == before and capsys.readouterr().out == ""


@pytest.mark.slow
def test_the_tables_put_the_worst_attacker_first(measured, capsys):
    assert strong.main(["--out", str(measured), "--tables"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| setting | parties | attack |") and len(lines) == 2 + len(rows_of(measured))
    perceptron = [line for line in lines if line.startswith("| perceptron 5 %")]
    assert "closed form, Gaussian" in perceptron[0]


def test_the_page_has_the_tables_of_the_rows_that_are_kept():
    folder = strong.PAGE.parent
    rows = rows_of(folder / "leakage.json")
    assert tables(rows, list(strong.SETTINGS)) in strong.PAGE.read_text(encoding="utf-8")


def test_a_score_is_that_of_the_truth_and_of_noise():
    torch.manual_seed(0)
    x = torch.rand(200, 1, 12, 12)
    few = PublicRows(x[:2], torch.zeros(2).long())
    material = Material(x, torch.zeros(200, dtype=torch.long), few, few)
    numbers = torch.tensor([5, 199])
    right, wrong = score(x[numbers], numbers, material), score(torch.rand(2, 1, 12, 12), numbers, material)
    assert right["successes"] == right["identified"] == 2 and right["candidates"] == 200
    assert wrong["successes"] == 0 and wrong["median_rank"] > 1


def test_the_noise_that_an_attacker_expects_of_rounding_is_about_that_of_rounding():
    torch.manual_seed(0)
    array = 2 * torch.rand(20_000) - 1
    error = (round_stochastically([array], 4, 0)[0] - array).std() / array.abs().max()
    assert float(error) == pytest.approx(relative_noise(4), rel=0.1)


@pytest.mark.parametrize(("flag", "value"), [("--images", "0"), ("--public", "1"), ("--threads", "0")])
def test_what_is_not_allowed_is_refused_with_its_name(tmp_path, flag, value, capsys):
    with pytest.raises(SystemExit):
        strong.main(["--out", str(tmp_path / "rows.json"), flag, value])
    assert f"{flag} {value} is not allowed: from" in capsys.readouterr().err


def test_an_image_is_ranked_among_the_candidates_that_are_not_in_its_batch():
    scores = torch.tensor([[3.0, 2.0, 1.0, 0.0], [0.0, 2.0, 3.0, 1.0]])
    found = picked(scores, torch.tensor([[0, 1], [1, 3]]))
    assert found["identified"] == 2 and found["images"] == 4 and found["candidates"] == 4
    assert found["median_rank"] == 1


def test_readings_of_one_image_are_one():
    torch.manual_seed(0)
    images, collection = torch.rand(3, 1, 4, 4).double(), Collection()
    collection.add(images[:2], torch.tensor([0.1, 0.2]))
    collection.add(images[[1, 2]] + 1e-4, torch.tensor([0.2, 0.3]))
    assert len(collection.images) == 3 and [len(each) for each in collection.weights] == [1, 2, 1]


@pytest.fixture(scope="module")
def few_images():
    """Few enough to train on in a second."""
    material = load_material(400)
    return Material(
        material.x[:200],
        material.y[:200],
        material.public,
        PublicRows(material.rest.x[:1000], material.rest.y[:1000]),
    )


def test_parties_that_prune_after_training_of_their_own_keep_other_weights(few_images):
    own, one = (prune(few_images, 3, 0.1, own_masks=own) for own in (True, False))
    assert 0.3 < own.common() < 1 == one.common()
    assert all(float(mask["1.weight"].mean()) == pytest.approx(0.1, rel=0.01) for mask in own.masks)


def test_the_images_of_an_average_are_told_from_candidates(few_images):
    row = next(candidates_in_averages(few_images, 16, 16))
    assert row["identified"] == 16 == row["parties"] and row["candidates"] == 200


def test_an_untrained_net_is_pruned_as_it_begins(few_images):
    trained = strong_trained.train(few_images, epochs=0, density=0.1)
    parts = [float(entry.mean()) for entry in trained.mask.values()]
    assert min(parts) > 0 and max(parts) < 0.3
    assert trained.accuracy < 0.3
    whole = strong_trained.train(few_images, epochs=0, density=1.0)
    assert not whole.mask and whole.weights["fc.weight"].all()


def test_of_batches_of_one_label_no_wrong_image_is_given_where_neurons_are_few(few_images):
    row = next(batches_of_one_label(few_images, 40, batch=2, neurons=20, seconds=0.1))
    assert row["wrong"] == 0 and row["images"] == 40 and row["successes"] < 40


def test_images_come_back_from_averages_in_which_each_party_has_a_mask_of_its_own(few_images):
    model, settings = strong_own_masks.lenet, OwnMasksSettings(noises=(0.1, 0.01, 1e-3), iterations=3)
    known, counts = strong_own_masks.masked_averages(few_images, 4, 0.1, 2, model, "LeNet", settings)
    assert known["identified"] == 4 and known["median_rank"] == 1
    assert counts["median_mse"] > 2 * known["median_mse"]


def test_an_image_is_picked_from_the_gradient_of_a_trained_net(few_images):
    row = next(iter(strong_trained.trained_batches(few_images, 8, epochs=1, density=1.0, batch=1)))
    assert row["identified"] >= 6 and row["candidates"] == 200


def test_the_rows_of_a_batch_are_picked_in_a_net_whose_gradients_differ_by_orders(few_images):
    row = next(iter(strong_trained.trained_batches(few_images, 8, epochs=1, density=0.3, batch=8)))
    assert row["identified"] >= 5 and row["candidates"] == 200


@pytest.mark.parametrize("fresh", [False, True])
def test_the_candidate_behind_an_update_of_adam_is_told(few_images, fresh):
    row = next(strong_adam.adam_updates(few_images, 8, epochs=1, density=0.3, fresh=fresh))
    assert row["attack"] == "gradient of each candidate" and row["identified"] >= 4


def test_two_updates_of_adam_show_the_direction_of_the_newest_gradient(few_images):
    trained = strong_trained.train(few_images, epochs=1, density=1.0)
    seen, _ = strong_adam.observed_updates(trained, few_images, 8, fresh=False)
    first, _ = strong_adam.observed_updates(trained, few_images, 8, fresh=True)
    cosines, signs = [], 0
    for k, (update, fresh) in enumerate(zip(seen, first, strict=True)):
        party = PartyStep(ConvNet, update.weights, few_images.x[k : k + 1], few_images.y[k : k + 1], {})
        gradient, found = (
            torch.cat([g.flatten() for g in gs]) for gs in (party_gradient(party), update.gradients)
        )
        cosines.append(float(torch.cosine_similarity(gradient, found, dim=0)))
        signs += int(torch.cat([g.flatten() for g in fresh.gradients]).abs().max() < 1.01)
    assert sorted(cosines)[4] > 0.8 and signs == 8


def test_a_batch_of_twenty_images_comes_back_exactly_in_the_net_of_the_paper():
    torch.manual_seed(1)
    weights = dict(deep().state_dict())
    own, material = torch.arange(20), load_material(2)
    party = PartyStep(deep, weights, material.x[own], material.y[own], {})
    seen = observe(party, party_gradient(party), Knowledge.MASK_KNOWN, classes=10)
    found = in_order(spear_attack(seen).float(), material, own)
    assert whole_batches([found], own[None], material) == {"batches": 1, "exact_batches": 1}


def test_a_batch_counts_as_exact_if_every_image_of_it_came_back():
    x = torch.rand(6, 1, 28, 28)
    rows = PublicRows(x, torch.zeros(6).long())
    material = Material(rows.x, rows.y, rows, rows)
    found = [x[:3].clone(), x[3:].clone()]
    found[1][2] += 0.01
    assert whole_batches(found, torch.arange(6).view(2, 3), material) == {"batches": 2, "exact_batches": 1}


def test_only_neurons_that_hold_a_picture_are_read():
    picture = torch.randint(256, (12,)).float()
    mixture = torch.rand(12)
    bias = torch.tensor([-0.3, 0.2, 0.0, 0.1])
    rows = torch.stack([picture / 255 * bias[0], mixture * bias[1], torch.zeros(12), 2 * torch.ones(12)])
    assert torch.equal(pictures(rows, bias), picture[None])


def test_of_a_gradient_the_largest_hundredth_of_all_coordinates_is_sent():
    arrays = (torch.arange(150.0), -torch.arange(150.0, 300.0).view(15, 10))
    first, second = largest_hundredth(arrays)
    assert not first.any()
    assert second[second != 0].tolist() == [-297.0, -298.0, -299.0]


@pytest.mark.parametrize("epsilon", [8.0, 1e4])
def test_the_noise_of_a_training_has_the_epsilon_that_is_asked_for(epsilon):
    """By the RDP of the Gaussian mechanism (Mironov 2017), composed, at the best order."""
    multiplier, rounds = strong_noise.multiplier_of(epsilon), strong_noise.ROUNDS
    orders = np.concatenate([1 + np.arange(1, 100) / 10, np.arange(12, 64)])
    spent = rounds * orders / (2 * multiplier**2) + math.log(1e5) / (orders - 1)
    assert spent.min() == pytest.approx(epsilon, rel=0.15)  # upstream's conversion is a little tighter
    assert strong_noise.multiplier_of(math.inf) == 0


@pytest.mark.slow
def test_noise_of_a_small_epsilon_hides_images_and_spoils_the_model(few_images):
    whole = replace(few_images, rest=load_material(400).rest)
    rows = {epsilon: list(strong_noise.noisy_averages(whole, 12, 4, epsilon)) for epsilon in (math.inf, 1.0)}
    clear, noisy = rows[math.inf], rows[1.0]
    assert max(row["identified"] for row in clear) >= 10
    assert [row["identified"] <= 2 for row in noisy] == [True]
    assert noisy[0]["accuracy"] < 30 < 60 < clear[0]["accuracy"]
