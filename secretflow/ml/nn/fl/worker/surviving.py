"""A party's side of a fit that goes on with those who are there, over a stream to the server."""

from __future__ import annotations

import contextlib
import threading
import time

from secretflow.ml.nn.fl.plan import EpochEnd, PartyState, Round, plan_with_ends
from secretflow.ml.nn.fl.pruning import PruneSettings
from secretflow.ml.nn.fl.worker.absence import Absence
from secretflow.ml.nn.fl.worker.catching_up import (
    Given,
    fit_of,
    given,
    prune_like_others,
    take_average,
)
from secretflow.ml.nn.fl.worker.epoch_end import end_epoch
from secretflow.ml.nn.fl.worker.progress import Progress, Taken
from secretflow.ml.nn.fl.worker.rounds import PartyRounds
from secretflow.ml.nn.fl.worker.surviving_worker import Party
from secretflow.ml.nn.fl.worker.training import LocalTraining, PartyFit
from secretflow.party.messages import pack, unpack
from secretflow.security.aggregation.secagg.dropouts.joining import join
from secretflow.security.aggregation.secagg.dropouts.last_average import LastAverage
from secretflow.security.aggregation.secagg.dropouts.measured_sums import MeasuringClient
from secretflow.security.aggregation.secagg.dropouts.protocol import Steps, tell, with_survivors
from secretflow.security.aggregation.secagg.dropouts.survival import Streams, Survival
from secretflow.security.aggregation.secagg.dropouts.wire import Bye, Members
from secretflow.security.aggregation.secagg.errors import (
    AggregationError,
    ChannelClosedError,
    DroppedOutError,
    RegroupError,
)
from secretflow.security.aggregation.secagg.transport.network.stream import PartyStream, drive

_SECONDS_BETWEEN_TRIES = 0.2
_MOST_STEPS = 4  # of the server until it answers a party that has done its part


