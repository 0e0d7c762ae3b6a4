"""TL of the lite server: requests in, answers out (reference devnet 2.1, 2.2).

A frame's payload is `adnl.message.query{query_id, liteServer.query{data}}` or one of the `tcp.*` messages;
`data` is a function, with `liteServer.waitMasterchainSeqno` possibly in front of it. Everything here is pure and
bounded; malformed bytes and functions that nobody serves end in BadPacket.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ..errors import BadPacket
from ..network import tl
from ..network.tl import Reader, Writer
from . import chain_api as api
from .chain_api import AccountId, BlockId

TCP_PING: Final = 0x4D082B9A
TCP_PONG: Final = 0xDC69FB03
TCP_AUTHENTIFICATE: Final = 0x445BAB12
TCP_AUTHENTIFICATION_NONCE: Final = 0xE35D4AB6
TCP_AUTHENTIFICATION_COMPLETE: Final = 0xF7AD9EA6
LITE_QUERY: Final = 0x798C06DF
LITE_ERROR: Final = 0xBBA9E148
WAIT_MASTERCHAIN_SEQNO: Final = 0xBAEAB892

MAX_BODY: Final = 1 << 16
"""Longest external message or method stack that is accepted."""
MAX_CONFIG_PARAMS: Final = 1024
MAX_LIBRARIES: Final = 16


# What comes in a frame.


@dataclass(frozen=True, slots=True)
class Ping:
    random_id: int


@dataclass(frozen=True, slots=True)
class Authentificate:
    nonce: bytes


@dataclass(frozen=True, slots=True)
class AuthentificationComplete:
    """Key and signature are not looked at: everybody may use a devnet."""


@dataclass(frozen=True, slots=True)
class Query:
    query_id: bytes
    data: bytes


Packet = Ping | Authentificate | AuthentificationComplete | Query


def parse_packet(payload: bytes) -> Packet:
    """A frame's payload. Raises BadPacket."""
    reader = Reader(payload)
    tag = reader.u32()
    if tag == tl.ADNL_QUERY:
        query_id = reader.int256()
        inner = Reader(reader.bytes_())
        reader.end()
        inner.expect(LITE_QUERY)
        data = inner.bytes_()
        inner.end()
        return Query(query_id, data)
    if tag == TCP_PING:
        ping = Ping(reader.i64())
        reader.end()
        return ping
    if tag == TCP_AUTHENTIFICATE:
        nonce = reader.bytes_(512)
        reader.end()
        return Authentificate(nonce)
    if tag == TCP_AUTHENTIFICATION_COMPLETE:
        return AuthentificationComplete()
    raise BadPacket(f"A lite client sent an unknown message {tag:08x}.")


def pong(random_id: int) -> bytes:
    return Writer(TCP_PONG).i64(random_id).done()


def authentification_nonce(nonce: bytes) -> bytes:
    return Writer(TCP_AUTHENTIFICATION_NONCE).bytes_(nonce).done()


def answer(query_id: bytes, body: bytes) -> bytes:
    return Writer(tl.ADNL_ANSWER).int256(query_id).bytes_(body).done()


def error(code: int, message: str) -> bytes:
    return Writer(LITE_ERROR).i32(code).bytes_(message.encode("utf-8", "replace")[:1024]).done()


# Functions.


@dataclass(frozen=True, slots=True)
class GetMasterchainInfo:
    pass


@dataclass(frozen=True, slots=True)
class GetMasterchainInfoExt:
    mode: int


@dataclass(frozen=True, slots=True)
class GetTime:
    pass


@dataclass(frozen=True, slots=True)
class GetVersion:
    pass


@dataclass(frozen=True, slots=True)
class GetAccountState:
    block: BlockId
    account: AccountId


@dataclass(frozen=True, slots=True)
class RunSmcMethod:
    mode: int
    block: BlockId
    account: AccountId
    method_id: int
    params: bytes


@dataclass(frozen=True, slots=True)
class SendMessage:
    body: bytes


