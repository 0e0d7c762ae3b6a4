"""An agent's world in one process: real contract code on the devnet's ledger, a front, providers that one can break.

    async with agent_world(tmp_path) as world:
        world.front.write("a.txt", b"...")
        await world.settled()

Everything runs in trio's time. Providers prove on chain with real proof messages from wallets of their own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from tests.fakes.ledger_chain import LedgerChain, ledger_chain
from tonfs.agent.context import Agent
from tonfs.agent.main import run_tasks
from tonfs.agent.money import Money
from tonfs.agent.placement import State
from tonfs.agent.store import AgentStore, Placement
from tonfs.bagfiles import StoredBag
from tonfs.chain import storage2
from tonfs.chain.cells import one_cell
from tonfs.chain.messages import Message, comment
from tonfs.chain.wallet import Version, Wallet
from tonfs.clock import ManualClock
from tonfs.config import Settings
from tonfs.errors import DhtUnavailable, NotFound, NotRunning, PeerTimeout, Refused, TonfsError
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
        self.down = False
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
             "size": f.content.stat().st_size, "content": str(f.content), "ranges": [[0, f.content.stat().st_size]]}
            for inode, f in settled
        ]  # fmt: skip
        return {"files": files, "more": False, "oldest": min((f.changed for _, f in settled), default=None)}

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
                {"id": 1, "bag_id": b.hex(), "size": 1, "live": live.count(b), "files": n}
                for b, n in self.known.items()
            ]
        }

    def _pack_states(self, params: dict[str, Any]) -> dict[str, Any]:
        self.told = {bag_id(p["bag_id"]): p["proven"] for p in params["packs"]}
        return {}

    def _drop_pack(self, params: dict[str, Any]) -> dict[str, Any]:
        bag = bag_id(params["bag_id"])
        if any(f.bag == bag for f in self.files.values()):
            raise Refused("The pack is in use.")
        if self.known.pop(bag, None) is None:
            raise NotFound("There is no such pack.")
        return {}


@dataclass
class FakeProvider:
    """One provider. Faults: "", silent, hash-only, wrong-bytes, lazy (never proves), vanish."""

    wallet: Wallet
    rate: int
    fault: str = ""
    hired: dict[Address, BagId] = field(default_factory=dict)
    proofs: int = 0

    @property
    def key(self) -> ProviderKey:
        return ProviderKey(self.wallet.public_key)

    @property
    def adnl(self) -> AdnlId:
        return AdnlId(self.key[::-1])

    @property
    def mute(self) -> bool:
        return self.fault in ("silent", "vanish")


class FakeNet:
    """PeerNet on providers in memory. `offline`: nobody answers; `no_dht`: our own network is gone."""

    def __init__(self, providers: Sequence[FakeProvider]) -> None:
        self.providers = {p.key: p for p in providers}
        self.by_adnl = {p.adnl: p for p in providers}
        self.offline = False
        self.no_dht = False
        self.seeded: set[BagId] = set()
        self.on_call: Callable[[str], None] = lambda _name: None

    async def _reach(self, provider: FakeProvider, timeout: float, what: str) -> None:
        self.on_call(f"net {what}")
        await trio.sleep(0.01)
        if self.no_dht:
            raise DhtUnavailable("No DHT node answers.")
        if self.offline or provider.mute:
            await trio.sleep(timeout)
            raise PeerTimeout("No answer.")

    async def seed(self, bag_id: BagId, directory: Path) -> None:
        await trio.lowlevel.checkpoint()
        self.on_call("net seed")
        self.seeded.add(bag_id)

    async def forget(self, bag_id: BagId) -> None:
        await trio.lowlevel.checkpoint()
        self.on_call("net forget")
        self.seeded.discard(bag_id)

    async def fetch(
        self, bag_id: BagId, directory: Path, pieces: Sequence[int] | None, *, timeout: float
    ) -> FetchReport:
        await trio.lowlevel.checkpoint()
        return FetchReport(0, 0, 0, 0)

    async def audit_piece(
        self, bag_id: BagId, directory: Path, piece: int, peer_id: AdnlId, *, timeout: float
    ) -> PieceAnswer:
        provider = self.by_adnl[peer_id]
        try:
            await self._reach(provider, timeout, "audit")
        except PeerTimeout:
            return PieceAnswer(PieceOutcome.UNREACHABLE, 0, timeout)
        if provider.fault == "hash-only" or bag_id not in provider.hired.values():
            return PieceAnswer(PieceOutcome.SILENT, 0, timeout)
        if provider.fault == "wrong-bytes":
            return PieceAnswer(PieceOutcome.WRONG, 131072, 0.01)
        return PieceAnswer(PieceOutcome.OK, 131072, 0.01)

    async def provider_rates(self, provider: ProviderKey, size: int, *, timeout: float) -> Rates:
        fake = self.providers[provider]
        await self._reach(fake, timeout, "rates")
        return Rates(True, NanoTon(fake.rate), NanoTon(50_000_000), 1 << 40, 60, 30 * 86400)

    async def provider_storage(
        self, provider: ProviderKey, contract: Address, byte_to_proof: int, *, timeout: float
    ) -> StorageStatus:
        fake = self.providers[provider]
        await self._reach(fake, timeout, "storage")
        fake.hired.setdefault(contract, BagId(b""))
        return StorageStatus("resolving", "", 0, b"")

    async def provider_adnl(self, provider: ProviderKey, contract: Address, *, timeout: float) -> AdnlId:
        fake = self.providers[provider]
        await self._reach(fake, timeout, "adnl")
        return fake.adnl


class World:
    """Everything; `run_agent` may be started and cancelled many times, agent.db stays."""

    def __init__(self, folder: Path, chain: LedgerChain, providers: Sequence[FakeProvider], replicas: int) -> None:
        self.folder = folder
        self.chain = chain
        self.providers = list(providers)
        self.clock = ManualClock(base=trio.current_time)
        self.wallet = Wallet.from_seed(b"\x42" * 32, Version.V4R2)
        self.front = FakeFront(folder / "content", self.clock.now)
        self.net = FakeNet(providers)
        policy = devnet_defaults()
        from dataclasses import replace

        policy = replace(policy, replica=replace(policy.replica, replicas=replicas))
        self.settings = Settings(network="devnet", policy=policy)
        self.agent: Agent | None = None
        (folder / "content").mkdir()
        (folder / "packs").mkdir()

    async def prove_for_ever(self, provider: FakeProvider) -> None:
        """What a provider process does about its contracts, every two seconds."""
        while True:
            await trio.sleep(2.0)
            if provider.fault in ("vanish", "silent", "lazy"):
                continue
            for address in list(provider.hired):
                with contextlib.suppress(TonfsError):
                    await self._prove(provider, address)

    async def _prove(self, provider: FakeProvider, address: Address) -> None:
        state = await self.chain.account(address)
        contract = storage2.read_contract(state)
        entry = contract.providers.get(provider.key)
        if entry is None:
            provider.hired.pop(address, None)
            return
        provider.hired[address] = contract.torrent_hash
        if entry.last_proof_time and state.now < entry.last_proof_time + entry.max_span:
            return
        stored = StoredBag.open(self.folder / "packs" / contract.torrent_hash.hex())
        proof = stored.proof(entry.next_proof_byte // contract.piece_size)
        stored.close()
        signature = provider.wallet.sign_bytes(storage2.proof_payload(entry.nonce, proof).hash)
        body = storage2.proof_body(1, provider.key, signature, entry.nonce, proof)
        assert one_cell(proof) is not None
        await self._send(provider.wallet, Message(address, storage2.PROOF_VALUE, body))
        provider.proofs += 1
        await self.chain.wait_block()
        await self.chain.wait_block()

    async def _send(self, wallet: Wallet, message: Message) -> None:
        seqno = wallet.seqno(await self.chain.account(wallet.address))
        await self.chain.send_boc(wallet.sign(seqno, await self.chain.now() + 60, [message]).boc)

    async def register(self, provider: FakeProvider) -> None:
        await self.chain.give(provider.wallet.address, 100 * NANO)
        announcement = comment(f"tsp-{provider.key.hex()}")
        await self._send(provider.wallet, Message(REGISTRY, NanoTon(10_000_000), announcement, bounce=False))
        await self.chain.wait_block()
        await self.chain.wait_block()

    def make_agent(self) -> Agent:
        store = AgentStore(self.folder / "agent.db")
        money = Money(self.chain, self.wallet, store, self.clock)
        self.agent = Agent(self.folder, self.settings, self.clock, store, self.front, self.net, money)
        return self.agent

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Agent]:
        """The agent at work; killed at the end (nothing is told to it)."""
        agent = self.make_agent()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_tasks, agent)
                yield agent
                nursery.cancel_scope.cancel()
        finally:
            agent.store.close()

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
    async with ledger_chain(folder / "chain") as chain, trio.open_nursery() as nursery:
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
