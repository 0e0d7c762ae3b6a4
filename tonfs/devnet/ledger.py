"""The chain of the devnet: messages in, a pair of blocks at every tick, every coin accounted for.

No network, no threads, no waiting: a door calls it and a timer ticks it. The clock is injected, chain time is host
time plus an offset that only grows, and a seed decides all randomness, so that a scenario can be repeated exactly.
Reference: devnet.md sections 1 and 3, contracts 9.2 and 10.4.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

from ..clock import Clock
from ..errors import BadData, BlockUnknown, Damaged, ExternalRefused, UsageError
from ..ids import Address, NanoTon
from ..log import get_logger
from .answers import KEPT_STATES, ChainView, Pair
from .blocks import BlockRef, Content, Header, State, block_cell, identify, shard_hashes
from .cells import Cell
from .chain_api import (
    BASECHAIN,
    MASTERCHAIN,
    AccountId,
    AccountInfo,
    Block,
    BlockId,
    Coins,
    TraceStep,
    TransactionInfo,
)
from .emulator import EXTERNAL_REFUSED, NotExecuted
from .history import digest, trace
from .multiboc import one_root, to_boc
from .store import BlockRow, LedgerStore, QueueRow, Tick, TransactionRow
from .tlb import EXTERNAL_IN, internal_message, read_message
from .world import LT_STEP, WORKCHAINS, Queued, Run, World

log = get_logger(__name__)

FAUCET: Final = AccountId(BASECHAIN, sha256(b"tonfs devnet faucet").digest())
"""Nobody's address: where new coins seem to come from."""
MAX_EXTERNAL: Final = 65_535
"""Bytes of an external message, as in the real network."""
MAX_QUEUED_EXTERNALS: Final = 1024
MAX_FAUCET: Final = 10**9 * 10**9
DEFAULT_SEED: Final = b"tonfs devnet"
_PRUNE_EVERY: Final = 50


