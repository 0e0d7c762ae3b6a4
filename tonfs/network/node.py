"""The trio driver of ADNL: one UDP socket, several identities, any number of peers.

    node = AdnlNode(("127.0.0.1", 0), clock=SystemClock())
    address = await nursery.start(node.run)
    endpoint = node.add_identity(KeyPair.generate())
    answer = await endpoint.peer(public_key, ("127.0.0.1", 3333)).query(b"...", timeout=5)

Packets never wait for trio one by one: a wake-up drains the socket, then everything that arose from it is sent.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable
from typing import Final

import trio

from ..clock import Clock
from ..errors import NotRunning, PeerTimeout, PeerUnreachable, TonfsError, UsageError
from ..ids import AdnlId
from ..log import get_logger
from .address import AddressList, Reach, reach_of, usable
from .adnl_hub import UNLIMITED, Hub, Incoming, Local, Pair, Remote, Stats
from .api import Peer, QueryHandler, UdpAddress
from .keys import KeyPair
from .udp import Train, UdpSocket
from .upload import Upload

log = get_logger(__name__)

BATCH: Final = 128
"""Datagrams read before answers go out and other tasks get a turn."""
GATHER: Final = 0.001
GATHER_MAX: Final = 0.004
"""Seconds to let more datagrams come while bulk trickles in one by one: a wake-up costs as much as ten of them. Longer
where they were long under way, at most `GATHER_SHARE` of the round trip."""
GATHER_SHARE: Final = 1 / 16
FEW: Final = 16
"""Datagrams in a wake-up, and in each millisecond of gathering, from which it does not trickle."""
TRICKLE: Final = 2_000_000
"""Bytes per second from which it is bulk."""
MAX_HANDLERS: Final = 1024
HANDLER_TIME: Final = 60.0


class NodePeer:
    """Peer (see network/api.py): a remote identity as seen from one endpoint."""

    __slots__ = ("_endpoint", "_remote")

    def __init__(self, endpoint: NodeEndpoint, remote: Remote) -> None:
        self._endpoint = endpoint
        self._remote = remote

    @property
    def id(self) -> AdnlId:
        return self._remote.id

    @property
    def public_key(self) -> bytes:
        return self._remote.public_key

    @property
    def address(self) -> UdpAddress | None:
        return self._remote.address

    @property
    def last_heard(self) -> float | None:
        pair = self._remote.pair
        return None if pair is None else pair.peer.last_received

    async def query(self, data: bytes, *, timeout: float) -> bytes:
        query_id = os.urandom(32)

        def start(pair: Pair, done: Callable[[bytes], None], now: float) -> None:
            pair.peer.query(query_id, data, done, now)

        return await self._ask(start, lambda pair, now: pair.peer.cancel(query_id), timeout)

    async def rldp_query(self, data: bytes, *, max_answer: int, timeout: float) -> bytes:
        transfer: list[bytes] = []

        def start(pair: Pair, done: Callable[[bytes], None], now: float) -> None:
            transfer.append(pair.rldp.query(data, max_answer, timeout, done, now))

        def stop(pair: Pair, now: float) -> None:
            for transfer_id in transfer:
                pair.rldp.cancel(transfer_id, now)

        return await self._ask(start, stop, timeout)

    async def _ask(
        self,
        start: Callable[[Pair, Callable[[bytes], None], float], None],
        stop: Callable[[Pair, float], None],
        timeout: float,
    ) -> bytes:
        node = self._endpoint.node
        await trio.lowlevel.checkpoint_if_cancelled()  # while everything ends: cancelled, not an error
        node.check_running()
        if self._remote.address is None:
            raise PeerUnreachable(f"no address is known for {self.id.hex()}")
        pair = node.hub.pair_of(self._endpoint.local, self._remote, trio.current_time())
        answers: list[bytes] = []
        arrived = trio.Event()

        def done(answer: bytes) -> None:
            answers.append(answer)
            arrived.set()

        try:
            start(pair, done, trio.current_time())
            node.flush(pair)
            with trio.move_on_after(timeout):
                await arrived.wait()
        finally:
            if not answers:  # else nothing of the query is left
                stop(pair, trio.current_time())
                node.flush(pair)
        if not answers:
            raise PeerTimeout(f"{self.id.hex()} did not answer within {timeout:g} s")
        return answers[0]


class NodeEndpoint:
    """AdnlEndpoint (see network/api.py): one of our identities on a node's socket."""

    def __init__(self, node: AdnlNode, local: Local) -> None:
        self.node = node
        self.local = local
        self.handler: QueryHandler | None = None

    @property
    def id(self) -> AdnlId:
        return self.local.key.short_id

    @property
    def public_key(self) -> bytes:
        return self.local.key.public_key

    @property
    def address(self) -> UdpAddress:
        return self.node.announced

    def sign(self, message: bytes) -> bytes:
        return self.local.key.sign(message)

    def set_handler(self, handler: QueryHandler) -> None:
        self.handler = handler

    def peer(self, public_key: bytes, address: UdpAddress) -> Peer:
        """Get or make a peer.

        Raises BadPacket for a bad key, UsageError for anything but IPv4 text and a port, PeerUnreachable for an
        address outside of the configured network.
        """
        try:
            good = usable(address)
        except ValueError:
            good = False
        if not good:
            raise UsageError(f"not an IPv4 address and port: {address!r}")
        now = trio.current_time()
        return NodePeer(self, self.node.hub.remote(self.local, public_key, address, now))

    def heard(self, since: float) -> list[tuple[bytes, UdpAddress]]:
        """(public key, address) of the peers heard since that trio time, the latest first; of none whose address may be
        invented."""
        found = [
            (remote.pair.peer.last_received or 0.0, remote.public_key, remote.address)
            for remote in self.local.remotes.values()
            if remote.pair is not None
            and (remote.pair.peer.last_received or 0.0) >= since
            and remote.pair.peer.path.proven
        ]
        return [(key, address) for _, key, address in sorted(found, reverse=True) if address is not None]

    def known_peer(self, peer_id: AdnlId) -> Peer | None:
        remote = self.local.remotes.get(peer_id)
        return NodePeer(self, remote) if remote is not None and remote.address is not None else None


