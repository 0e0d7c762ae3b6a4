"""An agent's world in one process: real contract code on the devnet's ledger, a front, providers that one can break.

    async with agent_world(tmp_path) as world, world.running() as agent:
        world.front.write(1, b"...")
        await world.proven()

Everything runs in trio's time. Providers hold a bag once somebody had it for them, prove on chain with real proof
messages from wallets of their own, and can be broken one by one (`fault`). `world.fuse` kills the agent at a call.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import trio

from tests.fakes.ledger_chain import LedgerChain, ledger_chain
from tonfs.agent.context import Agent
from tonfs.agent.local import pack_file
from tonfs.agent.main import run_tasks
from tonfs.agent.money import Money
from tonfs.agent.placement import State
from tonfs.agent.store import AgentStore, Placement
from tonfs.bagfiles import StoredBag
from tonfs.chain import storage2
from tonfs.chain.api import AccountState
from tonfs.chain.messages import Message, comment
from tonfs.chain.storage2 import StorageContract
from tonfs.chain.wallet import Version, Wallet
from tonfs.clock import ManualClock
from tonfs.config import Settings
from tonfs.errors import (
    BadProof,
    DhtUnavailable,
    NotFound,
    NotRunning,
    PeerTimeout,
    PeerUnreachable,
    Refused,
    TonfsError,
)
from tonfs.ids import NANO, Address, AdnlId, BagId, NanoTon, ProviderKey, bag_id
from tonfs.market import REGISTRY
from tonfs.network.api import FetchReport, PieceAnswer, PieceOutcome, Rates, StorageStatus
from tonfs.policy import devnet_defaults


class Killed(BaseException):
    """The agent's process dies here."""


@dataclass
class FakeFile:
    content: Path
    version: int = 1
    bag: BagId | None = None
    changed: float = 0.0

    @property
    def dirty(self) -> bool:
        return self.bag is None and self.content.stat().st_size > 0


class FakeFront:
    """front.sock in memory. `down` makes every call fail; `on_call` sees each call first."""

    def __init__(self, folder: Path, now: Callable[[], float]) -> None:
        self.folder = folder
        self.now = now
        self.files: dict[int, FakeFile] = {}
        self.known: dict[BagId, int] = {}
        """Packs and the number of files committed to them."""
        self.told: dict[BagId, int] = {}
        self.wanted: dict[BagId, int] = {}
        self.down = False
        self.asked = 0
        """Replicas that are said for all files; 0: nothing is said."""
        self.on_call: Callable[[str], None] = lambda _name: None

    def write(self, inode: int, data: bytes) -> None:
        path = self.folder / str(inode)
        path.write_bytes(data)
        old = self.files.get(inode)
        self.files[inode] = FakeFile(path, (old.version + 1) if old else 1, None, self.now())

    def delete(self, inode: int) -> None:
        del self.files[inode]

    async def call(self, method: str, params: dict[str, Any] | None = None, *, timeout: float = 30.0) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        self.on_call(f"front {method}")
        if self.down:
            raise NotRunning("The front does not run.")
        reply: dict[str, Any] = getattr(self, f"_{method}")(params or {})
        return reply

    def _dirty(self, params: dict[str, Any]) -> dict[str, Any]:
        settled = [
            (inode, f)
            for inode, f in self.files.items()
            if f.dirty and (params["force"] or self.now() - f.changed >= params["settle"])
        ]
        files = [
            {"inode": inode, "version": f.version, "path": str(inode), "mode": 0o100644, "mtime_ns": 0,
             "size": f.content.stat().st_size, "ranges": [[0, f.content.stat().st_size]],
             "sources": [[str(f.content), 0]]}
            for inode, f in settled
        ]  # fmt: skip
        oldest = min((f.changed for _, f in settled), default=None)
        return {"files": files, "replicas": self.asked or None, "more": False, "oldest": oldest}

    def _commit_pack(self, params: dict[str, Any]) -> dict[str, Any]:
        bag, committed, stale = bag_id(params["bag_id"]), [], []
        for extent in params["extents"]:
            file = self.files.get(extent["inode"])
            if file is None or file.version != extent["version"]:
                stale.append(extent["inode"])
            else:
                file.bag = bag
                committed.append(extent["inode"])
        if committed:
            self.known[bag] = len(committed)
        return {"pack": 1, "committed": committed, "stale": stale}

    def _packs(self, _params: dict[str, Any]) -> dict[str, Any]:
        live = [f.bag for f in self.files.values()]
        return {
            "packs": [
                {
                    "id": 1,
                    "bag_id": b.hex(),
                    "size": 1,
                    "live": live.count(b),
                    "files": n,
                    "told": b in self.told,
                    "asked": self.asked,
                    "unsaid": not self.asked,
                }
                for b, n in self.known.items()
            ]
        }

    def _pack_states(self, params: dict[str, Any]) -> dict[str, Any]:
        self.told = {bag_id(p["bag_id"]): p["proven"] for p in params["packs"]}
        self.wanted = {bag_id(p["bag_id"]): p["wanted"] for p in params["packs"]}
        return {}

    def _drop_pack(self, params: dict[str, Any]) -> dict[str, Any]:
        bag = bag_id(params["bag_id"])
        if any(f.bag == bag for f in self.files.values()):
            raise Refused("The pack is in use.")
        if self.known.pop(bag, None) is None:
            raise NotFound("There is no such pack.")
        return {}


