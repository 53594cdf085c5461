"""A party's part in the aggregation, as methods of an actor at that party."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from secretflow.device.tenants import Tenant

from .averaged import Averaged
from .call import Call, Operation
from .client import Client
from .contributions import Contributions
from .errors import AggregationError, DisagreementError
from .identity import Identities
from .inputs import ArrayMasks, as_arrays
from .keyring import Confirmation
from .message import Message
from .opening import Opening
from .protocol import Exchanges, agree_on_support
from .rules import Rules
from .support import Support
from .transport.channel import Channel
from .weighing import WEIGHING_EXCHANGES, weigh
from .weights import AggregationWeights

if TYPE_CHECKING:
    from secretflow.device import PYU

_Result = TypeVar("_Result")


class MaskUse(Enum):
    """What the masks of a request are for."""

    NONE = "everything travels"
    AGREE = "the masks are agreed on first"
    SHARED = "one mask is everybody's"
    LAST = "what travels is what came out of the last request with masks"


@dataclass(frozen=True)
class Request:
    """What a driver asks of all parties.

    Attributes:
        operation: what comes out.
        masks: what the masks are for.
        agreement: numbers the agreement about masks that this request makes or rests on.
        own_weight: whether each party is given its own weight alone.
    """

    operation: Operation
    masks: MaskUse = MaskUse.NONE
    agreement: int = 0
    own_weight: bool = False

    @property
    def exchanges(self) -> int:
        """How many messages each party sends."""
        return 1 + (self.masks is MaskUse.AGREE) + self.own_weight * WEIGHING_EXCHANGES


@dataclass(frozen=True, eq=False, repr=False)  # it holds what is the party's own
class Remembered:
    """What a party must know of its calls before, whichever client made them.

    Attributes:
        contributions: to what it has contributed.
        averaged: how its data were averaged.
    """

    contributions: Contributions
    averaged: Averaged


class Participant:
    """What an actor inherits to be one party of an aggregation.

    What the party exchanges with the server is a generator (:mod:`.protocol`). A method whose name begins
    with ``begin`` makes it; then :meth:`advance` and :meth:`finish` let a driver carry each message, or
    :mod:`.transport.processes` carries all of them over a channel.

    Attributes:
        channel: to the server's process, if there is one; parties that share a process share it.
    """

    channel: Channel | None = None

    _client: Client
    _exchanges: Exchanges[Any] | None = None
    _agreed: tuple[int, Support] | None = None  # the last agreement of a request, and what came out
    _data_before: Averaged
    _owner = ""
    _remembered: Mapping[str, Remembered] = MappingProxyType({})  # by owner

    def make_client(
        self,
        party: str,
        names: Sequence[str],
        rules: Rules,
        identities: Identities | None = None,
        owner: str = "",
        before: Remembered | None = None,
    ) -> None:
        """Makes the client; of one made before only that is kept which the rules between its calls need.

        Args:
            party: see :class:`~.client.Client`, as well as ``names``, ``rules`` and ``identities``.
            owner: names the group that the client takes part in.
            before: what another actor of this party has remembered for that group; None for what this one
                has, if anything.
        """
        self._client = client = Client(party, names, rules, identities)
        self._agreed = None
        before = before or self._remembered.get(owner) or Remembered(client.contributions, Averaged())
        client.contributions, self._data_before = before.contributions, before.averaged
        self._owner, self._remembered = owner, {**self._remembered, owner: before}

    def remembered(self, owner: str) -> Remembered:
        """What this party must know of its calls before in a group.

        Args:
            owner: names the group.
        """
        return self._remembered[owner]

    def belongs_to(self, owner: str) -> bool:
        """Whether the client is the one that ``owner`` has had made."""
        return self._owner == owner

    def public_key(self) -> bytes:
        """The raw X25519 public key, 32 bytes."""
        return self._client.keys.public_key()

    def agree_on_keys(self, *public_keys: bytes) -> Confirmation:
        """Takes everybody's public key, see :meth:`~.keyring.KeyRing.agree`."""
        return self._client.keys.agree(*public_keys)

    def confirm_keys(self, *confirmations: Confirmation) -> None:
        """Takes everybody's confirmation, see :meth:`~.keyring.KeyRing.confirm`."""
        self._client.keys.confirm(*confirmations)

    def fingerprint(self) -> str:
        """The key agreement in short, see :meth:`~.keyring.KeyRing.fingerprint`."""
        return self._client.keys.fingerprint()

    def share_group_key(self) -> dict[str, bytes]:
        """Draws the key that the server has not, see :meth:`~.keyring.KeyRing.share_group_key`."""
        return self._client.keys.share_group_key()

    def take_group_key(self, wrapped: dict[str, bytes]) -> None:
        """Takes the key that the server has not, see :meth:`~.keyring.KeyRing.take_group_key`."""
        self._client.keys.take_group_key(wrapped)

    def together(self, work: Callable[..., _Result], _: Sequence[PYU], *args: Any) -> _Result:
        """Does work of all parties of this process, which is this one alone.

        Args:
            work: see :meth:`~secretflow.device.shared_process.Process.together`.
            _: who lives here.
            *args: what ``work`` is given besides.
        """
        return work([Tenant(self)], *args)

    def begin_request(self, start: int, request: Request, data: Any, mask: Any, *weights: Any) -> None:
        """Begins what a driver asks for.

        Args:
            start: numbers the calls, see :meth:`~.client.Client.number_calls`.
            request: what it is.
            data: own arrays.
            mask: own mask, or None.
            *weights: everybody's, in the order of the names, or the own one alone if the request says so;
                none for equal ones.
        """
        self._begin(start, self._requested(request, data, mask, weights))

    def advance(self, total: Message | None) -> Message:
        """Goes on to the next message.

        Args:
            total: the sum of the last messages; None before the first.

        Raises:
            AggregationError: there is no further message.
        """
        exchanges = self._begun()
        try:
            return exchanges.send(total)  # type: ignore[arg-type]
        except StopIteration:
            raise AggregationError("more messages were asked for than the protocol has") from None

    def finish(self, total: Message) -> Any:
        """Takes the last sum; returns what comes out."""
        exchanges = self.take_begun()
        try:
            exchanges.send(total)
        except StopIteration as end:
            self.end_exchanges()
            return end.value
        exchanges.close()
        raise AggregationError("a message was left over: fewer were asked for than the protocol has")

    def take_begun(self) -> Exchanges[Any]:
        """What has begun, for whoever carries all its messages; then :meth:`end_exchanges`."""
        exchanges, self._exchanges = self._begun(), None
        return exchanges

    def end_exchanges(self) -> None:
        """Takes notice that all messages have been carried, and the last sum."""
        self._client.transcript.end()

    def abandon(self) -> None:
        """Gives up what has begun, so that the party stands where its last result left it."""
        if self._exchanges is not None:
            self._exchanges.close()
            self._exchanges = None

    def opening(self) -> Opening:
        """How to read the sum of the last upload, see :meth:`~.client.Client.opening`."""
        return self._client.opening()

    def payload_bytes(self) -> int:
        """Bytes uploaded so far, see :class:`~.usage.Usage`."""
        return self._client.usage.payload_bytes()

    def round_bytes(self, first: int) -> list[int]:
        """Bytes of each sum or average from the ``first``-th on, see :class:`~.usage.Usage`."""
        return self._client.usage.round_bytes(first)

    def _begin(self, start: int, exchanges: Exchanges[Any], anew: bool = False) -> None:
        """Begins what is exchanged.

        Args:
            start: numbers the calls.
            exchanges: what it is.
            anew: whether it may begin though the parties were told different things before. Nothing may be
                uploaded then that rests on what they were told.
        """
        self.abandon()
        self._client.number_calls(start)
        self._client.transcript.begin(anew)
        self._exchanges = exchanges

    def _begun(self) -> Exchanges[Any]:
        if self._exchanges is None:
            raise AggregationError("nothing has begun that a message could belong to")
        return self._exchanges

    def _requested(
        self, request: Request, data: Any, mask: ArrayMasks, weights: Sequence[Any]
    ) -> Exchanges[Any]:
        try:
            return (yield from self._carried_out(request, data, mask, weights))
        except DisagreementError:
            self._client.transcript.begin(anew=True)  # it was said; or no call could be made any more
            raise

    def _carried_out(
        self, request: Request, data: Any, mask: ArrayMasks, weights: Sequence[Any]
    ) -> Exchanges[Any]:
        client, arrays = self._client, as_arrays(data)[0]
        if request.own_weight:
            shares = yield from weigh(client, weights[0])
        else:
            shares = client.weights_of(weights)
        shares.check_counting(client.rules, request.masks is not MaskUse.NONE)
        support = yield from self._supported(request, data, mask, shares)
        if client.rules.fixed_contributors:
            self._data_before.check(arrays, shares, client.party, support)
        message = client.upload(Call(client.next_call(), request.operation, shares, support), data)
        self._data_before.record(arrays, shares, support)
        result = client.open((yield message), data)
        opened = as_arrays(result)[0]
        private = set() if support is None else support.private_arrays()
        self._data_before.take_results([array for k, array in enumerate(opened) if k not in private])
        return result

    def _supported(
        self, request: Request, data: Any, mask: ArrayMasks, shares: AggregationWeights
    ) -> Exchanges[Support | None]:
        if request.masks is MaskUse.NONE:
            return None
        if request.masks is MaskUse.LAST:
            if self._agreed is None or self._agreed[0] != request.agreement:
                raise AggregationError("an earlier agreement about these masks failed: give new mask objects")
            return self._agreed[1]
        # Forgotten first: if this agreement fails at any party, nobody goes on with the old masks.
        self._agreed = None
        if request.masks is MaskUse.SHARED:
            support = self._client.shared_support(data, mask)
        else:
            support = yield from agree_on_support(self._client, data, mask, uncounted=shares.uncounted)
        self._agreed = request.agreement, support
        return support
