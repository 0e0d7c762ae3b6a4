"""All pairs of all identities behind one socket: a state machine without I/O.

Datagrams go in by `receive`, come out of `take_outgoing`; queries for handlers collect in `incoming`. Datagrams
that nobody can use cost one dictionary look-up; root packets, which cost public-key work, are limited per source.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from ..clock import Clock
from ..errors import BadPacket, PeerUnreachable
from ..log import get_logger
from . import adnl_packet as wire
from .address import ANYWHERE, Reach
from .adnl_peer import AdnlPeer
from .api import UdpAddress
from .keys import KeyPair, short_id, x25519_public
from .lane import Opened
from .memory_pool import Account, Pool
from .rldp_link import RldpLink
from .rldp_transfer import Budget, RldpQuery
from .udp import Train
from .upload import Upload

log = get_logger(__name__)

MAX_PAIRS: Final = 4096
MAX_REMOTES: Final = 16384
PAIR_IDLE: Final = 600.0
SWEEP_EVERY: Final = 30.0
ROOT_BURST: Final = 600.0
ROOT_RATE: Final = 200.0
"""Root packets per second and source IP that are decrypted (about 0.15 ms each). All of a devnet is one source."""
ALL_ROOT_BURST: Final = 6000.0
ALL_ROOT_RATE: Final = 2000.0
"""The same for all sources together, whose addresses anybody can invent: a third of a core. Channels do not need it."""
MAX_SOURCES: Final = 4096
TRUST_LEARNED: Final = 10.0
"""An address learned so recently beats the one that a caller gives."""
HELD_BUDGET: Final = 48 << 20
"""Bytes of messages and transfers that arrive, answers for repetitions, and notes: what all peers together may fill."""
QUERY_BUDGET: Final = 16 << 20
"""Bytes of RLDP queries that handlers are at work on."""
ANSWER_BUDGET: Final = 256 << 20
NEVER: Final = float("inf")
UNLIMITED: Final = Upload()


@dataclass
class Stats:
    """Counters since the start."""

    datagrams_in: int = 0
    datagrams_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    stray: int = 0
    """For nobody here."""
    bad: int = 0
    """Malformed, wrong checksum or signature."""
    limited: int = 0
    """Root packets above the limit of their source, or of all sources."""
    outside: int = 0
    """From addresses outside of the configured network."""
    errors: int = 0
    """Our own failures; each is a bug."""
    send_failed: int = 0
    dropped: int = 0
    """On purpose: a rehearsed bad network."""
    queries_in: int = 0
    queries_refused: int = 0


class Pair:
    """One pair's ADNL and RLDP machines; delivers to its hub."""

    def __init__(self, hub: Hub, local: Local, public_key: bytes, now: float) -> None:
        self.hub = hub
        self.local = local
        self.timer_at = NEVER
        date = hub.next_date()
        self.account = account = Account(hub.held, self._shed)
        self.peer = AdnlPeer(local.key, public_key, self, hub.clock, hub.address_list, account, date=date, now=now)
        self.rldp = RldpLink(
            self.peer,
            self._on_rldp_query,
            hub.clock,
            account,
            hub.query_budget,
            hub.answer_budget,
            hub.upload.turns(),
        )

    def _shed(self) -> None:
        self.peer.partial.clear()
        self.peer.answers.clear()
        self.rldp.shed()

    def close(self) -> None:
        """Give everything back; the pair is not used any more."""
        self.rldp.close()
        self.account.shed()

    @property
    def busy(self) -> bool:
        return self.peer.busy or self.rldp.busy

    def next_deadline(self) -> float:
        return min(self.peer.next_deadline(), self.rldp.next_deadline())

    def on_timer(self, now: float) -> None:
        self.peer.on_timer(now)
        self.rldp.on_timer(now)

    # PeerSink.

    def on_query(self, peer: AdnlPeer, query_id: bytes, data: bytes, now: float) -> None:
        def answer(reply: bytes | None, when: float) -> None:
            peer.answer(query_id, reply, when)

        self.hub.incoming.append(Incoming(self, data, False, answer, lambda: peer.refuse(query_id)))

    def _on_rldp_query(self, query: RldpQuery, now: float) -> None:
        def answer(reply: bytes | None, when: float) -> None:
            self.rldp.answer(query, reply, when)

        self.hub.incoming.append(Incoming(self, query.data, True, answer, lambda: answer(None, now)))

    def on_custom(self, peer: AdnlPeer, data: bytes, now: float) -> None:
        self.rldp.on_custom(data, now)

    def on_opened(self, peer: AdnlPeer, opened: Opened, now: float) -> None:
        self.rldp.on_opened(opened, now)

    def on_channel(self, peer: AdnlPeer, old: bytes | None, new: bytes | None) -> None:
        self.hub.move_channel(self, old, new)

    def on_ready(self, peer: AdnlPeer, now: float) -> None:
        self.rldp.pump(now)

    def on_reset(self, peer: AdnlPeer, now: float) -> None:
        self.rldp.on_reset(now)