class Fuse:
    """Burns one step at every call of the agent, before it happens and after, and at every write to agent.db. The
    agent dies at step `at` (None: never); once dead, whatever still runs in that process does nothing any more."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.steps = 0

    @property
    def burnt(self) -> bool:
        return self.at is not None and self.steps > self.at

    def step(self) -> None:
        self.steps += 1
        if self.burnt:
            raise Killed


class Fused:
    """An object whose coroutine methods burn the world's fuse."""

    def __init__(self, inner: Any, world: World) -> None:
        self._inner = inner
        self._world = world

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if not callable(method):
            return method

        async def call(*args: Any, **named: Any) -> Any:
            fuse = self._world.fuse
            fuse.step()
            result = await method(*args, **named)
            fuse.step()
            return result

        return call


class FusedConnection:
    """agent.db: writes burn the fuse before they happen and after they are durable."""

    def __init__(self, inner: sqlite3.Connection, fuse: Fuse) -> None:
        self._inner = inner
        self._fuse = fuse

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        words = ("INSERT", "UPDATE", "DELETE", "COMMIT", "BEGIN")
        if not sql.startswith(words) or (self._inner.in_transaction and not sql.startswith("COMMIT")):
            return self._inner.execute(sql, *args)
        self._fuse.step()
        cursor = self._inner.execute(sql, *args)
        if not sql.startswith("BEGIN"):
            self._fuse.step()
        return cursor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class WorldChain(LedgerChain):
    """The chain as the agent sees it. `lying`: what the server says of accounts does not prove itself."""

    lying = False

    async def account(self, address: Address) -> AccountState:
        state = await super().account(address)
        if self.lying:
            raise BadProof("The state does not lead to the block.")
        return state


@dataclass
class FakeProvider:
    """One provider. Faults: "", silent, slow (data comes too late), hash-only, wrong-bytes, vanish, lazy (never
    stores), lagging (stores, never proves)."""

    wallet: Wallet
    rate: int
    fault: str = ""
    hired: dict[Address, BagId] = field(default_factory=dict)
    """Contracts it was told of."""
    bags: set[BagId] = field(default_factory=set)
    """Bags whose data it has."""
    proofs: int = 0
    told: int = 0

    @property
    def key(self) -> ProviderKey:
        return ProviderKey(self.wallet.public_key)

    @property
    def adnl(self) -> AdnlId:
        return AdnlId(self.key[::-1])

    @property
    def mute(self) -> bool:
        return self.fault in ("silent", "vanish")

    def serves(self, bag_id: BagId) -> bool:
        return bag_id in self.bags and self.fault not in ("silent", "vanish", "hash-only", "wrong-bytes", "slow")


