"""`tonfs bag`: make, show and check plain TON Storage bags."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from ..bag import BagHeader, TorrentInfo
from ..bagfiles import StoredBag, create_bag
from ..bagfiles.create import Progress as Report
from ..errors import Damaged, NotFound, UsageError
from ..ids import bag_id
from .common import Context, display_name, emit, json_option, parse_size, pass_context, show_size


@click.group(help="Make, show and check plain TON Storage bags.")
def command() -> None:
    pass


@contextmanager
def progress_bar(context: Context, what: str) -> Iterator[Report]:
    """A bar on stderr when that is a terminal; nothing otherwise."""
    console = Console(stderr=True)
    columns = ("[progress.description]{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
    quiet = context.quiet or not console.is_terminal
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=quiet, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def describe(info: TorrentInfo, header: BagHeader | None) -> dict[str, Any]:
    value: dict[str, Any] = {
        "bag_id": info.bag_id.hex(),
        "root_hash": info.root_hash.hex(),
        "header_hash": info.header_hash.hex(),
        "piece_size": info.piece_size,
        "size": info.file_size,
        "pieces": info.pieces,
        "header_size": info.header_size,
        "description": display_name(info.description),
    }
    if header is not None:
        value["dir_name"] = display_name(header.dir_name)
        value["files"] = [{"name": display_name(entry.name), "size": entry.size} for entry in header.files]
    return value


def show(value: dict[str, Any]) -> None:
    """Print the parts of a bag for a person; control characters in names are escaped."""
    for key, item in value.items():
        if key == "files":
            click.echo(f"{'files':12} {len(item)}")
            for entry in item:
                click.echo(f"  {entry['size']:>14} {printable(entry['name'])}")
        else:
            click.echo(f"{key:12} {printable(item) if isinstance(item, str) else item}")


def printable(text: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


@command.command(help="Hash a file or folder into a bag and print its id. Nothing is stored or published.")
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
@json_option
@pass_context
def create(
    context: Context, path: Path, description: str, piece_size: str | None, order: str, raw: bool, as_json: bool
) -> None:
    with progress_bar(context, "hashing") as report:
        created = create_bag(
            path,
            description=os.fsencode(description),
            piece_size=parse_size(piece_size) if piece_size else 0,
            order="sorted" if order == "sorted" else "walk",
            progress=report,
            raw=raw,
        )
    value = {**describe(created.info, None), "files_count": len(created.files)}
    if as_json:
        emit("bag-create", value)
    else:
        show(value)


@command.command(help="Show a bag: its directory (as in a volume's packs/), or a file with its TorrentInfo.")
@click.argument("path", type=click.Path(path_type=Path))
@json_option
def info(path: Path, as_json: bool) -> None:
    if path.is_file():
        value = describe(TorrentInfo.parse(path.read_bytes()[: 1 << 16]), None)
    else:
        bag = StoredBag.open(path)
        if bag.info is None:
            raise NotFound(f"Of bag {bag.bag_id.hex()} nothing is known yet but its id.")
        value = {**describe(bag.info, bag.header), "have": bag.have_count, "complete": bag.complete}
        if bag.header is not None:
            value["path"] = str(bag.data_root / display_name(bag.header.dir_name))
    if as_json:
        emit("bag-info", value)
    else:
        show(value)


@command.command(
    help="Check every piece of a bag's directory; or, with --bag-id, whether a file or folder is that bag."
)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--bag-id", "expected", metavar="ID", help="Hash PATH anew and compare.")
@click.option("--description", default="", metavar="TEXT", help="The bag's description (with --bag-id).")
@click.option("--piece-size", metavar="SIZE", help="The bag's piece size (with --bag-id).")
@json_option
@pass_context
def verify(
    context: Context, path: Path, expected: str | None, description: str, piece_size: str | None, as_json: bool
) -> None:
    if expected is None:
        if description or piece_size:
            raise UsageError("--description and --piece-size go with --bag-id.")
        value = _verify_directory(context, path)
    else:
        value = _verify_tree(context, path, expected, description, parse_size(piece_size) if piece_size else 0)
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
    bad: list[int] = []
    with progress_bar(context, "checking") as report:
        for index in range(known.pieces):
            if bag.have(index):
                try:
                    bag.read_piece(index)
                except Damaged:
                    bad.append(index)
            report(min((index + 1) * known.piece_size, known.file_size), known.file_size)
    missing = len(bag.missing()) - len(bad)
    detail = f"Bag {bag.bag_id.hex()}: {len(bad)} damaged and {missing} missing of {known.pieces} pieces."
    return {
        "bag_id": bag.bag_id.hex(),
        "pieces": known.pieces,
        "size": known.file_size,
        "bad": bad,
        "missing": missing,
        "ok": not bad and not missing,
        "detail": detail if bad or missing else "",
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
