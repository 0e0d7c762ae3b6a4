"""The sending side of RLDP2 between two identities: many transfers, one congestion window (reference protocol 3.5).

Pure: a `Port` takes what is to be sent, times are passed in. Answers on their way are within a `Budget`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Protocol

from . import rldp2
from .congestion import Congestion
from .lane import Sink
from .rldp2 import Symbols
from .rldp_transfer import NEVER, Budget, Outbound
from .upload import Turns

MAX_ANSWERS: Final = 96 << 20
"""Bytes of answers on their way to one peer (a single larger one is let through)."""
BURST: Final = 64
"""Symbols of one transfer that leave together: what one segmented sending carries."""
LONG: Final = 512
"""Symbols of a part that must let others in between; a shorter one is sent to its end, and is complete the sooner."""
UNREADY: Final = 2
"""Symbols in flight before the channel is up: each costs a root packet."""
DEAD_AFTER: Final = 10.0
"""Seconds without any news of an answer under way: whoever asked is gone."""


class Port(Protocol):
    """The ADNL side of a link."""

    @property
    def ready(self) -> bool:
        """Bulk may flow."""
        ...

    def send_custom(self, data: bytes, now: float) -> None: ...

    def send_symbols(self, symbols: Symbols, now: float) -> None: ...

    def watch(self, sink: Sink) -> None:
        """Symbols for this sink may be put into it without asking us; `on_opened` tells us."""
        ...

    def unwatch(self, sink: Sink) -> None: ...


class Sender:
    """All transfers to one peer. Call `flush` after every batch of what arrived."""

    def __init__(self, port: Port, answers: Budget, turns: Turns | None) -> None:
        """`turns`: when answers may leave, if their rate is limited."""
        self._port = port
        self._answer_budget = answers
        self._turns = turns
        self._turn_at = NEVER
        """When answers may go on."""
        self.congestion = Congestion()
        self.transfers: OrderedDict[bytes, Outbound] = OrderedDict()
        """Not to be changed from outside."""
        self._hungry: OrderedDict[bytes, Outbound] = OrderedDict()
        """Those that want to send now, next one first."""
        self._hurry = False
        """Confirmations came: `flush` should look what may be sent."""
        self._prompt = False
        """The peer says `complete` by itself (Go and we do, C++ does not)."""
        self._answer_bytes = 0

    def take_room(self, size: int) -> bool:
        """Whether an answer of so many bytes may begin its way; `start` must follow then, with `held`."""
        if self._answer_bytes > 0 and self._answer_bytes + size > MAX_ANSWERS:
            return False
        if not self._answer_budget.take(size):
            return False
        self._answer_bytes += size
        return True

    def start(self, transfer_id: bytes, message: bytes, deadline: float, now: float, held: int) -> bool:
        """Send this message; False while others come first. `held`: bytes of an answer that `take_room` was asked for;
        0 for a query."""
        outbound = Outbound(transfer_id, message, deadline, held, now)
        self.transfers[transfer_id] = self._hungry[transfer_id] = outbound
        self.pump(now)
        return outbound.part.next_esi > 0

    def drop(self, transfer_id: bytes) -> None:
        outbound = self.transfers.pop(transfer_id, None)
        if outbound is None:
            return
        self._hungry.pop(transfer_id, None)
        self.congestion.on_forgotten(outbound.part.in_flight)
        self._answer_bytes -= outbound.held
        self._answer_budget.give(outbound.held)

    def reset(self) -> None:
        """Drop everything; the path is unknown again."""
        for transfer_id in list(self.transfers):
            self.drop(transfer_id)
        self.congestion = Congestion()

    # News.

    def on_confirm(self, message: rldp2.Confirm, now: float) -> None:
        outbound = self.transfers.get(message.transfer_id)
        if outbound is None or outbound.part.number != message.part:
            return
        settled, arrived = outbound.part.on_confirm(message.max_seqno, message.received)
        if settled or arrived:
            outbound.backoff = 0
            outbound.heard = now
            if not outbound.tail:
                outbound.probe_at = now + self.congestion.timeout
            sent = outbound.record_of(outbound.part.acked) if settled else None
            self.congestion.on_settled(settled, arrived, sent, now)
            if outbound.part.wanted(self.congestion.loss) > 0:
                self._hungry.setdefault(message.transfer_id, outbound)
        self._hurry = True

    def on_complete(self, message: rldp2.Complete, now: float) -> None:
        outbound = self.transfers.get(message.transfer_id)
        if outbound is None or outbound.part.number != message.part:
            return
        part = outbound.part
        flying = part.in_flight
        if outbound.tail:
            self._prompt = True
        # With repair symbols under way nobody knows which symbol completed the part: no sample of the path then.
        sent = outbound.record_of(part.next_esi) if part.next_esi == part.source.k else None
        self.congestion.on_settled(flying, flying, sent, now)
        part.acked = part.next_esi
        outbound.heard = now
        if outbound.next_part():
            self._hungry.setdefault(message.transfer_id, outbound)
        else:
            self.drop(message.transfer_id)
        self._hurry = True

    def flush(self, now: float) -> None:
        """Send what the confirmations that came made room for, all at once."""
        if self._hurry:
            self.pump(now)

    def pump(self, now: float) -> None:
        """Send what the window allows: the oldest transfers first, of long ones a burst in turn."""
        self._hurry = False
        congestion = self.congestion
        room = congestion.room if self._port.ready else UNREADY - congestion.in_flight
        hungry, turns = self._hungry, self._turns
        while hungry and room > 0:
            transfer_id, outbound = next(iter(hungry.items()))
            wanted = outbound.part.wanted(congestion.loss)
            count = min(wanted, BURST, room)
            if turns is not None and outbound.held and count > 0:
                count = min(count, turns.room(now))
                if not count:
                    self._turn_at = turns.at
                    self._pump_queries(room, now)
                    break
            if count > 0:
                self._emit(outbound, count, now)
                room -= count
            if count >= wanted:
                del hungry[transfer_id]
            elif outbound.part.source.k > LONG:
                hungry.move_to_end(transfer_id)
        congestion.app_limited = not hungry or now < self._turn_at < NEVER

    def _pump_queries(self, room: int, now: float) -> None:
        """Our own queries do not wait until answers may go on."""
        for transfer_id, outbound in list(self._hungry.items()):
            wanted = outbound.part.wanted(self.congestion.loss)
            count = min(wanted, BURST, room)
            if outbound.held or count <= 0:
                continue
            self._emit(outbound, count, now)
            room -= count
            if count >= wanted:
                del self._hungry[transfer_id]

    def _emit(self, outbound: Outbound, count: int, now: float) -> None:
        congestion = self.congestion
        part = outbound.part
        if self._turns is not None and outbound.held:
            self._turns.spent(count)
        outbound.records.append((part.next_esi + count, congestion.on_sent(count, now)))
        for symbols in part.emit(count):
            self._port.send_symbols(symbols, now)
        # C++ says `complete` only to a symbol that comes too late, and Go may overlook the last one until another
        # comes: when all is sent, the first probe is early, and cheap.
        outbound.tail = outbound.backoff == 0 and part.next_esi >= part.source.k
        early = outbound.tail and not self._prompt
        outbound.probe_at = now + (congestion.tail if early else congestion.timeout * (1 << outbound.backoff))

    # Time.

    def next_deadline(self) -> float:
        """When `on_timer` has something to do; infinity if never."""
        deadline = self._turn_at
        for outbound in self.transfers.values():
            if outbound.probe_at < deadline:
                deadline = outbound.probe_at
        return deadline

    def on_timer(self, now: float, heard: float) -> None:
        """`heard`: when anything last came from the peer."""
        for outbound in list(self.transfers.values()):
            if outbound.probe_at <= now:
                self._probe(outbound, now, heard)
        if self._turn_at <= now:
            self._turn_at = NEVER
            self.pump(now)

    def _probe(self, outbound: Outbound, now: float, heard: float) -> None:
        """No news of this transfer: one to three more symbols, ever more seldom."""
        part = outbound.part
        if outbound.tail:
            outbound.tail = False
            outbound.probe_at = now + self.congestion.timeout
            self._port.send_symbols(part.repeat_last(), now)
            return
        outbound.backoff = min(outbound.backoff + 1, 5)
        if outbound.backoff >= 2:
            # Two probes without an answer: what was in flight is gone. Only news makes this transfer hungry again.
            self.congestion.on_forgotten(part.in_flight)
            if now - heard > self.congestion.timeout:
                self.congestion.on_outage()  # not of this transfer alone: nothing comes back at all
            part.acked = part.next_esi
            outbound.records.clear()
            self._hungry.pop(outbound.transfer_id, None)
        if part.received >= part.source.k == part.next_esi:  # else it may lack a symbol: some sets of K do not suffice
            outbound.probe_at = now + self.congestion.timeout * (1 << outbound.backoff)
            self._port.send_symbols(part.repeat_last(), now)
        else:
            self._emit(outbound, min(outbound.backoff, 3), now)
        self.pump(now)

    def sweep(self, now: float, heard: float) -> None:
        """Drop what is late or of no interest to anybody any more."""
        for transfer_id, outbound in list(self.transfers.items()):
            waits = outbound.part.number == outbound.part.next_esi == 0  # for its turn: the peer's other news count
            dead = outbound.held > 0 and now - (heard if waits else outbound.heard) > DEAD_AFTER
            if dead or outbound.deadline <= now:
                self.drop(transfer_id)
