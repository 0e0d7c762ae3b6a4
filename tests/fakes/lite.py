"""A chain of constants for the lite server's own tests, and a small trio lite client whose TL is pytoniq's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import trio
from pytoniq_core.tl.generator import TlGenerator

from tonfs.devnet import chain_api as api
from tonfs.devnet.chain_api import AccountId, Block, BlockId
from tonfs.errors import BlockUnknown, ExternalRefused
from tonfs.network.adnl_tcp import make_hello
from tonfs.network.keys import KeyPair

SCHEMAS: Any = TlGenerator.with_default_schemas().generate()


def block_id(seqno: int, workchain: int = -1) -> BlockId:
    return BlockId(workchain, api.WHOLE_SHARD, seqno, bytes([seqno, workchain & 255]) * 16, bytes([seqno]) * 32)


class FakeChain:
    """Answers every method with bytes that say which one it was. Only what the lite server calls."""

    def __init__(self, seqno: int = 5) -> None:
        self.seqno = seqno
        self.externals: list[bytes] = []
        self.calls: list[tuple[Any, ...]] = []

    @property
    def last(self) -> Block:
        return self.block(self.seqno)

    @property
    def zero_state(self) -> BlockId:
        return block_id(0)

    def now(self) -> int:
        return 1_700_000_000 + self.seqno

    def block(self, seqno: int) -> Block:
        if not 0 < seqno <= self.seqno:
            raise BlockUnknown(f"no block {seqno}")
        return Block(seqno, block_id(seqno), block_id(seqno, 0), 1_700_000_000 + seqno, seqno * 100, seqno * 100 + 9, 0)

    def _check(self, block: BlockId) -> None:
        if block not in (block_id(block.seqno), block_id(block.seqno, 0)) or not 0 < block.seqno <= self.seqno:
            raise BlockUnknown("no such block")

    def inject_external(self, boc: bytes) -> bytes:
        if boc == b"refuse me":
            raise ExternalRefused("cannot apply external message to current state : exit code 33")
        self.externals.append(boc)
        return bytes(32)

    def account_answer(self, block: BlockId, account: AccountId) -> api.AccountAnswer:
        self._check(block)
        return api.AccountAnswer(block, block_id(block.seqno, 0), b"shard", b"proof", account.hash)

    def run_method_answer(
        self, block: BlockId, account: AccountId, method_id: int, params: bytes
    ) -> api.RunMethodAnswer:
        self._check(block)
        self.calls.append(("run", account, method_id, params))
        return api.RunMethodAnswer(block, block_id(block.seqno, 0), b"shard", b"proof", b"state", 11, b"result")

    def transactions_answer(self, account: AccountId, lt: int, hash_: bytes, count: int) -> api.TransactionsAnswer:
        self.calls.append(("transactions", account, lt, hash_, count))
        if lt == 0:
            return api.TransactionsAnswer((), b"")
        return api.TransactionsAnswer((block_id(3, 0), block_id(2, 0)), b"transactions")

    def one_transaction_answer(self, block: BlockId, account: AccountId, lt: int) -> api.TransactionAnswer:
        self._check(block)
        return api.TransactionAnswer(block, b"proof", b"transaction")

    def block_answer(self, block: BlockId) -> api.BlockAnswer:
        self._check(block)
        return api.BlockAnswer(block, b"block")

    def header_answer(self, block: BlockId) -> api.HeaderAnswer:
        self._check(block)
        return api.HeaderAnswer(block, b"header")

    def lookup_answer(
        self, workchain: int, shard: int, *, seqno: int | None = None, lt: int | None = None, utime: int | None = None
    ) -> api.HeaderAnswer:
        self.calls.append(("lookup", workchain, shard, seqno, lt, utime))
        found = seqno if seqno is not None else 2
        return api.HeaderAnswer(self.block(found).master, b"header")

    def all_shards_answer(self, block: BlockId) -> api.AllShardsAnswer:
        self._check(block)
        return api.AllShardsAnswer(block, b"proof", b"shards")

    def shard_info_answer(self, block: BlockId, workchain: int, shard: int, exact: bool) -> api.ShardInfoAnswer:
        self._check(block)
        self.calls.append(("shard_info", workchain, shard, exact))
        return api.ShardInfoAnswer(block, block_id(block.seqno, 0), b"proof", b"descr")

    def config_answer(self, block: BlockId, params: Sequence[int] | None = None) -> api.ConfigAnswer:
        self._check(block)
        self.calls.append(("config", params))
        return api.ConfigAnswer(block, b"state", b"config")

    def block_transactions_answer(
        self, block: BlockId, count: int, after: tuple[bytes, int] | None = None, reverse: bool = False
    ) -> api.BlockTransactionsAnswer:
        self._check(block)
        self.calls.append(("block_transactions", count, after, reverse))
        ids = (api.TransactionId(b"\x01" * 32, 201, b"\x02" * 32), api.TransactionId(b"\x03" * 32, 202, b"\x04" * 32))
        return api.BlockTransactionsAnswer(block, count, True, ids, b"proof")

    def block_transactions_ext_answer(
        self, block: BlockId, count: int, after: tuple[bytes, int] | None = None, reverse: bool = False
    ) -> api.BlockTransactionsExtAnswer:
        self._check(block)
        return api.BlockTransactionsExtAnswer(block, count, False, b"transactions", b"proof")


def encode(method: str, data: dict[str, Any] | None = None, wait: tuple[int, int] | None = None) -> bytes:
    """The data of a liteServer.query; `wait` = (seqno, milliseconds)."""
    body: bytes = SCHEMAS.serialize(SCHEMAS.get_by_name(f"liteServer.{method}"), data or {})
    if wait is not None:
        prefix = SCHEMAS.get_by_name("liteServer.waitMasterchainSeqno")
        body = SCHEMAS.serialize(prefix, {"seqno": wait[0], "timeout_ms": wait[1]}) + body
    return body


def decode(answer: bytes) -> dict[str, Any]:
    """A boxed answer as pytoniq reads it; the whole of it must be used."""
    value, used = SCHEMAS.deserialize(answer, boxed=True)
    assert used == len(answer)
    result: dict[str, Any] = _without_types(value)
    return result


def _without_types(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_types(v) for k, v in value.items() if k != "@type"}
    return [_without_types(v) for v in value] if isinstance(value, list) else value


class Client:
    """A lite client over one stream. `hello` first; then `query`s in any order."""

    def __init__(self, stream: trio.abc.Stream, server_public_key: bytes) -> None:
        self.stream = stream
        self.first, self.codec = make_hello(KeyPair.generate(), server_public_key)
        self.payloads: list[bytes] = []

    async def connect(self) -> None:
        await self.stream.send_all(self.first)
        assert await self.receive() == b""

    async def send(self, payload: bytes) -> None:
        await self.stream.send_all(self.codec.frame(payload))

    async def receive(self) -> bytes:
        """The next payload. Raises EndOfChannel when the server closed."""
        while not self.payloads:
            data = await self.stream.receive_some(1 << 16)
            if not data:
                raise trio.EndOfChannel
            self.payloads += self.codec.feed(bytes(data))
        return self.payloads.pop(0)

    async def ask(self, data: bytes) -> bytes:
        """Send a query; returns its id."""
        query_id = os.urandom(32)
        query = SCHEMAS.serialize(SCHEMAS.get_by_name("liteServer.query"), {"data": data})
        envelope = SCHEMAS.get_by_name("adnl.message.query")
        await self.send(SCHEMAS.serialize(envelope, {"query_id": query_id.hex(), "query": query}))
        return query_id

    async def answered(self) -> tuple[bytes, dict[str, Any]]:
        """The next answer: (query id, decoded)."""
        payload = await self.receive()
        assert payload[:4] == bytes.fromhex("1684ac0f")
        size_at = 36
        first = payload[size_at]
        start = size_at + (4 if first == 254 else 1)
        size = int.from_bytes(payload[size_at + 1 : size_at + 4], "little") if first == 254 else first
        return payload[4:36], decode(payload[start : start + size])

    async def query(self, method: str, data: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        query_id = await self.ask(encode(method, data, **options))
        answered, value = await self.answered()
        assert answered == query_id
        return value
