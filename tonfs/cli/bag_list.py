"""`tonfs bag list` and `tonfs bag remove`: the bags of a store."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import click

from ..bagfiles.store import BagStore, summary
from ..control import call_sync
from ..errors import NotRunning, TonfsError
from .bag_common import printable, store_option
from .common import emit, json_option, show_size


def _running(store: BagStore) -> dict[str, dict[str, Any]]:
    """What the store's peer process says of its bags, by BagID; empty when none runs."""
    try:
        status = call_sync(store.socket, "status", who="peer", timeout=10.0)
    except TonfsError:
        return {}
    return {bag["bag_id"]: bag for bag in status["bags"]}


@click.command("list", help="The bags in the store, how much of each is here, and which are being seeded.")
@store_option
@json_option
def list_(store: BagStore, as_json: bool) -> None:
    running = _running(store)
    bags = []
    for bag in store.ids():
        value = summary(store.directory(bag))
        live = running.get(bag.hex(), {})
        bags.append({**value, "seeding": bool(live.get("seeding")), "peers": int(live.get("peers", 0))})
    if as_json:
        emit("bag-list", {"store": str(store.root), "bags": bags})
        return
    for one in bags:
        click.echo(_line(one))
    if not bags:
        click.echo(f"There are no bags in {store.root}.", err=True)


def _line(bag: dict[str, Any]) -> str:
    if bag["problem"]:
        return f"{bag['bag_id']}  {'damaged':>12}  {printable(bag['problem'])}"
    if not bag["pieces"]:
        state = "searching"
    else:
        state = "complete" if bag["complete"] else f"{100 * bag['have'] // bag['pieces']} %"
    seeding = f"  seeding, {bag['peers']} peers" if bag["seeding"] else ""
    return f"{bag['bag_id']}  {show_size(bag['size']):>12}  {state:>9}{seeding}  {printable(bag['path'])}"


@click.command(
    help="Forget bags: they are not seeded any more. Files that a bag was made of stay; with --files what was "
    "downloaded is deleted."
)
@click.argument("bags", nargs=-1, required=True, metavar="BAG_ID...")
@click.option("--files", is_flag=True, help="Delete what 'bag get' downloaded, too.")
@store_option
@json_option
def remove(bags: tuple[str, ...], files: bool, store: BagStore, as_json: bool) -> None:
    removed: list[dict[str, Any]] = []
    for directory in dict.fromkeys(store.find(word) for word in bags):  # one may be named twice
        bag = str(summary(directory)["bag_id"])
        with suppress(NotRunning):  # then nobody seeds it
            call_sync(store.socket, "forget", {"bag_id": bag}, who="peer", timeout=30.0)
        removed.append({"bag_id": bag, "deleted": store.remove(directory, files=files)})
    if as_json:
        emit("bag-remove", {"bags": removed})
        return
    for one in removed:
        click.echo(f"{one['bag_id']} is forgotten; {show_size(one['deleted'])} of files were deleted.")