@dataclass(frozen=True, slots=True)
class GetTransactions:
    count: int
    account: AccountId
    lt: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class GetOneTransaction:
    block: BlockId
    account: AccountId
    lt: int


@dataclass(frozen=True, slots=True)
class GetBlock:
    block: BlockId


@dataclass(frozen=True, slots=True)
class GetBlockHeader:
    block: BlockId
    mode: int


@dataclass(frozen=True, slots=True)
class LookupBlock:
    """Exactly one of seqno, lt and utime is set."""

    mode: int
    workchain: int
    shard: int
    seqno: int | None
    lt: int | None
    utime: int | None


@dataclass(frozen=True, slots=True)
class GetAllShardsInfo:
    block: BlockId


@dataclass(frozen=True, slots=True)
class GetShardInfo:
    block: BlockId
    workchain: int
    shard: int
    exact: bool


@dataclass(frozen=True, slots=True)
class ListBlockTransactions:
    """Both forms; `ext` asks for whole transactions."""

    block: BlockId
    mode: int
    count: int
    after: tuple[bytes, int] | None
    ext: bool

    @property
    def reverse(self) -> bool:
        return bool(self.mode & 64)

    @property
    def want_proof(self) -> bool:
        return bool(self.mode & 32)


@dataclass(frozen=True, slots=True)
class GetConfig:
    """getConfigAll (params None) and getConfigParams."""

    mode: int
    block: BlockId
    params: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class GetLibraries:
    hashes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class GetBlockProof:
    mode: int
    known: BlockId
    target: BlockId | None


@dataclass(frozen=True, slots=True)
class GetShardBlockProof:
    block: BlockId


Function = (
    GetMasterchainInfo
    | GetMasterchainInfoExt
    | GetTime
    | GetVersion
    | GetAccountState
    | RunSmcMethod
    | SendMessage
    | GetTransactions
    | GetOneTransaction
    | GetBlock
    | GetBlockHeader
    | LookupBlock
    | GetAllShardsInfo
    | GetShardInfo
    | ListBlockTransactions
    | GetConfig
    | GetLibraries
    | GetBlockProof
    | GetShardBlockProof
)


@dataclass(frozen=True, slots=True)
class Wait:
    """The waitMasterchainSeqno prefix; the time-out is in seconds."""

    seqno: int
    timeout: float


@dataclass(frozen=True, slots=True)
class Request:
    wait: Wait | None
    function: Function


def parse_request(data: bytes) -> Request:
    """The data of a liteServer.query. Raises BadPacket."""
    reader = Reader(data)
    wait: Wait | None = None
    tag = reader.u32()
    if tag == WAIT_MASTERCHAIN_SEQNO:
        seqno, timeout_ms = reader.i32(), reader.i32()
        if seqno < 0 or timeout_ms < 0:
            raise BadPacket("waitMasterchainSeqno with a negative number.")
        wait = Wait(seqno, timeout_ms / 1000)
        tag = reader.u32()
    parser = _PARSERS.get(tag)
    if parser is None:
        raise BadPacket(f"This lite server has no function {tag:08x}.")
    function = parser(reader)
    reader.end()
    return Request(wait, function)


def _block(reader: Reader) -> BlockId:
    return BlockId(reader.i32(), reader.i64(), reader.i32(), reader.int256(), reader.int256())


def _account(reader: Reader) -> AccountId:
    return AccountId(reader.i32(), reader.int256())


def _run_smc_method(r: Reader) -> RunSmcMethod:
    return RunSmcMethod(r.u32(), _block(r), _account(r), r.i64(), r.bytes_(MAX_BODY))


def _lookup_block(r: Reader) -> LookupBlock:
    mode = r.u32()
    if mode not in (1, 2, 4):
        raise BadPacket(f"lookupBlock with mode {mode}; one of 1, 2 and 4 must be set.")
    workchain, shard, seqno = r.i32(), r.i64(), r.i32()
    lt = r.i64() if mode == 2 else None
    utime = r.i32() if mode == 4 else None
    return LookupBlock(mode, workchain, shard, seqno if mode == 1 else None, lt, utime)


