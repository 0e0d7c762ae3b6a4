"""`tonfs bag create`, `info` and `verify`: what needs no network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from ..bag import TorrentInfo
from ..bagfiles import StoredBag, create_bag
from ..bagfiles.store import BagStore
from ..errors import Damaged, NotFound, UsageError
from ..ids import bag_id
from .bag_common import describe, show, store_option
from .common import Context, display_name, emit, json_option, parse_size, pass_context, show_size
from .progress import progress_bar, resumable


@click.command(
    help="Hash a file or folder into a bag, remember it for 'bag seed', and print its id. The data stays where it is. "
    "When interrupted, the same command goes on where it was."
)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--description", default="", metavar="TEXT", help="Text kept in the bag, at most 166 bytes.")
@click.option("--piece-size", metavar="SIZE", help="4K to 8M; by default chosen by the amount of data.")
@click.option(
    "--order",
    type=click.Choice(["walk", "sorted"]),
    default="walk",
    show_default=True,
    help="Order of the files: as tonutils-storage (walk) or storage-daemon (sorted) has it.",
)
@click.option("--raw", is_flag=True, help="Make the bag even if some known daemon cannot serve it or crashes on it.")
@click.option("--keep/--no-keep", default=True, help="Remember the bag in the store (default), or only print its id.")
@store_option
@json_option
@pass_context
def create(
    context: Context,
    path: Path,
    description: str,
    piece_size: str | None,
    order: str,
    raw: bool,
    keep: bool,
    store: BagStore,
    as_json: bool,
) -> None:
    with resumable(), progress_bar(context, "hashing") as report:
        created = create_bag(
            path,
            description=os.fsencode(description),
            piece_size=_piece_size(piece_size),
            order="sorted" if order == "sorted" else "walk",
            progress=report,
            raw=raw,
            notes=store.making if keep else None,
        )
    if keep:
        store.keep(created)
    value = {**describe(created.info, None), "files_count": len(created.files)}
    if as_json:
        emit("bag-create", value)
    else:
        show(value)


def _piece_size(text: str | None) -> int:
    """Bytes; 0: the default. Raises UsageError."""
    size = 0 if text is None else parse_size(text)
    if text is not None and not size:
        raise UsageError("A piece size of 0 is not allowed.", hint="Leave --piece-size out for the default.")
    return size


@click.command(
    help="Show a bag: by its id in the store, by its directory (as in a volume's packs/), or by a file with its "
    "TorrentInfo."
)
@click.argument("bag", metavar="BAG")
@store_option
@json_option
def info(bag: str, store: BagStore, as_json: bool) -> None:
    path = Path(bag)
    if path.is_file():
        value = describe(TorrentInfo.parse(path.read_bytes()[: 1 << 16]), None)
    else:
        value = _describe_stored(StoredBag.open(path if path.is_dir() else store.locate(bag)))
    if as_json:
        emit("bag-info", value)
    else:
        show(value)


def _describe_stored(bag: StoredBag) -> dict[str, Any]:
    if bag.info is None:
        raise NotFound(f"Of bag {bag.bag_id.hex()} nothing is known yet but its id.")
    value = {**describe(bag.info, bag.header), "have": bag.have_count, "complete": bag.complete}
    if bag.header is not None:
        value["path"] = str(bag.data_root / display_name(bag.header.top))
    if bag.broken:
        value["problem"] = bag.broken
    return value


@click.command(
    help="Check every piece of a bag in the store (or of a bag directory); or, with --bag-id, whether the file or "
    "folder BAG is that bag."
)
@click.argument("bag", metavar="BAG")
@click.option("--bag-id", "expected", metavar="ID", help="Hash PATH anew and compare.")
@click.option("--description", default="", metavar="TEXT", help="The bag's description (with --bag-id).")
@click.option("--piece-size", metavar="SIZE", help="The bag's piece size (with --bag-id).")
@store_option
@json_option
@pass_context
def verify(
    context: Context,
    bag: str,
    expected: str | None,
    description: str,
    piece_size: str | None,
    store: BagStore,
    as_json: bool,
) -> None:
    path = Path(bag)
    if expected is None:
        if description or piece_size:
            raise UsageError("--description and --piece-size go with --bag-id.")
        value = _verify_directory(context, path if path.is_dir() else store.locate(bag))
    else:
        value = _verify_tree(context, path, expected, description, _piece_size(piece_size))
    if as_json:
        emit("bag-verify", value)
    elif value["ok"]:
        click.echo(f"{value['bag_id']}: all is well ({value['pieces']} pieces, {show_size(value['size'])}).")
    if not value["ok"]:
        raise Damaged(value["detail"])


def _verify_directory(context: Context, path: Path) -> dict[str, Any]:
    bag = StoredBag.open(path)
    known = bag.info
    if known is None:
        raise NotFound(f"Of bag {bag.bag_id.hex()} nothing is known yet but its id.")
    with progress_bar(context, "checking") as report:
        bad = bag.verify(progress=report)
    missing = known.pieces - bag.have_count - len(bad)
    detail = ""
    if bad or missing:
        detail = f"Bag {bag.bag_id.hex()}: {len(bad)} damaged and {missing} missing of {known.pieces} pieces."
    elif bag.header is None:
        detail = f"Bag {bag.bag_id.hex()} can never be unpacked: {bag.broken or 'its header is not readable'}"
    return {
        "bag_id": bag.bag_id.hex(),
        "pieces": known.pieces,
        "size": known.file_size,
        "bad": bad,
        "missing": missing,
        "ok": not detail,
        "detail": detail,
    }


def _verify_tree(context: Context, path: Path, expected: str, description: str, piece_size: int) -> dict[str, Any]:
    """Try both known file orders, and both encodings of long descriptions that go with them."""
    try:
        wanted = bag_id(expected)
    except ValueError as exc:
        raise UsageError(f"{exc}.") from None
    found: list[str] = []
    for order in ("walk", "sorted"):
        with progress_bar(context, f"hashing ({order})") as report:
            created = create_bag(
                path,
                description=os.fsencode(description),
                piece_size=piece_size,
                order="sorted" if order == "sorted" else "walk",
                progress=report,
                raw=True,
            )
        known = created.info
        if known.bag_id == wanted:
            return {
                "bag_id": wanted.hex(),
                "pieces": known.pieces,
                "size": known.file_size,
                "ok": True,
                "order": order,
                "detail": "",
            }
        found.append(known.bag_id.hex())
    detail = f"{path} is not bag {wanted.hex()} but {found[0]} (or {found[1]} with sorted names)."
    return {
        "bag_id": wanted.hex(),
        "pieces": known.pieces,
        "size": known.file_size,
        "ok": False,
        "found": found,
        "detail": detail,
    }