@dataclass(slots=True)
class Incoming:
    """A query for a handler. Either `answer(reply, now)`, where None means silence, or `refuse()` is called once."""

    pair: Pair
    data: bytes
    by_rldp: bool
    answer: Callable[[bytes | None, float], None]
    refuse: Callable[[], None]


class Remote:
    """A peer that we know by key; its `pair` comes and goes with traffic."""

    __slots__ = ("chosen", "hint", "id", "pair", "public_key")

    def __init__(self, public_key: bytes, hint: UdpAddress | None) -> None:
        self.public_key = public_key
        self.id = short_id(public_key)
        self.hint = hint
        self.chosen = False
        """We called it, or were told to; strangers lose what they hold before it does."""
        self.pair: Pair | None = None

    @property
    def address(self) -> UdpAddress | None:
        return self.pair.peer.path.address if self.pair is not None else self.hint


class Local:
    """One identity of ours."""

    def __init__(self, key: KeyPair) -> None:
        self.key = key
        self.remotes: OrderedDict[bytes, Remote] = OrderedDict()


class Hub:
    """`address_list()` gives our bare adnl.addressList for root packets. Addresses outside of `reach` are neither
    called nor heard; they enter by `remote` and `receive_train` only."""

    def __init__(
        self, clock: Clock, address_list: Callable[[], bytes], reach: Reach = ANYWHERE, upload: Upload = UNLIMITED
    ) -> None:
        self.clock = clock
        self.reach = reach
        self.address_list = address_list
        self.upload = upload
        self.held = Pool(HELD_BUDGET)
        self.query_budget = Budget(QUERY_BUDGET)
        self.answer_budget = Budget(ANSWER_BUDGET)
        self.stats = Stats()
        self.incoming: list[Incoming] = []
        self.round_trip = 0.0
        """Seconds to the peer that was heard last and back; 0: not known."""
        self._locals: dict[bytes, Local] = {}
        self._channels: dict[bytes, Pair] = {}
        self._touched: set[Pair] = set()
        self._timers: list[tuple[float, int, Pair]] = []
        self._timer_count = 0
        self._pairs = 0
        self._sources: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._all_roots = (ALL_ROOT_BURST, 0.0)
        self._sweep_at = NEVER
        self._date = 0
        self._reported = False

    def next_date(self) -> int:
        """A reinit date for a new pair; never goes back, whatever the host's clock does."""
        self._date = max(self._date, int(self.clock.now()))
        return self._date

    def add_identity(self, key: KeyPair) -> Local:
        """Make `key` one of our identities. Adding it again gives the same one."""
        return self._locals.setdefault(key.short_id, Local(key))

    # Peers.

    def remote(self, local: Local, public_key: bytes, address: UdpAddress, now: float) -> Remote:
        """Get or make. The address counts unless the peer showed another one lately.

        Raises BadPacket for a bad key, PeerUnreachable for an address outside of the network.
        """
        if not self.reach.may_call(address):
            raise PeerUnreachable(f"{address[0]} does not belong to the configured network")
        remote = local.remotes.get(short_id(public_key))
        if remote is None:
            x25519_public(public_key)  # a key that is no point must fail here, not when something is sent
            remote = self._add_remote(local, public_key, address)
        remote.hint = address
        remote.chosen = True
        if remote.pair is not None:
            remote.pair.account.choose()
            peer = remote.pair.peer
            silent = peer.last_received is None or now - peer.last_received > TRUST_LEARNED
            if silent or peer.path.address == address:
                peer.path.call_at(address)
        return remote

    def _add_remote(self, local: Local, public_key: bytes, hint: UdpAddress | None) -> Remote:
        while len(local.remotes) >= MAX_REMOTES:
            victim = next((r for r in local.remotes.values() if r.pair is None), None)
            if victim is None:
                break
            del local.remotes[victim.id]
        remote = Remote(public_key, hint)
        local.remotes[remote.id] = remote
        return remote

    def pair_of(self, local: Local, remote: Remote, now: float) -> Pair:
        """The live pair of a remote, made if need be."""
        known = local.remotes.setdefault(remote.id, remote)
        local.remotes.move_to_end(known.id)
        pair = known.pair
        if pair is None:
            if self._pairs >= MAX_PAIRS:
                self._evict(now, 0.0)
            pair = known.pair = Pair(self, local, known.public_key, now)
            if (hint := known.hint or remote.hint) is not None:
                pair.peer.path.call_at(hint)
            if known.chosen or remote.chosen:
                pair.account.choose()
            self._pairs += 1
            self._sweep_at = min(self._sweep_at, now + SWEEP_EVERY)
        pair.peer.last_used = now
        return pair

    def move_channel(self, pair: Pair, old: bytes | None, new: bytes | None) -> None:
        if old is not None:
            self._channels.pop(old, None)
        if new is not None:
            self._channels[new] = pair

    def _evict(self, now: float, idle: float) -> None:
        """Drop pairs that were idle so long; with `idle` 0 the eighth of all idle pairs that slept longest, strangers'
        first."""
        found = [
            (r.pair.account.chosen, r.pair.peer.last_used, n, r)
            for local in self._locals.values()
            for n, r in enumerate(local.remotes.values())
            if r.pair is not None and not r.pair.busy and now - r.pair.peer.last_used >= idle
        ]
        if not idle:
            found.sort(key=lambda item: item[:3])
            del found[max(1, len(found) // 8) :]
        for *_, remote in found:
            pair = remote.pair
            if pair is None:
                continue
            if pair.peer.path.proven:
                remote.hint = pair.peer.path.address
            remote.pair = None
            pair.close()
            if pair.peer.channel is not None:
                self._channels.pop(pair.peer.channel.in_id, None)
            self._touched.discard(pair)
            pair.timer_at = NEVER
            self._pairs -= 1

    # Datagrams.

    def receive(self, datagram: bytes, source: UdpAddress, now: float) -> None:
        """Take one datagram. Never raises."""
        if datagram:
            self.receive_train(bytearray(datagram), len(datagram), len(datagram), source, now)
        else:
            self.stats.datagrams_in += 1
            self.stats.stray += 1

    def receive_train(self, buffer: bytearray, size: int, step: int, source: UdpAddress, now: float) -> None:
        """Take the datagrams of `step` bytes each (the last may be shorter) that are the first `size` bytes of
        `buffer`. Never raises."""
        stats = self.stats
        stats.datagrams_in += -(-size // step)
        stats.bytes_in += size
        if not self.reach.may_answer(source[0]):
            stats.outside += -(-size // step)
            return
        at = 0
        while at < size:
            head = bytes(buffer[at : min(at + 32, size)])
            pair = self._channels.get(head)
            try:
                if pair is not None:
                    self._touched.add(pair)
                    self.round_trip = pair.rldp.out.congestion.srtt
                    before = at
                    at, bad = pair.peer.receive_train(buffer, at, size, step, source, now)
                    stats.bad += bad
                    if at > before:
                        continue
                datagram = bytes(buffer[at : min(at + step, size)])
                at += step
                self._receive_other(head, datagram, source, now)
            except BadPacket:
                stats.bad += 1
            except Exception as exc:
                self._report("a datagram broke the receiver", exc)
                break

    def _receive_other(self, head: bytes, datagram: bytes, source: UdpAddress, now: float) -> None:
        """A datagram of no channel. Raises BadPacket."""
        local = self._locals.get(head)
        if local is None:
            self.stats.stray += 1
        elif self._allow_root(source[0], now):
            self._receive_root(local, datagram, source, now)
        else:
            self.stats.limited += 1

    def _report(self, event: str, exc: Exception) -> None:
        """A failure of ours. Logged once: a stream of such datagrams must not fill the disk."""
        self.stats.errors += 1
        if not self._reported:
            self._reported = True
            log.error(event, exc=exc)

    def _allow_root(self, host: str, now: float) -> bool:
        tokens, then = self._sources.pop(host, (ROOT_BURST, now))
        tokens = min(ROOT_BURST, tokens + (now - then) * ROOT_RATE)
        total, then = self._all_roots
        total = min(ALL_ROOT_BURST, total + (now - then) * ALL_ROOT_RATE)
        allowed = tokens >= 1 and total >= 1
        self._sources[host] = (tokens - 1 if allowed else tokens, now)
        self._all_roots = (total - 1 if allowed else total, now)
        if len(self._sources) > MAX_SOURCES:
            self._sources.popitem(last=False)
        return allowed

    def _receive_root(self, local: Local, datagram: bytes, source: UdpAddress, now: float) -> None:
        contents = wire.parse_contents(wire.open_root(local.key, datagram))
        if contents.from_key is not None:
            peer_id: bytes = short_id(contents.from_key)
        elif contents.from_short is not None:
            peer_id = contents.from_short
        else:
            raise BadPacket("root packet without a sender")
        remote = local.remotes.get(peer_id)
        if remote is None or remote.pair is None:
            public_key = contents.from_key or (remote.public_key if remote is not None else None)
            if public_key is None:
                raise BadPacket("root packet of an unknown sender without its key")
            wire.check_signature(contents, public_key)  # before anything is remembered about it
            if self._pairs >= MAX_PAIRS:
                self._evict(now, 0.0)
                if self._pairs >= MAX_PAIRS:
                    self.stats.limited += 1
                    return
            if remote is None:
                remote = self._add_remote(local, public_key, None)
            pair = self.pair_of(local, remote, now)
        else:
            pair = remote.pair
        self._touched.add(pair)
        pair.peer.receive_root(contents, len(datagram), source, now)

    def touch(self, pair: Pair) -> None:
        """The caller used a pair: look at its outbox and timers at the next `take_outgoing`."""
        self._touched.add(pair)

    def take_outgoing(self, now: float) -> Iterator[tuple[list[Train], UdpAddress]]:
        """Datagrams to send, by address. Call after every batch of `receive`, `on_timer` and use of pairs."""
        while self._touched:
            pair = self._touched.pop()
            pair.rldp.flush(now)
            outbox = pair.peer.outbox
            if outbox:
                pair.peer.outbox = []
                if (address := pair.peer.path.address) is not None:
                    yield outbox, address
            if pair.peer.elsewhere:
                elsewhere, pair.peer.elsewhere = pair.peer.elsewhere, []
                for train, address in elsewhere:
                    yield [train], address
            deadline = pair.next_deadline()
            if deadline != pair.timer_at:
                pair.timer_at = deadline
                if deadline < NEVER:
                    self._timer_count += 1
                    heapq.heappush(self._timers, (deadline, self._timer_count, pair))

    # Time.

    def next_deadline(self) -> float:
        """When `on_timer` should be called; infinity if never."""
        timers = self._timers
        while timers and timers[0][0] != timers[0][2].timer_at:
            heapq.heappop(timers)  # it was put off
        return min(timers[0][0] if timers else NEVER, self._sweep_at)

    def on_timer(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            deadline, _, pair = heapq.heappop(self._timers)
            if deadline != pair.timer_at:
                continue  # another entry of the same pair took over, or the pair is gone
            pair.timer_at = NEVER
            try:
                pair.on_timer(now)
            except Exception as exc:  # one pair must not stop the timers of all
                self._report("a timer failed", exc)
            self._touched.add(pair)
        if self._sweep_at <= now:
            self._evict(now, PAIR_IDLE)
            self._sweep_at = now + SWEEP_EVERY if self._pairs else NEVER
