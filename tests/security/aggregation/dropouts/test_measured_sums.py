"""Sums of what parties measure: of all who began them or of nobody, and no two tell of few parties."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from secretflow.ml.nn.fl.worker.totals import total_of_those_there
from secretflow.ml.nn.metrics import Mean, Metric
from secretflow.party.messages import pack, unpack
from secretflow.security.aggregation.secagg.dropouts.measured_sums import MeasuredSums, MeasuringClient
from secretflow.security.aggregation.secagg.dropouts.opened_sums import NAME
from secretflow.security.aggregation.secagg.dropouts.protocol import Steps, tell, with_survivors
from secretflow.security.aggregation.secagg.dropouts.rules import SurvivorRules
from secretflow.security.aggregation.secagg.dropouts.server import SurvivorServer
from secretflow.security.aggregation.secagg.errors import AggregationError
from secretflow.security.aggregation.secagg.keyring import agree_all
from secretflow.security.aggregation.secagg.ring import Ring
from secretflow.security.aggregation.secagg.rules import Rules

from .network import Network, openable
from .parties import names_of

EPOCHS, STEPS = 3, 8  # epochs, and steps of each at the server


def rules_of(parties: int, min_contributors: int = 2, fixed_contributors: bool = True) -> Rules:
    ring = Ring.make(32, None, parties)
    return Rules.make(ring, parties, min_contributors, fixed_contributors=fixed_contributors)


def fewest_told_of(sums: Iterable[Iterable[str]], names: list[str]) -> int:
    """Of how few parties, but not none, the numbers can be in something worked out from sums."""
    rows = np.array([[float(name in one) for name in names] for one in map(set, sums)])
    if not rows.size:
        return len(names)
    rank = np.linalg.matrix_rank(rows)
    for few in range(1, len(names)):
        for left_out in combinations(range(len(names)), few):
            if np.linalg.matrix_rank(np.delete(rows, left_out, axis=1)) < rank:
                return few
    return len(names)


class Run:
    """Epochs at whose ends the parties add up numbers that never change.

    Args:
        parties: how many.
        min_survivors: see ``SecurePruneAggregator``, as well as ``fixed_contributors``.
        home: where each party has a folder of its own; None for none.

    Attributes:
        outcomes: by party what each epoch has come to: the loss of those who were there, or None.
    """

    def __init__(
        self,
        parties: int,
        min_survivors: int,
        *,
        fixed_contributors: bool = True,
        home: Path | None = None,
    ) -> None:
        self.names = names_of(parties)
        self.losses = {name: 2.0**k for k, name in enumerate(self.names)}
        rules, survivors = rules_of(parties, 2, fixed_contributors), SurvivorRules(parties, min_survivors)
        clients = [
            MeasuringClient(name, self.names, rules, survivors, folder=home and home / name)
            for name in self.names
        ]
        agree_all([client.keys for client in clients])
        self.outcomes: dict[str, list[float | None]] = {name: [] for name in self.names}
        self.network = Network(
            SurvivorServer(self.names, survivors),
            {client.party: self._epochs(client) for client in clients},
            self.outcomes,
        )

    def _epochs(self, client: MeasuringClient) -> Steps[None]:
        client.number_calls(1)
        own: list[Metric | None] = [Mean("loss", self.losses[client.party], 1), None]
        for _ in range(EPOCHS):
            told = yield from tell(client, pack(client.measured.opened))  # as where parties meet
            for opened in told.values():
                client.measured.add(unpack(opened))
            totals = yield from with_survivors(client, total_of_those_there(client, own))
            if totals is None:
                self.outcomes[client.party].append(None)
            else:
                loss, nothing = totals
                assert isinstance(loss, Mean) and nothing is None
                self.outcomes[client.party].append(float(loss.total))

    def until(self, steps: int) -> None:
        """Delivers until the server has ended so many steps."""
        network = self.network
        while network.server.steps < steps:  # type: ignore[attr-defined]
            for name in self.names:
                if network.up[name] and network.server.steps < steps:  # type: ignore[attr-defined]
                    network.deliver_up(name)
            for name in self.names:
                if network.down[name] and network.server.steps < steps:  # type: ignore[attr-defined]
                    network.deliver_down(name)

    def sum_of(self, names: Iterable[str]) -> float:
        return sum(self.losses[name] for name in names)

    def check(self) -> None:
        """Looks whether whoever has heard everything that was said is told of few parties nowhere."""
        opened = [part for parts in openable(self.network.said).values() for part in parts]
        assert fewest_told_of(opened, self.names) >= 3


def test_sums_are_of_those_who_are_there() -> None:
    run = Run(7, 4)
    run.network.drain()
    assert set(run.network.ended.values()) == {None}
    everybodys = run.sum_of(run.names)
    assert all(outcome == [everybodys] * EPOCHS for outcome in run.outcomes.values())
    run.check()


@pytest.mark.parametrize("lost", [1, 2, 3])
@pytest.mark.parametrize("step", [0, *range(2, 8)], ids=lambda step: f"step {step}")
def test_who_is_lost_in_a_sum_leaves_that_epoch_without_one(step: int, lost: int) -> None:
    """The end of the epoch counts as two steps; three each are for what can be added and for its sum."""
    run = Run(7, 4)
    run.until(STEPS + step)
    left = run.names[lost:]
    for name in run.names[:lost]:
        run.network.cut(name)
    run.network.drain()
    assert all(run.network.ended[name] is None for name in left)
    later = run.sum_of(left) if lost == 3 else None  # the others have been in a sum with them
    second = later if step == 0 else None
    for name in left:
        assert run.outcomes[name] == [run.sum_of(run.names), second, later]
    run.check()


def test_where_contributors_may_change_sums_are_of_whoever_is_there() -> None:
    run = Run(7, 4, fixed_contributors=False)
    run.until(STEPS + 2)
    run.network.cut(run.names[0])
    run.network.drain()
    left = run.names[1:]
    assert run.outcomes[left[0]] == [run.sum_of(run.names), None, run.sum_of(left)]


def test_two_of_three_parties_add_nothing_up() -> None:
    for fixed in (True, False):
        run = Run(3, 2, fixed_contributors=fixed)
        run.network.cut(run.names[2])
        run.network.drain()
        assert run.outcomes[run.names[0]] == run.outcomes[run.names[1]] == [None] * EPOCHS


def test_of_two_parties_each_is_told_the_sum() -> None:
    run = Run(2, 2)
    run.network.drain()
    assert run.outcomes[run.names[0]] == [3.0] * EPOCHS


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 8), st.integers(1, 4), st.data())
def test_whatever_is_worked_out_from_allowed_sums_is_about_enough_parties(
    parties: int, min_contributors: int, data: st.DataObject
) -> None:
    names, contributors = names_of(parties), min(min_contributors, parties)
    sums = MeasuredSums(rules_of(parties, contributors), names)
    for _ in range(5):
        some = data.draw(st.sets(st.sampled_from(names), min_size=1))
        if sums.allow(some):
            sums.open(some)
    assert fewest_told_of(sums.opened, names) >= max(contributors, min(3, parties))
    for opened in sums.opened:  # and what was allowed once is allowed again
        assert sums.allow(opened)


def left_of(run: Run, lost: Iterable[int]) -> list[str]:
    """Loses parties before they have begun, and runs to the end."""
    gone = [run.names[number] for number in lost]
    for name in gone:
        run.network.cut(name)
    run.network.drain()
    return [name for name in run.names if name not in gone]


def test_a_sum_of_all_but_one_is_not_opened_though_none_of_all_is_remembered() -> None:
    """A fit that needs all parties may have opened one."""
    run = Run(5, 3)
    left = left_of(run, [0])
    assert all(run.outcomes[name] == [None] * EPOCHS for name in left)
    other = Run(7, 4)
    left = left_of(other, [0, 1, 2])
    assert all(other.outcomes[name] == [other.sum_of(left)] * EPOCHS for name in left)


def test_parties_in_new_processes_open_no_sum_that_tells_of_few_with_those_of_before(tmp_path: Path) -> None:
    first = Run(8, 5, home=tmp_path)
    left = left_of(first, [0, 1, 2])
    assert first.outcomes[left[0]] == [first.sum_of(left)] * EPOCHS
    again = Run(8, 5, home=tmp_path)
    left = left_of(again, [1, 2, 3])  # with the sum before, one of party 0 less party 3
    assert all(again.outcomes[name] == [None] * EPOCHS for name in left)
    opened = [openable(run.network.said).values() for run in (first, again)]
    assert fewest_told_of([part for run in opened for parts in run for part in parts], again.names) >= 3
    same = Run(8, 5, home=tmp_path)
    left = left_of(same, [0, 1, 2])
    assert same.outcomes[left[0]] == [same.sum_of(left)] * EPOCHS


def test_a_party_keeps_of_whom_it_opens_a_sum_before_it_does(tmp_path: Path) -> None:
    run = Run(3, 3, home=tmp_path)
    while not any(openable(run.network.said).values()):
        for name in run.names:
            run.network.up[name] and run.network.deliver_up(name)
        for name in run.names:
            run.network.down[name] and run.network.deliver_down(name)
    for name in run.names:
        kept = tmp_path / name / NAME
        assert kept.stat().st_mode & 0o777 == 0o600 and kept.parent.stat().st_mode & 0o077 == 0
        sums = MeasuredSums(rules_of(3), run.names, kept.parent)
        assert sums.opened == {tuple(run.names)}
        sums.add([run.names[:2]])  # what others say is believed, and not kept
        assert MeasuredSums(rules_of(3), run.names, kept.parent).opened == {tuple(run.names)}


def test_a_sum_of_which_nothing_can_be_kept_is_not_opened(tmp_path: Path) -> None:
    run = Run(3, 3, home=tmp_path)
    (tmp_path / run.names[0]).touch()  # where its folder would be
    run.network.drain()
    assert isinstance(run.network.ended[run.names[0]], OSError)
    assert not [part for parts in openable(run.network.said).values() for part in parts]


def test_a_party_that_runs_twice_at_a_time_opens_no_two_sums_that_tell_of_few(tmp_path: Path) -> None:
    names = names_of(8)
    one, other = (MeasuredSums(rules_of(8, 3), names, tmp_path) for _ in range(2))
    first, second = names[:5], [names[0], *names[2:5], names[6]]
    assert one.allow(first) and other.allow(second)
    one.open(first)
    with pytest.raises(AggregationError, match="that a process of this party has helped to open meanwhile"):
        other.open(second)
    assert not other.allow(second) and other.allow(first)
    assert MeasuredSums(rules_of(8, 3), names, tmp_path).opened == {tuple(first)}


@pytest.mark.parametrize("how", ["a link that leads nowhere", "a folder for all", "a file for all"])
def test_a_record_that_others_could_change_is_not_taken_for_none(tmp_path: Path, how: str) -> None:
    if how == "a link that leads nowhere":
        (tmp_path / NAME).symlink_to(tmp_path / "nowhere")
    else:
        (tmp_path / NAME).write_text("[]")
        (tmp_path if how == "a folder for all" else tmp_path / NAME).chmod(0o777)
    with pytest.raises(AggregationError, match="must be this user's own and open to no other user to write"):
        MeasuredSums(rules_of(3), names_of(3), tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '[["a", 1]]', '["ab"]', '[["a"]'])
def test_a_record_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path, content: str) -> None:
    (tmp_path / NAME).write_text(content)
    with pytest.raises(AggregationError, match="must be the record of whom sums were opened, got what"):
        MeasuredSums(rules_of(3), names_of(3), tmp_path)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_in_random_schedules_of_losses_nothing_about_few_parties_can_be_worked_out(
    data: st.DataObject,
) -> None:
    run = Run(6, 4)
    network = run.network
    for _ in range(data.draw(st.integers(0, 150))):
        what = data.draw(st.integers(0, 30))
        if what == 0 and network.alive():
            network.cut(data.draw(st.sampled_from(network.alive())))
        elif what == 1:
            network.time_out()
        else:
            network.deliver_one(lambda names: data.draw(st.sampled_from(names)), up=what % 2 == 1)
    network.drain()
    run.check()
    told = [run.outcomes[name] for name, error in network.ended.items() if error is None]
    assert all(outcome == told[0] for outcome in told)
