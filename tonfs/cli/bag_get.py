"""`tonfs bag get`: download a bag, or some files of it, from whoever has it. Interrupted, it goes on where it was."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import trio

from ..bag import BagFile, BagHeader
from ..bagfiles import StoredBag
from ..bagfiles.hashing import Progress
from ..bagfiles.places import disk_error, exists_below, folder_of, write_all
from ..bagfiles.store import BagStore
from ..errors import DhtUnavailable, NotFound, PeerUnreachable, Refused, TimedOut, TonfsError, UsageError
from ..ids import BagId, bag_id
from ..network.api import FetchReport
from ..network.peer_client import PeerClient
from .bag_common import printable
from .bag_peer import Network, peer, peer_options
from .common import Context, display_name, emit, json_option, parse_duration, pass_context, show_size
from .progress import progress_bar, resumable

LOOK_EVERY: Final = 0.3
SEARCH_FOR: Final = 60.0
"""Without --timeout: seconds of search after which a bag that nobody serves is given up."""
FOREVER: Final = 30 * 86400.0


@dataclass(frozen=True)
class _Wish:
    bag: BagId
    store: BagStore
    directory: Path
    files: tuple[bytes, ...]
    timeout: float | None


@click.command(
    help="Download a bag into the folder --to (its own folder is made there), verifying every piece. With --file only "
    "those files of it. When interrupted, the same command goes on where it was."
)
@click.argument("bag", metavar="BAG_ID")
@click.option("--to", "into", type=click.Path(path_type=Path, file_okay=False), help="Folder. Default: this one.")
@click.option("--file", "files", multiple=True, metavar="NAME", help="Only this file of the bag; may be repeated.")
@click.option(
    "--timeout",
    metavar="DURATION",
    help="Keep trying for so long, also while nobody has the bag. Default: until it is here, or nobody serves it for "
    "a minute.",
)
@peer_options
@json_option
@pass_context
def get(
    context: Context,
    bag: str,
    into: Path | None,
    files: tuple[str, ...],
    timeout: str | None,
    store: BagStore,
    network: Network,
    as_json: bool,
) -> None:
    try:
        wanted = bag_id(bag)
    except ValueError as exc:
        raise UsageError(f"{exc}.") from None
    begun = time.monotonic()
    known = store.directory(wanted) / "bag.json"
    # Single files are taken out of the store's copy, so that a folder of the user never holds half-empty ones.
    place = None if known.exists() and into is None else None if files else (into or Path()).absolute()
    store.prepare(wanted, place).close()
    names = tuple(os.fsencode(name) for name in files)
    wish = _Wish(wanted, store, store.directory(wanted), names, parse_duration(timeout) if timeout else None)
    report = FetchReport(0, 0, 0, 0)
    with resumable():
        with progress_bar(context, "checking") as show:
            complete = _complete(wish, show)
        if not complete:
            with progress_bar(context, "downloading") as show:
                report = trio.run(_get, context, wish, network, show)
    value = {**_result(wish, into or Path()), "bytes": report.bytes, "wrong": report.wrong}
    value["seconds"] = round(time.monotonic() - begun, 3)
    if as_json:
        emit("bag-get", value)
    else:
        click.echo(f"{printable(value['path'])} ({show_size(value['size'])}, {value['seconds']:.1f} s)")


def _complete(wish: _Wish, show: Progress) -> bool:
    """Is everything that is wanted here? Reads it: what is gone or damaged counts as missing, and is fetched again."""
    stored = StoredBag.open(wish.directory)
    try:
        stored.restore_files()
        if stored.header is None:
            return False
        pieces = _pieces(stored, wish.files)
        stored.verify(pieces, show)
        return all(stored.have(piece) for piece in pieces)
    finally:
        stored.close()


def _pieces(stored: StoredBag, files: Sequence[bytes]) -> Sequence[int]:
    """Numbers of the pieces that are wanted. The header must be known. Raises NotFound for an unknown name."""
    assert stored.info is not None
    assert stored.header is not None
    if not files:
        return range(stored.info.pieces)
    return sorted({piece for name in files for piece in stored.pieces_for(name, 0, 1 << 62)})


async def _get(context: Context, wish: _Wish, network: Network, show: Progress) -> FetchReport:
    report = FetchReport(0, 0, 0, 0)
    async with peer(context, wish.store, network) as (client, _), trio.open_nursery() as nursery:
        nursery.start_soon(_watch, client, wish.bag, show)
        pieces: Sequence[int] | None = None
        if wish.files:
            await _fetch(client, wish, ())
            stored = StoredBag.open(wish.directory)
            pieces = _pieces(stored, wish.files)
            stored.close()
        report = await _fetch(client, wish, pieces)
        nursery.cancel_scope.cancel()
    return report


async def _fetch(client: PeerClient, wish: _Wish, pieces: Sequence[int] | None) -> FetchReport:
    """Until it is here. Raises TimedOut; without a limit PeerUnreachable, DhtUnavailable when nobody serves it."""
    end = trio.current_time() + (FOREVER if wish.timeout is None else wish.timeout)
    patience = trio.current_time() + (SEARCH_FOR if wish.timeout is None else wish.timeout)
    while True:
        try:
            left = max(0.5, end - trio.current_time())
            return await client.fetch(wish.bag, wish.directory, pieces, timeout=left)
        except (PeerUnreachable, DhtUnavailable) as exc:
            if trio.current_time() >= patience:
                if wish.timeout is None:
                    raise
                raise TimedOut(exc.message, hint="What came so far is kept; the same command goes on.") from None
        except TimedOut as exc:
            raise TimedOut(exc.message, hint="What came so far is kept; the same command goes on.") from None
        await trio.sleep(1.0)


async def _watch(client: PeerClient, bag: BagId, show: Progress) -> None:
    while True:
        with suppress(TonfsError):
            for one in (await client.status())["bags"]:
                if one["bag_id"] == bag.hex() and one["size"]:
                    show(min(one["have"] * one["piece_size"], one["size"]), one["size"])
        await trio.sleep(LOOK_EVERY)


def _result(wish: _Wish, into: Path) -> dict[str, Any]:
    stored = StoredBag.open(wish.directory)
    info, header = stored.info, stored.header
    assert info is not None
    assert header is not None
    try:
        if wish.files:
            paths = [_take_out(stored, header, name, into.absolute()) for name in wish.files]
        else:
            paths = [stored.data_root / os.fsdecode(header.top)]
        sizes = [entry.size for name in wish.files if (entry := header.file(name)) is not None]
        return {
            "bag_id": info.bag_id.hex(),
            "path": str(paths[0]) if len(paths) == 1 else str(into.absolute()),
            "size": sum(sizes) if wish.files else header.data_size,
            "files": [display_name(name) for name in wish.files] or None,
            "files_count": len(wish.files) or len(header.names),
            "pieces": info.pieces,
            "have": stored.have_count,
            "complete": stored.complete,
        }
    finally:
        stored.close()


def _take_out(stored: StoredBag, header: BagHeader, name: bytes, into: Path) -> Path:
    """Copy one complete file of the store below `into`, never through a link.

    Raises Refused for what is there already, BadBag for a link on the way, Damaged, NotFound, NoSpace.
    """
    entry = header.file(name)
    if entry is None:
        raise NotFound(f"Bag {stored.bag_id.hex()} has no file {os.fsdecode(name)!r}.")
    relative = header.folder + name
    source, target = stored.data_root / os.fsdecode(relative), into / os.fsdecode(relative)
    if target == source:
        return target
    draft = f".{secrets.token_hex(8)}.part"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with folder_of(into, relative, make=True) as (folder, last):
            if exists_below(into, relative):
                raise Refused(f"{target} already exists.", hint="Name another folder with --to.")
            fd = os.open(draft, flags, 0o644, dir_fd=folder)
            try:
                _copy(stored, entry, fd)
                os.rename(draft, last, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                os.unlink(draft, dir_fd=folder)
                raise
            finally:
                os.close(fd)
    except OSError as exc:
        raise disk_error(exc, f"writing {target}") from None
    return target


def _copy(stored: StoredBag, entry: BagFile, fd: int) -> None:
    """The file's bytes, each piece checked. Raises OSError, Damaged, NotFound."""
    assert stored.info is not None
    for index in stored.pieces_for(entry.name, 0, entry.size):
        start = index * stored.info.piece_size - entry.start
        part = stored.read_piece(index)[max(0, -start) : entry.size - start]
        write_all(fd, part, max(0, start))
