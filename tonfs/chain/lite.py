"""`LiteChain`: the `Chain` seam on lite servers, every fact proved from a masterchain block on (trust level 1).

Several servers: one is asked, and when it fails the next. A server that hangs, closes or lags is left alone for a
while that doubles; one whose proofs are wrong, for `LIAR_PAUSE`. Blocks never go back: a server must have the newest
block that any server ever showed, and the same one. What is not proved (signatures of validators, results of get
methods) is said where it is used.
"""

from __future__ import annotations

import asyncio
import binascii
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import trio

from ..bridge import AsyncioThread
from ..errors import BadData, BadProof, ChainUnavailable, ExternalRefused, GetMethodFailed, TimedOut
from ..ids import Address
from ..log import get_logger
from . import lite_tl, proofs, vmstack
from .address import split
from .api import AccountState, StackItem, Transaction
from .cells import one_cell, to_boc
from .lite_server import LiteServer, ServerAddress, read_config
from .lite_tl import BlockRef, ServerError

T = TypeVar("T")

log = get_logger(__name__)

QUERY_TIMEOUT: Final = 8.0
PATIENCE: Final = 25.0
"""How long one call keeps trying servers."""
BLOCK_PATIENCE: Final = 60.0
"""How long `wait_block` waits for a block."""
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
LIAR_PAUSE: Final = 600.0
LONELY_PAUSE: Final = 30.0
"""The same when there is no other server to turn to."""
LATE_BEFORE_RESET: Final = 3
"""When every server is this often in a row behind the newest block known, the chain has been set back (a restored
devnet), or the one that showed that block had invented it."""
_TIMED_OUT: Final = 652
PAGE: Final = 16
_REMEMBERED: Final = 256

_REFUSED: Final = "cannot apply external message"


@dataclass
class _Server:
    """A lite server and what we think of it. Times are trio's."""

    address: ServerAddress
    connection: LiteServer | None = None
    failures: int = 0
    avoid_until: float = float("-inf")
    lied: str = ""


@dataclass
class _Head:
    """The newest masterchain block known, and the hashes of the last ones: blocks never change."""

    block: BlockRef | None = None
    shown_by: ServerAddress | None = None
    hashes: dict[int, bytes] = field(default_factory=dict)
    times: dict[int, int] = field(default_factory=dict)

    def see(self, block: BlockRef, gen_utime: int, server: ServerAddress) -> None:
        """Note a block whose header is proved. Raises BadProof when another block with this number was seen before."""
        if self.hashes.setdefault(block.seqno, block.root_hash) != block.root_hash:
            raise BadProof(f"Two lite servers show different blocks {block.seqno}.")
        self.times[block.seqno] = gen_utime
        if self.block is None or block.seqno > self.block.seqno:
            self.block, self.shown_by = block, server
            for old in [n for n in self.hashes if n < block.seqno - _REMEMBERED]:
                del self.hashes[old]
                self.times.pop(old, None)


Job = Callable[[LiteServer], Awaitable[T]]