class FakeNet:
    """PeerNet on providers in memory. `offline`: nobody answers; `no_dht`: our own network is gone; `down`: the peer
    process does not run. The bytes that providers hold lie in `archive`."""

    def __init__(self, providers: Sequence[FakeProvider], archive: Path) -> None:
        self.providers = {p.key: p for p in providers}
        self.by_adnl = {p.adnl: p for p in providers}
        self.archive = archive
        self.offline = False
        self.no_dht = False
        self.down = False
        self.seeded: dict[BagId, Path] = {}
        self.at_once = 0
        self.most_at_once = 0
        self.audited: list[ProviderKey] = []

    async def _reach(self, provider: FakeProvider, timeout: float) -> None:
        await trio.sleep(0.01)
        self._up()
        if self.no_dht:
            raise DhtUnavailable("No DHT node answers.")
        if self.offline or provider.mute:
            await trio.sleep(timeout)
            raise PeerTimeout("No answer.")

    def _up(self) -> None:
        if self.down:
            raise NotRunning("The peer process does not run.")

    def who_has(self, bag_id: BagId) -> list[FakeProvider]:
        return [p for p in self.providers.values() if p.serves(bag_id)]

    def can_be_had(self, bag_id: BagId, by: FakeProvider) -> bool:
        """Does the agent seed it, or a provider that works?"""
        here = self.seeded.get(bag_id)
        from_us = not self.offline and here is not None and pack_file(here).exists()
        return from_us or any(p is not by for p in self.who_has(bag_id))

    def stored(self, bag_id: BagId) -> StoredBag:
        """The bytes as providers have them. The caller closes it."""
        return StoredBag.open(self.archive / bag_id.hex())

    async def seed(self, bag_id: BagId, directory: Path) -> None:
        await trio.lowlevel.checkpoint()
        self._up()
        StoredBag.open(directory).close()
        self.seeded[bag_id] = directory
        if not (self.archive / bag_id.hex()).exists():
            shutil.copytree(directory, self.archive / bag_id.hex())

    async def forget(self, bag_id: BagId) -> None:
        await trio.lowlevel.checkpoint()
        self._up()
        self.seeded.pop(bag_id, None)

    async def fetch(
        self, bag_id: BagId, directory: Path, pieces: Sequence[int] | None, *, timeout: float
    ) -> FetchReport:
        await trio.lowlevel.checkpoint()
        self._up()
        if self.offline or not self.who_has(bag_id):
            await trio.sleep(min(timeout, 15.0))
            raise PeerUnreachable(f"Nobody has bag {bag_id.hex()}.")
        with (
            contextlib.closing(StoredBag.prepare(directory, bag_id)) as here,
            contextlib.closing(self.stored(bag_id)) as there,
        ):
            assert there.info is not None
            here.set_info(there.info.to_boc())
            wanted = [*range(there.info.header_pieces), *(range(there.info.pieces) if pieces is None else pieces)]
            for piece in wanted:
                await trio.sleep(0.01)
                here.write_piece(piece, there.read_piece(piece), there.proof(piece))
            return FetchReport(here.have_count, len(wanted), 0, 0)

    async def audit_piece(
        self, bag_id: BagId, directory: Path, piece: int, peer_id: AdnlId, *, timeout: float
    ) -> PieceAnswer:
        provider = self.by_adnl[peer_id]
        self.audited.append(provider.key)
        StoredBag.open(directory).close()  # what a piece is checked against
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self._reach(provider, timeout)
            if provider.fault in ("hash-only", "slow") or bag_id not in provider.bags:
                await trio.sleep(timeout)
                return PieceAnswer(PieceOutcome.SILENT, 0, timeout)
        except PeerTimeout:
            return PieceAnswer(PieceOutcome.UNREACHABLE, 0, timeout)
        finally:
            self.at_once -= 1
        if provider.fault == "wrong-bytes":
            return PieceAnswer(PieceOutcome.WRONG, 131072, 0.01)
        return PieceAnswer(PieceOutcome.OK, 131072, 0.01)

    async def provider_rates(self, provider: ProviderKey, size: int, *, timeout: float) -> Rates:
        fake = self.providers[provider]
        await self._reach(fake, timeout)
        return Rates(True, NanoTon(fake.rate), NanoTon(50_000_000), 1 << 40, 60, 30 * 86400)

    async def provider_storage(
        self, provider: ProviderKey, contract: Address, byte_to_proof: int, *, timeout: float
    ) -> StorageStatus:
        fake = self.providers[provider]
        await self._reach(fake, timeout)
        fake.told += 1
        bag = fake.hired.setdefault(contract, BagId(b""))
        return StorageStatus("active" if bag in fake.bags else "downloading", "", 0, b"")

    async def provider_adnl(self, provider: ProviderKey, contract: Address, *, timeout: float) -> AdnlId:
        fake = self.providers[provider]
        await self._reach(fake, timeout)
        return fake.adnl