def _list_transactions(r: Reader, ext: bool) -> ListBlockTransactions:
    block, mode, count = _block(r), r.u32(), r.u32()
    after = (r.int256(), r.i64()) if mode & 128 else None
    return ListBlockTransactions(block, mode, count, after, ext)


def _config_params(r: Reader) -> GetConfig:
    mode, block = r.u32(), _block(r)
    return GetConfig(mode, block, tuple(r.i32() for _ in range(r.count(MAX_CONFIG_PARAMS))))


def _libraries(r: Reader) -> GetLibraries:
    return GetLibraries(tuple(r.int256() for _ in range(r.count(MAX_LIBRARIES, element=32))))


def _block_proof(r: Reader) -> GetBlockProof:
    mode, known = r.u32(), _block(r)
    return GetBlockProof(mode, known, _block(r) if mode & 1 else None)


_PARSERS: Final[dict[int, Callable[[Reader], Function]]] = {
    0x89B5E62E: lambda r: GetMasterchainInfo(),
    0x70A671DF: lambda r: GetMasterchainInfoExt(r.u32()),
    0x16AD5A34: lambda r: GetTime(),
    0x232B940B: lambda r: GetVersion(),
    0x6B890E25: lambda r: GetAccountState(_block(r), _account(r)),
    0x5CC65DD2: _run_smc_method,
    0x690AD482: lambda r: SendMessage(r.bytes_(MAX_BODY)),
    0x1C40E7A1: lambda r: GetTransactions(r.u32(), _account(r), r.i64(), r.int256()),
    0xD40F24EA: lambda r: GetOneTransaction(_block(r), _account(r), r.i64()),
    0x6377CF0D: lambda r: GetBlock(_block(r)),
    0x21EC069E: lambda r: GetBlockHeader(_block(r), r.u32()),
    0xFAC8F71E: _lookup_block,
    0x74D3FD6B: lambda r: GetAllShardsInfo(_block(r)),
    0x46A2F425: lambda r: GetShardInfo(_block(r), r.i32(), r.i64(), r.bool_()),
    0xADFCC7DA: lambda r: _list_transactions(r, ext=False),
    0x0079DD5C: lambda r: _list_transactions(r, ext=True),
    0x911B26B7: lambda r: GetConfig(r.u32(), _block(r), None),
    0x2A111C19: _config_params,
    0xD122B662: _libraries,
    0x8AEA9C44: _block_proof,
    0x4CA60350: lambda r: GetShardBlockProof(_block(r)),
}


# Answers.

VERSION: Final = 0x101
CAPABILITIES: Final = 7


def masterchain_info(last: BlockId, init: BlockId) -> bytes:
    """The state hash of the last block is not known to a client's checks; zero is what all accept (devnet 2.2)."""
    return _masterchain_tail(Writer(0x85832881).raw(last.to_bytes()), init)


def masterchain_info_ext(mode: int, last: BlockId, last_utime: int, now: int, init: BlockId) -> bytes:
    writer = Writer(0xA8CCE0F5).u32(mode).i32(VERSION).i64(CAPABILITIES).raw(last.to_bytes())
    return _masterchain_tail(writer.i32(last_utime).i32(now), init)


def _masterchain_tail(writer: Writer, init: BlockId) -> bytes:
    return writer.int256(bytes(32)).i32(init.workchain).int256(init.root_hash).int256(init.file_hash).done()


def current_time(now: int) -> bytes:
    return Writer(0xE953000D).i32(now).done()


def version(now: int) -> bytes:
    return Writer(0x5A0491E5).u32(0).i32(VERSION).i64(CAPABILITIES).i32(now).done()


def account_state(value: api.AccountAnswer) -> bytes:
    writer = Writer(0x7079C751).raw(value.id.to_bytes()).raw(value.shardblk.to_bytes())
    return writer.bytes_(value.shard_proof).bytes_(value.proof).bytes_(value.state).done()


