"""What the verbs of `tonfs bag` share: where bags are kept, and how they are shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from ..bag import BagHeader, TorrentInfo
from ..bagfiles.store import BagStore
from ..config import state_home
from ..errors import UsageError
from .common import display_name

STORE_VARIABLE: Final = "TONFS_BAG_STORE"


def store_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--store",
        "store",
        metavar="DIR",
        envvar=STORE_VARIABLE,
        callback=lambda _ctx, _param, value: _store(Path(value) if value else state_home() / "bag-store"),
        help="Where bags are remembered. Default: bag-store in the data directory of tonfs.",
    )(function)


def _store(root: Path) -> BagStore:
    if root.exists() and not root.is_dir():
        raise UsageError(f"{root} is not a folder.", hint="Name the folder where bags are remembered.")
    return BagStore(root)


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