class SurvivingFit:
    """One fit of one party.

    After a loss of the stream it comes back by itself: it says how far it has come, agrees on keys with those
    who are there, and takes from one of them what it has missed.

    Args:
        party: its worker.
        name: of the party.
        training: its training.
        settings: what the user chose about pruning.
        survival: who takes part, and how many must be left.
        streams: where the server is.
        fit: what the user chose for this fit.
        validation_freq: epochs from one evaluation to the next; 0 for none.
        adds_up: whether the parties add up what they measure, for none of their drivers is told all of it.
        before: this party's client of a fit before, which remembers what was released; None for none.
    """

    def __init__(
        self,
        party: Party,
        name: str,
        training: LocalTraining,
        settings: PruneSettings,
        survival: Survival,
        streams: Streams,
        fit: PartyFit,
        validation_freq: int,
        adds_up: bool,
        before: MeasuringClient | None = None,
    ) -> None:
        self._party = party
        self._before = before
        self._name = name
        self._training = training
        self._settings = settings
        self._survival = survival
        self._streams = streams
        self._validation_freq = validation_freq
        self._adds_up = adds_up
        self._patience = streams.wait + _MOST_STEPS * survival.round_deadline
        self._stream: PartyStream | None = None
        self._client: MeasuringClient | None = None
        self._rounds: PartyRounds | None = None  # None as long as the party is not in
        self._average: LastAverage | MeasuringClient | None = None
        self._data_at: tuple[int, int] | None = None
        self._held, self._passed = 0, -1  # the start is before the plan
        self._plan_of(party.party_state(fit.steps), fit)

    def go_on(self, until: int) -> Progress:
        """Goes on with the plan.

        Args:
            until: how many of its entries shall be behind the party; 0 makes the start only.

        Raises:
            TooFewSurvivorsError: too few parties are left.
            ChannelClosedError: there was no server for as long as the user waits, or no others.
        """
        told, absence = Progress(), Absence(self._streams.wait, self._patience)
        while self._rounds is None or self._passed < until:
            try:
                self._take_a_step(told)
                if self._rounds is not None:
                    absence.end()
            except (ChannelClosedError, DroppedOutError, RegroupError) as error:
                self._rounds = None
                if absence.is_too_long(error, time.monotonic()):
                    raise
                if not isinstance(error, RegroupError):
                    self._hang_up()
                    threading.Event().wait(_SECONDS_BETWEEN_TRIES)
            except BaseException:
                self._hang_up()  # or the others would wait for this party
                raise
        assert self._client is not None  # who is in has one
        told.passed, told.planned, told.there = self._passed, len(self._plan), self._client.roster
        told.trained = self._fit.epochs_trained
        return told

    def leave(self) -> None:
        """Tells the server that this party has all it wants."""
        if self._stream is not None:
            with contextlib.suppress(AggregationError):
                self._stream.send(Bye())
                # The server ends the stream when all have said so; hung up before, this might be lost.
                self._stream.receive(self._survival.round_deadline)
        self._hang_up()

    def _plan_of(self, state: PartyState, fit: PartyFit) -> None:
        self._state, self._fit = state, fit
        self._plan = plan_with_ends(
            self._settings,
            state,
            trained=fit.epochs_trained,
            epochs=fit.epochs,
            steps=fit.steps,
            aggregate_freq=fit.aggregate_freq,
        )

    def _take_a_step(self, told: Progress) -> None:
        streams = self._streams
        if self._stream is None:
            self._stream = PartyStream(
                streams.address, self._name, streams.server, streams.tls, connect_seconds=streams.wait
            )
        elif self._rounds is None:
            self._meet(self._stream)
        elif isinstance(entry := self._plan[self._passed], Round):
            self._pass_round(self._stream, self._rounds, entry, told)
        else:
            self._end_epoch(self._stream, entry, told)

    def _meet(self, stream: PartyStream) -> None:
        """Agrees on keys with those who are there, and comes to where they are."""
        name = self._name
        folder = self._streams.folder
        joining = join(
            lambda names: self._survival.client(name, names, folder), name, self._passed + 1, self._held
        )
        client, members = drive(joining, stream, self._patience)
        client.number_calls(1)
        client.transcript.begin(anew=True)
        if self._before is not None:
            client.remember(self._before, fresh=name in members.behind)
        drive(self._catch_up(client, members), stream, self._patience)

    def _catch_up(self, client: MeasuringClient, members: Members) -> Steps[None]:
        giver = next((name for name in client.names if name not in members.behind), "")
        gives = bool(members.behind) and giver == self._name
        rows = self._party.rows_of_rounds(self._fit)
        own = {
            "rows_known": rows is not None,
            "measured": client.measured.opened,
            "given": self._given() if gives else None,
        }
        told = {name: unpack(body) for name, body in (yield from tell(client, pack(own))).items()}
        if self._name in members.behind:
            if giver not in told:
                raise RegroupError(f"{giver} was lost before it said how far the others are")
            self._take(told[giver]["given"], giver)
        for each in told.values():
            client.measured.add(each["measured"])
        rows_known = all(each["rows_known"] for each in told.values())
        rounds = PartyRounds(client, self._training, self._settings, self._fit, rows if rows_known else None)
        place = self._place_among(members)
        self._client = self._before = client
        self._party.use_client(client)
        if members.passed == 0:
            yield from with_survivors(client, rounds.start(keeps_weights=False))
            self._passed, self._held, self._average = 0, 1, client
            self._party.count_from_here()
        else:
            self._passed = place
            before = self._plan[: self._passed]
            ended = sum(isinstance(entry, EpochEnd) for entry in before)
            self._party.take_epochs(self._fit.epochs_trained + ended)
            prune_like_others(
                self._training, self._settings, self._state, self._fit, rounds=len(before) - ended
            )
            came = self._average.arrays if isinstance(self._average, LastAverage) else None
            rounds.go_on(self._name in members.behind, came)
            yield from with_survivors(client, rounds.settle(self._in_common()))
        self._rounds = rounds

    def _place_among(self, members: Members) -> int:
        """Where the members are in the plan, -1 before it.

        Nobody goes back, or rows would be trained on again, and nobody leaves the start out.

        Raises:
            AggregationError: they are not there where an honest server would send this party.
        """
        place = members.passed - 1
        has_begun = self._passed >= 0
        furthest = len(self._plan) if self._name in members.behind else self._passed + has_begun
        if not self._passed <= place <= furthest:
            raise AggregationError(
                f"the others must be where {self._name} is, {self._passed} entries into the plan, or up to "
                f"{furthest}, got {place}"
            )
        return place

    def _in_common(self) -> bytes:
        """What all must have in common who go on together: their place, and the average that they go on from.

        A server that had told some another average than others, or gave those who come in another one, could
        have all but one upload what it knows.
        """
        average = self._last_average()
        return self._passed.to_bytes(8, "big") + (b"" if average is None else average.digest())

    def _last_average(self) -> LastAverage | None:
        kept = self._average
        average = kept.last_average() if isinstance(kept, MeasuringClient) else kept
        return average and self._training.updates.completed(average, self._survival.rules.upload_bits)

    def _given(self) -> Given:
        average = self._last_average()
        return given(self._training, self._settings, average, self._state, self._fit, self._held)

    def _take(self, came: Given | None, giver: str) -> None:
        """Takes what another party has given.

        Raises:
            AggregationError: that party has nothing that this one has not; the server has lied.
        """
        if came is None or came["held"] <= self._held:
            raise AggregationError(
                f"{giver} must have an average that {self._name} has missed, as the server says, got "
                f"{'nothing' if came is None else 'one that it has'}"
            )
        keeps_own = self._held > 0 or self._party.epochs_trained() > 0
        self._plan_of(came["state"], fit_of(came, self._fit))
        if came["mask"] is not None:
            self._training.masked.use({name: entry.copy() for name, entry in came["mask"].items()})
        if came["average"] is not None:
            self._average = LastAverage(*came["average"])
            take_average(self._training, self._average, keeps_own)
        self._held = came["held"]
        self._data_at = None

    def _pass_round(self, stream: PartyStream, rounds: PartyRounds, this: Round, told: Progress) -> None:
        assert self._client is not None  # who is in has one
        lost = rounds.lost
        self._bring_data_to(this)
        # Whatever becomes of it, these rows are not trained on again from the same weights.
        self._passed += 1
        told.taken.append(Taken(this, ()))
        drive(with_survivors(self._client, rounds.rounds([this])), stream, self._patience)
        if rounds.lost == lost:
            told.taken[-1] = Taken(this, self._client.survivors)
            self._held, self._average = self._passed + 1, self._client
        if self._client.comers:
            raise RegroupError("a party waits to come in")

    def _end_epoch(self, stream: PartyStream, this: EpochEnd, told: Progress) -> None:
        assert self._client is not None  # who is in has one
        self._passed += 1
        evaluates = bool(self._validation_freq) and this.number % self._validation_freq == 0
        own = self._party.report_of_epoch(evaluates)
        told.reports[this.number] = {self._name: own}
        ending = end_epoch(self._client, own, self._adds_up, self._survival.server_is_told)
        told.totals[this.number] = drive(ending, stream, self._patience)

    def _bring_data_to(self, this: Round) -> None:
        if this.number > 1 and self._data_at != (this.epoch, this.first_step):
            self._training.begin_epoch(this.epoch, self._fit.random_seed)
            self._party.skip_batches(self._fit.steps_of(self._name, this.first_step))
        self._data_at = this.epoch, this.first_step + this.steps

    def _hang_up(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
