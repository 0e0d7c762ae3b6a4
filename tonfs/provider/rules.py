"""What a provider accepts, when it proves, when it gives up: pure rules (reference contracts 4.5, section 5).

Every time here is chain time in seconds. Reasons are texts for the other side and for a person.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from ..chain.storage2 import MIN_BOUNTY, MIN_FUNDING, ProviderEntry, StorageContract, Terms
from ..ids import Address, BagId, NanoTon, ProviderKey
from ..network.api import Rates
from .config import ProviderConfig

GRACE: Final = 3600
"""A contract that cannot pay a full span is kept this long after its proof became due."""
RETRY_GAP: Final = 60
"""Seconds after a proof was sent before it is sent again, if the contract shows no effect of it."""
LOOK_EVERY: Final = 30
"""How often a contract is read while nothing is due: its owner may have changed the list or the balance."""


class State(StrEnum):
    """Life of an accepted contract."""

    RESOLVING = "resolving"
    """The bag's header is not here yet, so the contract's address is not confirmed."""
    DOWNLOADING = "downloading"
    ACTIVE = "active"
    LOW = "warning-balance"
    """The contract cannot pay a full span: no proofs until it is topped up."""
    DROPPED = "dropped"


class Event(StrEnum):
    RESOLVED = "resolved"
    """The bag's info is here and leads to exactly this contract address."""
    COMPLETED = "completed"
    FUNDED = "funded"
    LOW_BALANCE = "low balance"
    UNLISTED = "unlisted"
    """The owner removed us, or the contract is gone."""
    REFUSED = "refused"
    """Its new terms do not fit, or the bag is not what the contract says."""
    STARVED = "starved"
    STALLED = "stalled"


_LIVE: Final = (State.RESOLVING, State.DOWNLOADING, State.ACTIVE, State.LOW)
_ENDS: Final = (Event.UNLISTED, Event.REFUSED, Event.STARVED)

TABLE: Final[dict[tuple[State, Event], State]] = {
    (State.RESOLVING, Event.RESOLVED): State.DOWNLOADING,
    (State.DOWNLOADING, Event.COMPLETED): State.ACTIVE,
    (State.ACTIVE, Event.LOW_BALANCE): State.LOW,
    (State.LOW, Event.FUNDED): State.ACTIVE,
    (State.RESOLVING, Event.STALLED): State.DROPPED,
    (State.DOWNLOADING, Event.STALLED): State.DROPPED,
    **{(state, event): State.DROPPED for state in _LIVE for event in _ENDS},
}
"""What is not listed changes nothing."""


def advance(state: State, event: Event) -> State:
    return TABLE.get((state, event), state)


@dataclass(frozen=True)
class Record:
    """A contract that was accepted, as it is kept on disk."""

    address: Address
    bag_id: BagId
    owner: Address
    file_size: int
    piece_size: int
    merkle_hash: bytes
    terms: Terms
    accepted_at: int
    state: State = State.RESOLVING

    def after(self, event: Event) -> Record:
        return replace(self, state=advance(self.state, event))


def new_record(contract: StorageContract, key: ProviderKey, now: int) -> Record:
    return Record(
        address=contract.address,
        bag_id=contract.torrent_hash,
        owner=contract.owner,
        file_size=contract.file_size,
        piece_size=contract.piece_size,
        merkle_hash=contract.merkle_hash,
        terms=contract.providers[key].terms,
        accepted_at=now,
    )


def refuse_terms(contract: StorageContract, key: ProviderKey, config: ProviderConfig) -> str:
    """Why these terms are not acceptable; empty when they are."""
    terms = contract.providers[key]
    if terms.max_span < config.min_span:
        return f"too short proof time: {terms.max_span} s, at least {config.min_span} s"
    if terms.max_span > config.max_span:
        return f"too long proof time: {terms.max_span} s, at most {config.max_span} s"
    if terms.rate < config.rate_per_mb_day:
        return f"rate too low: {terms.rate}, at least {config.rate_per_mb_day} nanoTON per MB and day"
    if contract.bounty(key) < MIN_BOUNTY:
        return f"bounty too low: {contract.bounty(key)}, at least {MIN_BOUNTY} nanoTON for a full span"
    return ""


def refuse_offer(contract: StorageContract, key: ProviderKey, config: ProviderConfig, free: int) -> str:
    """Why a contract that we do not know yet is not accepted; empty when it is. `free`: bytes left for bags."""
    if key not in contract.providers:
        return "this provider is not listed in the contract"
    if contract.file_size > config.max_bag_size:
        return f"bag too big: {contract.file_size} bytes, at most {config.max_bag_size}"
    if contract.available < MIN_FUNDING:
        return f"balance below 0.08 TON: {contract.available} nanoTON available"
    reason = refuse_terms(contract, key, config)
    if not reason and contract.file_size > free:
        reason = f"no space: {contract.file_size} bytes wanted, {free} left"
    return reason


def is_due(entry: ProviderEntry, now: int) -> bool:
    """A fresh provider proves at once, then each time a full span has passed."""
    return entry.last_proof_time == 0 or now >= entry.last_proof_time + entry.max_span


def judge(
    record: Record, contract: StorageContract | None, key: ProviderKey, config: ProviderConfig, now: int
) -> tuple[Event, str]:
    """What the contract's present state means for an accepted record, and why."""
    if contract is None:
        return Event.UNLISTED, "the contract is gone"
    entry = contract.providers.get(key)
    if entry is None:
        return Event.UNLISTED, "the owner removed this provider from the contract"
    if entry.terms != record.terms:
        reason = refuse_terms(contract, key, config)
        if reason:
            return Event.REFUSED, reason
    if contract.available >= contract.bounty(key):
        return Event.FUNDED, ""
    since = entry.last_proof_time + entry.max_span if entry.last_proof_time else record.accepted_at
    if now > since + GRACE:
        return Event.STARVED, "the balance was too low for too long"
    return Event.LOW_BALANCE, f"{contract.available} nanoTON cannot pay a full span of {contract.bounty(key)}"


def rates(config: ProviderConfig, size: int, free: int) -> Rates:
    """The answer to ratesRequest; `space_available` is clipped to the size asked for (reference contracts 5)."""
    fits = 0 <= size <= min(free, config.max_bag_size)
    return Rates(
        available=fits,
        rate_per_mb_day=NanoTon(config.rate_per_mb_day),
        min_bounty=MIN_BOUNTY,
        space_available=size if fits else 0,
        min_span=config.min_span,
        max_span=config.max_span,
    )
