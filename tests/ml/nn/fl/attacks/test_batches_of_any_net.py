"""Attackers on batches of any net: candidates told apart, tokens read off, one score for two classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import nn

from secretflow.ml.nn.fl.attacks import PublicRows
from secretflow.ml.nn.fl.attacks.idlg import labels_from_gradient
from secretflow.ml.nn.fl.attacks.membership import candidate_scores
from secretflow.ml.nn.fl.attacks.neurons import read_neurons
from secretflow.ml.nn.fl.attacks.row_gradients import learn_row_gradients, single_row
from secretflow.ml.nn.fl.attacks.tokens import token_attack, tokens_seen
from secretflow.ml.nn.fl.audit.views import Knowledge, PartyStep, observe, party_gradient

from .nets import FEATURES, Normed, TiedTokens

CLASSES, BATCH = 4, 4


def deep() -> nn.Module:
    """Three layers, so that no row can be read off."""
    return nn.Sequential(
        nn.Linear(FEATURES, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, CLASSES)
    )


class Blind(nn.Module):
    """A net whose scores do not depend on its rows."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bias + torch.zeros_like(x).sum(dim=1, keepdim=True)


def rows(count: int, seed: int) -> PublicRows:
    drawn = torch.Generator().manual_seed(seed)
    x = torch.randn(count, FEATURES, generator=drawn)
    return PublicRows(x, torch.randint(CLASSES, (count,), generator=drawn))


def ranks_of_members(net: Callable[[], nn.Module], parties: int, batch: int = BATCH) -> list[int]:
    """Ranks of the rows of a batch, and of an average of more of them, among 400 candidates."""
    torch.manual_seed(3)
    weights = dict(net().state_dict())
    candidates, public = rows(400, 1), rows(1200, 2)
    own = torch.arange(parties * batch)
    members = [
        PartyStep(net, weights, candidates.x[part], candidates.y[part], {}) for part in own.split(batch)
    ]
    uploads = [party_gradient(member) for member in members]
    seen = [torch.stack(arrays).mean(dim=0) for arrays in zip(*uploads, strict=True)]
    observation = observe(members[0], seen, Knowledge.MASK_KNOWN, classes=CLASSES, parties=parties)
    scores = candidate_scores(learn_row_gradients(observation, public), [observation], candidates)[0]
    others = scores[len(own) :]
    return [1 + int((others >= score).sum()) for score in scores[own]]


def test_the_rows_of_a_batch_are_picked_from_400_candidates() -> None:
    places = ranks_of_members(deep, parties=1)
    assert sorted(places)[len(places) // 2] <= 4


def test_with_batch_normalisation_they_stand_out_where_statistics_of_public_rows_are_those_of_the_batch() -> (
    None
):
    places = ranks_of_members(Normed, parties=1, batch=16)
    assert sorted(places)[len(places) // 2] <= 100  # by chance in the middle of 384


def test_an_average_of_parties_shows_its_rows_as_well() -> None:
    places = ranks_of_members(deep, parties=4)
    assert sorted(places)[len(places) // 2] <= 20  # by chance in the middle of 384


def test_where_the_gradient_says_nothing_but_the_classes_rows_are_not_told_apart() -> None:
    places = ranks_of_members(Blind, parties=1)
    assert min(places) > 20  # all of a class are equal


def test_a_single_row_of_a_normed_net_uses_statistics_of_public_rows() -> None:
    torch.manual_seed(0)
    net, public, own = Normed(), rows(300, 2), rows(BATCH, 1)
    party = PartyStep(Normed, dict(net.state_dict()), own.x, own.y, {})
    observation = observe(party, party_gradient(party), Knowledge.MASK_KNOWN, classes=CLASSES)
    single = single_row(observation, public)
    first = net.first(public.x)
    assert single.batch_size == 1 and single.evaluating == ("norm",)
    torch.testing.assert_close(single.weights["norm.running_mean"], first.mean(dim=0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(single.weights["norm.running_var"], first.var(dim=0), atol=1e-5, rtol=1e-4)


def test_rows_that_one_of_the_batch_switches_on_alone_are_read_in_a_deep_net() -> None:
    def wide() -> nn.Module:
        return nn.Sequential(
            nn.Linear(FEATURES, 60), nn.ReLU(), nn.Linear(60, 16), nn.ReLU(), nn.Linear(16, 4)
        )

    torch.manual_seed(0)
    own = rows(3, 1)
    party = PartyStep(wide, dict(wide().state_dict()), own.x, own.y, {})
    observation = observe(party, party_gradient(party), Knowledge.MASK_KNOWN, classes=CLASSES)
    found = read_neurons(observation)
    distances = torch.cdist(own.x.double(), found)
    assert len(found) == 3 and float(distances.min(dim=1).values.max()) < 1e-3


def test_where_every_row_switches_all_neurons_on_none_is_read() -> None:
    def smooth() -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, 60), nn.Sigmoid(), nn.Linear(60, CLASSES))

    torch.manual_seed(0)
    own = rows(3, 1)
    party = PartyStep(smooth, dict(smooth().state_dict()), own.x, own.y, {})
    observation = observe(party, party_gradient(party), Knowledge.MASK_KNOWN, classes=CLASSES)
    assert len(read_neurons(observation)) == 0


def classifier_of_tokens() -> nn.Module:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(30, 8)
            self.head = nn.Linear(8, CLASSES)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.tanh(self.embedding(x.long()).mean(dim=1)))

    return Bag()


def test_the_tokens_of_a_sequence_are_read_off_the_embedding() -> None:
    torch.manual_seed(0)
    tokens = torch.tensor([[4.0, 9.0, 4.0, 17.0, 25.0]])
    party = PartyStep(
        classifier_of_tokens, dict(classifier_of_tokens().state_dict()), tokens, torch.tensor([2]), {}
    )
    observation = observe(party, party_gradient(party), Knowledge.MASK_KNOWN, classes=CLASSES)
    assert tokens_seen(observation).tolist() == [4, 9, 17, 25]
    found = token_attack([observation])[0]
    assert set(found.images[0].tolist()) == {4, 9, 17, 25} and found.labels.tolist() == [2]


def test_tokens_of_a_tied_embedding_are_not_claimed() -> None:
    torch.manual_seed(0)
    tokens = torch.tensor([[0.0, 1.0, 1.0]])
    party = PartyStep(TiedTokens, dict(TiedTokens().state_dict()), tokens, torch.tensor([2]), {})
    observation = observe(party, party_gradient(party), Knowledge.MASK_KNOWN, classes=CLASSES)
    with pytest.raises(ValueError, match="one whose embedding has a gradient at the tokens that occur alone"):
        token_attack([observation])


def one_score() -> nn.Module:
    net = nn.Sequential(nn.Linear(FEATURES, 6), nn.ReLU(), nn.Linear(6, 1))
    net.register_forward_hook(lambda _, __, score: torch.cat([torch.zeros_like(score), score], dim=1))
    return net


@pytest.mark.parametrize("label", [0, 1])
def test_the_label_of_a_net_with_one_score_is_read(label: int) -> None:
    torch.manual_seed(label)
    own = rows(2, 5)
    party = PartyStep(one_score, dict(one_score().state_dict()), own.x[:1], torch.tensor([label]), {})
    observation = observe(party, party_gradient(party), Knowledge.MASK_KNOWN, classes=2)
    assert labels_from_gradient(observation).tolist() == [label]
    turned = dataclasses.replace(observation, gradients=tuple(-g for g in observation.gradients))
    assert labels_from_gradient(turned).tolist() == [1 - label]
