"""The process of a devnet: chain, lite server, DHT node, control socket and providers in one nursery.

Started in this order, stopped in reverse: state directory locked, chain loaded, lite server and DHT node listening,
global config written, blocks ticking, control socket answering, providers funded and started. It is *ready* once every
provider's own control socket answers (those that were sent away do not count).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

import trio

from ..clock import SystemClock
from ..errors import Busy
from ..ids import NANO, NanoTon
from ..log import get_logger
from ..network.dht_server import DhtServer
from ..network.keys import KeyPair, load_or_create
from ..network.node import AdnlNode
from .chain_api import Block, DevnetChain
from .config_file import global_config, write_config
from .handlers import Handlers
from .ledger import Ledger
from .liteserver import LiteServer
from .state import LOOPBACK, DevnetState, PortChooser, StateDir, plan
from .supervisor import Command, Supervisor, prepare, provider_command
from .ticker import DEFAULT_INTERVAL, Ticker

log = get_logger(__name__)

PROVIDER_FUNDS: Final = NanoTon(100 * NANO)
"""What the faucet gives a provider whose wallet holds less than a tenth of it."""
BACKLOG: Final = 64
LAST_WORDS: Final = 0.1
"""Seconds for the answer to `shutdown` to leave."""


@dataclass(frozen=True)
class Options:
    """What `devnet up` is told. `providers=None`: as many as last time, else seven."""

    state: StateDir
    providers: int | None = None
    block_interval: float = DEFAULT_INTERVAL
    command: Command = provider_command


class Daemon:
    """One running devnet. `run` is its life; everything else may be used while it runs."""

    def __init__(self, options: Options, state: DevnetState, chain: DevnetChain, lite_key: KeyPair) -> None:
        self.options = options
        self.state = state
        self.chain = chain
        self.stopping = trio.Event()
        self.ticker = Ticker(chain, options.block_interval, on_block=self._block_made)
        self.lite = LiteServer(chain, lite_key, on_external=self.ticker.hurry)
        rows = [prepare(options.state, row, options.command) for row in state.providers]
        self.supervisor = Supervisor(rows, on_fault=self._fault_set)
        self._lite_key = lite_key

    @property
    def ready(self) -> bool:
        return all(p.phase in ("running", "away") for p in self.supervisor.providers)

    def _block_made(self, block: Block) -> None:
        self.lite.block_made()
        if block.transactions:
            log.debug("block", seqno=block.seqno, transactions=block.transactions)

    def _fault_set(self, number: int, kind: str) -> None:
        rows = tuple(replace(r, fault=kind) if r.number == number else r for r in self.state.providers)
        self.state = replace(self.state, providers=rows)
        self.options.state.save(self.state)

    def fund_providers(self) -> None:
        """Queue coins for every provider whose wallet runs low."""
        for provider in self.supervisor.providers:
            if self.chain.account(provider.address).balance < PROVIDER_FUNDS // 10:
                self.chain.faucet(provider.address, PROVIDER_FUNDS)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until `stopping` is set or it is cancelled. `started()` once the control socket answers."""
        async with trio.open_nursery() as doors:
            await self._open_doors(doors)
            async with trio.open_nursery() as nursery:
                await nursery.start(self.ticker.run)
                self.fund_providers()
                await nursery.start(Handlers(self).serve, self.options.state.control)
                await nursery.start(self.supervisor.run)
                log.info("devnet is up", state=str(self.options.state.path), seqno=self.chain.last.seqno)
                task_status.started()
                await self.stopping.wait()
                await trio.sleep(LAST_WORDS)
                nursery.cancel_scope.cancel()
            doors.cancel_scope.cancel()
        log.info("devnet is down", seqno=self.chain.last.seqno)

    async def _open_doors(self, nursery: trio.Nursery) -> None:
        """Lite server and DHT node; then the global config that names both."""
        listener = await _listen(self.state.lite_port)
        await nursery.start(self.lite.serve, listener)
        node = AdnlNode((LOOPBACK, self.state.dht_port), clock=SystemClock(), announce_ip=LOOPBACK)
        endpoint = node.add_identity(load_or_create(self.options.state.keys / "dht.key"))
        try:
            await nursery.start(node.run)
        except OSError as exc:
            raise _taken("UDP", self.state.dht_port, exc) from None
        dht = DhtServer(endpoint, SystemClock())
        await nursery.start(dht.run)
        config = global_config(
            dht_nodes=[dht.node_entry()],
            lite_server=(LOOPBACK, self.state.lite_port),
            lite_key=self._lite_key.public_key,
            zero_state=self.chain.zero_state,
        )
        write_config(self.options.state.global_config, config)


async def _listen(port: int) -> trio.SocketListener:
    try:
        listeners = await trio.open_tcp_listeners(port, host=LOOPBACK, backlog=BACKLOG)
    except OSError as exc:
        raise _taken("TCP", port, exc) from None
    return listeners[0]


def _taken(kind: str, port: int, exc: OSError) -> Busy:
    return Busy(f"{kind} port {port} on {LOOPBACK} was taken just now: {exc}.", hint="Start the devnet again.")


@asynccontextmanager
async def open_devnet(options: Options) -> AsyncIterator[Daemon]:
    """A daemon that is ready to `run`, holding its state directory. Raises Busy, Damaged."""
    state_dir = options.state
    with state_dir.lock():
        state = plan(state_dir.load(), options.providers, PortChooser())
        state_dir.save(state)
        chain = Ledger.open(state_dir.chain_db, SystemClock())
        try:
            yield Daemon(options, state, chain, load_or_create(state_dir.keys / "liteserver.key"))
        finally:
            chain.close()


async def run(options: Options, *, task_status: trio.TaskStatus[Daemon] = trio.TASK_STATUS_IGNORED) -> None:
    """Open and run a devnet; `started()` with the daemon once its control socket answers."""
    async with open_devnet(options) as daemon, trio.open_nursery() as nursery:
        await nursery.start(daemon.run)
        task_status.started(daemon)
        log.debug("devnet process", pid=os.getpid())
