"""The agent process: one nursery, the control socket, the peer process as a child, and the tasks that do the work."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import trio

from ..clock import SystemClock
from ..config import Settings
from ..control import ControlClient, Handler, serve
from ..control.process import Child, keep_running
from ..control.systemd import notify
from ..errors import BadPacket, TonfsError, UsageError
from ..ids import BagId, bag_id
from ..log import get_logger
from ..network.api import PeerNet
from ..network.backed_net import BackedNet
from ..network.given_bags import GivenBags
from ..network.peer_client import PeerClient
from ..network.storage_daemon import storage_daemon_of
from ..network.tonutils_daemon import daemon_of
from . import fetcher, packer, status
from .auditor import Auditor
from .context import Agent
from .money import open_money
from .replicator import Replicator
from .store import AgentStore

log = get_logger(__name__)

FLUSH_FOR: Final = 3.0
"""One `flush` lasts this long; `tonfs wait` repeats it."""
START_TIMEOUT: Final = 30.0
RESTART_PAUSE: Final = 5.0
FETCH_TIMEOUT: Final = 60.0
LONGEST_FETCH: Final = 3600.0


def global_config_path(volume: Path, settings: Settings) -> Path:
    """The TON global config in force. Raises UsageError when a real network has none."""
    if settings.global_config:
        return Path(settings.global_config).expanduser()
    if settings.network == "devnet":
        state = Path(settings.devnet_state).expanduser() if settings.devnet_state else volume / "devnet"
        return state / "global.config.json"
    raise UsageError(
        f"The network {settings.network} needs its global.config.json.",
        hint="Download it from the network's site and set global_config in config.toml.",
    )


def peer_command(volume: Path, settings: Settings) -> list[str]:
    """How the peer process is started."""
    words = [sys.executable, "-m", "tonfs.network.peer_process"]
    words += ["--socket", str(volume / "run" / "peer.sock"), "--key-file", str(volume / "keys" / "peer.key")]
    words += ["--global-config", str(global_config_path(volume, settings)), "--listen", settings.peer.listen]
    if settings.peer.external_ip:
        words += ["--announce-ip", settings.peer.external_ip]
    words += ["--upload-limit", str(settings.peer.upload_limit)]
    words += ["--upload-limit-per-peer", str(settings.peer.upload_limit_per_peer)]
    if settings.peer.packet_loss:
        words += ["--loss", str(settings.peer.packet_loss)]
    return words


@asynccontextmanager
async def _peer(nursery: trio.Nursery, volume: Path, settings: Settings) -> AsyncIterator[PeerNet]:
    """The peer process, started again whenever it ends, and the connection to it."""
    socket = volume / "run" / "peer.sock"
    child = Child("peer", peer_command(volume, settings), volume / "log" / "peer.log")
    stopping = trio.Event()
    child.start()
    try:
        await child.ready(socket, timeout=START_TIMEOUT)
        nursery.start_soon(lambda: keep_running(child, stopping=stopping))
        client = PeerClient(socket)
        await nursery.start(client.run)
        peer = settings.peer
        given = GivenBags(volume / "daemon-bags")
        if peer.seeder == "storage-daemon":
            yield BackedNet(client, storage_daemon_of(peer.seeder_control, peer.seeder_keys, given))
        elif peer.seeder:
            yield BackedNet(client, daemon_of(peer.seeder_url, peer.seeder_login, peer.seeder_password_file, given))
        else:
            yield client
    finally:
        stopping.set()
        with trio.CancelScope(shield=True):
            await child.stop(timeout=10.0)


async def run_agent(volume: Path, settings: Settings) -> None:
    """Run until cancelled. Raises UsageError for a volume without network, Busy when another agent runs."""
    if settings.network == "none":
        raise UsageError("This volume has no network, so it needs no agent.")
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        store = AgentStore(volume / "agent.db")
        stack.callback(store.close)
        front = ControlClient(volume / "run" / "front.sock", who="front")
        await nursery.start(front.run)
        net = await stack.enter_async_context(_peer(nursery, volume, settings))
        clock = SystemClock()
        money = await stack.enter_async_context(open_money(volume, global_config_path(volume, settings), store, clock))
        agent = Agent(volume, settings, clock, store, front, net, money)
        handlers = control_handlers(agent)
        handlers["shutdown"] = _shutdown(nursery.cancel_scope)
        await nursery.start(lambda task_status: serve(volume / "run" / "agent.sock", handlers, task_status=task_status))
        notify("READY=1")
        log.info("agent started", volume=str(volume), network=settings.network, wallet=money.address)
        await run_tasks(agent)


async def run_tasks(agent: Agent) -> None:
    """What the agent does all day. Each task waits by itself for what it needs: the front, the peer, the chain."""
    tasks: dict[str, Callable[[], Awaitable[None]]] = {
        "packer": lambda: packer.packer(agent),
        "replicator": lambda: Replicator(agent).run(),
        "auditor": lambda: Auditor(agent).run(),
    }
    async with trio.open_nursery() as nursery:
        for name, task in tasks.items():
            nursery.start_soon(_keep_going, agent, name, task)


async def _keep_going(agent: Agent, name: str, task: Callable[[], Awaitable[None]]) -> None:
    """A task that breaks is begun anew: it takes up its work from agent.db, as after a crash of the process."""
    while True:
        try:
            await task()
        except Exception as exc:
            log.error("task broke", task=name, exc=exc)
            agent.problems.report(f"task {name}", TonfsError(f"The {name} broke: {type(exc).__name__}: {exc}."))
            await trio.sleep(RESTART_PAUSE)
            agent.problems.clear(f"task {name}")


def _shutdown(scope: trio.CancelScope) -> Handler:
    async def shutdown(_params: dict[str, Any]) -> dict[str, Any]:
        scope.cancel()
        return {}

    return shutdown


def _bag(params: dict[str, Any]) -> BagId:
    try:
        return bag_id(str(params["bag_id"]))
    except (KeyError, ValueError) as exc:
        raise BadPacket(f"A request names no bag: {exc}") from None


def _number(params: dict[str, Any], name: str, default: float | None = None) -> float:
    value = params.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadPacket(f"The parameter {name!r} is missing or no number.")
    return value


def control_handlers(agent: Agent) -> dict[str, Handler]:
    """The methods of agent.sock (docs/control.md)."""

    async def ping(_params: dict[str, Any]) -> dict[str, Any]:
        return {"pid": os.getpid()}

    async def fetch(params: dict[str, Any]) -> dict[str, Any]:
        offset, length = int(_number(params, "offset")), int(_number(params, "length"))
        timeout = min(LONGEST_FETCH, max(0.1, _number(params, "timeout", FETCH_TIMEOUT)))
        await fetcher.fetch(agent, _bag(params), offset, length, timeout)
        return {}

    async def flush(_params: dict[str, Any]) -> dict[str, Any]:
        agent.flush_until = agent.clock.now() + FLUSH_FOR
        agent.pack_now.set()
        return {}

    async def drop_local(params: dict[str, Any]) -> dict[str, Any]:
        named = params.get("bag_ids")
        if not isinstance(named, list):
            raise BadPacket("The parameter 'bag_ids' is missing or no list.")
        wanted = [_bag({"bag_id": text}) for text in named]
        dropped, kept = await fetcher.drop_local(agent, wanted)
        return {
            "dropped": [b.hex() for b in dropped],
            "kept": [{"bag_id": b.hex(), "why": why} for b, why in kept],
        }

    async def pause(_params: dict[str, Any]) -> dict[str, Any]:
        agent.paused = True
        return {}

    async def resume(_params: dict[str, Any]) -> dict[str, Any]:
        agent.paused = False
        agent.replicate_now.set()
        agent.pack_now.set()
        return {}

    async def say_status(_params: dict[str, Any]) -> dict[str, Any]:
        return await status.status(agent)

    async def contracts(_params: dict[str, Any]) -> dict[str, Any]:
        rows = [
            {"bag_id": b.bag_id.hex(), "contract": b.contract, "state": b.state, "size": b.size}
            for b in agent.store.bags("live", "closing", "closed")
            if b.contract is not None
        ]
        return {"contracts": rows, "owner": agent.money.address}

    async def ledger(_params: dict[str, Any]) -> dict[str, Any]:
        return await agent.money.ledger()

    return {
        "ping": ping,
        "status": say_status,
        "fetch": fetch,
        "flush": flush,
        "drop_local": drop_local,
        "pause": pause,
        "resume": resume,
        "contracts": contracts,
        "ledger": ledger,
    }
