"""The peer process behind `tonfs bag seed` and `get`: one per store, started when needed, shared while it runs."""

from __future__ import annotations

import fcntl
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import click
import trio

from ..bagfiles.store import BagStore
from ..config import CONFIG_NAME
from ..control import call_sync
from ..control.process import Child
from ..errors import NotRunning, TonfsError, UsageError
from ..network.peer_client import PeerClient
from .bag_common import store_option
from .common import Context

START_TIMEOUT: Final = 30.0
CONFIG_VARIABLE: Final = "TONFS_GLOBAL_CONFIG"


def peer_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """How the peer process of a store meets the network."""
    for option in (
        click.option("--external-ip", default="", metavar="IP", help="Public IPv4 address that others are told."),
        click.option(
            "--listen",
            default="127.0.0.1:0",
            metavar="IP:PORT",
            show_default=True,
            help="UDP address; port 0: any. On a real network 0.0.0.0:17555, say.",
        ),
        click.option(
            "--global-config",
            metavar="FILE",
            envvar=CONFIG_VARIABLE,
            help="The network's global.config.json. Default: that of the volume.",
        ),
        store_option,
    ):
        function = option(function)
    return function


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
async def peer(
    context: Context, store: BagStore, global_config: str | None, listen: str, external_ip: str
) -> AsyncIterator[tuple[PeerClient, bool]]:
    """The store's peer process, and whether it was started for this block: one runs per store, others share it.

    Raises NotRunning when it cannot be started, or ends.
    """
    with _claimed(store) as ours:
        child = None
        if ours:
            words = [sys.executable, "-m", "tonfs.network.peer_process", "--socket", str(store.socket)]
            words += ["--key-file", str(store.root / "keys" / "peer.key"), "--listen", listen]
            words += ["--global-config", str(network_file(context, global_config))]
            words += ["--announce-ip", external_ip] if external_ip else []
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
