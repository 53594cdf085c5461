"""A party's actor: it encodes, pads and opens. Its private key and its pads never leave it."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from .channel import Channel
from .encoder import Encoder
from .errors import AggregationError, ChannelClosedError
from .frame import Frame, Mask, align_mask, as_arrays
from .keys import KEY_BYTES, Purpose, frame_key, pair_key, session_id, unwrap, wrap
from .memory import Recycled
from .opening import Opening, share_one
from .pads import Pads
from .payload import Payload
from .ring import Ring
from .shares import Shares
from .sparse import SparseState

_Method = TypeVar("_Method", bound=Callable[..., Any])


def _timed(method: _Method) -> _Method:
    """Counts the seconds of a method of the sealer."""

    @wraps(method)
    def timed(self: Sealer, *arguments: Any) -> Any:
        started = time.perf_counter()
        try:
            return method(self, *arguments)
        finally:
            self._seconds += time.perf_counter() - started

    return cast(_Method, timed)


class Sealer:
    """One party's end of the aggregation.

    Args:
        party: own name.
        names: the names of all parties, in the order in which weights are given.
        ring: how floats are encoded.
        min_contributors: fewest parties that must keep an element for it to travel.
    """

    def __init__(self, party: str, names: Sequence[str], ring: Ring, min_contributors: int) -> None:
        self._party = party
        self._names = list(names)
        self._ring = ring
        self._min_contributors = min_contributors
        self._private_key = X25519PrivateKey.generate()
        self._peers = [name for name in names if name != party]
        self._public_keys: dict[str, bytes] = {}
        self._session = ""
        self._pad_keys: dict[str, bytes] = {}
        self._group_key: bytes | None = None
        self._last_call = 0
        self._round_bytes: list[int] = []
        self._proposal_bytes = 0
        self._seconds = 0.0
        self._memory = Recycled()
        self._dense_frame: Frame | None = None
        self._proposal: tuple[int, Frame, list[np.ndarray | None]] | None = None
        self._sparse: SparseState | None = None
        self._sealed: tuple[Opening, Shares] | None = None
        self._channel: Channel | None = None

    def public_key(self) -> bytes:
        """The raw X25519 public key, 32 bytes."""
        return self._private_key.public_key().public_bytes_raw()

    def agree(self, *public_keys: bytes) -> None:
        """Derives the key of every pair this party is in.

        Args:
            *public_keys: everybody's public key, in the order of the names.
        """
        self._public_keys = dict(zip(self._names, public_keys, strict=True))
        if self._public_keys[self._party] != self.public_key():
            raise AggregationError(f"the public key of {self._party} is not the one that it gave")
        self._session = session_id(self._public_keys).hex()
        self._pad_keys = {peer: self._pair_key(Purpose.PAD, peer) for peer in self._peers}

    def share_group_key(self) -> dict[str, bytes]:
        """Draws the key of the pad that blinds the server; the first party does this.

        Returns:
            The key, encrypted for each peer.
        """
        if self._group_key is not None:
            raise AggregationError("the group key was shared already: a wrapping key wraps one message, ever")
        self._group_key = secrets.token_bytes(KEY_BYTES)
        return {peer: wrap(self._pair_key(Purpose.WRAP, peer), self._group_key) for peer in self._peers}

    def take_group_key(self, wrapped: dict[str, bytes]) -> None:
        """Takes the key that the first party has drawn."""
        self._group_key = unwrap(self._pair_key(Purpose.WRAP, self._names[0]), wrapped[self._party])

    def payload_bytes(self) -> int:
        """Bytes of ring elements uploaded so far, agreements about masks included."""
        return sum(self._round_bytes) + self._proposal_bytes

    def round_bytes(self, first: int) -> list[int]:
        """The same for each round from the ``first``-th on; an agreement counts for the round after it."""
        return self._round_bytes[first:]

    def take_seconds(self) -> float:
        """Seconds spent on proposing, settling, sealing and opening since this was asked last."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def connect(self, address: str) -> bool:
        """Opens a channel to the server's process, in place of the last one.

        Args:
            address: of the server's listener.

        Returns:
            Whether it could be reached; if not, it is on another machine.
        """
        self.hang_up()
        try:
            self._channel = Channel.to(address)
        except OSError:
            return False
        return True

    def send(self, payload: Payload) -> None:
        """Uploads over the channel."""
        self._connected().send(payload)

    def receive(self) -> Payload:
        """Waits for the sum of what was sent last over the channel."""
        return self._connected().receive()

    def hang_up(self) -> None:
        """Closes the channel, if there is one: nobody waits for this party any more."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    @_timed
    def propose(self, call: int, data: Any, mask: Mask, shrunk: bool = False) -> Payload:
        """Uploads the own mask, padded, one byte for each maskable element.

        Args:
            call: number of the call.
            data: own arrays.
            mask: own mask, see :func:`~.frame.align_mask`.
            shrunk: no party's mask has an element that its last settled one had not: only the elements that
                travel already are agreed on. Without settled masks for such data all are.

        Raises:
            AggregationError: the mask is not allowed, or has grown although ``shrunk``.
        """
        # Forgotten first: if this agreement fails at any party, nobody goes on with the old masks.
        last, self._proposal, self._sparse = self._sparse, None, None
        arrays, is_list = as_arrays(data)
        living = align_mask(mask, arrays)
        frame = Frame.dense(arrays, is_list)
        if shrunk and last is not None and last.frame.fits(arrays, is_list):
            if not last.encloses(living):
                raise AggregationError(f"the mask of {self._party} has elements that its last one had not")
            frame = last.frame
        self._proposal = call, frame, living
        bits = [mask.view(np.uint8) for mask in frame.travelling(living) if mask is not None]
        which = "".join("." if mask is None else "m" for mask in living)
        body = np.concatenate([np.empty(0, np.uint8), *bits])
        self._pads(call).add_to(body)
        self._proposal_bytes += body.nbytes
        return self._upload(call, frame, f"mask {which}", [body])

    @_timed
    def settle(self, total: Payload, at_least: int | None = None) -> bool:
        """Takes the contributor counts of an agreement; later calls with masks use them.

        Args:
            total: the sum of the proposals.
            at_least: fewest contributors of an element that travels, if not ``min_contributors``.

        Returns:
            True, for :meth:`seal` to wait for.
        """
        if self._proposal is None:
            raise AggregationError("a mask must be proposed before it can be settled")
        call, frame, living = self._proposal
        if (total["call"], total["frame"]) != (call, self._name_of(frame)):
            raise AggregationError("the contributor counts are those of another proposal")
        self._proposal = None
        remaining = self._unblinded(total)["body"][0]
        counts: list[np.ndarray | None] = []
        for size, mask in zip(frame.sizes, living, strict=True):
            if mask is None:
                counts.append(None)
            else:
                counts.append(remaining[:size])
                remaining = remaining[size:]
        frame = frame.narrowed(counts, len(self._names), at_least or self._min_contributors)
        self._sparse = SparseState(frame, living)
        return True

    @_timed
    def settle_same(self, data: Any, mask: Mask) -> bool:
        """Takes the own mask for everybody's; later calls with masks use it.

        If another party's mask is another one, their payloads do not add up, and the server says so.

        Args:
            data: own arrays.
            mask: own mask, see :func:`~.frame.align_mask`.

        Returns:
            True, for :meth:`seal` to wait for.
        """
        self._proposal = self._sparse = None
        arrays, is_list = as_arrays(data)
        living = align_mask(mask, arrays)
        parties = len(self._names)
        counts = [None if entry is None else np.where(entry, parties, 0) for entry in living]
        frame = Frame.dense(arrays, is_list).narrowed(counts, parties, self._min_contributors)
        self._sparse = SparseState(frame, living)
        return True

    @_timed
    def seal(self, call: int, average: bool, masked: bool, data: Any, *weights: Any) -> Payload:
        """Encodes and pads the own numbers.

        Args:
            call: number of the call.
            average: scales the numbers so that the sum is the average.
            masked: only what the settled masks let through travels.
            data: own arrays.
            *weights: everybody's weight, in the order of the names; none for equal weights.

        Returns:
            ``body[0]``: floats that travel, followed by the denominators of partial elements if they are
            not known yet; ``body[1]``: integers.

        Raises:
            AggregationError: the input is not allowed, or a number does not fit into the ring. Nothing
                is uploaded then.
        """
        arrays, is_list = as_arrays(data)
        shares = Shares.make(weights, self._names.index(self._party), len(self._names), masked)
        sparse = self._sparse_for(arrays, is_list) if masked else None
        frame = sparse.frame if sparse else self._dense_for(arrays, is_list)
        denominators = sparse.denominators_for(shares) if sparse else None
        carried = frame.partial.size if denominators is None else 0

        pads = self._pads(call)
        encoder = Encoder(
            self._party, self._ring, frame, shares, average, pads, sparse.absent if sparse else {}
        )
        floats = self._memory.take(frame.float_size + carried, self._ring.dtype)
        integers = np.empty(frame.integer_size, "<u8")
        encoder.write_floats(floats[: frame.float_size], arrays)
        if carried:
            assert sparse is not None  # nothing else is partial
            floats[frame.float_size :] = sparse.has_partial * round(float(shares.own) * share_one(self._ring))
            pads.add_to(floats[frame.float_size :])
        encoder.write_integers(integers, arrays)

        encoding = (
            f"{'average' if average else 'sum'} ring={self._ring.bits} fxp={self._ring.fxp_bits} "
            f"exact={shares.exact} denominators={carried}"
        )
        payload = self._upload(call, frame, encoding, [floats, integers])
        self._round_bytes.append(floats.nbytes + integers.nbytes + self._proposal_bytes)
        self._proposal_bytes = 0
        divisor = (shares.total if shares.exact else self._ring.one) if average else None
        weight_total = shares.total if average and np.ndim(shares.total) else None
        opening = Opening(
            call,
            frame,
            payload["frame"],
            self._ring,
            payload["encoding"],
            divisor,
            weight_total,
            denominators,
        )
        self._sealed = opening, shares
        return payload

    @_timed
    def open(self, total: Payload, own: Any = None) -> Any:
        """Reads the sum of the call sealed last.

        Args:
            total: the sum.
            own: the data that were sealed, for the own values of elements that too few parties keep; without
                it they are 0.

        Returns:
            Arrays of the shapes of the own data, and of its dtypes if they are floats; averages of integers
            are float64. An element that too few parties keep has the own value back, one that lives
            nowhere is 0.

        Raises:
            AggregationError: the sum is that of another call, or nothing was sealed.
        """
        opening, total = self._ready_to_open(total)
        result = opening.open(total)
        if own is not None and self._sparse is not None and opening.frame is self._sparse.frame:
            self._sparse.keep_private(result if isinstance(result, list) else [result], as_arrays(own)[0])
        return result

    @_timed
    def open_into(self, total: Payload, arrays: Sequence[np.ndarray]) -> None:
        """Reads the sum of the call sealed last into arrays; what did not travel keeps its value there.

        What the own mask has pruned becomes zero, also where the others' average of it came.

        Args:
            total: the sum.
            arrays: of the shapes of the own data, changed in place.

        Raises:
            AggregationError: as of :meth:`open`; nothing was changed then.
        """
        opening, total = self._ready_to_open(total)
        opening.write(total, arrays)
        if self._sparse is not None and opening.frame is self._sparse.frame:
            self._sparse.keep_pruned(arrays)

    def opening(self) -> Opening:
        """What is needed to read the sum of the call sealed last; it is given once."""
        return self._take_sealed()[0]

    def _connected(self) -> Channel:
        if self._channel is None:
            raise ChannelClosedError(f"{self._party} has no channel to the server")
        return self._channel

    def _ready_to_open(self, total: Payload) -> tuple[Opening, Payload]:
        opening, shares = self._take_sealed()
        total = self._unblinded(total)
        opening.check(total)
        sparse = self._sparse
        if sparse is not None and opening.frame is sparse.frame and opening.frame.partial.size:
            sparse.remember_denominators(shares, opening.read_denominators(total))
        return opening, total

    def _take_sealed(self) -> tuple[Opening, Shares]:
        if self._sealed is None:
            raise AggregationError("nothing was sealed, so there is no sum to open")
        sealed, self._sealed = self._sealed, None
        return sealed

    def _sparse_for(self, arrays: Sequence[np.ndarray], is_list: bool) -> SparseState:
        if self._sparse is None or not self._sparse.frame.fits(arrays, is_list):
            raise AggregationError(
                "the parties have not settled masks for data of these shapes and types; if an earlier call "
                "failed, give new mask objects"
            )
        return self._sparse

    def _dense_for(self, arrays: Sequence[np.ndarray], is_list: bool) -> Frame:
        if self._dense_frame is None or not self._dense_frame.fits(arrays, is_list):
            self._dense_frame = Frame.dense(arrays, is_list)
        return self._dense_frame

    def _pads(self, call: int) -> Pads:
        """The pads of a call, once: from here on its number is spent, whatever becomes of the call."""
        if call <= self._last_call:
            raise AggregationError(
                f"call {call} is not larger than the last one of {self._party}, {self._last_call}: "
                "a pad is never used twice"
            )
        if not self._pad_keys:
            raise AggregationError(f"{self._party} has not agreed on keys yet")
        self._last_call = call
        keys = [(key, self._party > peer) for peer, key in self._pad_keys.items()]
        if self._group_key is not None and self._party == self._names[0]:
            keys.append((self._group_key, False))
        return Pads(keys, call)

    def _upload(self, call: int, frame: Frame, encoding: str, body: list[np.ndarray]) -> Payload:
        # Of parties that do not share their keys the pads would not cancel, and the sum would be noise.
        encoding = f"{encoding} session={self._session}"
        return Payload(call=call, frame=self._name_of(frame), encoding=encoding, body=body)

    def _name_of(self, frame: Frame) -> str:
        """The name that payloads carry: equal for equal frames.

        It goes by the masks, so a server that shall learn nothing could try out guesses on a plain digest.
        """
        if self._group_key is None:
            return frame.digest
        return hmac.new(frame_key(self._group_key), frame.digest.encode(), "sha256").hexdigest()

    def _unblinded(self, total: Payload) -> Payload:
        if self._group_key is None:
            return total
        pads = Pads([(self._group_key, True)], total["call"])
        body = [part.copy() for part in total["body"]]
        for part in body:
            pads.add_to(part)
        return {**total, "body": body}

    def _pair_key(self, purpose: Purpose, peer: str) -> bytes:
        return pair_key(purpose, self._private_key, self._party, peer, self._public_keys)