class Ledger(ChainView):
    """Satisfies `chain_api.DevnetChain`; what the methods mean is said there.

    A new store gets a zero state and its first block at once. `seed` is only used for a new chain.
    """

    def __init__(self, store: LedgerStore, clock: Clock, seed: bytes = DEFAULT_SEED) -> None:
        super().__init__(store)
        self._clock = clock
        self._world = World()
        self._offset = self._issued = self._fees = self._faucets = 0
        self._seed = seed
        self._zero: dict[int, BlockRef] = {}
        if not store.meta():
            self._create(seed)
        self._load()
        if not self._pairs:
            self.tick()

    @classmethod
    def open(cls, path: Path, clock: Clock, seed: bytes = DEFAULT_SEED) -> Ledger:
        """The chain in this SQLite file, created if absent. Raises Busy, Damaged."""
        store = LedgerStore(path)
        try:
            return cls(store, clock, seed)
        except BaseException:
            store.close()
            raise

    def close(self) -> None:
        self._emulator.close()
        self._store.close()

    # Start and restart.

    def _create(self, seed: bytes) -> None:
        header = Header(0, int(self._clock.now()), 0, 0)
        shard, _ = identify(BASECHAIN, 0, State(BASECHAIN, header, World().accounts[BASECHAIN]).cell)
        state = self._master_state(header, shard, World())
        master, _ = identify(MASTERCHAIN, 0, state.cell)
        ids: dict[str, int | bytes] = {"zero_master": master.to_bytes(), "zero_shard": shard.to_bytes()}
        counters = {"zero_utime": header.utime, "offset": 0, "issued": 0, "fees": 0, "faucets": 0}
        self._store.put_meta({"seed": sha256(seed).digest(), **ids, **counters})

    def _master_state(self, header: Header, shard: BlockId, world: World) -> State:
        return State(
            MASTERCHAIN, header, world.accounts[MASTERCHAIN], shard_hashes(header, shard), self._config, world.held
        )

    def _load(self) -> None:
        """Take everything from the store: at start, after a restore, after a tick that failed."""
        meta = self._store.meta()
        numbers = {key: value for key, value in meta.items() if isinstance(value, int)}
        blobs = {key: value for key, value in meta.items() if isinstance(value, bytes)}
        try:
            self._offset, self._issued = numbers["offset"], numbers["issued"]
            self._fees, self._faucets = numbers["fees"], numbers["faucets"]
            self._zero_utime, self._seed = numbers["zero_utime"], blobs["seed"]
            self._zero = {
                MASTERCHAIN: BlockRef(BlockId.from_bytes(blobs["zero_master"]), 0),
                BASECHAIN: BlockRef(BlockId.from_bytes(blobs["zero_shard"]), 0),
            }
        except (KeyError, ValueError) as exc:
            raise Damaged(f"{self._store.path} is incomplete: {exc}.") from None
        self._old_blocks.clear()
        self._pairs.clear()
        self._world = World()
        last = self._store.last_block()
        if last is not None:
            self._replay(last.seqno)
        self._world.queue.extend(Queued.from_boc(row.boc) for row in self._store.queue())
        if not self.coins().ok:
            raise Damaged(f"The coins in {self._store.path} do not add up: {self.coins()}.")

    def _replay(self, last: int) -> None:
        """Build the states of the last blocks again from stored account versions, and compare their hashes."""
        first = max(1, last - KEPT_STATES + 1)
        for account, boc in self._store.accounts_at(first - 1):
            self._world.set_account(account, boc)
        changes = iter(self._store.versions_from(first))
        change = next(changes, None)
        for row in self._store.blocks_from(first):
            while change is not None and change[0] == row.seqno:
                self._world.set_account(change[1], change[2])
                change = next(changes, None)
            header = Header(row.seqno, row.utime, row.start_lt, row.end_lt)
            states = {
                BASECHAIN: State(BASECHAIN, header, self._world.accounts[BASECHAIN]),
                MASTERCHAIN: self._master_state(header, row.shard_id, self._world),
            }
            blocks = {w: one_root(self._store.block_boc(row.seqno, w) or b"", verify_crc=False) for w in WORKCHAINS}
            self._pairs[row.seqno] = Pair(row, states, blocks)
        pair = self._pairs[last]
        hashes = (pair.row.master_state, pair.row.shard_state)
        if hashes != tuple(pair.states[w].cell.hash for w in (MASTERCHAIN, BASECHAIN)):
            raise Damaged(f"The accounts in {self._store.path} do not match block {last}.")

    # Time.

    @property
    def last(self) -> Block:
        return _summary(self._pair_at(None).row)

    @property
    def zero_state(self) -> BlockId:
        return self._zero[MASTERCHAIN].id

    def now(self) -> int:
        floor = self._pair_at(None).row.utime if self._pairs else self._zero_utime
        return max(int(self._clock.now()) + self._offset, floor)

    def advance(self, seconds: int) -> int:
        if seconds < 0:
            raise UsageError("The chain clock never goes back.", hint="Restore a snapshot instead.")
        if self.now() + seconds >= 1 << 32:
            raise UsageError("The chain clock ends in 2106.")
        # A host clock that was set back must not swallow the jump: the offset counts from where chain time stands.
        offset = self.now() + seconds - int(self._clock.now())
        self._store.put_meta({"offset": offset})
        self._offset = offset
        return self.now()

    def block(self, seqno: int) -> Block:
        row = self._store.block(seqno)
        if row is None:
            raise BlockUnknown(f"block {seqno} is not known")
        return _summary(row)

    # Messages.

    def inject_external(self, boc: bytes) -> bytes:
        cell = one_root(boc, max_bytes=MAX_EXTERNAL, max_cells=8192)
        message = read_message(cell)
        destination = message.destination
        if message.kind != EXTERNAL_IN or destination is None or destination.workchain not in WORKCHAINS:
            raise BadData("not an external message to an account of this network")
        waiting = [item for item in self._world.queue if item.external]
        if any(item.message.hash == message.hash for item in waiting):
            return message.hash
        if len(waiting) >= MAX_QUEUED_EXTERNALS:
            raise ExternalRefused(f"{EXTERNAL_REFUSED} : too many messages wait")
        item = Queued(message, to_boc(cell))
        lt = self._pair_at(None).row.end_lt + LT_STEP
        result = self._world.try_message(
            self._emulator, item, destination, now=self.now(), lt=lt, seed=self._seed_of(lt)
        )
        if isinstance(result, NotExecuted):
            code = "" if result.vm_exit_code is None else f", exit code {result.vm_exit_code}"
            raise ExternalRefused(f"{EXTERNAL_REFUSED} : {result.error or 'not accepted'}{code}")
        self._enqueue(item)
        return message.hash

    def faucet(self, address: Address, amount: NanoTon) -> bytes:
        if not 0 < amount <= MAX_FAUCET:
            raise UsageError(f"The faucet gives between 1 and {MAX_FAUCET} nanoTON at a time.")
        try:
            destination = AccountId.parse(address)
        except ValueError as exc:
            raise UsageError(f"{exc}.") from None
        lt = self._pair_at(None).row.end_lt + 1 + self._faucets % (LT_STEP // 4)
        cell = internal_message(FAUCET, destination, amount, lt=lt, now=self.now())
        issued, faucets = self._issued + amount, self._faucets + 1
        self._enqueue(Queued(read_message(cell), to_boc(cell)), {"issued": issued, "faucets": faucets})
        self._issued, self._faucets = issued, faucets
        return cell.hash

    def _enqueue(self, item: Queued, meta: dict[str, int | bytes] | None = None) -> None:
        self._store.enqueue(QueueRow(item.external, item.boc), meta or {})
        self._world.queue.append(item)

    # Blocks.

    def tick(self, now: int | None = None) -> Block:
        try:
            return self._tick(self.now() if now is None else now)
        except BaseException:
            # Memory may be ahead of the disk: go back to what is durable, then let the caller know.
            if self._pairs:
                with suppress(Damaged):
                    self._load()
            raise

    def _tick(self, now: int) -> Block:
        previous = self._pairs[next(reversed(self._pairs))] if self._pairs else None
        seqno = previous.row.seqno + 1 if previous else 1
        now = max(now, previous.row.utime if previous else self._zero_utime)
        start_lt = ((previous.row.end_lt if previous else 0) // LT_STEP + 1) * LT_STEP
        had_queue = bool(self._world.queue)
        run = self._world.run(self._emulator, now=now, start_lt=start_lt, seed=self._seed)
        header = Header(seqno, now, start_lt, run.last_lt + LT_STEP // 2)
        pair, bocs = self._make_pair(header, previous, run)
        self._fees += run.fees
        coins = self.coins()
        if not coins.ok:
            log.error("coins do not add up", seqno=seqno, **{k: getattr(coins, k) for k in coins.__slots__})
            raise Damaged(f"The coins do not add up at block {seqno}: {coins}.")
        queue = [QueueRow(item.external, item.boc) for item in self._world.queue] if had_queue else None
        rows = _rows(run, seqno)
        meta: dict[str, int | bytes] = {"fees": self._fees}
        self._store.write_tick(
            Tick(pair.row, bocs[MASTERCHAIN], bocs[BASECHAIN], rows, run.touched, queue, meta if run.fees else {})
        )
        self._pairs[seqno] = pair
        self._forget(seqno)
        return _summary(pair.row)

    def _make_pair(self, header: Header, previous: Pair | None, run: Run) -> tuple[Pair, dict[int, bytes]]:
        refs = dict(self._zero)
        if previous is not None:
            refs = {w: BlockRef(previous.row.id_of(w), previous.row.end_lt) for w in WORKCHAINS}
        old = self._old_states(previous)
        seed = self._seed_of(header.seqno)
        shard_state = State(BASECHAIN, header, self._world.accounts[BASECHAIN])
        shard = block_cell(
            shard_state, old[BASECHAIN], _content(run, BASECHAIN), refs[BASECHAIN], refs[MASTERCHAIN], seed
        )
        shard_id, shard_boc = identify(BASECHAIN, header.seqno, shard)
        master_state = self._master_state(header, shard_id, self._world)
        master = block_cell(master_state, old[MASTERCHAIN], _content(run, MASTERCHAIN), refs[MASTERCHAIN], None, seed)
        master_id, master_boc = identify(MASTERCHAIN, header.seqno, master)
        row = BlockRow(
            seqno=header.seqno,
            utime=header.utime,
            start_lt=header.start_lt,
            end_lt=header.end_lt,
            transactions=sum(len(items) for items in run.transactions.values()),
            master_id=master_id,
            shard_id=shard_id,
            master_state=master_state.cell.hash,
            shard_state=shard_state.cell.hash,
        )
        states = {MASTERCHAIN: master_state, BASECHAIN: shard_state}
        pair = Pair(row, states, {MASTERCHAIN: master, BASECHAIN: shard})
        return pair, {MASTERCHAIN: master_boc, BASECHAIN: shard_boc}

    def _old_states(self, previous: Pair | None) -> dict[int, Cell]:
        if previous is not None:
            return {w: state.cell for w, state in previous.states.items()}
        header = Header(0, self._zero_utime, 0, 0)
        shard = State(BASECHAIN, header, World().accounts[BASECHAIN])
        master = self._master_state(header, self._zero[BASECHAIN].id, World())
        return {BASECHAIN: shard.cell, MASTERCHAIN: master.cell}

    def _seed_of(self, number: int) -> bytes:
        return sha256(self._seed + number.to_bytes(8, "big")).digest()

    def _forget(self, seqno: int) -> None:
        self._pairs.pop(seqno - KEPT_STATES, None)
        if seqno % _PRUNE_EVERY == 0:
            self._store.forget_versions(seqno - KEPT_STATES)

    # Looking.

    def coins(self) -> Coins:
        return Coins(self._issued, self._world.held, self._fees, self._world.in_flight)

    def trace(self, message_hash: bytes) -> list[TraceStep]:
        return trace(self._store, (item.message.hash for item in self._world.queue), message_hash)

    def account(self, address: Address, seqno: int | None = None) -> AccountInfo:
        data, last_hash, last_lt = self._account(self._pair_at(seqno), _account_id(address))
        return AccountInfo(
            address=_account_id(address).raw,
            status=data.status,
            balance=NanoTon(data.balance),
            code_hash=data.code.hash if data.code else b"",
            code=to_boc(data.code) if data.code else b"",
            data=to_boc(data.data) if data.data else b"",
            last_lt=last_lt,
            last_hash=last_hash,
        )

    def accounts(self) -> list[Address]:
        return sorted(account.raw for account in self._world.bocs)

    def transactions(self, address: Address, limit: int = 20, before_lt: int | None = None) -> list[TransactionInfo]:
        newest = (1 << 63) - 1 if before_lt is None else before_lt - 1
        return [digest(row) for row in self._store.transactions(_account_id(address), limit, newest)]

    def run_get_method(
        self, address: Address, method: int | str, stack: bytes = b"", seqno: int | None = None
    ) -> tuple[int, bytes]:
        method_id = method if isinstance(method, int) else crc16(method.encode()) & 0xFFFF | 0x10000
        result = self._run(self._pair_at(seqno), _account_id(address), method_id, stack)
        return result.exit_code, result.stack

    # Snapshots.

    def snapshot(self, name: str) -> None:
        self._store.snapshot(name)

    def restore(self, name: str) -> None:
        self._store.restore(name)
        self._load()

    def snapshots(self) -> list[str]:
        return self._store.snapshots()


def crc16(data: bytes) -> int:
    """CRC-16/XMODEM, of a get method's name."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def _account_id(address: Address) -> AccountId:
    try:
        return AccountId.parse(address)
    except ValueError as exc:
        raise UsageError(f"{exc}.") from None


def _summary(row: BlockRow) -> Block:
    return Block(row.seqno, row.master_id, row.shard_id, row.utime, row.start_lt, row.end_lt, row.transactions)


def _content(run: Run, workchain: int) -> Content:
    ends = {account.hash: ends for account, ends in run.ends.items() if account.workchain == workchain}
    return Content(tuple(run.transactions[workchain]), ends)


def _rows(run: Run, seqno: int) -> list[TransactionRow]:
    def rows(workchain: int) -> Iterable[TransactionRow]:
        for item in run.transactions[workchain]:
            in_hash = item.in_message.hash if item.in_message else None
            account, hash_ = AccountId(workchain, item.account), item.cell.hash
            yield TransactionRow(account, item.lt, hash_, seqno, in_hash, run.bocs[hash_])

    return [row for workchain in WORKCHAINS for row in rows(workchain)]
