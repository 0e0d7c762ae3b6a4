"""The provider process: one ADNL node with two identities, the DHT, the storage node, the chain, and the keeper.

provider key   names the provider, signs its DHT record and its storage proofs, owns its v3r2 wallet
adnl.key       answers clients' questions
storage.key    serves pieces in the overlays of bags
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import trio

from ..bridge import AsyncioThread
from ..chain import Wallet
from ..chain.lite import LiteChain
from ..chain.wallet import Version
from ..clock import SystemClock
from ..control import Handler, serve
from ..ids import ProviderKey
from ..log import get_logger
from ..network.address import reach_of
from ..network.api import AdnlEndpoint
from ..network.dht_client import DhtClient
from ..network.global_config import load_global_config
from ..network.keys import KeyPair, load_or_create
from ..network.node import AdnlNode
from ..network.provider_link import ProviderLink
from ..network.storage_node import StorageNode
from ..network.upload import Upload
from .answers import Answers
from .config import ProviderConfig
from .faults import Fault, FaultySource, parse_fault
from .keeper import Keeper
from .register import NOTE, register
from .sender import Sender
from .shelf import Shelf
from .store import ProviderStore

log = get_logger(__name__)


class FaultSwitch:
    """Spreads a fault over everything that takes part in it."""

    def __init__(self, node: AdnlNode, source: FaultySource, keeper: Keeper) -> None:
        self._node = node
        self._source = source
        self._keeper = keeper

    def apply(self, fault: Fault) -> None:
        """The part that works at once."""
        self._source.fault = fault
        self._node.muted = fault is Fault.SILENT

    async def set(self, fault: Fault) -> None:
        self.apply(fault)
        await self._keeper.set_fault(fault)
        log.info("fault set", fault=str(fault))


def storage_node(
    config: ProviderConfig, node: AdnlNode, key: KeyPair
) -> tuple[AdnlEndpoint, AdnlEndpoint, DhtClient, StorageNode]:
    """(identity that answers clients, identity that serves bags, DHT client, storage node), all announced.

    Raises NotFound, BadData for the global config, Damaged for a key file.
    """
    network = load_global_config(config.global_config)
    front = node.add_identity(load_or_create(config.directory / "adnl.key"))
    storage = node.add_identity(load_or_create(config.directory / "storage.key"))
    clock = SystemClock()
    dht = DhtClient(front, network.dht_nodes, clock, k=network.k, a=network.a)
    dht.announce_address(front)
    dht.announce_address(storage)
    dht.announce_provider(key, front.id)
    return front, storage, dht, StorageNode(storage, dht, ProviderLink(front, dht), clock)


async def run_provider(config: ProviderConfig) -> None:
    """Run until cancelled or told to shut down. Raises what its parts raise at start; Busy when it runs already."""
    config.bags.mkdir(parents=True, exist_ok=True)
    key = load_or_create(config.seed_file)
    name = ProviderKey(key.public_key)
    async with AsyncExitStack() as stack:
        store = ProviderStore(config.directory / "provider.db")
        stack.callback(store.close)
        shelf = Shelf(config.bags)
        stack.callback(shelf.close)
        bridge = await stack.enter_async_context(AsyncioThread("lite servers"))
        chain = await stack.enter_async_context(LiteChain(config.global_config, bridge))
        reach = reach_of(config.listen[0], config.announce_ip, load_global_config(config.global_config).hosts)
        upload = Upload(config.upload_limit, config.upload_limit_per_peer)
        node = AdnlNode(config.listen, clock=SystemClock(), announce_ip=config.announce_ip, reach=reach, upload=upload)
        fault = parse_fault(store.note("fault") or Fault.NONE)
        nursery = await stack.enter_async_context(trio.open_nursery())
        stop = nursery.cancel_scope.cancel
        address = await nursery.start(node.run)
        front, storage, dht, bags = storage_node(config, node, key)
        source = FaultySource(bags.source, fault)
        bags.source = source
        sender = Sender(chain, Wallet.from_seed(key.seed.reveal(), Version.V3R2))
        keeper = Keeper(config, name, store, shelf, chain, bags, sender, fault)
        switch = FaultSwitch(node, source, keeper)
        switch.apply(fault)
        await nursery.start(dht.run)
        await nursery.start(bags.run)
        await nursery.start(keeper.run)
        front.set_handler(Answers(keeper, storage).handle)
        nursery.start_soon(register, chain, sender, store, name)
        handlers = control_handlers(keeper, switch, sender, store, stop)
        await nursery.start(_serve, config, handlers)
        log.info("provider runs", key=name, port=address[1], wallet=sender.wallet.address, fault=str(fault))
        await trio.sleep_forever()


async def _serve(config: ProviderConfig, handlers: dict[str, Handler], *, task_status: trio.TaskStatus[None]) -> None:
    await serve(config.socket, handlers, task_status=task_status)


def control_handlers(
    keeper: Keeper, switch: FaultSwitch, sender: Sender, store: ProviderStore, stop: Callable[[], None]
) -> dict[str, Handler]:
    """The methods of provider.sock."""

    async def ping(_params: dict[str, Any]) -> dict[str, Any]:
        return {"pid": os.getpid()}

    async def status(_params: dict[str, Any]) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "key": keeper.key.hex(),
            "wallet": sender.wallet.address,
            "registered": store.note(NOTE) == "yes",
            "fault": str(keeper.fault),
            "space": {"total": keeper.config.space, "left": keeper.space_left()},
            "limits": {"upload": keeper.config.upload_limit, "upload_per_peer": keeper.config.upload_limit_per_peer},
            "problem": keeper.problem,
            "contracts": keeper.summary(),
        }

    async def fault(params: dict[str, Any]) -> dict[str, Any]:
        wanted = parse_fault(str(params.get("kind", "")))
        await switch.set(wanted)
        return {"fault": str(wanted)}

    async def shutdown(_params: dict[str, Any]) -> dict[str, Any]:
        stop()
        return {}

    return {"ping": ping, "status": status, "fault": fault, "shutdown": shutdown}
