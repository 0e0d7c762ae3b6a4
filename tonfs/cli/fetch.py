"""`tonfs fetch`: bring evicted files back to this machine."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from ..errors import NotFound
from .common import Context, emit, json_option, pass_context, volume_option
from .paths import volume_paths


def _files(paths: tuple[str, ...]) -> list[Path]:
    found: list[Path] = []
    for word in paths:
        path = Path(word)
        if path.is_dir() and not path.is_symlink():
            found.extend(p for p in sorted(path.rglob("*")) if p.is_file() and not p.is_symlink())
        elif path.is_file():
            found.append(path)
        else:
            raise NotFound(f"{word} does not exist.")
    return found


@click.command(help="Bring evicted files back to this machine, verified.")
@click.argument("paths", nargs=-1, required=True, type=click.Path())
@json_option
@volume_option
@pass_context
def command(context: Context, paths: tuple[str, ...], as_json: bool) -> None:
    context.settings()
    volume_paths(context.volume, paths)  # refuses what lies outside the mount
    files = _files(paths)
    total = sum(p.stat().st_size for p in files)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=context.quiet) as progress:
        task = progress.add_task("fetch", total=total)
        for path in files:
            with path.open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    progress.advance(task, len(chunk))
    if as_json:
        emit("fetch", {"files": len(files), "bytes": total})