class AdnlNode:
    """One socket. `announce_ip`: IPv4 text that peers are told (default: the bound one, if it is a real one).

    `reach`: whom it may speak to (default: what follows from where it listens). `loss`: share of datagrams dropped in
    each direction, for rehearsals. `muted`: all of them, while it is set. `upload`: how fast peers are served.
    """

    def __init__(
        self,
        listen: UdpAddress,
        *,
        clock: Clock,
        announce_ip: str = "",
        reach: Reach | None = None,
        loss: float = 0.0,
        loss_seed: int = 0,
        upload: Upload = UNLIMITED,
    ) -> None:
        self._listen = listen
        self._announce_ip = announce_ip
        self._clock = clock
        self._loss = loss
        self.muted = False
        """Rehearsal of a peer that fell silent: while set, nothing is heard and nothing is said."""
        self._random = random.Random(loss_seed)
        self._socket: UdpSocket | None = None
        self._nursery: trio.Nursery | None = None
        self._bound: UdpAddress = listen
        self._address_bytes = b""
        self._timer = trio.CancelScope()
        """Its deadline is that of the hub's timers."""
        self._handlers = 0
        self._endpoints: dict[bytes, NodeEndpoint] = {}
        self.hub = Hub(clock, lambda: self._address_bytes, reach or reach_of(listen[0], announce_ip), upload)
        self._announce()

    @property
    def announced(self) -> UdpAddress:
        """What our identities announce."""
        return (self._announce_ip or self._bound[0], self._bound[1])

    @property
    def stats(self) -> Stats:
        return self.hub.stats

    def add_identity(self, key: KeyPair) -> NodeEndpoint:
        """An endpoint for this key, before or after `run` started."""
        endpoint = self._endpoints.get(key.short_id)
        if endpoint is None:
            endpoint = self._endpoints[key.short_id] = NodeEndpoint(self, self.hub.add_identity(key))
        return endpoint

    def check_running(self) -> None:
        """Raises NotRunning unless `run` is at work."""
        if self._socket is None:
            raise NotRunning("the ADNL node does not run")

    def _announce(self) -> None:
        date = int(self._clock.now())
        addresses = (self.announced,) if usable(self.announced) else ()
        self._address_bytes = AddressList(addresses, version=date, reinit_date=date).bare()

    async def run(self, *, task_status: trio.TaskStatus[UdpAddress] = trio.TASK_STATUS_IGNORED) -> None:
        """Work until cancelled; `started` gives the bound address. Raises OSError when it cannot be bound."""
        with contextlib.closing(UdpSocket(self._listen)) as sock:
            self._bound = sock.address
            self._announce()
            async with trio.open_nursery() as nursery:
                self._socket, self._nursery = sock, nursery
                try:
                    nursery.start_soon(self._timer_loop)
                    task_status.started(self._bound)
                    await self._receive_loop(sock)
                finally:
                    self._socket = self._nursery = None

    async def _receive_loop(self, sock: UdpSocket) -> None:
        hub, gather, before = self.hub, 0.0, trio.current_time()
        while True:
            if gather:
                await trio.sleep(gather)
            else:
                await trio.lowlevel.wait_readable(sock.sock)
            now = trio.current_time()
            count, known = 0, hub.stats.bytes_in
            while (count < BATCH or sock.waiting) and (arrived := sock.receive(join=count < BATCH)) is not None:
                size, step, source = arrived
                count += max(1, size // step)
                if size and self._disturbed:
                    size = self._thin_out(sock.buffer, size, step)
                if size:
                    hub.receive_train(sock.buffer, size, step, source, now)
            few = 0 < count < FEW * max(1.0, gather / GATHER)
            if few and hub.stats.bytes_in - known > TRICKLE * (now - before):
                gather = min(GATHER_MAX, max(GATHER, hub.round_trip * GATHER_SHARE))
            else:
                gather = 0.0
            before = now
            if hub.next_deadline() <= now:
                hub.on_timer(now)
            self.flush()

    @property
    def _disturbed(self) -> bool:
        """A bad network is rehearsed."""
        return self.muted or self._loss > 0

    def _thin_out(self, buffer: bytearray, size: int, step: int) -> int:
        """Leave in `buffer` what a rehearsed bad network lets through; returns its size."""
        kept = self._survivors(Train(buffer[:size], step))
        buffer[: len(kept)] = kept
        return len(kept)

    def _survivors(self, train: Train) -> bytes:
        count = train.number
        if self.muted:
            kept = []
        else:
            rolls = [self._random.random() for _ in range(count)]
            kept = [datagram for datagram, roll in zip(train.datagrams(), rolls, strict=True) if roll >= self._loss]
        self.hub.stats.dropped += count - len(kept)
        return b"".join(kept)

    async def _timer_loop(self) -> None:
        while True:
            with trio.CancelScope(deadline=self.hub.next_deadline()) as self._timer:
                await trio.sleep_forever()
            now = trio.current_time()
            if self.hub.next_deadline() <= now:
                self.hub.on_timer(now)
                self.flush()

    def flush(self, pair: Pair | None = None) -> None:
        """Send what is waiting (of `pair`, too), start handlers, set the timer."""
        if pair is not None:
            self.hub.touch(pair)
        while True:
            for trains, address in self.hub.take_outgoing(trio.current_time()):
                self._transmit(trains, address)
            if not self.hub.incoming:
                break
            self._start_handlers()
        self._timer.deadline = self.hub.next_deadline()

    def _transmit(self, trains: list[Train], address: UdpAddress) -> None:
        sock, stats = self._socket, self.hub.stats
        if sock is None:
            return
        if self._disturbed:
            left = [(self._survivors(train), train.step) for train in trains]
            trains = [Train(data, step) for data, step in left if data]
        if trains:
            sock.send(trains, address)
        stats.datagrams_out, stats.bytes_out, stats.send_failed = sock.sent, sock.sent_bytes, sock.failed

    def _start_handlers(self) -> None:
        incoming, self.hub.incoming = self.hub.incoming, []
        for query in incoming:
            self.hub.stats.queries_in += 1
            endpoint = self._endpoints[query.pair.local.key.short_id]
            if endpoint.handler is None or self._nursery is None or self._handlers >= MAX_HANDLERS:
                self.hub.stats.queries_refused += 1
                query.refuse()
                continue
            self._handlers += 1
            self._nursery.start_soon(self._handle, endpoint, endpoint.handler, query)

    async def _handle(self, endpoint: NodeEndpoint, handler: QueryHandler, query: Incoming) -> None:
        answer: bytes | None = None
        try:
            peer = endpoint.known_peer(query.pair.peer.id)
            if peer is not None:
                with trio.move_on_after(HANDLER_TIME):
                    answer = await handler(peer, query.data, query.by_rldp)
        except TonfsError as exc:
            log.debug("query refused", peer=query.pair.peer.id, why=exc.message)
        except Exception as exc:
            self.hub.stats.errors += 1
            log.error("a query handler failed", exc=exc, peer=query.pair.peer.id)
        finally:
            self._handlers -= 1
            query.answer(answer, trio.current_time())
        self.flush(query.pair)