class LiteChain:
    """Satisfies `chain.api.Chain`. Use as an async context manager; `bridge` must outlive it."""

    def __init__(
        self,
        global_config: Mapping[str, Any] | str | os.PathLike[str],
        bridge: AsyncioThread,
        *,
        query_timeout: float = QUERY_TIMEOUT,
        patience: float = PATIENCE,
    ) -> None:
        """`global_config`: the object or the path. Raises UsageError when it names no usable lite server."""
        self._servers = [_Server(address) for address in read_config(global_config)]
        self._bridge = bridge
        self._timeout = query_timeout
        self._patience = patience
        self._head = _Head()
        self._late = 0

    async def __aenter__(self) -> LiteChain:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        connections = [s.connection for s in self._servers if s.connection is not None]
        for server in self._servers:
            server.connection = None
        with trio.CancelScope(shield=True):
            for connection in connections:
                await self._bridge.run(connection.close, timeout=5.0)

    # The seam.

    async def now(self) -> int:
        async def job(server: LiteServer) -> int:
            return await self._time_of(server, await self._newest(server))

        return await self._call("the time", job)

    async def account(self, address: Address) -> AccountState:
        async def job(server: LiteServer) -> AccountState:
            return await self._account(server, address)

        return await self._call("an account", job)

    async def transactions(
        self, address: Address, limit: int = PAGE, before: tuple[int, bytes] | None = None
    ) -> list[Transaction]:
        async def job(server: LiteServer) -> list[Transaction]:
            start = before
            if start is None:
                state = await self._account(server, address)
                start = (state.last_lt, state.last_hash)
            return await self._transactions(server, address, limit, start)

        return await self._call("transactions", job)

    async def get_method(self, address: Address, method: str, stack: Sequence[StackItem] = ()) -> list[StackItem]:
        async def job(server: LiteServer) -> tuple[int, bytes]:
            request = {
                "mode": 4,
                "id": (await self._newest(server)).request(),
                "account": _account_id(address),
                "method_id": _method_id(method),
                "params": to_boc(vmstack.serialize(stack)),
            }
            return lite_tl.run_method_result(await server.query("runSmcMethod", request, timeout=self._timeout))

        exit_code, result = await self._call(f"the get method {method}", job)
        if exit_code not in (0, 1):
            raise GetMethodFailed(f"The get method {method} of {address} ended with exit code {exit_code}.", exit_code)
        return vmstack.parse(one_cell(result))

    async def send_boc(self, boc: bytes) -> None:
        async def job(server: LiteServer) -> int:
            try:
                return lite_tl.send_status(await server.query("sendMessage", {"body": boc}, timeout=self._timeout))
            except ServerError as exc:
                if exc.code == 0 or _REFUSED in exc.message:
                    raise ExternalRefused(f"The network refused the message: {exc.message[:300]}.") from None
                raise

        if await self._call("sending", job) != 1:
            raise ExternalRefused("The lite server did not take the message.")

    async def wait_block(self) -> int:
        known = self._head.block

        async def job(server: LiteServer) -> int:
            if known is None:
                block = await self._newest(server)
                await self._check_header(server, block)
                return block.seqno
            data = await server.query("getMasterchainInfo", {}, timeout=self._timeout + 2, wait_seqno=known.seqno + 1)
            block = lite_tl.masterchain_info(data)
            if block.seqno <= known.seqno:
                raise BadProof("A lite server says that a block is newer than itself.")
            await self._check_header(server, block)
            return block.seqno

        return await self._call("the next block", job, patience=BLOCK_PATIENCE)

    # Jobs: run in the asyncio loop, against one server.

    async def _newest(self, server: LiteServer) -> BlockRef:
        """The server's last masterchain block, which must not be older than what we know."""
        wait = None if self._head.block is None else self._head.block.seqno
        data = await server.query("getMasterchainInfo", {}, timeout=self._timeout, wait_seqno=wait)
        block = lite_tl.masterchain_info(data)
        if wait is not None and block.seqno < wait:
            raise BadProof(f"A lite server goes back from block {wait} to {block.seqno}.")
        return block

    async def _check_header(self, server: LiteServer, block: BlockRef) -> int:
        """Prove the header of a block not seen before; its time."""
        data = await server.query("getBlockHeader", {"id": block.request(), "mode": 0}, timeout=self._timeout)
        header = proofs.block_header(lite_tl.block_header(data, block), block)
        self._head.see(block, header.gen_utime, server.address)
        return header.gen_utime

    async def _time_of(self, server: LiteServer, block: BlockRef) -> int:
        known = self._head.times.get(block.seqno)
        return known if known is not None else await self._check_header(server, block)

    async def _account(self, server: LiteServer, address: Address) -> AccountState:
        block = await self._newest(server)
        request = {"id": block.request(), "account": _account_id(address)}
        data = await server.query("getAccountState", request, timeout=self._timeout)
        state, header = proofs.account(lite_tl.account_state(data, block), block, address)
        self._head.see(block, header.gen_utime, server.address)
        return state

    async def _transactions(
        self, server: LiteServer, address: Address, limit: int, start: tuple[int, bytes]
    ) -> list[Transaction]:
        out: list[Transaction] = []
        lt, hash_ = start
        while lt and len(out) < limit:
            count = min(PAGE, limit - len(out))
            request = {"count": count, "account": _account_id(address), "lt": lt, "hash": hash_.hex()}
            data = await server.query("getTransactions", request, timeout=self._timeout)
            page = proofs.transactions(lite_tl.transaction_list(data, count), address, lt, hash_, count)
            out += page
            lt, hash_ = page[-1].prev_lt, page[-1].prev_hash
        return out

    # Choosing servers.

    async def _call(self, what: str, job: Job[T], *, patience: float | None = None) -> T:
        """Run a job on the best server, and on others when it fails there."""
        deadline = trio.current_time() + (self._patience if patience is None else patience)
        why = "no server was asked"
        first = True
        while True:
            if not first and trio.current_time() >= deadline:
                raise ChainUnavailable(f"No lite server answered for {what}: {why}.")
            first = False
            server = min(self._servers, key=lambda s: s.avoid_until)
            pause = server.avoid_until - trio.current_time()
            if pause > 0:
                if server.lied:
                    raise BadProof(f"Every lite server is avoided; {server.address}: {server.lied}")
                if trio.current_time() + pause > deadline:
                    raise ChainUnavailable(f"No lite server answered for {what}: {why}.")
                await trio.sleep(pause)
            try:
                result = await self._on(server, job, deadline)
            except BadProof as exc:
                self._avoid_liar(server, exc)
                why = exc.message
            except (OSError, TimeoutError, TimedOut, ServerError) as exc:
                why = f"{server.address}: {exc or type(exc).__name__}"
                self._note_late(exc)
                server.failures += 1
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (server.failures - 1))
                server.avoid_until = trio.current_time() + pause
                log.debug("lite server failed", server=str(server.address), reason=str(exc), pause=pause)
            else:
                self._late = 0
                server.failures = 0
                server.avoid_until = float("-inf")
                server.lied = ""
                return result

    async def _on(self, server: _Server, job: Job[T], deadline: float) -> T:
        left = max(0.1, deadline - trio.current_time())

        async def work() -> T:
            if server.connection is None:
                server.connection = LiteServer(server.address, timeout=min(5.0, self._timeout))
            async with asyncio.timeout(left):
                try:
                    return await job(server.connection)
                except BadProof:
                    raise
                except BadData as exc:
                    raise BadProof(exc.message) from None

        # The coroutine ends by itself; the outer limit is for a loop that does not.
        return await self._bridge.run(work, timeout=left + 5.0)

    def _note_late(self, exc: Exception) -> None:
        """Forget the newest block known when no server can show one as new any more."""
        if isinstance(exc, ServerError) and exc.code == _TIMED_OUT:
            self._late += 1
            if self._late >= LATE_BEFORE_RESET * len(self._servers):
                log.info("every lite server is behind the newest block known, starting over")
                self._head, self._late = _Head(), 0

    def _avoid_liar(self, server: _Server, exc: BadProof) -> None:
        pause = LIAR_PAUSE if len(self._servers) > 1 else LONELY_PAUSE
        server.lied = exc.message
        server.avoid_until = trio.current_time() + pause
        if self._head.shown_by == server.address:
            self._head = _Head()  # what it showed must not make honest servers look late
        log.warning("lite server avoided", server=str(server.address), reason=exc.message, seconds=pause)


def _account_id(address: Address) -> dict[str, object]:
    workchain, account = split(address)
    return {"workchain": workchain, "id": account.hex()}


def _method_id(name: str) -> int:
    return binascii.crc_hqx(name.encode("ascii"), 0) | 0x10000


@asynccontextmanager
async def open_chain(global_config: Mapping[str, Any] | str | os.PathLike[str]) -> AsyncIterator[LiteChain]:
    """A LiteChain with a bridge of its own. Raises UsageError for a bad config; connects with the first call."""
    async with AsyncioThread("lite-servers") as bridge, LiteChain(global_config, bridge) as chain:
        yield chain
