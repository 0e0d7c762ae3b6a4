"""The generation-2 storage contract: one contract per bag and owner, many providers (reference contracts section 4).

Facts are read from the proved account data, never from get methods. All money is integer nanoTON; the bounty is the
contract's own floor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from ..errors import BadData, NotFound
from ..ids import Address, BagId, NanoTon, ProviderKey
from . import codes
from .api import AccountState, AccountStatus
from .cells import Builder, Cell, Reader, build_dictionary, dictionary, one_cell
from .messages import state_init as make_state_init
from .messages import state_init_address

CODE_HASH: Final = codes.STORAGE2

OP_MODIFY_PROVIDERS: Final = 0x3DC680AE
OP_WITHDRAW: Final = 0x61FFF683
OP_PROOF: Final = 0x48F548CE
OP_REWARD: Final = 0xA91BAF56
OP_REFUND: Final = 0xB6236D63

RESERVE: Final = NanoTon(5_000_000)
"""What the contract keeps for itself."""
WITHDRAW_VALUE: Final = NanoTon(30_000_000)
"""Attached to a withdrawal; all but about 0.002 TON comes back."""
PROOF_VALUE: Final = NanoTon(50_000_000)
"""Attached to a proof by the reference provider."""
MIN_FUNDING: Final = NanoTon(80_000_000)
"""Providers refuse a contract whose available balance is lower."""
MIN_BOUNTY: Final = NanoTon(50_000_000)
"""Providers refuse terms whose full-span bounty is lower."""
MAX_PROVIDERS: Final = 130
"""More do not fit the gas limit of one message."""

_NOWHERE: Final = Address("")

MB_DAY: Final = 86400 << 20
"""Divisor of size * rate * span."""


class BagFacts(Protocol):
    """What the contract knows of a bag; `bag.info.TorrentInfo` satisfies it."""

    @property
    def bag_id(self) -> BagId: ...
    @property
    def file_size(self) -> int: ...
    @property
    def piece_size(self) -> int: ...
    @property
    def root_hash(self) -> bytes: ...


@dataclass(frozen=True)
class Terms:
    """What a provider is hired on: longest paid gap between proofs (s), price (nanoTON per MB and day)."""

    max_span: int
    rate: int


@dataclass(frozen=True)
class ProviderEntry:
    """A provider's row in the contract. `last_proof_time` 0 means it has not proved yet."""

    next_proof_byte: int
    last_proof_time: int
    nonce: int
    max_span: int
    rate: int

    @property
    def terms(self) -> Terms:
        return Terms(self.max_span, self.rate)


@dataclass(frozen=True)
class StorageContract:
    """A storage contract as its proved data shows it."""

    address: Address
    torrent_hash: BagId
    owner: Address
    file_size: int
    piece_size: int
    merkle_hash: bytes
    providers: dict[ProviderKey, ProviderEntry]
    balance: NanoTon
    available: NanoTon
    """What providers can still earn: balance less the reserve, never below 0."""

    def bounty(self, key: ProviderKey) -> NanoTon:
        """Full-span bounty of a listed provider."""
        entry = self.providers[key]
        return bounty(self.file_size, entry.rate, entry.max_span)

    def cost_per_day(self) -> NanoTon:
        """What all listed providers together earn in a day while they prove."""
        return NanoTon(sum(self.file_size * entry.rate for entry in self.providers.values()) >> 20)


