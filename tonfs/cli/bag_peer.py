"""The peer process behind `tonfs bag seed` and `get`: one per store, started when needed, shared while it runs."""

from __future__ import annotations

import fcntl
import functools
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import trio

from ..bagfiles.store import BagStore
from ..config import CONFIG_NAME, PeerSettings
from ..control import call_sync
from ..control.process import Child
from ..errors import BadData, NotRunning, TonfsError, UsageError
from ..network.address import default_listen
from ..network.global_config import load_global_config
from ..network.peer_client import PeerClient
from .bag_common import store_option
from .common import Context, parse_size

START_TIMEOUT: Final = 30.0
CONFIG_VARIABLE: Final = "TONFS_GLOBAL_CONFIG"


class Network(NamedTuple):
    """How the peer process of a store meets the network, as options say it. Limits in bytes per second."""

    global_config: str | None
    listen: str
    external_ip: str
    upload_limit: str | None
    upload_limit_per_peer: str | None


def peer_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that make a `network`, which the command takes, and the store."""

    @functools.wraps(function)
    def command(*arguments: Any, **words: Any) -> Any:
        network = Network(*(words.pop(name) for name in Network._fields))
        return function(*arguments, network=network, **words)

    wrapped: Callable[..., Any] = command
    for option in (
        click.option(
            "--upload-limit-per-peer",
            metavar="SIZE",
            help="The same to one peer. Default: that of the volume, or none.",
        ),
        click.option(
            "--upload-limit",
            metavar="SIZE",
            help="Bytes per second that others are served at most; 0: no limit. Default: that of the volume, or none.",
        ),
        click.option("--external-ip", default="", metavar="IP", help="Public IPv4 address that others are told."),
        click.option(
            "--listen",
            default="",
            metavar="IP:PORT",
            help="UDP address; port 0: any. Default: any port, on a devnet of this machine only.",
        ),
        click.option(
            "--global-config",
            metavar="FILE",
            envvar=CONFIG_VARIABLE,
            help="The network's global.config.json. Default: that of the volume.",
        ),
        store_option,
    ):
        wrapped = option(wrapped)
    return wrapped


def network_file(context: Context, named: str | None) -> Path:
    """The global config in force. Raises UsageError when there is none."""
    if named:
        return Path(named).expanduser()
    if (context.volume / CONFIG_NAME).exists():
        from ..agent.main import global_config_path

        return global_config_path(context.volume, context.settings())
    raise UsageError(
        "Which network? There is no volume that says it.",
        hint=f"Give --global-config FILE or set {CONFIG_VARIABLE}; 'tonfs devnet status' names the devnet's file.",
    )


def _check_addresses(network: Network) -> None:
    """Raises UsageError for what the peer process could not listen on or announce."""
    from ..network.address import pack_ip
    from ..network.peer_process import parse_udp

    if network.listen:
        parse_udp(network.listen)
    try:
        pack_ip(network.external_ip or "0.0.0.0")
    except ValueError:
        raise UsageError(f"Not an IPv4 address: {network.external_ip!r}.", hint="Name your public one.") from None


def listen_address(network: Network, config: Path) -> str:
    """IP:PORT. Raises NotFound and UsageError for a global config that the peer process could not use."""
    _check_addresses(network)
    try:
        hosts = load_global_config(config).hosts
    except BadData as exc:
        raise UsageError(exc.message) from None
    return network.listen or f"{default_listen(hosts)}:0"


def upload_limits(context: Context, network: Network) -> tuple[int, int]:
    """(to all together, to one peer), bytes per second; 0: none. Raises UsageError."""
    settings = context.settings().peer if (context.volume / CONFIG_NAME).exists() else PeerSettings()
    total, one = network.upload_limit, network.upload_limit_per_peer
    return (
        settings.upload_limit if total is None else parse_size(total),
        settings.upload_limit_per_peer if one is None else parse_size(one),
    )


def _serves(store: BagStore) -> bool:
    """Does a peer process of this store answer?"""
    try:
        call_sync(store.socket, "ping", who="peer", timeout=5.0)
    except TonfsError:
        return False
    return True


@contextmanager
def _claimed(store: BagStore) -> Iterator[bool]:
    """True: the peer process of this store is ours to start, until the block ends (or we die)."""
    store.socket.parent.mkdir(parents=True, exist_ok=True)
    (store.root / "keys").mkdir(mode=0o700, exist_ok=True)
    with (store.root / "run" / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@asynccontextmanager
async def peer(context: Context, store: BagStore, network: Network) -> AsyncIterator[tuple[PeerClient, bool]]:
    """The store's peer process, and whether it was started for this block: one runs per store, others share it.

    Raises NotRunning when it cannot be started, or ends; UsageError for a limit that is no size.
    """
    limits = upload_limits(context, network)
    with _claimed(store) as ours:
        child = None
        if ours:
            config = network_file(context, network.global_config)
            words = [sys.executable, "-m", "tonfs.network.peer_process", "--socket", str(store.socket)]
            words += ["--key-file", str(store.root / "keys" / "peer.key"), "--listen", listen_address(network, config)]
            words += ["--global-config", str(config)]
            words += ["--announce-ip", network.external_ip] if network.external_ip else []
            words += ["--upload-limit", str(limits[0]), "--upload-limit-per-peer", str(limits[1])]
            words += ["--verbose"] if context.verbose else []
            child = Child("peer", words, store.root / "log" / "peer.log")
        await _until_answer(store, wanted=not ours)
        try:
            if child is not None:
                child.start()
                await child.ready(store.socket, timeout=START_TIMEOUT)
            async with trio.open_nursery() as nursery:
                client = PeerClient(store.socket)
                await nursery.start(client.run)
                yield client, ours
                nursery.cancel_scope.cancel()
        finally:
            if child is not None:
                with trio.CancelScope(shield=True):
                    await child.stop(timeout=10.0)


async def _until_answer(store: BagStore, *, wanted: bool) -> None:
    """Until the socket answers; or, not `wanted`, until one whose command was killed has gone. Raises NotRunning."""
    with trio.move_on_after(START_TIMEOUT):
        while await trio.to_thread.run_sync(_serves, store) is not wanted:  # noqa: ASYNC110 - another process
            await trio.sleep(0.1)
        return
    state = "does not answer" if wanted else "does not end"
    raise NotRunning(f"The peer process of {store.root} {state}.", hint=f"Its log is in {store.root / 'log'}.")
