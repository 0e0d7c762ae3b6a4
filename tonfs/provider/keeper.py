"""The conductor of a provider: accepted contracts, their downloads, their proofs, their end.

One task looks at the chain block by block (time is chain time), one task per contract gets and seeds its bag. What a
contract's state means is decided in `rules`; here it is only carried out. Everything that matters is in the store
before it is acted upon, so the process may be killed at any point.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import trio

from ..chain import Chain, Message, storage2
from ..chain.storage2 import PROOF_VALUE, ProviderEntry, StorageContract
from ..errors import BadData, BadPiece, NotFound, TonfsError
from ..ids import Address, BagId, NanoTon, ProviderKey
from ..log import get_logger
from ..network.api import FetchReport, StorageStatus
from .config import ProviderConfig
from .faults import Fault
from .rules import (
    LOOK_EVERY,
    RETRY_GAP,
    Event,
    Record,
    State,
    advance,
    is_due,
    judge,
    new_record,
    refuse_offer,
)
from .sender import Sender
from .shelf import Shelf
from .store import ProviderStore

log = get_logger(__name__)

FETCH_TIMEOUT: Final = 120.0
FETCH_PAUSE: Final = 3.0
CHAIN_PAUSE: Final = 2.0
ACCEPT_TIMEOUT: Final = 8.0
"""A client waits a few seconds for an answer; the chain must have spoken by then."""
ACCEPTORS: Final = 4
REFUSED_FOR: Final = 3.0
MAX_REFUSALS: Final = 1024
MAX_MESSAGES: Final = 4
WALLET_NEEDS: Final = NanoTon(80_000_000)
"""Least balance of the wallet before it proves."""
PROOF_COST: Final = NanoTon(60_000_000)
"""What one proof may take from the wallet for a moment: its value and its fees."""
_GONE: Final = "temporary provider error"


class BagNet(Protocol):
    """What a provider needs of the storage network (part of `PeerNet`)."""

    async def fetch(
        self, bag_id: BagId, directory: Path, pieces: Sequence[int] | None, *, timeout: float
    ) -> FetchReport: ...

    async def seed(self, bag_id: BagId, directory: Path) -> None: ...

    async def forget(self, bag_id: BagId) -> None: ...


@dataclass
class Kept:
    """An accepted contract and what goes on around it. `seen` is None until it was read since the start."""

    record: Record
    seen: StorageContract | None = None
    looked_at: float = -math.inf
    """Chain time of the last look."""
    looked_in: int = -1
    """Block of the last look."""
    proved: tuple[int, int] = (-RETRY_GAP, -1)
    """Chain time and nonce of the last proof that was sent."""
    reason: str = ""
    wake: trio.Event = field(default_factory=trio.Event)
    fetching: trio.CancelScope | None = None
    life: trio.CancelScope = field(default_factory=trio.CancelScope)

    def entry(self, key: ProviderKey) -> ProviderEntry | None:
        return self.seen.providers.get(key) if self.seen is not None else None


class Keeper:
    """See the module."""

    def __init__(
        self,
        config: ProviderConfig,
        key: ProviderKey,
        store: ProviderStore,
        shelf: Shelf,
        chain: Chain,
        net: BagNet,
        sender: Sender,
        fault: Fault = Fault.NONE,
    ) -> None:
        self.config: Final = config
        self.key: Final = key
        self.fault = fault
        self.kept: dict[Address, Kept] = {}
        self.problem = ""
        """What keeps the whole provider from working, for `status`."""
        self._store = store
        self._shelf = shelf
        self._chain = chain
        self._net = net
        self._sender = sender
        self._nursery: trio.Nursery | None = None
        self._acceptors = trio.CapacityLimiter(ACCEPTORS)
        self._refusals: OrderedDict[Address, tuple[float, str]] = OrderedDict()
        self._seeding: set[BagId] = set()
        self._bags = trio.Lock()
        """Held while a bag's files are deleted."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Work until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for record in self._store.records():
                await self._resume(record)
            task_status.started()
            while True:
                try:
                    seqno = await self._chain.wait_block()
                    now = await self._chain.now()
                    self.problem = ""
                    await self._round(now, seqno)
                except TonfsError as exc:
                    self.problem = exc.message
                    log.info("the chain cannot be read now", reason=exc.message)
                    await trio.sleep(CHAIN_PAUSE)

    async def _resume(self, record: Record) -> None:
        """After a start: go on with a contract where it was, or finish its removal."""
        broken = self._shelf.broken(record.bag_id)
        if broken and record.state is not State.DROPPED:
            log.info("a damaged bag is fetched again", bag_id=record.bag_id, reason=broken)
            await trio.to_thread.run_sync(self._shelf.remove, record.bag_id)
        if record.state is State.DROPPED:
            self.kept[record.address] = Kept(record)
            await self._remove(record)
        else:
            self._keep(record)

    def _keep(self, record: Record) -> None:
        assert self._nursery is not None
        kept = self.kept[record.address] = Kept(record)
        self._nursery.start_soon(self._work, kept)

    # Questions from outside.

    def space_left(self) -> int:
        """Bytes that can still be promised."""
        sizes = {k.record.bag_id: k.record.file_size for k in self.kept.values()}
        missing = sum(max(0, size - self._shelf.downloaded(bag)) for bag, size in sizes.items())
        promised = self.config.space - sum(sizes.values())
        return max(0, min(promised, self._shelf.disk_free() - missing))

    def knows(self, address: Address) -> bool:
        return address in self.kept

    def summary(self) -> list[dict[str, Any]]:
        """All contracts, for `status`."""
        out = []
        for kept in self.kept.values():
            entry = kept.entry(self.key)
            last = entry.last_proof_time if entry is not None else 0
            out.append(
                {
                    "address": kept.record.address,
                    "bag_id": kept.record.bag_id.hex(),
                    "size": kept.record.file_size,
                    "state": str(kept.record.state),
                    "reason": kept.reason,
                    "pieces": self._shelf.have(kept.record.bag_id),
                    "last_proof": last,
                    "next_proof": last + entry.max_span if entry is not None else 0,
                }
            )
        return out

    async def request(self, address: Address, byte: int) -> StorageStatus:
        """The answer to storageRequest: accepts the contract if it is new and good (reference contracts 5)."""
        kept = self.kept.get(address)
        if kept is None:
            reason = await self._consider(address)
            if reason:
                return StorageStatus("error", reason, 0, b"")
            kept = self.kept[address]
        elif kept.record.state is State.LOW:
            kept.looked_at = -math.inf  # whoever asks may have topped it up
        try:
            return self._status(kept, byte)
        except TonfsError as exc:
            log.info("no proof for a client", contract=address, reason=exc.message)
            return StorageStatus("error", "internal provider error", 0, b"")

    def _status(self, kept: Kept, byte: int) -> StorageStatus:
        record = kept.record
        if record.state is State.DROPPED:
            return StorageStatus("error", kept.reason, 0, b"")
        if record.state not in (State.ACTIVE, State.LOW):
            return StorageStatus(str(record.state), "", self._shelf.downloaded(record.bag_id), b"")
        if byte >= record.file_size:
            return StorageStatus("error", f"byte {byte} is outside the bag", record.file_size, b"")
        proof = self._shelf.proof(record.bag_id, byte)
        return StorageStatus(str(record.state), kept.reason, record.file_size, proof)

    async def _consider(self, address: Address) -> str:
        """Accept a contract, or say why not."""
        known = self._refusals.get(address)
        if known is not None and trio.current_time() < known[0]:
            return known[1]
        with trio.move_on_after(ACCEPT_TIMEOUT):
            async with self._acceptors:
                if address in self.kept:
                    return ""
                try:
                    reason = await self._read_offer(address)
                except TonfsError as exc:
                    log.info("a contract could not be read", contract=address, reason=exc.message)
                    return _GONE
                if reason:
                    self._refusals[address] = (trio.current_time() + REFUSED_FOR, reason)
                    while len(self._refusals) > MAX_REFUSALS:
                        self._refusals.popitem(last=False)
                return reason
        return _GONE

    async def _read_offer(self, address: Address) -> str:
        contract = await self._read(address)
        now = await self._chain.now()
        if contract is None:
            return "contract is not deployed"
        if address in self.kept:  # accepted meanwhile
            return ""
        shared = any(k.record.bag_id == contract.torrent_hash for k in self.kept.values())
        free = self.config.max_bag_size if shared else self.space_left()
        reason = refuse_offer(contract, self.key, self.config, free)
        if not reason and self._nursery is not None:
            record = new_record(contract, self.key, now)
            self._store.put(record)
            self._keep(record)
            self.kept[address].seen = contract
            log.info("contract accepted", contract=address, bag_id=record.bag_id, size=record.file_size)
        return reason

    async def _read(self, address: Address) -> StorageContract | None:
        """The contract, or None when the chain proves that there is none. Raises ChainUnavailable, BadProof."""
        state = await self._chain.account(address)
        try:
            return storage2.read_contract(state)
        except (NotFound, BadData) as exc:
            log.debug("no contract", address=address, reason=exc.message)
            return None

    # Every block.

    async def _round(self, now: int, seqno: int) -> None:
        """Look at contracts whose time has come, then prove what is due."""
        async with trio.open_nursery() as nursery:
            limiter = trio.CapacityLimiter(ACCEPTORS)
            for kept in list(self.kept.values()):
                entry = kept.entry(self.key)
                due = entry is not None and kept.record.state is State.ACTIVE and is_due(entry, now)
                if due or kept.seen is None or now - kept.looked_at >= LOOK_EVERY:
                    nursery.start_soon(self._look, kept, now, seqno, limiter)
        if self.fault is not Fault.SILENT and not self._sender.busy:
            jobs = self._due(now, seqno)
            if jobs:
                await self._prove(jobs, now)

    async def _look(self, kept: Kept, now: int, seqno: int, limiter: trio.CapacityLimiter) -> None:
        async with limiter:
            try:
                contract = await self._read(kept.record.address)
            except TonfsError as exc:
                log.info("a contract could not be read", contract=kept.record.address, reason=exc.message)
                return
        if kept.record.state is State.DROPPED:
            return
        kept.seen, kept.looked_at, kept.looked_in = contract, now, seqno
        event, reason = judge(kept.record, contract, self.key, self.config, now)
        self._apply(kept, event, reason)

    def _due(self, now: int, seqno: int) -> list[Kept]:
        """Contracts that can be proved now, longest overdue first."""
        found: list[tuple[int, Kept]] = []
        for kept in self.kept.values():
            entry = kept.entry(self.key)
            if entry is None or kept.record.state is not State.ACTIVE or kept.looked_in != seqno:
                continue
            sent_at, nonce = kept.proved
            if is_due(entry, now) and (nonce != entry.nonce or now >= sent_at + RETRY_GAP):
                found.append((entry.last_proof_time + entry.max_span, kept))
        return [kept for _, kept in sorted(found, key=lambda pair: pair[0])]

    async def _prove(self, jobs: Iterable[Kept], now: int) -> None:
        """Put up to four proofs into one external and send it in the background."""
        balance = (await self._sender.state()).balance
        room = min(MAX_MESSAGES, balance // PROOF_COST) if balance >= WALLET_NEEDS else 0
        if not room:
            self.problem = f"the wallet holds {balance} nanoTON, too little to send proofs"
            log.info("no coins to prove with", balance=balance)
            return
        messages: list[Message] = []
        sent: list[Kept] = []
        for kept in jobs:
            if len(messages) == room:
                break
            entry = kept.entry(self.key)
            assert entry is not None
            kept.proved = (now, entry.nonce)
            try:
                messages.append(self._proof_message(kept.record, entry))
                sent.append(kept)
            except (BadPiece, NotFound, BadData) as exc:
                log.info("no proof can be made", contract=kept.record.address, reason=exc.message)
        if messages and self._nursery is not None:
            self._nursery.start_soon(self._deliver, messages, sent)
            await trio.lowlevel.checkpoint()

    def _proof_message(self, record: Record, entry: ProviderEntry) -> Message:
        proof = self._shelf.proof(record.bag_id, entry.next_proof_byte)
        signature = self._sender.wallet.sign_bytes(storage2.proof_payload(entry.nonce, proof).hash)
        query_id = entry.nonce & 0xFFFFFFFF
        body = storage2.proof_body(query_id, self.key, signature, entry.nonce, proof)
        return Message(record.address, PROOF_VALUE, body)

    async def _deliver(self, messages: list[Message], sent: list[Kept]) -> None:
        try:
            done = await self._sender.deliver(messages)
        except TonfsError as exc:
            done = False
            log.info("proofs could not be sent", reason=exc.message)
        for kept in sent:
            if done:
                log.info("proof sent", contract=kept.record.address)
            else:
                kept.proved = (-RETRY_GAP, -1)
            kept.looked_at = -math.inf

    # States.

    def _apply(self, kept: Kept, event: Event, reason: str = "") -> None:
        before = kept.record.state
        state = advance(before, event)
        kept.reason = reason if state in (State.LOW, State.DROPPED) else ""
        if state is before:
            return
        kept.record = kept.record.after(event)
        self._store.put(kept.record)
        log.info("contract changed", contract=kept.record.address, state=str(state), reason=reason)
        kept.wake.set()
        if state is State.DROPPED:
            kept.life.cancel()  # its task removes it

    async def _remove(self, record: Record) -> None:
        """Delete the bag unless another contract needs it, then forget the contract."""
        others = [k for k in self.kept.values() if k.record.address != record.address]
        if not any(k.record.bag_id == record.bag_id for k in others):
            async with self._bags:
                await self._stop_seeding(record.bag_id)
                await trio.to_thread.run_sync(self._shelf.remove, record.bag_id)
        self._store.remove(record.address)
        del self.kept[record.address]

    # Bags.

    async def _work(self, kept: Kept) -> None:
        """Get a contract's bag, keep it whole, and seed it, as long as the contract lives; then remove it."""
        with kept.life:
            progress, since = -1, trio.current_time()
            while True:
                kept.wake = trio.Event()
                bag = kept.record.bag_id
                try:
                    if await self._settled(kept):
                        await kept.wake.wait()
                        progress, since = -1, trio.current_time()
                        continue
                    with trio.CancelScope() as kept.fetching:
                        await self._fetch(kept)
                except TonfsError as exc:
                    log.info("a bag is not complete yet", bag_id=bag, reason=exc.message)
                    await trio.sleep(FETCH_PAUSE)
                if (have := self._shelf.have(bag)) != progress:
                    progress, since = have, trio.current_time()
                elif trio.current_time() - since > self.config.stall:
                    self._apply(kept, Event.STALLED, "the download made no progress")
        if kept.record.state is State.DROPPED:
            with trio.CancelScope(shield=True):
                await self._remove(kept.record)

    async def _settled(self, kept: Kept) -> bool:
        """Nothing to fetch now; what is here is seeded."""
        state, bag = kept.record.state, kept.record.bag_id
        if state is State.RESOLVING:
            return False
        if state is State.DOWNLOADING:
            if not self._shelf.complete(bag):
                return False
            self._apply(kept, Event.COMPLETED)
            kept.looked_at = -math.inf  # a fresh contract is proved at once
        if self.fault is Fault.HASH_ONLY:
            await self._throw_away(bag)
        elif not self._shelf.complete(bag):
            return False
        if bag not in self._seeding:
            await self._net.seed(bag, self._shelf.path(bag))
            self._seeding.add(bag)
        return True

    async def _throw_away(self, bag: BagId) -> None:
        """Drop a bag's data, if there is any."""
        async with self._bags:
            if self._shelf.complete(bag):
                await self._stop_seeding(bag)
                await trio.to_thread.run_sync(self._shelf.drop_data, bag)

    async def _fetch(self, kept: Kept) -> None:
        record, bag = kept.record, kept.record.bag_id
        directory = self._shelf.path(bag)
        if record.state is not State.RESOLVING:
            await self._net.fetch(bag, directory, None, timeout=FETCH_TIMEOUT)
            return
        await self._net.fetch(bag, directory, [], timeout=FETCH_TIMEOUT)
        info = self._shelf.info(bag)
        if info is None:
            return
        if storage2.contract_address(info, record.owner) != record.address:
            self._apply(kept, Event.REFUSED, "the bag is not the one that the contract describes")
        else:
            self._apply(kept, Event.RESOLVED)

    async def _stop_seeding(self, bag: BagId) -> None:
        self._seeding.discard(bag)
        await self._net.forget(bag)

    # Faults.

    async def set_fault(self, fault: Fault) -> None:
        """Take on a fault, or heal (`none`): every bag is looked at anew."""
        self._store.set_note("fault", str(fault))
        self.fault = fault
        for kept in self.kept.values():
            kept.wake.set()
            if kept.fetching is not None:
                kept.fetching.cancel()
        if fault is Fault.HASH_ONLY:
            for bag in {k.record.bag_id for k in self.kept.values() if k.record.state in (State.ACTIVE, State.LOW)}:
                await self._throw_away(bag)
