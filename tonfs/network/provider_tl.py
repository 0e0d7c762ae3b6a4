"""Messages between a client and a storage provider (reference contracts section 5).

The type ids are those of the schema text; the fields are those that the programs really send, which is not the same
for `ratesResponse` and `storageResponse`. Both sides are here: the agent's link and the provider role. BadPacket is
the only error for foreign bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..errors import BadPacket
from ..ids import AdnlId, NanoTon, ProviderKey
from . import tl
from .api import Rates, StorageStatus
from .keys import short_id, verify

ADNL_PROVIDER_PROOF: Final = 0x6752B11B
"""storage.tonutils.adnlProviderProof provider_key:int256"""

MAX_RATES: Final = 8196
MAX_STORAGE: Final = 64 << 10
MAX_ADNL_PROOF: Final = 8196
MAX_COINS: Final = 15
"""Bytes of an amount: VarUInteger 16 holds no more."""

RESOLVING: Final = "resolving"
DOWNLOADING: Final = "downloading"
ACTIVE: Final = "active"
ERROR: Final = "error"


@dataclass(frozen=True)
class RatesRequest:
    size: int


@dataclass(frozen=True)
class StorageRequest:
    """`contract`: the 32 bytes of a basechain address."""

    contract: bytes
    byte_to_proof: int


@dataclass(frozen=True)
class AdnlProofRequest:
    contract: bytes


Request = RatesRequest | StorageRequest | AdnlProofRequest


def pack_request(request: Request) -> bytes:
    match request:
        case RatesRequest(size):
            return tl.Writer(tl.PROVIDER_RATES_REQUEST).u64(size).done()
        case StorageRequest(contract, byte_to_proof):
            return tl.Writer(tl.PROVIDER_STORAGE_REQUEST).int256(contract).u64(byte_to_proof).done()
        case AdnlProofRequest(contract):
            return tl.Writer(tl.PROVIDER_ADNL_PROOF_REQUEST).int256(contract).done()


def parse_request(data: bytes) -> Request:
    """Any of the three. Raises BadPacket."""
    reader = tl.Reader(data)
    tag = reader.u32()
    request: Request
    if tag == tl.PROVIDER_RATES_REQUEST:
        request = RatesRequest(reader.u64())
    elif tag == tl.PROVIDER_STORAGE_REQUEST:
        request = StorageRequest(reader.int256(), reader.u64())
    elif tag == tl.PROVIDER_ADNL_PROOF_REQUEST:
        request = AdnlProofRequest(reader.int256())
    else:
        raise BadPacket(f"not a request to a storage provider: {tag:08x}")
    reader.end()
    return request


def _pack_coins(amount: int) -> bytes:
    return amount.to_bytes((amount.bit_length() + 7) // 8, "big")


def _read_coins(reader: tl.Reader) -> NanoTon:
    return NanoTon(int.from_bytes(reader.bytes_(MAX_COINS), "big"))


def pack_rates(rates: Rates) -> bytes:
    writer = tl.Writer(tl.PROVIDER_RATES_RESPONSE).bool_(rates.available)
    writer.bytes_(_pack_coins(rates.rate_per_mb_day)).bytes_(_pack_coins(rates.min_bounty))
    return writer.u64(rates.space_available).u32(rates.min_span).u32(rates.max_span).done()


def parse_rates(data: bytes) -> Rates:
    """Raises BadPacket, also for an offer that contradicts itself."""
    reader = tl.Reader(data)
    reader.expect(tl.PROVIDER_RATES_RESPONSE)
    rates = Rates(
        available=reader.bool_(),
        rate_per_mb_day=_read_coins(reader),
        min_bounty=_read_coins(reader),
        space_available=reader.u64(),
        min_span=reader.u32(),
        max_span=reader.u32(),
    )
    reader.end()
    if rates.min_span > rates.max_span:
        raise BadPacket("a provider's shortest span is longer than its longest")
    return rates


def pack_storage(status: StorageStatus) -> bytes:
    writer = tl.Writer(tl.PROVIDER_STORAGE_RESPONSE).bytes_(status.status.encode()).bytes_(status.reason.encode())
    return writer.u64(status.downloaded).bytes_(status.proof).done()


def parse_storage(data: bytes) -> StorageStatus:
    """Raises BadPacket. A status that we do not know is passed on: it is not `active`, and that is what counts."""
    reader = tl.Reader(data)
    reader.expect(tl.PROVIDER_STORAGE_RESPONSE)
    status = StorageStatus(
        status=tl.readable(reader.bytes_(tl.MAX_TEXT)),
        reason=tl.readable(reader.bytes_(tl.MAX_TEXT)),
        downloaded=reader.u64(),
        proof=reader.bytes_(MAX_STORAGE),
    )
    reader.end()
    return status


def adnl_proof_message(provider: ProviderKey) -> bytes:
    """36 bytes that a storage daemon's ADNL key signs to say "I hold the bags of this provider"."""
    return tl.Writer(ADNL_PROVIDER_PROOF).int256(provider).done()


def pack_adnl_proof(storage_key: bytes, signature: bytes) -> bytes:
    return tl.Writer(tl.PROVIDER_ADNL_PROOF_RESPONSE).int256(storage_key).bytes_(signature).done()


def parse_adnl_proof(data: bytes, provider: ProviderKey) -> AdnlId:
    """Short id of the key that serves the bags, with its signature checked. Raises BadPacket."""
    reader = tl.Reader(data)
    reader.expect(tl.PROVIDER_ADNL_PROOF_RESPONSE)
    storage_key = reader.int256()
    signature = reader.bytes_(64)
    reader.end()
    if not verify(storage_key, adnl_proof_message(provider), signature):
        raise BadPacket("a provider's ADNL proof has a wrong signature")
    return short_id(storage_key)
