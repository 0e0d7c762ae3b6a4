"""The lite server: ADNL over TCP on loopback in front of the devnet's chain (reference devnet section 2).

Queries of one connection are answered as soon as each can be: one that waits for a block holds up no other. A client
that sends nonsense, does not read its answers, or falls silent is disconnected; nothing it does reaches the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

from ..errors import BadPacket, TonfsError
from ..log import get_logger
from ..network.adnl_tcp import HELLO_SIZE, FrameCodec, accept_hello
from ..network.keys import KeyPair
from . import lite_answers, lite_tl
from .chain_api import DevnetChain

log = get_logger(__name__)

LATE: Final = 0.5
"""A wait ends this much after its time-out: pytoniq's own deadline is the same and its updater dies of our error."""
EMPTY_HISTORY_PAUSE: Final = 0.1
"""Go asks for transactions before lt 0 in a tight loop while an account does not exist yet (devnet 8.3)."""


@dataclass(frozen=True)
class Limits:
    """Seconds, bytes and counts that bound what clients can hold on to."""

    connections: int = 256
    queries: int = 256
    """Unanswered queries of one connection; then it is not read until some are answered."""
    frame: int = 256 << 10
    """Longest frame received; the longest thing a client sends is an external message of 64 KiB."""
    hello: float = 10.0
    idle: float = 300.0
    send: float = 30.0
    wait: float = 600.0


class LiteServer:
    """One lite server with one key. `block_made()` must be called after every tick of the chain."""

    def __init__(
        self,
        chain: DevnetChain,
        key: KeyPair,
        *,
        on_external: Callable[[], None] | None = None,
        limits: Limits = Limits(),
    ) -> None:
        self._chain = chain
        self._key = key
        self._on_external = on_external
        self._limits = limits
        self._next_block = trio.Event()
        self._scopes: set[trio.CancelScope] = set()

    @property
    def connections(self) -> int:
        return len(self._scopes)

    def block_made(self) -> None:
        """Wake the queries that wait for a block."""
        self._next_block.set()
        self._next_block = trio.Event()

    def drop_connections(self) -> None:
        """Close every connection; clients connect again (after the chain was set back)."""
        for scope in self._scopes:
            scope.cancel()

    async def serve(
        self, listener: trio.SocketListener, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled; closes the listener."""
        async with listener, trio.open_nursery() as nursery:
            task_status.started()
            while True:
                try:
                    stream = await listener.accept()
                except OSError as exc:  # out of descriptors, or the client left between handshake and accept
                    log.debug("lite client not accepted", error=str(exc))
                    await trio.sleep(0.05)
                    continue
                if len(self._scopes) >= self._limits.connections:
                    log.info("lite client turned away", connections=len(self._scopes))
                    await trio.aclose_forcefully(stream)
                    continue
                nursery.start_soon(self.serve_stream, stream)

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """One client, until it leaves or is dropped."""
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                await self._talk(stream)
            except* (BadPacket, trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError) as group:
                log.debug("lite client dropped", reason=repr(group.exceptions[0]))
            finally:
                self._scopes.discard(scope)
                await trio.aclose_forcefully(stream)

    async def _talk(self, stream: trio.abc.Stream) -> None:
        with trio.fail_after(self._limits.hello):
            hello = bytearray()
            while len(hello) < HELLO_SIZE:
                chunk = await stream.receive_some(HELLO_SIZE - len(hello))
                if not chunk:
                    return
                hello += chunk
        find = {bytes(self._key.short_id): self._key}.get
        codec = accept_hello(bytes(hello), find, max_frame=self._limits.frame)
        async with trio.open_nursery() as nursery:
            connection = _Connection(self, stream, codec, nursery, self._limits)
            await connection.send(b"")
            await connection.read()
            nursery.cancel_scope.cancel()

    async def answer(self, data: bytes) -> bytes:
        """The answer to the data of a liteServer.query, an error object included; waits as its prefix says."""
        try:
            request = lite_tl.parse_request(data)
            if request.wait is not None and not await self._wait(request.wait):
                return lite_tl.error(lite_answers.TIMED_OUT, "timeout")
            function = request.function
            if isinstance(function, lite_tl.GetTransactions) and function.lt == 0:
                await trio.sleep(EMPTY_HISTORY_PAUSE)
            body = lite_answers.answer(self._chain, function)
            if isinstance(function, lite_tl.SendMessage) and self._on_external is not None:
                self._on_external()
            return body
        except TonfsError as exc:
            return lite_answers.error_of(exc)
        except Exception as exc:
            log.error("lite query failed", constructor=data[:4].hex(), exc=exc)
            return lite_tl.error(lite_answers.INTERNAL, f"internal error: {type(exc).__name__}")

    async def _wait(self, wait: lite_tl.Wait) -> bool:
        with trio.move_on_after(min(wait.timeout, self._limits.wait) + LATE):
            while self._chain.last.seqno < wait.seqno:
                await self._next_block.wait()
            return True
        return False


class _Connection:
    """The frames of one client after its hello."""

    def __init__(
        self, server: LiteServer, stream: trio.abc.Stream, codec: FrameCodec, nursery: trio.Nursery, limits: Limits
    ) -> None:
        self._server = server
        self._stream = stream
        self._codec = codec
        self._nursery = nursery
        self._limits = limits
        self._lock = trio.Lock()
        self._slots = trio.Semaphore(limits.queries)

    async def send(self, payload: bytes) -> None:
        """One frame. Made under the lock: the cipher stream and the socket must see the same order."""
        with trio.fail_after(self._limits.send):
            async with self._lock:
                await self._stream.send_all(self._codec.frame(payload))

    async def read(self) -> None:
        """Until the client closes. Raises BadPacket, TooSlowError."""
        while True:
            with trio.fail_after(self._limits.idle):
                data = await self._stream.receive_some(1 << 16)
            if not data:
                return
            for payload in self._codec.feed(bytes(data)):
                await self._packet(payload)

    async def _packet(self, payload: bytes) -> None:
        if not payload:
            return
        match lite_tl.parse_packet(payload):
            case lite_tl.Ping(random_id):
                await self.send(lite_tl.pong(random_id))
            case lite_tl.Authentificate():
                await self.send(lite_tl.authentification_nonce(os.urandom(32)))
            case lite_tl.AuthentificationComplete():
                pass
            case lite_tl.Query(query_id, data):
                await self._slots.acquire()
                self._nursery.start_soon(self._query, query_id, data)

    async def _query(self, query_id: bytes, data: bytes) -> None:
        try:
            await self.send(lite_tl.answer(query_id, await self._server.answer(data)))
        finally:
            self._slots.release()
