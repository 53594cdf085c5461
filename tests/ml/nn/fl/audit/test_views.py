import numpy as np
import pytest
import torch
from torch.nn import functional as F

from secretflow.ml.nn.fl.attacks import DLGSettings, dlg_attack
from secretflow.ml.nn.fl.audit.defences import sparsify
from secretflow.ml.nn.fl.audit.padded import decode_without_keys, padded_uploads
from secretflow.ml.nn.fl.audit.scores import SUCCESS_MSE, mean_squared_error
from secretflow.ml.nn.fl.audit.views import (
    Knowledge,
    observe,
    observe_sparse,
    party_gradient,
    plain_aggregate,
    rounded,
    weight_update,
)
from secretflow.security.aggregation.secagg.message import add_up

CLASSES = 3


def names_of(party):
    return [name for name, _ in party.model().named_parameters()]


def test_an_uploaded_gradient_is_that_of_the_pruned_net_and_zero_where_the_mask_is(make_party):
    party = make_party(batch=2, pruned=0.5)
    net = party.model()
    net.load_state_dict(party.pruned_weights())
    expected = torch.autograd.grad(F.cross_entropy(net(party.x), party.y), list(net.parameters()))
    for name, seen, whole in zip(names_of(party), party_gradient(party), expected, strict=True):
        torch.testing.assert_close(seen, whole * party.mask.get(name, 1))


def test_an_update_is_what_torchs_sgd_leaves_behind(make_party):
    party = make_party(batch=2)
    net = party.model()
    net.load_state_dict(party.weights)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    for _ in range(4):
        optimizer.zero_grad()
        F.cross_entropy(net(party.x), party.y).backward()
        optimizer.step()
    for name, seen in zip(names_of(party), weight_update(party, 4, 0.3), strict=True):
        torch.testing.assert_close(seen, (party.weights[name] - net.state_dict()[name]) / (4 * 0.3))


def test_the_average_of_equal_parties_is_the_gradient_of_their_batches_together(make_party):
    parties = [make_party(pruned=0.4), make_party(pruned=0.4, seed=2)]
    second = type(parties[1])(**{**vars(parties[0]), "x": parties[1].x, "y": parties[1].y})
    both = type(second)(
        **{**vars(second), "x": torch.cat([parties[0].x, second.x]), "y": torch.cat([parties[0].y, second.y])}
    )
    average = plain_aggregate([party_gradient(parties[0]), party_gradient(second)])
    for seen, whole in zip(average, party_gradient(both), strict=True):
        torch.testing.assert_close(seen, whole)


def test_what_attackers_know_differs_as_it_says(make_party):
    party = make_party(pruned=0.5)
    seen = party_gradient(party)
    found = {knowledge: observe(party, seen, knowledge, classes=CLASSES) for knowledge in Knowledge}
    pruned = party.pruned_weights()
    for name, weight in party.weights.items():
        assert torch.equal(found[Knowledge.OBLIVIOUS].weights[name], weight)
        assert torch.equal(found[Knowledge.WEIGHTS_ONLY].weights[name], pruned[name])
    assert found[Knowledge.OBLIVIOUS].mask is None and found[Knowledge.WEIGHTS_ONLY].mask is None
    inferred = found[Knowledge.MASK_INFERRED].mask
    for name, entry in party.mask.items():
        assert torch.equal(found[Knowledge.MASK_KNOWN].mask[name], entry)
        assert torch.equal(inferred[name], entry)  # here no living weight has a gradient of zero


def test_an_attacker_on_a_sparse_upload_can_leave_out_what_was_not_sent(make_party):
    party = make_party()
    seen = sparsify(party_gradient(party), 0.5)
    taken = observe_sparse(party, seen, True, classes=CLASSES)
    left_out = observe_sparse(party, seen, False, classes=CLASSES)
    assert taken.compared is None and left_out.mask is None
    for name, array in zip(names_of(party), seen, strict=True):
        assert torch.equal(left_out.compared[name], (array != 0).double())


@pytest.mark.parametrize(("steps", "rate", "message"), [(0, 0.1, "steps"), (1, 0.0, "learning_rate")])
def test_an_update_without_steps_or_rate_is_refused_by_name(make_party, steps, rate, message):
    with pytest.raises(ValueError, match=message):
        weight_update(make_party(), steps, rate)


def test_the_average_of_nobody_is_refused():
    with pytest.raises(ValueError, match="uploads"):
        plain_aggregate([])


def sealed(parties):
    """What an attacker without keys makes of each party's padded upload, and what the sum says."""
    uploads = [[array.float() for array in party_gradient(party)] for party in parties]
    masks = [
        [party.mask[name].numpy() if name in party.mask else None for name in names_of(party)]
        for party in parties
    ]
    payloads, opening = padded_uploads(uploads, masks)
    decoded = [decode_without_keys(payload, opening, len(parties)) for payload in payloads]
    return uploads, decoded, opening.open(add_up(payloads))


def test_without_keys_a_padded_upload_decodes_to_noise_and_the_sum_to_the_average(make_party):
    parties = [make_party(pruned=0.5)] * 3
    uploads, decoded, total = sealed(parties)
    for mean, opened in zip(plain_aggregate(uploads), total, strict=True):
        np.testing.assert_allclose(opened, mean.numpy(), atol=3 * 2.0**-20)
    flat = torch.cat([array.flatten() for array in decoded[0]])
    noise = flat[flat != 0]
    true = torch.cat([array.flatten() for array in uploads[0]])
    assert noise.abs().median() > 100 * true.abs().max()
    for name, array in zip(names_of(parties[0]), decoded[0], strict=True):
        if name in parties[0].mask:
            assert torch.all(array[parties[0].mask[name] == 0] == 0)  # the support is public


@pytest.mark.slow
def test_attacks_on_padded_uploads_do_no_better_than_noise(make_party):
    """And the same attack on the same uploads without pads succeeds, so it could have."""
    parties = [make_party(seed=seed) for seed in range(6)]
    settings = DLGSettings(iterations=60, restarts=4, patience=10)
    noise = torch.rand(50, 1, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    open_errors, padded_errors, noise_errors = [], [], []
    for party in parties:
        _, decoded, _ = sealed([party, make_party(seed=99)])
        seen = {"open": party_gradient(party), "padded": tuple(array.double() for array in decoded[0])}
        found = {
            name: dlg_attack([observe(party, view, Knowledge.MASK_KNOWN, classes=CLASSES)], settings)[0]
            for name, view in seen.items()
        }
        open_errors.append(mean_squared_error(found["open"].images, party.x))
        padded_errors.append(mean_squared_error(found["padded"].images, party.x))
        noise_errors += [mean_squared_error(guess, party.x) for guess in noise]
    assert sum(error < SUCCESS_MSE for error in open_errors) >= 5
    assert not any(error < SUCCESS_MSE for error in padded_errors)
    assert np.median(padded_errors) > 0.9 * np.median(noise_errors)


@pytest.mark.parametrize(("bits", "within"), [(8, 0.02), (4, 0.2), (2, 1.2)])
def test_a_rounded_update_is_near_its_update_and_lies_on_few_steps(make_party, bits, within):
    update = party_gradient(make_party(batch=2))
    seen = rounded(update, bits, parties=3)
    for whole, few in zip(update, seen, strict=True):
        assert few.shape == whole.shape and few.dtype == whole.dtype
        largest = whole.abs().max()
        assert (few - whole).abs().max() <= within * largest
        assert len(few.unique()) <= 2 ** (bits + 1)
    other = rounded(update, bits, parties=3, seed=1)
    assert any(not torch.equal(a, b) for a, b in zip(seen, other, strict=True))
