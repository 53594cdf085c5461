"""How a call ends with those who are there, and why nothing else is opened.

A call of roster ``R`` goes in three steps, each of which ends when all have answered or a deadline has
passed:

1. Party ``i`` uploads ``x_i``, padded with ``PRG(k_ij)`` for each other ``j`` of ``R`` (added by one of the
   two, subtracted by the other) and with ``PRG(b_i)``. ``k_ij`` is the key of the pair for this call and for
   what the two were told before, ``b_i`` a fresh seed of its own (the double masking of Bonawitz et al. 2017,
   eprint 2017/281, section 6, without the secret sharing). The server announces ``S``, the parties whose
   uploads have come.
2. Each party of ``S`` checks that ``S`` is allowed, and sends every other one a code (keyed BLAKE2b under a
   key of the pair that has no other use) about session, call, layout, encoding, what it was told in the calls
   before, ``R``, ``S`` and rules. A party does so for one ``S`` in a call, ever. If not all do, those who did
   begin step 1 anew with the same numbers.
3. Who has valid codes of all others of ``S`` releases ``b_i``, and ``k_id`` for each ``d`` of ``R`` outside
   ``S``. The server takes these pads off the sum of the uploads of ``S``. If not all release, the call is
   lost.

**Claim.** The server may send anything to anybody in any order, and pool what it knows with fewer parties
than are needed to make an allowed ``S`` by themselves. Then all it learns of the honest parties' numbers in a
call are sums over the honest members of sets ``S``; no honest party is in two of them, each has at least
``min_survivors`` members, colluding ones included, and in a set behind an average or a sum of data
``min_contributors`` count by their weight, even if all who have gone since they were weighed did. Where the
colluding parties are fewer than ``2 * min_survivors - n``, there is one such set at most.

**Why.** Let ``i`` be honest.

* Before ``i`` releases ``b_i``, its upload is uniformly random to all others: ``b_i`` never leaves ``i``
  before, and never leaves it later if ``i`` gives the call up, as the seed is forgotten then. So a call that
  was given up tells nothing, and the same numbers may be uploaded for another one, under other keys and
  another seed. It does not matter that others may have released in it.
* If ``i`` has released in ``S``, every honest ``j`` of ``S`` has sent ``i`` a code for ``S``, as nobody else
  but ``i`` has the key; so ``j`` agrees to no other set in this call and never releases ``k_ij``. What is
  left on ``i``'s upload are the pads shared with the honest members of ``S``. They cancel in the sum over all
  of these members and in no other sum, and that sum can be had only when all of them have released.
* Two allowed sets have at least ``2 * min_survivors - n`` members in common. An honest common member would
  have agreed to both.
* ``x_d`` of a party that was announced as gone though it has uploaded stays behind ``b_d``, which it releases
  only in a set that it is in. This needs codes under keys that are not derived from ``k_id``: those are
  released to the server, which could else tell ``d``, in everybody's name, that all agree on a set with
  ``d``, and open ``x_d``.

**Neighbours.** With :mod:`..neighbours` a party shares pads with some of the others, and what is left on
``i``'s upload are those shared with its honest neighbours in ``S``. They cancel in the sum over the honest
members of ``S`` and in no other sum while these are connected, however the server chooses who is gone:
``Rules.dropped`` is how many the degree allows for. The codes go to everybody in ``S`` as before. A session
of those who are left is another draw of the graph, with as many neighbours.

**Once released, never again.** When a call is lost after releases, a missing seed may still arrive, and the
server then has the sum over ``S``. A second sum of the same numbers without the missing party would differ
from it by exactly that party's numbers. So :class:`~.spent.Spent` refuses numbers that were released for
another set, also after keys were agreed on anew and in a later fit of this process. It is not enough for
training to go on from the own weights: the next upload is then ``x_i`` and a round of training, the part
``x_i`` cancels in the difference of the two sums, and what is left of the missing party's numbers is hidden
by nothing but the changes of that round, which a learning rate that falls makes as small as one likes. So the
update that was released is thrown away: :class:`~.RoundLostError` has the party go back to the last average,
which all know, and train on from there with its next rows. Where a round goes through all rows, the next ones
are the same, and so is the update but for their order: then a server that says that a call was lost, though
all have released, can read nearly the update of the party that it leaves out next. Blinding it, or rounds of
a part of the rows, prevents that. Masks and weights may be told again; what a loss tells of them stands
below.

**Three exchanges.** Steps 2 and 3 could be one: a code that decrypts, together with those of all others of
``S``, what the sender would release. But whoever has agreed would have released, and the numbers of a call in
which one does not answer could not be uploaded anew: each loss before the agreement, after which there is an
average now, would cost a round. Steps 1 and 2 could overlap, if parties named themselves before their numbers
are through. The claim stands with it, for nobody releases before all codes for ``S`` are there, but whoever
is lost while it uploads is in ``S`` then, and all others upload anew.

**The sum ahead.** Over a network the sum of the uploads of ``S`` travels to each of ``S`` while they agree,
and what takes its pads off follows in place of the total (:mod:`.ahead`). A party takes them off without a
secret of its own: whatever it has then, a server could as well have sent as a total. The parties hold nothing
that the claim does not count as known: ``b_i`` is on the sum until ``i`` has released it, and when all have,
the server sends what it was given, to who is in ``S`` alone. No party has an upload that these pads are on,
and ``k_id`` opens none of ``d``, which ``b_d`` is on as well.

**Updates.** With ``upload_bits`` what party ``i`` uploads is ``q_i``, its weights less the last average (the
reference) and with what it has rounded off before, rounded to steps and scaled by its part of the weight
(:mod:`..updates`). The claim holds of ``q_i`` as of any numbers, and the survivors' average has the bits that
they would have without the others.

* All survivors have one reference. It is only ever replaced by an average that was opened, which all of ``S``
  have been told alike before they open the next one. A fit begins with an average of whole weights, so that
  there is one. Who has missed an average is given it by one who has not, all of it, and nothing in it is that
  party's own. Before anything is uploaded under new keys, all confirm to each other a hash of it (below).
* The bounds, from which the size of a step follows, are a sum of a call before. Who is in ``S`` was in that
  call's set, or has not opened it and cannot go on: so all of ``S`` have the same.
* A lane has room for the steps of all, and each party's limit goes by its part of the weight of all who were
  weighed. So the steps of fewer have room as well, and their sum is divided by their part of the weight.
* For a call that was given up, the same weights are rounded anew, for what travels then, and padded anew.
  Nothing of the last upload is ever opened, so it does not matter that the draws may be the same.
* What was rounded off is replaced when the average of its upload has come. When a call is lost after
  releases, ``q_i`` is thrown away with the update, and what was rounded off before is uploaded again, with
  another update. In the difference of two sums, one without a party, it cancels, and what hides that party's
  numbers are the others' two updates, as with whole numbers.
* Who has missed an average cannot know whether ``q_i`` is in it, and forgets what was rounded off: it would
  be added twice if it is. Lost is less than a step of each number, and what was clipped.

Those in a call's set learn the mean of their largest updates, and two means tell of who has gone between them
how large its update was where the others' have not changed.

**Weights.** A party knows its own and the total of those who were weighed (:mod:`..weighing`). How much ``S``
weighs together goes with an average as one more element, padded as all others, so it is opened for ``S``
alone; the average is divided by it. Where nobody has gone it is the total, and tells nothing new. Else it
tells how much those weigh together who have gone since they were weighed, as do two totals. Of a party that
is lost alone, that is its weight; no divisor that whoever gets the average can work out would hide it. Who
counts by its weight goes by the total when the parties were weighed.

**Contributors.** ``fixed_contributors`` of :class:`~..rules.Rules` holds for the masks and weights of those
who are there. What a party has contributed to is taken down when it releases, not when it uploads, as a call
that was given up has added nothing up. A party that is gone has left every sum: it is taken to have kept all
elements and to have counted, and what is left of the contributors must be enough. Elements travel on without
it, and two sums, one with and one without it, differ by its numbers and by all that the others have changed.

**Coming back.** Keys belong to one session of parties. When one comes, all of them agree on new ones and
forget the old, so nothing that a call of the old session has left closed can be opened with one of the
new. With whom numbers were released is remembered across sessions (:meth:`.SurvivingClient.remember`). A
party that was away takes the average from another one and contributes again: two averages, with and
without it, differ by its numbers and by all that the others have changed, as when it is lost. What it had
contributed to before binds it no more. If a server that lies holds two sessions at a time, they have a
party in common, which is honest under the condition above and is in one of them.

A new session begins a new transcript, so those who go on in the middle of a fit confirm to each other, in a
padded sum, their place in the plan and a hash of the last average, which who was away has from one of the
others. Else a server that had sent some another sum, or gave who comes another model, had only to have all
agree on keys anew, and could then read one party's update off the sum of it and of what models that do not
learn give (Pasquini et al. 2022, "Eluding Secure Aggregation in Federated Learning via Model Inconsistency").
What parties tell each other carries a code under a key that the server has not, unless it colludes with a
party. Nobody takes a place in the plan that is behind its own, or rows would be trained on again from weights
that may be those of before.

**What this does not give.** The server chooses who is gone, up to ``n - min_survivors`` parties, and whoever
has two results in two rounds knows how they differ: a party that drops out between two agreements about masks
shows its mask where no other one has changed, and so its weight, see above. A server that adds noise to an
average, or to the weight behind it, is not found out; sums of masks and of integers have a checksum, which it
cannot make unless it colludes with a party. Parties that were sent different sums do not agree in the next
call, and open nothing in it. With a blind server the first of ``S`` releases its seed to the parties only, so
its pad stays on the sum until they have it; with one that colludes with a party the claim above is left.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import TypeAlias, TypeVar

from ..errors import (
    AggregationError,
    DroppedOutError,
    RegroupError,
    RoundLostError,
    TooFewSurvivorsError,
)
from ..message import Message
from ..protocol import Exchanges
from .ahead import SumAhead
from .client import SurvivingClient
from .wire import (
    Again,
    Announcement,
    Codes,
    Dropped,
    Ended,
    Hello,
    Lost,
    PadKeys,
    Regroup,
    Report,
    Reports,
    ToParty,
    ToServer,
    Total,
    Upload,
)

_Result = TypeVar("_Result")

Steps: TypeAlias = Generator["ToServer | None", ToParty, _Result]
"""Messages for the server, each answered by one of its own; None waits for another answer. Then a result."""


def with_survivors(client: SurvivingClient, exchanges: Exchanges[_Result]) -> Steps[_Result]:
    """Carries the exchanges of a generator, each with whoever is there.

    Args:
        client: of this party, the one that ``exchanges`` uses.
        exchanges: see :mod:`..protocol`. A lost call is raised in it as :class:`RoundLostError`; if it goes
            on, so does this.

    Returns:
        What the exchanges return.

    Raises:
        RoundLostError: a call was lost, and the exchanges do not go on.
        TooFewSurvivorsError: too few are left.
        DroppedOutError: the others have gone on without this party.
        AggregationError: what the server says is not what the protocol allows.
    """
    with contextlib.closing(exchanges):
        try:
            message = next(exchanges)
            while True:
                try:
                    total = yield from _sum(client, message)
                except RoundLostError as lost:
                    message = exchanges.throw(lost)
                else:
                    message = exchanges.send(total)
        except StopIteration as end:
            client.transcript.end()
            return end.value
        finally:
            client.keys.forget()  # whatever was uploaded and not released stays closed


def _sum(client: SurvivingClient, message: Message) -> Steps[Message]:
    """The sum of the messages of those who are there."""
    while True:
        call = message["call"]
        client.begin(message)
        answer = yield from answer_to(Upload(message))
        if isinstance(answer, Announcement):
            there = len(answer.survivors)
            ahead = SumAhead(message, most_keys=there * (1 + len(client.roster) - there))
            answer = yield from answer_to(client.answer(call, answer.survivors), ahead)
            if isinstance(answer, Codes):
                answer = yield from answer_to(client.release(call, answer.codes), ahead)
                if isinstance(answer, PadKeys):
                    answer = ahead.opened(answer)
                if isinstance(answer, Total):
                    return client.take(answer)
                if isinstance(answer, Lost):
                    client.lose(answer.roster)
                    raise RoundLostError(f"call {call} has no result: a party was lost in its last step")
                raise _out_of_turn(answer)
        if not isinstance(answer, Again):
            raise _out_of_turn(answer)
        message = client.repeat(answer.roster)


def tell(client: SurvivingClient, body: bytes) -> Steps[dict[str, bytes]]:
    """Tells all who are there something that is no secret among them.

    Args:
        client: of this party.
        body: what to tell; the server reads it unless it is blind, and cannot change it.

    Returns:
        What each has told, this party included; who has not is in no further call.

    Raises:
        AggregationError: as of :func:`with_survivors`, or a report of another party was changed on its way.
    """
    call = client.next_call()
    answer = yield from answer_to(Report(call, client.keys.sealed(call, body)))
    if not isinstance(answer, Reports):
        raise _out_of_turn(answer)
    client.go_on_with(tuple(answer.bodies))
    return {name: client.keys.opened(call, name, told) for name, told in answer.bodies.items()}


def answer_to(message: ToServer, ahead: SumAhead | None = None) -> Steps[ToParty]:
    """Sends a message and waits for what the server says about its call.

    Args:
        message: to the server.
        ahead: takes what comes of the call's sum meanwhile; None where no sum may come.

    Raises:
        TooFewSurvivorsError: there will be no further call, for too few are left.
        DroppedOutError: the others have gone on.
        RegroupError: the others say hello again.
        AggregationError: there will be no further call, or the server speaks of a later one.
    """
    answer, call = (yield message), message.call
    while _was_said_before(answer, message) or (ahead is not None and ahead.takes(answer)):
        answer = yield None
    if isinstance(answer, Dropped):
        raise DroppedOutError("the others have gone on without this party, which was too slow for them")
    if isinstance(answer, Regroup):
        raise RegroupError("a party comes, or was lost while keys were agreed on")
    if isinstance(answer, Ended):
        raise (TooFewSurvivorsError if answer.too_few else AggregationError)(answer.reason)
    if answer.call > call:
        raise _out_of_turn(answer)
    return answer


def _was_said_before(answer: ToParty, message: ToServer) -> bool:
    """Whether the server has said something before it had a message of this party."""
    if isinstance(answer, Regroup):
        return isinstance(message, Hello)  # who has said hello has done what it asks for
    return answer.call < message.call and not isinstance(answer, (Dropped, Ended))


def _out_of_turn(answer: ToParty) -> AggregationError:
    what = type(answer).__name__.lower()
    return AggregationError(f"the server has sent {what} of call {answer.call} out of its turn")