def run_method_result(mode: int, value: api.RunMethodAnswer) -> bytes:
    """The bits of `mode` choose what is in it: 0 proofs, 1 state proof, 2 result; c7 and libraries are not offered."""
    mode &= 7
    writer = Writer(0xA39A616B).u32(mode).raw(value.id.to_bytes()).raw(value.shardblk.to_bytes())
    if mode & 1:
        writer.bytes_(value.shard_proof).bytes_(value.proof)
    if mode & 2:
        writer.bytes_(value.state_proof)
    writer.i32(value.exit_code)
    if mode & 4:
        writer.bytes_(value.result)
    return writer.done()


def send_msg_status(status: int = 1) -> bytes:
    return Writer(0x3950E597).i32(status).done()


def transaction_list(value: api.TransactionsAnswer) -> bytes:
    return Writer(0x6F26C60B).vector([i.to_bytes() for i in value.ids]).bytes_(value.transactions).done()


def transaction_info(value: api.TransactionAnswer) -> bytes:
    return Writer(0x0EDEED47).raw(value.id.to_bytes()).bytes_(value.proof).bytes_(value.transaction).done()


def block_data(value: api.BlockAnswer) -> bytes:
    return Writer(0xA574ED6C).raw(value.id.to_bytes()).bytes_(value.data).done()


def block_header(mode: int, value: api.HeaderAnswer) -> bytes:
    return Writer(0x752D8219).raw(value.id.to_bytes()).u32(mode).bytes_(value.header_proof).done()


def all_shards_info(value: api.AllShardsAnswer) -> bytes:
    return Writer(0x098FE72D).raw(value.id.to_bytes()).bytes_(value.proof).bytes_(value.data).done()


def shard_info(value: api.ShardInfoAnswer) -> bytes:
    writer = Writer(0x9FE6CD84).raw(value.id.to_bytes()).raw(value.shardblk.to_bytes())
    return writer.bytes_(value.shard_proof).bytes_(value.shard_descr).done()


def block_transactions(mode: int, value: api.BlockTransactionsAnswer) -> bytes:
    ids = [_transaction_id(mode & 7, item) for item in value.ids]
    writer = Writer(0xBD8CAD2B).raw(value.id.to_bytes()).u32(value.req_count).bool_(value.incomplete)
    return writer.vector(ids).bytes_(value.proof if mode & 32 else b"").done()


def _transaction_id(mode: int, item: api.TransactionId) -> bytes:
    """Bare inside the vector: flags, then the fields whose bits are set."""
    writer = Writer().u32(mode)
    if mode & 1:
        writer.int256(item.account)
    if mode & 2:
        writer.i64(item.lt)
    if mode & 4:
        writer.int256(item.hash)
    return writer.done()


def block_transactions_ext(mode: int, value: api.BlockTransactionsExtAnswer) -> bytes:
    writer = Writer(0xFB8FFCE4).raw(value.id.to_bytes()).u32(value.req_count).bool_(value.incomplete)
    return writer.bytes_(value.transactions).bytes_(value.proof if mode & 32 else b"").done()


def config_info(mode: int, value: api.ConfigAnswer) -> bytes:
    writer = Writer(0xAE7B272F).u32(mode).raw(value.id.to_bytes())
    return writer.bytes_(value.state_proof).bytes_(value.config_proof).done()


def no_libraries() -> bytes:
    return Writer(0x117AB96B).vector([]).done()


def complete_block_proof(known: BlockId, target: BlockId) -> bytes:
    """A partialBlockProof without steps: the target is the known block itself."""
    return Writer(0x8ED0D2C1).bool_(True).raw(known.to_bytes()).raw(target.to_bytes()).vector([]).done()


def shard_block_proof(masterchain: BlockId, links: Sequence[tuple[BlockId, bytes]]) -> bytes:
    items = [Writer().raw(block.to_bytes()).bytes_(proof).done() for block, proof in links]
    return Writer(0x1D62A07A).raw(masterchain.to_bytes()).vector(items).done()
