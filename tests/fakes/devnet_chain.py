"""People and contracts for tests of the devnet's chain, made with the client library's cells and real contract code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from nacl.signing import SigningKey
from pytoniq_core import Address, Builder, Cell, HashMap, begin_cell
from pytoniq_core.boc.exotic import CellTypes
from pytoniq_core.boc.tvm_bitarray import TvmBitarray
from ton_core import CONTRACT_CODES, ContractVersion

from tonfs.clock import ManualClock
from tonfs.devnet.chain_api import TransactionInfo
from tonfs.devnet.ledger import Ledger
from tonfs.ids import NANO, NanoTon
from tonfs.ids import Address as RawAddress

STORAGE_CODE_HASH = "385a5f0ddb841c17dd518a327c322d7d098e91c795eb9a152fe9be5cd20e40c9"
SUBWALLET = 698983191


def code(version: ContractVersion) -> Cell:
    return Cell.one_from_boc(CONTRACT_CODES[version])


def state_init(code_cell: Cell, data: Cell) -> Cell:
    out = begin_cell().store_uint(0b00110, 5).store_ref(code_cell).store_ref(data)
    return out.end_cell()


def address_of(init: Cell) -> RawAddress:
    return RawAddress(f"0:{init.hash.hex()}")


def new_ledger(directory: Path, clock: ManualClock | None = None, seed: bytes = b"test") -> Ledger:
    return Ledger.open(directory / "chain.db", clock or ManualClock(), seed)


def internal(
    to: str, amount: int, body: Cell | None = None, init: Cell | None = None, *, bounce: bool = True, flags: int = 0b10
) -> Cell:
    """An outgoing message as a wallet takes it: source, fees and times are filled in by the chain."""
    out = begin_cell().store_uint(0, 1).store_uint(flags >> 1, 1).store_bit(bounce).store_bit(False)
    out.store_uint(0, 2).store_address(Address(to)).store_coins(amount).store_bit(False)
    out.store_coins(0).store_coins(0).store_uint(0, 64).store_uint(0, 32)
    if init is None:
        out.store_bit(False)
    else:
        out.store_uint(0b11, 2).store_ref(init)
    if body is None:
        out.store_bit(False)
    else:
        out.store_bit(True).store_ref(body)
    return out.end_cell()


@dataclass
class Wallet:
    """A v3r2 or v4r2 wallet with its key; counts its own seqno."""

    ledger: Ledger
    key: SigningKey = field(default_factory=lambda: SigningKey(sha256(b"alice").digest()))
    version: ContractVersion = ContractVersion.WalletV4R2
    seqno: int = 0

    @property
    def init(self) -> Cell:
        data = begin_cell().store_uint(0, 32).store_uint(SUBWALLET, 32).store_bytes(bytes(self.key.verify_key))
        if self.version is ContractVersion.WalletV4R2:
            data.store_bit(False)
        return state_init(code(self.version), data.end_cell())

    @property
    def address(self) -> RawAddress:
        return address_of(self.init)

    @property
    def balance(self) -> int:
        return self.ledger.account(self.address).balance

    def external(
        self, messages: Sequence[Cell], *, seqno: int | None = None, valid_until: int = 0xFFFFFFFF, mode: int = 3
    ) -> bytes:
        number = self.seqno if seqno is None else seqno
        body = begin_cell().store_uint(SUBWALLET, 32).store_uint(valid_until, 32).store_uint(number, 32)
        if self.version is ContractVersion.WalletV4R2:
            body.store_uint(0, 8)
        for message in messages:
            body.store_uint(mode, 8).store_ref(message)
        payload = body.end_cell()
        signed = begin_cell().store_bytes(self.key.sign(payload.hash).signature).store_cell(payload).end_cell()
        out = begin_cell().store_uint(0b10, 2).store_uint(0, 2).store_address(Address(self.address)).store_coins(0)
        if number == 0:
            out.store_uint(0b11, 2).store_ref(self.init)
        else:
            out.store_bit(False)
        boc: bytes = out.store_bit(True).store_ref(signed).end_cell().to_boc()
        return boc

    def send(self, *messages: Cell, mode: int = 3) -> list[TransactionInfo]:
        """Inject, tick, and return all transactions that came of it, the wallet's own first."""
        message = self.ledger.inject_external(self.external(messages, mode=mode))
        self.seqno += 1
        self.ledger.tick()
        return [step.transaction for step in self.ledger.trace(message) if step.transaction is not None]


def funded_wallet(ledger: Ledger, name: str = "alice", tons: int = 100, **options: Any) -> Wallet:
    wallet = Wallet(ledger, SigningKey(sha256(name.encode()).digest()), **options)
    ledger.faucet(wallet.address, NanoTon(tons * NANO))
    ledger.tick()
    return wallet


# The generation-2 storage contract (reference contracts section 4).


