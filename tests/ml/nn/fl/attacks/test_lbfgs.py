import pytest
import torch

from secretflow.ml.nn.fl.attacks.lbfgs import BatchedLBFGS, LBFGSSettings

SIZE = 6


def rosenbrock(points):
    """Chained Rosenbrock function of each row; its minimum is 0 at all ones."""
    left, right = points[..., :-1], points[..., 1:]
    return (10 * (right - left.square()).square() + (1 - left).square()).sum(dim=-1)


def evaluate(points):
    points = points.detach().requires_grad_()
    losses = rosenbrock(points)
    (gradients,) = torch.autograd.grad(losses.sum(), points)
    return losses.detach(), gradients


def starts(count):
    return torch.rand(count, SIZE, generator=torch.Generator().manual_seed(3)).double() * 0.6


def torchs(start, steps, settings):
    """The same with ``torch.optim.LBFGS``, one problem."""
    point = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [point],
        lr=settings.learning_rate,
        max_iter=settings.evaluations,
        history_size=settings.history,
        tolerance_grad=settings.tolerance_grad,
        tolerance_change=settings.tolerance_change,
    )

    def closure():
        optimizer.zero_grad()
        loss = rosenbrock(point)
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)
    return point.detach()


@pytest.mark.parametrize(("evaluations", "history", "rate"), [(5, 100, 1.0), (8, 3, 1.0), (4, 10, 0.3)])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_each_run_is_where_torchs_own_lbfgs_is(evaluations, history, rate, steps):
    settings = LBFGSSettings(evaluations, history, rate, tolerance_grad=0, tolerance_change=0)
    start = starts(5)
    ours = BatchedLBFGS(start, settings)
    for _ in range(steps):
        ours.step(evaluate)
    for row, point in zip(start, ours.points, strict=True):
        torch.testing.assert_close(point, torchs(row, steps, settings), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(ours.losses, rosenbrock(ours.points))


def test_a_run_at_its_end_stays_there_while_others_go_on():
    start = starts(2)
    start[0] = 1  # the minimum
    ours = BatchedLBFGS(start)
    ours.step(evaluate)
    assert ours.ended[0] and torch.equal(ours.points[0], start[0])
    assert not torch.equal(ours.points[1], start[1])


def test_a_run_that_meets_nan_ends_and_harms_no_other():
    start = starts(3)
    alone = BatchedLBFGS(start[1:])
    alone.step(evaluate)

    def poisoned(points):
        losses, gradients = evaluate(points)
        losses[0], gradients[0] = float("nan"), float("nan")
        return losses, gradients

    together = BatchedLBFGS(start)
    together.step(poisoned)
    assert together.ended[0] and torch.equal(together.points[0], start[0])
    torch.testing.assert_close(together.points[1:], alone.points, rtol=1e-9, atol=1e-12)


def test_a_run_started_anew_knows_nothing_of_the_one_before():
    start = starts(3)
    used = BatchedLBFGS(start)
    used.step(evaluate)
    used.replace([1], start[2:3])
    fresh = BatchedLBFGS(start[2:3])
    used.step(evaluate)
    fresh.step(evaluate)
    torch.testing.assert_close(used.points[1:2], fresh.points)


def test_runs_that_are_kept_go_on_as_if_alone():
    few, many = BatchedLBFGS(starts(4)[2:3]), BatchedLBFGS(starts(4))
    for _ in range(2):
        few.step(evaluate)
        many.step(evaluate)
        if len(many.points) == 4:
            many.keep([2])
    torch.testing.assert_close(many.points, few.points)


@pytest.mark.parametrize(
    "chosen", [{"evaluations": 0}, {"history": 0}, {"learning_rate": 0.0}, {"tolerance_grad": -1.0}]
)
def test_settings_out_of_range_are_refused_by_name(chosen):
    with pytest.raises(ValueError, match=next(iter(chosen))):
        LBFGSSettings(**chosen)
