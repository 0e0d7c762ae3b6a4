"""What the verbs of `tonfs bag` share: where bags are kept, and how they are shown."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from ..bag import BagHeader, TorrentInfo
from ..bagfiles.hashing import Progress as Report
from ..bagfiles.store import BagStore
from ..config import state_home
from .common import Context, display_name

STORE_VARIABLE: Final = "TONFS_BAG_STORE"


def store_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--store",
        "store",
        metavar="DIR",
        envvar=STORE_VARIABLE,
        callback=lambda _ctx, _param, value: BagStore(Path(value) if value else state_home() / "bag-store"),
        help="Where bags are remembered. Default: bag-store in the data directory of tonfs.",
    )(function)


@contextmanager
def progress_bar(context: Context, what: str) -> Iterator[Report]:
    """A bar on stderr when that is a terminal; nothing otherwise."""
    if context.quiet or os.environ.get("NO_COLOR") or not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = ("[progress.description]{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def resumable() -> Iterator[None]:
    """Ctrl-C in this block ends the command with the word that it can be run again. Raises click.Abort."""
    interrupted = False
    try:
        yield
    except* KeyboardInterrupt:
        interrupted = True
    if interrupted:
        click.echo("Interrupted. Run the same command again to go on.", err=True)
        raise click.Abort


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
