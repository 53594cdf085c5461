import pytest
import torch

from secretflow.ml.nn.fl.attacks.adam import BatchedSignedAdam, SignedAdamSettings


def evaluate(points):
    """A bowl in the middle of each row, steeper along some coordinates than along others."""
    slopes = torch.arange(1, points.shape[1] + 1).to(points)
    return (slopes * (points - 0.5).square()).sum(dim=1), 2 * slopes * (points - 0.5)


def test_each_run_is_where_torchs_adam_on_signs_is():
    start = torch.rand(3, 4, generator=torch.Generator().manual_seed(0)).double()
    settings = SignedAdamSettings(steps=16, learning_rate=0.01)
    ours = BatchedSignedAdam(start, settings, moves=16)
    ours.step(evaluate)
    for row, point in zip(start, ours.points, strict=True):
        theirs = row.clone().requires_grad_()
        optimizer = torch.optim.Adam([theirs], lr=0.01)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [6, 10, 14], gamma=0.1)
        for _ in range(16):
            theirs.grad = evaluate(theirs.detach()[None])[1][0].sign()
            optimizer.step()
            schedule.step()
        torch.testing.assert_close(point, theirs.detach(), rtol=1e-6, atol=1e-8)


def test_points_stay_in_their_box():
    ours = BatchedSignedAdam(torch.full((1, 2), 5.0), SignedAdamSettings(steps=40), moves=3)
    assert torch.equal(ours.points, torch.ones(1, 2))
    ours.step(lambda points: (points.sum(dim=1), -torch.ones_like(points)))
    assert torch.equal(ours.points, torch.ones(1, 2))


def test_a_run_ends_after_its_steps_and_one_started_anew_has_all_of_them():
    ours = BatchedSignedAdam(torch.rand(2, 3), SignedAdamSettings(steps=4), moves=4)
    ours.step(evaluate)
    assert ours.ended.all()
    ours.replace([1], torch.rand(1, 3))
    assert ours.ended.tolist() == [True, False]
    before = ours.points.clone()
    ours.step(evaluate)
    assert torch.equal(ours.points[0], before[0]) and not torch.equal(ours.points[1], before[1])


@pytest.mark.parametrize("chosen", [{"steps": 0}, {"learning_rate": 0.0}, {"upper": 0.0}])
def test_settings_out_of_range_are_refused_by_name(chosen):
    with pytest.raises(ValueError, match=next(iter(chosen))):
        SignedAdamSettings(**chosen)
