"""RLDP2 between two identities: queries, answers and what arrives, on top of `adnl.message.custom` (reference 3). What
leaves is `rldp_sender`'s.

A pure state machine: a `Port` takes what is to be sent, times are passed in. Bounds: an unexpected transfer has at most
64 KiB, answers at most what the query allowed, at most `MAX_INBOUND` transfers open per peer; all that a peer makes us
hold is in its account or within a `Budget`.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from ..clock import Clock
from ..errors import BadPacket, UsageError
from . import rldp2, tl
from .lane import SYMBOL, Opened, Sink
from .memory_pool import Account
from .rldp2 import PartReceiver, PartSender
from .rldp_sender import Port, Sender
from .rldp_transfer import NEVER, Budget, Inbound, RldpQuery, Waiting, answer_id, room_of
from .upload import Turns

MAX_UNEXPECTED: Final = 64 * 1024
MAX_QUERY: Final = 7680
"""C++ ignores longer unexpected transfers; queries of ours never are (reference 3.3)."""
MAX_INBOUND: Final = 64
"""Unexpected transfers of one peer that may be open, and queries of it that may be worked on."""
MAX_INBOUND_BYTES: Final = 512 * 1024
INBOUND_LIFE: Final = 10.0
DONE_LIFE: Final = 35.0
DONE_MAX: Final = 16384
DONE_COST: Final = 550
"""Bytes that the note of a finished transfer takes."""
ANSWER_LIFE: Final = 60.0
CONFIRM_DELAY: Final = 0.002
"""Seconds until few symbols are confirmed, and a query of which no answer came yet."""
FLOW_DELAY: Final = 0.008
FLOW_SHARE: Final = 1 / 8
"""The same while many come in a row, at most this share of the round trip: the next ones make it full sooner."""
COMPLETE_EVERY: Final = 0.01
NUDGE_AFTER: Final = 1.5
"""Seconds of silence of a peer that has our query, after which it is asked whether it still lives."""
NUDGE_UNTIL: Final = 12.0
"""Peers remember finished transfers for 15 s or more; later a nudge would be taken for a new query."""
SLACK: Final = 48
"""An `rldp.answer` is so much longer than its data; Go compares the whole with the allowed length (reference 3.2)."""


class RldpLink:
    """All RLDP2 traffic of one pair. Call `flush` after every batch of what arrived."""

    def __init__(
        self,
        port: Port,
        on_query: Callable[[RldpQuery, float], None],
        clock: Clock,
        account: Account,
        queries: Budget,
        answers: Budget,
        turns: Turns | None = None,
    ) -> None:
        """`queries`: for those that handlers work on. `turns`: when answers may leave, if their rate is limited."""
        self._port = port
        self._send = port.send_custom
        self._on_query = on_query
        self._clock = clock
        self._account = account
        self._query_budget = queries
        self.out = Sender(port, answers, turns)
        self._in: dict[bytes, Inbound] = {}
        self._done: OrderedDict[bytes, list[float]] = OrderedDict()
        self._waiting: dict[bytes, Waiting] = {}
        self._sinks: dict[Sink, tuple[Inbound, PartReceiver]] = {}
        self._unconfirmed: dict[Sink, float] = {}
        """Sinks with symbols to be confirmed, and when."""
        self._flows_until = 0.0
        self._completes: dict[bytes, int] = {}
        """Queries that arrived whole: `complete` waits a moment for the answer, which says the same."""
        self._complete_at = NEVER
        self._sweep_at = NEVER
        self._heard = 0.0
        self._unexpected = 0
        self._unexpected_bytes = 0
        self._answering = 0

    @property
    def busy(self) -> bool:
        return bool(self.out.transfers or self._waiting or self._answering)

    # Queries and answers.

    def query(
        self, data: bytes, max_answer: int, timeout: float, on_answer: Callable[[bytes], None], now: float
    ) -> bytes:
        """Send a query; returns its transfer id for `cancel`. Raises UsageError when it is too long."""
        transfer_id, query_id = os.urandom(32), os.urandom(32)
        writer = tl.Writer(tl.RLDP_QUERY).int256(query_id).i64(max_answer + SLACK)
        message = writer.i32(int(self._clock.now() + timeout) + 1).bytes_(data).done()
        if len(message) > MAX_QUERY:
            raise UsageError(f"an RLDP query of {len(data)} bytes is too long: peers ignore it")
        waiting = Waiting(query_id, message, max_answer, now, now + timeout, on_answer)
        self._waiting[answer_id(transfer_id)] = waiting
        self._start(transfer_id, message, now + timeout, now)
        return transfer_id

    def cancel(self, transfer_id: bytes, now: float) -> None:
        """Forget a query. An answer that still comes is told that it is complete, so that its sender stops."""
        back = answer_id(transfer_id)
        if self._waiting.pop(back, None) is not None:
            self._drop_inbound(back)
            self._remember(back, now)
        self.out.drop(transfer_id)

    def answer(self, query: RldpQuery, data: bytes | None, now: float) -> None:
        """The handler's answer; None, and an answer that is longer than the query allows, stay silent."""
        self._answering -= 1
        self._query_budget.give(len(query.data))
        if data is None or len(data) > query.max_answer or now >= query.deadline:
            return
        if not self.out.take_room(len(data)):
            return
        message = tl.Writer(tl.RLDP_ANSWER).int256(query.query_id).bytes_(data).done()
        begun = self._start(answer_id(query.transfer_id), message, query.deadline, now, held=len(data))
        part = self._completes.pop(query.transfer_id, None)
        if part is not None and not begun:
            self._send(rldp2.pack_complete(query.transfer_id, part), now)
        if not self._completes:
            self._complete_at = NEVER

    def _start(self, transfer_id: bytes, message: bytes, deadline: float, now: float, held: int = 0) -> bool:
        """See `Sender.start`."""
        self._sweep_at = min(self._sweep_at, now + 1)
        return self.out.start(transfer_id, message, deadline, now, held)

    def on_reset(self, now: float) -> None:
        """The peer began a new life: what was half way is void, unanswered queries go out again."""
        for transfer_id in list(self._in):
            self._drop_inbound(transfer_id)
        self.out.reset()
        for back, waiting in self._waiting.items():
            self._start(answer_id(back), waiting.message, waiting.deadline, now)

    def close(self) -> None:
        """Give everything back; the link is not used any more."""
        self.shed()
        for transfer_id in list(self._in):
            self._drop_inbound(transfer_id)
        self.out.reset()

    def shed(self) -> None:
        """Drop what the peer makes us hold without our asking."""
        for transfer_id in [t for t, inbound in self._in.items() if not inbound.expected]:
            self._drop_inbound(transfer_id)
        self._account.give(DONE_COST * len(self._done))
        self._done.clear()

    # What arrives.

    def on_custom(self, data: bytes, now: float) -> None:
        """A custom message. Raises BadPacket for a malformed RLDP2 object; others are ignored."""
        self._heard = now
        message = rldp2.parse(data)
        if isinstance(message, rldp2.MessagePart):
            self._on_part(message, rldp2.part_key(data), now)
        elif isinstance(message, rldp2.Confirm):
            self.out.on_confirm(message, now)
        elif message is not None:
            self.out.on_complete(message, now)

    def on_opened(self, opened: Opened, now: float) -> None:
        """Symbols went straight into sinks of ours, or the peer confirmed ours. Raises BadPacket: rubbish."""
        self._heard = now
        for ack in opened.acks:
            self.out.on_confirm(rldp2.parse_confirm(ack), now)
        if opened.sealed:
            self._flows_until = now + FLOW_DELAY * 4
        for sink in opened.touched:
            if opened.sealed or not sink.unconfirmed:
                self._unconfirmed.pop(sink, None)
            if sink.unconfirmed:
                self._confirm_soon(sink, now)
        if opened.done is not None and opened.done in self._sinks:
            inbound, receiver = self._sinks[opened.done]
            receiver.decoder.settle()
            self._after_symbol(inbound, receiver, now)

    def _confirm_soon(self, sink: Sink, now: float) -> None:
        delay = CONFIRM_DELAY
        if now < self._flows_until:
            delay = max(delay, min(FLOW_DELAY, self.out.congestion.srtt * FLOW_SHARE))
        self._unconfirmed.setdefault(sink, now + delay)

    def _on_part(self, message: rldp2.MessagePart, key: bytes, now: float) -> None:
        transfer_id = message.transfer_id
        inbound = self._in.get(transfer_id)
        if inbound is None:
            if transfer_id in self._done:
                self._repeat_complete(transfer_id, message.part, now)
                return
            inbound = self._open(message, now)
            if inbound is None:
                return
        if message.total_size != inbound.total:
            raise BadPacket("RLDP transfer changes its size")
        receiver = inbound.part(message, key)
        if receiver is None:
            if message.part < len(inbound.whole):
                self._send(rldp2.pack_complete(transfer_id, message.part), now)
            return
        if receiver.sink not in self._sinks and receiver.decoder.k > 1:
            self._sinks[receiver.sink] = (inbound, receiver)
            self._port.watch(receiver.sink)
        at_once = receiver.receive(message.seqno, message.symbol)
        if at_once and receiver.decoder.data is None:
            self._unconfirmed.pop(receiver.sink, None)
            self._send(receiver.sink.confirm(), now)
        elif receiver.decoder.data is None:
            self._confirm_soon(receiver.sink, now)
        self._after_symbol(inbound, receiver, now)

    def _after_symbol(self, inbound: Inbound, receiver: PartReceiver, now: float) -> None:
        decoder, transfer_id = receiver.decoder, inbound.transfer_id
        if decoder.data is None:
            if decoder.hopeless:
                self._drop_inbound(transfer_id)
                raise BadPacket("RLDP part cannot be decoded")
            return
        self._forget_sink(receiver)
        whole = inbound.advance()
        if inbound.expected or whole is None:
            self._send(rldp2.pack_complete(transfer_id, receiver.number), now)
        else:
            self._completes[transfer_id] = receiver.number
            self._complete_at = min(self._complete_at, now + CONFIRM_DELAY)
        if whole is not None:
            self._drop_inbound(transfer_id)
            self._remember(transfer_id, now)
            self._on_whole(inbound, whole, now)

    def _forget_sink(self, receiver: PartReceiver) -> None:
        self._unconfirmed.pop(receiver.sink, None)
        if self._sinks.pop(receiver.sink, None) is not None:
            self._port.unwatch(receiver.sink)

    def _open(self, message: rldp2.MessagePart, now: float) -> Inbound | None:
        transfer_id, total = message.transfer_id, message.total_size
        waiting = self._waiting.get(transfer_id)
        if waiting is not None:
            if total > waiting.max_answer + SLACK:
                return None
            self.out.drop(answer_id(transfer_id))  # the answer begins: the query has arrived
            inbound = Inbound(transfer_id, total, waiting.deadline, expected=True)
        else:
            crowded = self._unexpected >= MAX_INBOUND or self._answering >= MAX_INBOUND
            crowded = crowded or self._unexpected_bytes + total > MAX_INBOUND_BYTES
            single = message.part == 0 and message.data_size == total  # parts are 2,000,000 bytes long
            if total > MAX_UNEXPECTED or crowded or not single:
                return None
            held = room_of(total)
            if not self._account.take(held):
                if total > SYMBOL or message.seqno:
                    return None
                held = 0  # whole with this symbol, so nothing is kept
            self._unexpected += 1
            self._unexpected_bytes += total
            inbound = Inbound(transfer_id, total, now + INBOUND_LIFE, expected=False, held=held)
        self._in[transfer_id] = inbound
        self._sweep_at = min(self._sweep_at, now + 1)
        return inbound

    def _on_whole(self, inbound: Inbound, whole: bytes | memoryview, now: float) -> None:
        reader = tl.Reader(whole)
        tag = reader.u32()
        if inbound.expected:
            waiting = self._waiting.get(inbound.transfer_id)
            if tag != tl.RLDP_ANSWER or waiting is None or reader.int256() != waiting.query_id:
                raise BadPacket("not the answer to our RLDP query")
            data = reader.bytes_(waiting.max_answer)
            reader.end()
            del self._waiting[inbound.transfer_id]
            waiting.on_answer(data)
        elif tag == tl.RLDP_QUERY:
            query_id, max_answer, until = reader.int256(), reader.i64(), reader.i32()
            data = reader.bytes_(MAX_UNEXPECTED)
            reader.end()
            if not self._query_budget.take(len(data)):
                return
            life = min(ANSWER_LIFE, max(1.0, until - self._clock.now()))
            self._answering += 1
            self._on_query(RldpQuery(inbound.transfer_id, query_id, max_answer, now + life, data), now)

    def _repeat_complete(self, transfer_id: bytes, part: int, now: float) -> None:
        entry = self._done[transfer_id]
        if now - entry[1] >= COMPLETE_EVERY:
            entry[1] = now
            self._send(rldp2.pack_complete(transfer_id, part), now)

    def _remember(self, transfer_id: bytes, now: float) -> None:
        while self._done and (len(self._done) >= DONE_MAX or next(iter(self._done.values()))[0] < now):
            self._done.popitem(last=False)
            self._account.give(DONE_COST)
        if self._account.take(DONE_COST):
            self._done[transfer_id] = [now + DONE_LIFE, now]

    def _drop_inbound(self, transfer_id: bytes) -> None:
        inbound = self._in.pop(transfer_id, None)
        if inbound is None:
            return
        for receiver in inbound.parts.values():
            self._forget_sink(receiver)
        if not inbound.expected:
            self._unexpected -= 1
            self._unexpected_bytes -= inbound.total
            self._account.give(inbound.held)

    # Time.

    def flush(self, now: float) -> None:
        """Send what the confirmations that came made room for, all at once."""
        self.out.flush(now)

    def pump(self, now: float) -> None:
        """The channel is up: send what had to wait."""
        self.out.pump(now)

    def next_deadline(self) -> float:
        """When `on_timer` has something to do; infinity if never."""
        confirm_at = min(self._unconfirmed.values(), default=NEVER)
        return min(confirm_at, self._complete_at, self._sweep_at, self.out.next_deadline())

    def on_timer(self, now: float) -> None:
        for sink in [sink for sink, due in self._unconfirmed.items() if due <= now]:
            del self._unconfirmed[sink]
            self._send(sink.confirm(), now)
        if self._complete_at <= now:
            self._complete_at = NEVER
            for transfer_id, part in self._completes.items():
                self._send(rldp2.pack_complete(transfer_id, part), now)
            self._completes.clear()
        self.out.on_timer(now, self._heard)
        if self._sweep_at <= now:
            self._sweep(now)

    def _sweep(self, now: float) -> None:
        for transfer_id in [t for t, inbound in self._in.items() if inbound.deadline <= now]:
            self._drop_inbound(transfer_id)
        self.out.sweep(now, self._heard)
        for back, waiting in self._waiting.items():
            query, quiet = answer_id(back), now - max(self._heard, waiting.started)
            if quiet > NUDGE_AFTER and now - waiting.started < NUDGE_UNTIL and query not in self.out.transfers:
                # A living peer says `complete` to this; one that restarted has neither our channel nor the query.
                sender = PartSender(query, 0, len(waiting.message), waiting.message)
                self._port.send_symbols(sender.repeat(0), now)
        self._sweep_at = now + 1 if self._in or self.out.transfers or self._waiting else NEVER
        self.out.pump(now)
