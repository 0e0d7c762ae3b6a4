"""One pair of identities, ours and a peer's: a state machine without I/O (reference protocol 2.4-2.7).

Datagrams to send collect in `outbox` as trains (they go to `address`); what arrives goes to the `PeerSink`. `now` is
any monotonic time in seconds, `Clock` gives the unix dates that ADNL puts on the wire. Both daemons' habits are minded:
reinit dates, a window of sequence numbers (wider than their 64), channels, messages in parts, queries that come again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Protocol

from ..clock import Clock
from ..errors import BadPacket, UsageError
from . import adnl_packet as wire
from .adnl_channel import Channel
from .adnl_memory import AnswerCache, PartialMessages
from .adnl_path import Path
from .api import UdpAddress
from .keys import KeyPair, short_id
from .lane import CONFIRM_DATAGRAM, MAX_CUSTOM, PART_DATAGRAM, Kind, Opened, Sink, make_lane, noise
from .memory_pool import Account
from .rldp2 import Symbols
from .udp import Train

QUERY_FIRST: Final = 0.15
"""Seconds until an unanswered query is sent again the first time; Go overlooks the very first one now and then."""
QUERY_EVERY: Final = 0.4
"""Seconds between later sendings."""
REINIT_AFTER: Final = 2.0
"""Seconds of silence after which the channel is doubted and a root packet goes out."""
REINIT_EVERY: Final = 1.0
CONFIRM_DELAY: Final = 0.02
KEEPALIVE: Final = 1.0
"""Something came and we said nothing for so long: a nop keeps NATs open and stops the peer's re-init."""
ROOT_BURST: Final = 40.0
ROOT_RATE: Final = 2.0
JUMP: Final = 256
"""A nop whose sequence number is so far ahead asks whether we are where it went: it is answered soon."""
MAX_ROOT_MESSAGE: Final = 1072
"""A root packet with signature, keys and confirmChannel leaves this much of 1440 bytes."""
FUTURE: Final = 60


class PeerSink(Protocol):
    """Where a peer's state machine delivers."""

    def on_query(self, peer: AdnlPeer, query_id: bytes, data: bytes, now: float) -> None: ...

    def on_custom(self, peer: AdnlPeer, data: bytes, now: float) -> None: ...

    def on_opened(self, peer: AdnlPeer, opened: Opened, now: float) -> None:
        """Symbols went into watched sinks, or confirmations came. Raises BadPacket."""
        ...

    def on_channel(self, peer: AdnlPeer, old: bytes | None, new: bytes | None) -> None:
        """The inbound channel id changed."""
        ...

    def on_ready(self, peer: AdnlPeer, now: float) -> None:
        """The channel is up."""
        ...

    def on_reset(self, peer: AdnlPeer, now: float) -> None:
        """The peer began a new life."""
        ...


@dataclass(slots=True)
class _OutQuery:
    message: bytes
    on_answer: Callable[[bytes], None]
    next_send: float