def exotic(bits: bytes, refs: list[Cell], kind: int) -> Cell:
    return Cell(begin_cell().store_bytes(bits).end_cell().bits, refs, kind)


@dataclass
class Bag:
    """Just enough of a bag: its pieces' hash tree."""

    pieces: list[bytes]
    piece_size: int = 1024

    @property
    def size(self) -> int:
        return sum(map(len, self.pieces))

    @property
    def bag_id(self) -> bytes:
        return sha256(b"bag" + self.tree.hash).digest()

    def _leaves(self) -> list[Cell]:
        count = 1 << (len(self.pieces) - 1).bit_length()
        hashes = [sha256(piece).digest() for piece in self.pieces]
        hashes += [bytes(32)] * (count - len(hashes))
        return [begin_cell().store_bytes(h).end_cell() for h in hashes]

    @property
    def tree(self) -> Cell:
        level = self._leaves()
        while len(level) > 1:
            level = [
                begin_cell().store_ref(a).store_ref(b).end_cell() for a, b in zip(level[::2], level[1::2], strict=True)
            ]
        return level[0]

    def proof(self, index: int) -> Cell:
        """MerkleProof with everything cut but the path to one leaf."""
        tree = self.tree

        def depth(cell: Cell) -> int:
            return 1 + depth(cell.refs[0]) if cell.refs else 0

        def cut(cell: Cell) -> Cell:
            return exotic(b"\x01\x01" + cell.hash + depth(cell).to_bytes(2, "big"), [], CellTypes.pruned_branch)

        def path(cell: Cell) -> Cell:
            if not cell.refs:
                return cell
            bit = index >> (depth(cell) - 1) & 1
            refs = [path(ref) if i == bit else cut(ref) for i, ref in enumerate(cell.refs)]
            return Cell(TvmBitarray(0), refs, -1)

        head = b"\x03" + tree.hash + depth(tree).to_bytes(2, "big")
        return exotic(head, [path(tree)], CellTypes.merkle_proof)


def make_bag(pieces: int = 64, piece_size: int = 1024) -> Bag:
    return Bag([sha256(b"%d" % i).digest() * (piece_size // 32) for i in range(pieces)], piece_size)


@dataclass(frozen=True)
class ProviderEntry:
    next_proof_byte: int
    last_proof_time: int
    nonce: int
    max_span: int
    rate: int


@dataclass
class StorageContract:
    """One bag of one owner."""

    ledger: Ledger
    bag: Bag
    owner: RawAddress

    @property
    def init(self) -> Cell:
        out = begin_cell().store_bytes(self.bag.bag_id).store_bit(False).store_address(Address(self.owner))
        out.store_uint(self.bag.size, 64).store_uint(self.bag.piece_size, 32).store_bytes(self.bag.tree.hash)
        return state_init(code(ContractVersion.StorageContract), out.store_uint(0, 8).end_cell())

    @property
    def address(self) -> RawAddress:
        return address_of(self.init)

    def providers(self) -> dict[bytes, ProviderEntry]:
        data = Cell.one_from_boc(self.ledger.account(self.address).data).begin_parse()
        data.skip_bits(256)
        if not data.load_bit():
            return {}
        entries = {}
        for key, value in HashMap.parse(data.load_ref().begin_parse(), 256).items():
            numbers = value.load_uint(64), value.load_uint(32), value.load_uint(64)
            terms = value.load_ref().begin_parse()
            entries[key.to_bytes(32, "big")] = ProviderEntry(*numbers, terms.load_uint(32), terms.load_coins())
        return entries

    def modify(self, terms: Mapping[bytes, tuple[int, int]], query_id: int = 1) -> Cell:
        """Body: the complete new list, key -> (max_span, rate)."""

        def write(value: tuple[int, int], out: Builder) -> Builder:
            return out.store_uint(value[0], 32).store_coins(value[1])

        table = HashMap(256, value_serializer=write)
        for key, value in terms.items():
            table.set_int_key(int.from_bytes(key, "big"), value)
        body = begin_cell().store_uint(0x3DC680AE, 32).store_uint(query_id, 64)
        return body.store_dict(table.serialize() if terms else None).end_cell()

    def withdraw(self, query_id: int = 2) -> Cell:
        return begin_cell().store_uint(0x61FFF683, 32).store_uint(query_id, 64).end_cell()

    def prove(self, key: SigningKey, query_id: int = 3, *, piece: int | None = None) -> Cell:
        """Body with the proof that this provider owes now."""
        public = bytes(key.verify_key)
        entry = self.providers()[public]
        index = entry.next_proof_byte // self.bag.piece_size if piece is None else piece
        payload = begin_cell().store_uint(entry.nonce, 64).store_ref(self.bag.proof(index)).end_cell()
        body = begin_cell().store_uint(0x48F548CE, 32).store_uint(query_id, 64).store_bytes(public)
        return body.store_bytes(key.sign(payload.hash).signature).store_cell(payload).end_cell()