def bounty(size: int, rate: int, span: int) -> NanoTon:
    """Exactly what the contract pays for `span` seconds: floor(size * rate * span / (86400 * 2^20))."""
    return NanoTon(size * rate * span // MB_DAY)


def rate_for_bounty(size: int, span: int, wanted: int) -> int:
    """Lowest rate whose full-span bounty reaches `wanted`."""
    return -(-wanted * MB_DAY // (size * span))


# Address and deployment.


def state_init(info: BagFacts, owner: Address) -> Cell:
    """StateInit of the contract of this bag and owner: no providers yet, key_len 0."""
    data = Builder().raw(info.bag_id).bit(False).address(owner)
    data.uint(info.file_size, 64).uint(info.piece_size, 32).raw(info.root_hash).uint(0, 8)
    return make_state_init(codes.code(CODE_HASH), data.cell())


def contract_address(info: BagFacts, owner: Address) -> Address:
    """The only contract that this owner can have for this bag, deployed or not."""
    return state_init_address(state_init(info, owner))


# Messages in.


def modify_providers(query_id: int, providers: Mapping[ProviderKey, Terms]) -> Cell:
    """The complete new list: who is absent is removed, who is listed with equal terms keeps its state.

    Raises ValueError for terms that the contract refuses (span or rate 0, too many providers).
    """
    if len(providers) > MAX_PROVIDERS:
        raise ValueError(f"{len(providers)} providers do not fit one contract")
    entries = {}
    for key, terms in providers.items():
        if not terms.max_span or not terms.rate:
            raise ValueError("span and rate of a provider must not be 0")
        entries[int.from_bytes(key, "big")] = Builder().uint(terms.max_span, 32).coins(terms.rate).cell()
    body = Builder().uint(OP_MODIFY_PROVIDERS, 32).uint(query_id, 64)
    return body.maybe_ref(build_dictionary(entries, 256)).cell()


def withdraw(query_id: int) -> Cell:
    """Everything but the reserve to the owner. The provider list stays."""
    return Builder().uint(OP_WITHDRAW, 32).uint(query_id, 64).cell()


def proof_payload(nonce: int, proof: bytes) -> Cell:
    """What a provider signs (the hash of this cell): the nonce of its entry and the proof cell (a one-root BoC)."""
    return Builder().uint(nonce, 64).ref(one_cell(proof)).cell()


def proof_body(query_id: int, key: ProviderKey, signature: bytes, nonce: int, proof: bytes) -> Cell:
    """proof_storage with the signature over `proof_payload`'s hash."""
    body = Builder().uint(OP_PROOF, 32).uint(query_id, 64).raw(key).raw(signature)
    return body.uint(nonce, 64).ref(one_cell(proof)).cell()


# State.


def _entry(reader: Reader) -> ProviderEntry:
    byte, last, nonce = reader.uint(64), reader.uint(32), reader.uint(64)
    terms = Reader(reader.ref())
    entry = ProviderEntry(byte, last, nonce, terms.uint(32), terms.coins())
    terms.end()
    reader.end()
    return entry


def parse_storage(data: Cell, balance: int, address: Address = _NOWHERE) -> StorageContract:
    """Read the contract's data cell. Raises BadData for data that no honest deployment can have."""
    reader = Reader(data)
    torrent_hash = reader.raw(32)
    root = reader.maybe_ref()
    owner = reader.address()
    file_size, piece_size, merkle_hash = reader.uint(64), reader.uint(32), reader.raw(32)
    reader.uint(8)
    reader.end()
    if owner is None or not file_size or not piece_size:
        raise BadData("A storage contract has no owner, no size or no piece size.")
    # The contract itself refuses 512 and more in one message.
    entries = dictionary(root, 256, _entry, limit=512)
    providers = {ProviderKey(key.to_bytes(32, "big")): entry for key, entry in entries.items()}
    available = NanoTon(max(0, balance - RESERVE))
    return StorageContract(
        address, BagId(torrent_hash), owner, file_size, piece_size, merkle_hash, providers, NanoTon(balance), available
    )


def read_contract(state: AccountState) -> StorageContract:
    """A storage contract from a proved account.

    Raises NotFound when it is not deployed, BadData when it runs other code or its data is malformed.
    """
    if state.status is not AccountStatus.ACTIVE or state.data is None:
        raise NotFound(f"There is no storage contract at {state.address} (the account is {state.status}).")
    if state.code_hash != CODE_HASH:
        raise BadData(f"The account {state.address} runs another contract than tonfs knows.")
    return parse_storage(state.data, state.balance, state.address)