class AdnlPeer:
    """State of one pair. `date` is our reinit date for this pair (unix seconds); `account`: what it makes us hold."""

    def __init__(
        self,
        own: KeyPair,
        public_key: bytes,
        sink: PeerSink,
        clock: Clock,
        address_list: Callable[[], bytes],
        account: Account,
        *,
        date: int,
        now: float,
    ) -> None:
        self.own = own
        self.public_key = public_key
        self.id = short_id(public_key)
        self.path = Path()
        self.outbox: list[Train] = []
        self.elsewhere: list[tuple[Train, UdpAddress]] = []
        """To be sent to other addresses than the one in use."""
        self.channel: Channel | None = None
        self._sink = sink
        self._clock = clock
        self._address_list = address_list
        self._date = date
        self._peer_date = 0
        self._lane = make_lane()
        self._peer_list_version = 0
        self._channel_key = KeyPair.generate()
        self._channel_date = int(clock.now())
        self._queries: dict[bytes, _OutQuery] = {}
        self.answers = AnswerCache(account)
        self.partial = PartialMessages(account)
        self.last_received: float | None = None
        """Last authenticated datagram of the peer's present life."""
        self.last_used = now
        self._silent_since: float | None = None
        """First sending since the last reception."""
        self._last_reinit = float("-inf")
        self._confirm_due = float("inf")
        self._nop_due = float("inf")
        self._root_tokens = ROOT_BURST
        self._root_time = now

    # What the layers above ask.

    @property
    def ready(self) -> bool:
        """The channel is up both ways, to a proven address: bulk data may flow."""
        return self.channel is not None and self.channel.ready and self.path.proven

    @property
    def busy(self) -> bool:
        return bool(self._queries) or self.answers.pending > 0

    def query(self, query_id: bytes, data: bytes, on_answer: Callable[[bytes], None], now: float) -> None:
        """Send an ADNL query, again and again until it is answered or cancelled. Raises UsageError: too long."""
        message = wire.pack_message(wire.Query(query_id, data))
        if len(message) > wire.MAX_WHOLE:
            raise UsageError(f"an ADNL query of {len(data)} bytes is too long; use RLDP")
        self._queries[query_id] = _OutQuery(message, on_answer, now + QUERY_FIRST)
        self.send(message, now)

    def cancel(self, query_id: bytes) -> None:
        self._queries.pop(query_id, None)

    def answer(self, query_id: bytes, data: bytes | None, now: float) -> None:
        """The handler's answer to a query; None and answers that do not fit into ADNL stay silent."""
        if data is None or len(data) > wire.MAX_WHOLE - 64:
            self.answers.finish(query_id, b"", now)
            return
        message = wire.pack_message(wire.Answer(query_id, data))
        self.answers.finish(query_id, message, now)
        self.send(message, now)

    def refuse(self, query_id: bytes) -> None:
        """No time for this query now; when it comes again it counts as new."""
        self.answers.forget(query_id)

    def send_custom(self, data: bytes, now: float) -> None:
        """Send an adnl.message.custom."""
        if not self.ready or len(data) > MAX_CUSTOM:
            self.send(wire.pack_message(wire.Custom(data)), now)
            return
        sealed = self._lane.seal_custom(data, noise(1))
        self.outbox.append(Train(sealed, len(sealed)))
        self._after_sending(now)

    def send_symbols(self, symbols: Symbols, now: float) -> None:
        """Send symbols of an RLDP part; the hot path of bulk data."""
        if not self.ready:
            for message in symbols.messages():
                self.send(wire.pack_message(wire.Custom(message)), now)
            return
        head, source, offset, first, count = symbols
        train = self._lane.seal_parts(head, source, offset, first, count, noise(count))
        self.outbox.append(Train(train, PART_DATAGRAM))
        self._after_sending(now)

    def _after_sending(self, now: float) -> None:
        """Something went through the channel."""
        if self._silent_since is None:
            self._silent_since = now
        elif now - self._silent_since > REINIT_AFTER and now - self._last_reinit > REINIT_EVERY:
            self._reinit(now)
        self._nop_due = float("inf")

    def watch(self, sink: Sink) -> None:
        """Let symbols that come through the channel go straight into this sink (if there are not too many)."""
        self._lane.watch(sink)

    def unwatch(self, sink: Sink) -> None:
        self._lane.unwatch(sink)

    def send(self, message: bytes, now: float) -> None:
        """Send one boxed message, cut into parts if it is long."""
        if len(message) <= (wire.MAX_MESSAGE if self.ready else MAX_ROOT_MESSAGE):
            self._send_packet(message, now)
            return
        digest = sha256(message).digest()
        for offset in range(0, len(message), wire.PART_SIZE):
            chunk = message[offset : offset + wire.PART_SIZE]
            self._send_packet(wire.pack_message(wire.Part(digest, len(message), offset, chunk)), now)

    def _send_packet(self, message: bytes, now: float) -> None:
        if self._silent_since is None:
            self._silent_since = now
        channel = self.channel
        if channel is None or not self.ready:
            self._send_root([message], now)
            return
        if now - self._silent_since > REINIT_AFTER and now - self._last_reinit > REINIT_EVERY:
            self._reinit(now)
        self._nop_due = float("inf")
        seqno = self._lane.next_seqno()
        plain = wire.build_contents([message], seqno=seqno, confirm_seqno=self._lane.in_seqno)
        self._post(channel.seal(plain))

    def _post(self, datagram: bytes) -> None:
        self.outbox.append(Train(datagram, len(datagram)))

    def _reinit(self, now: float) -> None:
        """Nothing comes back through the channel: perhaps the peer lost it. Knock at the front door."""
        self._last_reinit = now
        self._send_root([wire.pack_message(wire.Nop())], now, announce=True)

    def _send_root(self, messages: list[bytes], now: float, *, announce: bool = False) -> None:
        self._root_tokens = min(ROOT_BURST, self._root_tokens + (now - self._root_time) * ROOT_RATE)
        self._root_time = now
        if self._root_tokens < 1:
            return  # C++ would drop it and count it against our IP (reference 2.7)
        silent = self._silent_since
        unheard = self.last_received is None and silent is not None and now - silent > REINIT_AFTER
        if unheard and now - self._last_reinit > REINIT_AFTER:
            # An earlier life of ours may have used this date (a restart within one second): take a later one.
            self._last_reinit = now
            self._date = max(self._date + 1, int(self._clock.now()))
        channel = self.channel
        first: wire.Message
        if channel is None or announce or channel.ready:
            first = wire.CreateChannel(self._channel_key.public_key, self._channel_date)
        else:
            first = wire.ConfirmChannel(self._channel_key.public_key, channel.peer_public, self._channel_date)
        seqno = self._lane.next_seqno()
        plain = wire.build_contents(
            [wire.pack_message(first), *messages],
            seqno=seqno,
            confirm_seqno=self._lane.in_seqno,
            from_key=self.own.public_key,
            address=self._address_list(),
            address_version=self._peer_list_version,
            dates=(self._date, self._peer_date),
            sign=self.own,
        )
        datagram = wire.seal_root(self.public_key, self.id, plain)
        if not self.path.spend(len(datagram)):
            return
        self._root_tokens -= 1
        self.path.key_sent()
        self._post(datagram)
        self._confirm_due = self._nop_due = float("inf")

    # What arrives.

    def receive_train(
        self, buffer: bytearray, at: int, end: int, step: int, source: UdpAddress, now: float
    ) -> tuple[int, int]:
        """Datagrams of `step` bytes each (the last may be shorter) between `at` and `end` of `buffer`, of which the
        first begins with our inbound channel id. Returns where one does not any more, and how many were bad."""
        channel, lane, bad = self.channel, self._lane, 0
        while at < end and channel is not None and channel is self.channel:
            opened = lane.open(buffer, at, end, step, noise(4))
            size, at = opened.next - at, opened.next
            bad += opened.bad
            if opened.accepted:
                self._heard_channel(channel, source, size, now)
                self._nop_due = min(self._nop_due, now + KEEPALIVE)
            if opened.kind is Kind.STRAY:
                break
            try:
                if opened.sealed:
                    self.outbox.append(Train(opened.sealed, CONFIRM_DATAGRAM))
                    self._after_sending(now)
                if opened.touched or opened.acks:
                    self._sink.on_opened(self, opened, now)
                if opened.kind is Kind.CUSTOM:
                    self._sink.on_custom(self, opened.data, now)
                elif opened.kind is Kind.PLAIN:
                    self._receive_unusual(channel, opened.data, source, now)
            except BadPacket:
                bad += 1
        return at, bad

    def _receive_unusual(self, channel: Channel, plain: bytes, source: UdpAddress, now: float) -> None:
        contents = wire.parse_contents(plain)
        before = self._lane.in_seqno
        if not self._accept_seqnos(contents.seqno, contents.confirm_seqno):
            return
        self._heard_channel(channel, source, len(plain), now)
        if self._lane.in_seqno - before > JUMP:
            self._nop_due = min(self._nop_due, now + CONFIRM_DELAY)
        for message in contents.messages:
            self._deliver(message, now)

    def receive_root(self, contents: wire.PacketContents, size: int, source: UdpAddress, now: float) -> None:
        """A root packet of `size` bytes, decrypted and parsed, whose sender is this peer. Raises BadPacket for a bad
        signature."""
        wire.check_signature(contents, self.public_key)
        if contents.reinit_date is None or contents.dst_reinit_date is None:
            raise BadPacket("root packet without dates")
        if not self._accept_dates(contents.reinit_date, contents.dst_reinit_date, size, source, now):
            return
        if (contents.confirm_seqno or 0) > max(self._lane.out_seqno, self._lane.promised):
            # tonutils-storage that never learned our date confirms what an earlier life of ours sent (rule 6); without
            # a hint it goes on like that until it gives us up.
            self._tell_our_date(size, source, now)
            return
        if not self._accept_seqnos(contents.seqno, contents.confirm_seqno):
            return
        self._heard(source, size, now)
        if contents.address is not None:
            self._peer_list_version = max(self._peer_list_version, contents.address.version)
        for message in contents.messages:
            self._deliver(message, now)
        if self.channel is not None and self.channel.ready:
            self._check_path(self.channel, source, now)

    def _accept_dates(self, date: int, dst_date: int, size: int, source: UdpAddress, now: float) -> bool:
        """Rules 1-4 of reference 2.4."""
        if dst_date > self._date or date > self._clock.now() + FUTURE:
            return False
        if date > self._peer_date:
            if self._peer_date:
                self._reset(now)
            self._peer_date = date
        elif 0 < date < self._peer_date:
            return False
        if 0 < dst_date < self._date:
            # It talks to an earlier life of ours. Only a first address is believed: this packet may be old.
            self._tell_our_date(size, source, now)
            return False
        return True

    def _tell_our_date(self, size: int, source: UdpAddress, now: float) -> None:
        """The peer means an earlier life of ours: a root packet shows it the present one."""
        if self.path.address is None or self.path.address == source:
            self.path.heard(source, size, up=True)
        if now - self._last_reinit > 0.3:
            self._last_reinit = now
            self._send_root([wire.pack_message(wire.Nop())], now)

    def _accept_seqnos(self, seqno: int | None, confirm: int | None) -> bool:
        """Rules 5 and 6: not seen before, and no confirmation of what we never sent."""
        return seqno is not None and confirm is not None and self._lane.accept(seqno, confirm)

    def _heard(self, source: UdpAddress, size: int, now: float) -> None:
        self.last_received = self.last_used = now
        self._silent_since = None
        before = self.path.address
        if source == before and self.path.proven:
            return
        self.path.heard(source, size, self.channel is not None and self.channel.ready)
        if before is not None and before != self.path.address:
            self.elsewhere += [(train, before) for train in self.outbox]
            self.outbox = []

    def _heard_channel(self, channel: Channel, source: UdpAddress, size: int, now: float) -> None:
        """Something good came through the channel. That the peer has our key speaks for the address that the key went
        to, not for the one of this packet."""
        self._mark_ready(channel, now)
        self._heard(source, size, now)
        self._check_path(channel, source, now)

    def _check_path(self, channel: Channel, source: UdpAddress, now: float) -> None:
        """Move to another address, or prove the present one, if the peer shows that it is there."""
        if source == self.path.address and self.path.proven:
            return
        lane, waiting = self._lane, not self.path.proven
        number = self.path.challenge(source, lane.confirmed, lane.out_seqno, now)
        if number:
            lane.promised = max(lane.promised, number)
            nop = wire.pack_message(wire.Nop())
            datagram = channel.seal(wire.build_contents([nop], seqno=number, confirm_seqno=lane.in_seqno))
            self.elsewhere.append((Train(datagram, len(datagram)), source))
        elif waiting and self.path.proven:
            self._sink.on_ready(self, now)

    def _reset(self, now: float) -> None:
        """The peer began anew: forget channel, counters and halves of messages (rule 2)."""
        if self.channel is not None:
            self._sink.on_channel(self, self.channel.in_id, None)
        self.channel = None
        self._lane.reset()
        self.path.forget_key()
        self._peer_list_version = 0
        self.partial.clear()
        # A fresh key, so that datagrams recorded in the old life mean nothing in the new one.
        self._channel_key = KeyPair.generate()
        self._channel_date = max(self._channel_date + 1, int(self._clock.now()))
        self._root_tokens = ROOT_BURST
        for query in self._queries.values():
            query.next_send = now
        self._sink.on_reset(self, now)

    def _mark_ready(self, channel: Channel, now: float) -> None:
        if not channel.ready:
            channel.ready = True
            self.path.key_used()
            if self.ready:
                self._sink.on_ready(self, now)
            self._nop_due = min(self._nop_due, now + CONFIRM_DELAY)  # anything through the channel readies the peer

    def _open_channel(self, key: bytes, date: int, now: float) -> Channel:
        """Rules of 2.5: the same key changes nothing, another one needs a later date."""
        old = self.channel
        if old is not None and (old.peer_public == key or date <= old.peer_date):
            return old
        channel = Channel(self._channel_key, key, date, self.own.short_id, self.id)
        self.channel = channel
        self._lane.set_channel(channel.in_id, channel.in_key, channel.out_id, channel.out_key)
        self._sink.on_channel(self, old.in_id if old is not None else None, channel.in_id)
        self._confirm_due = now + CONFIRM_DELAY
        return channel

    def _deliver(self, message: wire.Message, now: float) -> None:
        match message:
            case wire.Custom(data):
                self._nop_due = min(self._nop_due, now + KEEPALIVE)
                self._sink.on_custom(self, data, now)
            case wire.Query(query_id, data):
                self._nop_due = min(self._nop_due, now + KEEPALIVE)
                self._on_query(query_id, data, now)
            case wire.Answer(query_id, data):
                self._nop_due = min(self._nop_due, now + KEEPALIVE)
                query = self._queries.pop(query_id, None)
                if query is not None:
                    query.on_answer(data)
            case wire.CreateChannel(key, date):
                channel = self._open_channel(key, date, now)
                if not channel.ready:
                    self._confirm_due = min(self._confirm_due, now + CONFIRM_DELAY)
            case wire.ConfirmChannel(key, peer_key, date):
                if peer_key == self._channel_key.public_key:
                    channel = self._open_channel(key, date, now)
                    if channel.peer_public == key:
                        self._mark_ready(channel, now)
            case wire.Part():
                whole = self.partial.add(message, now)
                if whole is not None:
                    self._deliver(whole, now)
            case wire.Reinit(date):
                if self._peer_date < date <= self._clock.now() + FUTURE:
                    self._reset(now)
                    self._peer_date = date
            case wire.Ping(value):
                self.send(wire.pack_message(wire.Pong(value)), now)
            case wire.Nop() | wire.Pong():
                pass

    def _on_query(self, query_id: bytes, data: bytes, now: float) -> None:
        seen, message = self.answers.known(query_id)
        if message:
            self.send(message, now)
        elif not seen and self.answers.begin(query_id, now):
            self._sink.on_query(self, query_id, data, now)

    # Time.

    def next_deadline(self) -> float:
        """When `on_timer` has something to do; infinity if never."""
        deadline = min(self._confirm_due, self._nop_due)
        for query in self._queries.values():
            if query.next_send < deadline:
                deadline = query.next_send
        return deadline

    def on_timer(self, now: float) -> None:
        for query in self._queries.values():
            if query.next_send <= now:
                query.next_send = now + QUERY_EVERY
                self.send(query.message, now)
        if self._confirm_due <= now or self._nop_due <= now:
            self._confirm_due = self._nop_due = float("inf")
            silent = self._silent_since
            self._send_packet(wire.pack_message(wire.Nop()), now)
            self._silent_since = silent  # nobody answers a nop
