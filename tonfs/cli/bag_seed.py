"""`tonfs bag seed`: serve bags to anyone who asks for them, until Ctrl-C."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, Final

import click
import trio
from rich.console import Console

from ..bagfiles import StoredBag
from ..bagfiles.store import BagStore
from ..errors import NotFound, NotRunning, TonfsError
from ..ids import BagId
from ..network.peer_client import PeerClient
from .bag_peer import Network, peer, peer_options
from .common import Context, emit, json_option, pass_context, show_size

LOOK_EVERY: Final = 1.0
MISSED_LOOKS: Final = 5


@click.command(
    help="Serve bags until Ctrl-C: those named by id or bag directory, or all in the store. When a seeding process of "
    "this store runs already, the bags are handed to it."
)
@click.argument("bags", nargs=-1, metavar="[BAG]...")
@peer_options
@json_option
@pass_context
def seed(
    context: Context,
    bags: tuple[str, ...],
    store: BagStore,
    network: Network,
    as_json: bool,
) -> None:
    wanted = dict(_seedable(store.locate(word)) for word in bags) if bags else _all_seedable(store)
    trio.run(_seed, context, store, network, wanted, as_json)


def _all_seedable(store: BagStore) -> dict[BagId, Path]:
    """Those in the store that can be served; one that cannot is told. Raises NotFound when none is left."""
    found: dict[BagId, Path] = {}
    for bag in store.ids():
        try:
            found.update([_seedable(store.directory(bag))])
        except TonfsError as exc:
            click.echo(f"tonfs: bag {bag.hex()} is left out: {exc.message}", err=True)
    if not found:
        raise NotFound(f"There are no bags to serve in {store.root}.", hint="'tonfs bag create' makes one.")
    return found


def _seedable(directory: Path) -> tuple[BagId, Path]:
    stored = StoredBag.open(directory)
    try:
        if stored.info is None or not stored.have_count:
            raise NotFound(
                f"Nothing of bag {stored.bag_id.hex()} is here yet.", hint="'tonfs bag get' fetches it; then seed it."
            )
        return stored.bag_id, directory
    finally:
        stored.close()


async def _seed(context: Context, store: BagStore, network: Network, wanted: dict[BagId, Path], as_json: bool) -> None:
    async with peer(context, store, network) as (client, ours), trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            for bag, directory in wanted.items():
                await client.seed(bag, directory)
            status = await client.status()
            value = {
                "adnl_id": status["id"],
                "address": status["address"],
                "bags": [bag.hex() for bag in wanted],
                "running": not ours,
                "upload_limit": status["limits"]["upload"],
                "upload_limit_per_peer": status["limits"]["upload_per_peer"],
            }
            if as_json:
                emit("bag-seed", value)
            else:
                click.echo(_sentence(value))
            if ours:
                nursery.start_soon(_show, context, client)
                await anext(aiter(signals))
                nursery.cancel_scope.cancel()


def _sentence(value: dict[str, Any]) -> str:
    count = len(value["bags"])
    bags = f"bag {value['bags'][0]}" if count == 1 else f"{count} bags"
    how = "handed to the peer process that runs already" if value["running"] else "Ctrl-C stops"
    return f"Seeding {bags} as {value['adnl_id']} at {value['address']}; {how}."


async def _show(context: Context, client: PeerClient) -> None:
    """A line that stays up to date on a terminal; elsewhere only the watch over the process. Raises NotRunning."""
    console = Console(stderr=True)
    live = console.is_terminal and not context.quiet and not os.environ.get("NO_COLOR")
    missed = 0
    with console.status("") as line:
        if not live:
            line.stop()
        while True:
            try:
                text = await _line(client)
                missed = 0
                if live:
                    line.update(text)
            except NotRunning:
                raise
            except TonfsError as exc:
                missed += 1
                if missed >= MISSED_LOOKS:
                    raise NotRunning(f"The peer process does not answer: {exc.message}") from None
            await trio.sleep(LOOK_EVERY)


async def _line(client: PeerClient) -> str:
    status = await client.status()
    bags = [bag for bag in status["bags"] if bag["seeding"]]
    served = 0
    peers: set[str] = set()
    for bag in bags[:20]:
        for one in await client.peers(BagId(bytes.fromhex(bag["bag_id"]))):
            peers.add(one["id"])
            served += one["served"]
    return f"{len(bags)} bags, {len(peers)} peers in contact, {show_size(served)} served to them"