class World:
    """Everything; `run_agent` may be started and cancelled many times, agent.db stays."""

    def __init__(self, folder: Path, chain: WorldChain, providers: Sequence[FakeProvider], replicas: int) -> None:
        self.folder = folder
        self.chain = chain
        self.providers = list(providers)
        self.clock = ManualClock(base=trio.current_time)
        self.wallet = Wallet.from_seed(b"\x42" * 32, Version.V4R2)
        self.front = FakeFront(folder / "content", self.clock.now)
        self.net = FakeNet(providers, folder / "archive")
        self.fuse = Fuse()
        policy = devnet_defaults()
        policy = replace(policy, replica=replace(policy.replica, replicas=replicas))
        self.settings = Settings(network="devnet", policy=policy)
        self.agent: Agent | None = None
        (folder / "content").mkdir()
        (folder / "packs").mkdir()
        (folder / "archive").mkdir()

    async def prove_for_ever(self, provider: FakeProvider) -> None:
        """What a provider process does about its contracts, every two seconds."""
        while True:
            await trio.sleep(2.0)
            if provider.fault in ("vanish", "silent", "lazy"):
                continue
            for address in list(provider.hired):
                with contextlib.suppress(TonfsError):
                    await self._serve(provider, address)

    async def _serve(self, provider: FakeProvider, address: Address) -> None:
        """Get the bag, or prove it when that is due and paid for, or drop it when nobody wants it any more."""
        state = await LedgerChain.account(self.chain, address)
        contract = storage2.read_contract(state)
        bag = contract.torrent_hash
        entry = contract.providers.get(provider.key)
        if entry is None:
            provider.hired.pop(address, None)
            provider.bags.discard(bag)
            return
        provider.hired[address] = bag
        if bag not in provider.bags and self.net.can_be_had(bag, provider):
            provider.bags.add(bag)
        due = not entry.last_proof_time or state.now >= entry.last_proof_time + entry.max_span
        paid = contract.available >= contract.bounty(provider.key)
        if bag in provider.bags and due and paid and provider.fault != "lagging":
            await self._prove(provider, contract, address)

    async def _prove(self, provider: FakeProvider, contract: StorageContract, address: Address) -> None:
        entry = contract.providers[provider.key]
        with contextlib.closing(self.net.stored(contract.torrent_hash)) as stored:
            proof = stored.proof(entry.next_proof_byte // contract.piece_size)
        signature = provider.wallet.sign_bytes(storage2.proof_payload(entry.nonce, proof).hash)
        body = storage2.proof_body(1, provider.key, signature, entry.nonce, proof)
        await self._send(provider.wallet, Message(address, storage2.PROOF_VALUE, body))
        provider.proofs += 1
        await self._block()
        await self._block()

    async def _block(self) -> None:
        await LedgerChain.wait_block(self.chain)

    async def _send(self, wallet: Wallet, message: Message) -> None:
        seqno = wallet.seqno(await LedgerChain.account(self.chain, wallet.address))
        await self.chain.send_boc(wallet.sign(seqno, await self.chain.now() + 60, [message]).boc)

    async def register(self, provider: FakeProvider) -> None:
        await self.chain.give(provider.wallet.address, 100 * NANO)
        announcement = comment(f"tsp-{provider.key.hex()}")
        await self._send(provider.wallet, Message(REGISTRY, NanoTon(10_000_000), announcement, bounce=False))
        await self._block()
        await self._block()

    def make_agent(self) -> Agent:
        """A new process on the same agent.db."""
        store = AgentStore(self.folder / "agent.db")
        store.conn = FusedConnection(store.conn, self.fuse)  # type: ignore[assignment]
        chain, front, net = Fused(self.chain, self), Fused(self.front, self), Fused(self.net, self)
        money = Money(chain, self.wallet, store, self.clock)  # type: ignore[arg-type]
        self.agent = Agent(self.folder, self.settings, self.clock, store, front, net, money)  # type: ignore[arg-type]
        return self.agent

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Agent]:
        """The agent at work; killed at the end (nothing is told to it)."""
        self.net.seeded.clear()  # its peer process starts anew, too
        agent = self.make_agent()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_tasks, agent)
                yield agent
                nursery.cancel_scope.cancel()
        finally:
            agent.store.close()

    async def life(self, kill_at: int | None, done: Callable[[], object], timeout: float = 900.0) -> bool:
        """One process that is killed at a step, or ends once `done()`. Returns whether it was killed."""
        self.fuse = Fuse(kill_at)
        try:
            async with self.running():
                await self.until(lambda: self.fuse.burnt or done(), timeout)
                if self.fuse.burnt:  # nothing more is heard of a task that waits for ever
                    raise Killed
        except* Killed:
            pass
        killed, self.fuse = self.fuse.burnt, Fuse()
        return killed

    async def contract(self, bag: BagId) -> StorageContract:
        """The bag's contract as it is on the chain."""
        with contextlib.closing(self.net.stored(bag)) as stored:
            assert stored.info is not None
            address = storage2.contract_address(stored.info, self.wallet.address)
        return storage2.read_contract(await LedgerChain.account(self.chain, address))

    def placements(self, *states: State) -> list[Placement]:
        assert self.agent is not None
        return [p for p in self.agent.store.placements() if not states or p.state in states]

    def provider(self, key: ProviderKey) -> FakeProvider:
        return self.net.providers[key]

    async def until(self, condition: Callable[[], object], timeout: float = 600.0) -> None:
        """Wait in trio's time. Raises TooSlowError."""
        with trio.fail_after(timeout):
            while not condition():
                await trio.sleep(0.5)

    async def proven(self, bags: int = 1, timeout: float = 600.0) -> None:
        """Every live bag has its replicas, and the front was told."""
        wanted = self.settings.policy.replica.replicas

        def done() -> bool:
            told = self.front.told
            return len(told) == bags and all(n >= wanted for n in told.values())

        await self.until(done, timeout)

    async def payments(self) -> list[tuple[Address, int, int]]:
        """(contract, op, query id) of every message of ours that a contract received."""
        out = []
        for transaction in await self._history(self.wallet.address):
            for message in transaction.out_messages:
                if message.destination is not None and message.op is not None:
                    out.append((message.destination, message.op, message.query_id or 0))
        return out

    async def _history(self, address: Address) -> list[Any]:
        out: list[Any] = []
        before: tuple[int, bytes] | None = None
        while True:
            page = await self.chain.transactions(address, 16, before)
            out += page
            if not page or not page[-1].prev_lt:
                return out
            before = (page[-1].prev_lt, page[-1].prev_hash)


@asynccontextmanager
async def agent_world(folder: Path, *, providers: int = 7, replicas: int = 3, coins: int = 100) -> AsyncIterator[World]:
    """A funded wallet, registered providers that prove by themselves; no agent yet."""
    async with ledger_chain(folder / "chain", kind=WorldChain) as chain, trio.open_nursery() as nursery:
        assert isinstance(chain, WorldChain)
        fakes = [
            FakeProvider(Wallet.from_seed(bytes([n + 1]) * 32, Version.V3R2), 60_000 + 10_000 * n)
            for n in range(providers)
        ]
        world = World(folder, chain, fakes, replicas)
        if coins:
            await chain.give(world.wallet.address, coins * NANO)
        for fake in fakes:
            await world.register(fake)
            nursery.start_soon(world.prove_for_ever, fake)
        yield world
        nursery.cancel_scope.cancel()


def noise(size: int) -> bytes:
    return os.urandom(size)
