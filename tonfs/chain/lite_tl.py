"""Answers of a lite server, read strictly (devnet.md section 2.2). Requests are written by pytoniq.

pytoniq's own reader guesses types inside byte strings and walks vectors without a limit, so it is not given foreign
bytes. Everything malformed raises BadProof: a server that cannot write its answers is to be avoided like one that lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..errors import BadProof

ERROR: Final = 0xBBA9E148
MASTERCHAIN_INFO: Final = 0x85832881
BLOCK_HEADER: Final = 0x752D8219
ACCOUNT_STATE: Final = 0x7079C751
TRANSACTION_LIST: Final = 0x6F26C60B
SEND_STATUS: Final = 0x3950E597
RUN_METHOD_RESULT: Final = 0xA39A616B


@dataclass(frozen=True)
class BlockRef:
    """`tonNode.blockIdExt`."""

    workchain: int
    shard: int
    seqno: int
    root_hash: bytes
    file_hash: bytes

    def request(self) -> dict[str, object]:
        """As pytoniq's TL writer wants it."""
        return {
            "workchain": self.workchain,
            "shard": self.shard,
            "seqno": self.seqno,
            "root_hash": self.root_hash.hex(),
            "file_hash": self.file_hash.hex(),
        }


class ServerError(Exception):
    """`liteServer.error`."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"lite server error {code}: {message[:300]}")
        self.code = code
        self.message = message


class TlReader:
    """TL values from front to end; anything missing raises BadProof."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def fixed(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise BadProof("A lite server's answer is cut off.")
        out = self._data[self._at : end]
        self._at = end
        return out

    def uint(self) -> int:
        return int.from_bytes(self.fixed(4), "little")

    def sint(self) -> int:
        return int.from_bytes(self.fixed(4), "little", signed=True)

    def slong(self) -> int:
        return int.from_bytes(self.fixed(8), "little", signed=True)

    def bytes(self) -> bytes:
        size = self.fixed(1)[0]
        head = 1
        if size == 254:
            size, head = int.from_bytes(self.fixed(3), "little"), 4
        elif size == 255:
            size, head = int.from_bytes(self.fixed(7), "little"), 8
        out = self.fixed(size)
        self.fixed(-(head + size) % 4)
        return out

    def block(self) -> BlockRef:
        return BlockRef(self.sint(), self.slong(), self.sint(), self.fixed(32), self.fixed(32))

    def end(self) -> None:
        if self._at != len(self._data):
            raise BadProof("A lite server's answer is longer than its type.")


def open_answer(data: bytes, kind: int) -> TlReader:
    """A reader behind the constructor id. Raises ServerError for an error answer, BadProof for another type."""
    reader = TlReader(data)
    got = reader.uint()
    if got == ERROR:
        raise ServerError(reader.sint(), reader.bytes().decode("utf-8", "replace"))
    if got != kind:
        raise BadProof(f"A lite server answered with type {got:08x} instead of {kind:08x}.")
    return reader


@dataclass(frozen=True)
class AccountAnswer:
    """`liteServer.accountState`, nothing checked yet."""

    id: BlockRef
    shard_block: BlockRef
    shard_proof: bytes
    proof: bytes
    state: bytes


def masterchain_info(data: bytes) -> BlockRef:
    """The last masterchain block."""
    reader = open_answer(data, MASTERCHAIN_INFO)
    last = reader.block()
    reader.fixed(32)  # state root hash
    reader.fixed(4 + 32 + 32)  # zero state
    reader.end()
    if last.workchain != -1 or last.seqno < 0:
        raise BadProof("A lite server names a last block that is not in the masterchain.")
    return last


def block_header(data: bytes, asked: BlockRef) -> bytes:
    """The header proof of the block that was asked for."""
    reader = open_answer(data, BLOCK_HEADER)
    block = reader.block()
    reader.uint()
    proof = reader.bytes()
    reader.end()
    if block != asked:
        raise BadProof("A lite server answered about another block than asked.")
    return proof


def account_state(data: bytes, asked: BlockRef) -> AccountAnswer:
    reader = open_answer(data, ACCOUNT_STATE)
    answer = AccountAnswer(reader.block(), reader.block(), reader.bytes(), reader.bytes(), reader.bytes())
    reader.end()
    if answer.id != asked:
        raise BadProof("A lite server answered about another block than asked.")
    return answer


def transaction_list(data: bytes, most: int) -> bytes:
    """The transactions' bag of cells (one root each, newest first); empty when there are none."""
    reader = open_answer(data, TRANSACTION_LIST)
    count = reader.uint()
    if count > most:
        raise BadProof(f"A lite server sent {count} transactions instead of at most {most}.")
    for _ in range(count):
        reader.block()
    out = reader.bytes()
    reader.end()
    return out


def send_status(data: bytes) -> int:
    reader = open_answer(data, SEND_STATUS)
    status = reader.sint()
    reader.end()
    return status


def run_method_result(data: bytes) -> tuple[int, bytes]:
    """(exit code, stack BoC) of an answer to mode 4."""
    reader = open_answer(data, RUN_METHOD_RESULT)
    mode = reader.uint()
    reader.block()
    reader.block()
    for bit, count in ((0, 2), (1, 1), (3, 1), (4, 1)):
        if mode >> bit & 1:
            for _ in range(count):
                reader.bytes()
    exit_code = reader.sint()
    result = reader.bytes() if mode >> 2 & 1 else b""
    reader.end()
    return exit_code, result
