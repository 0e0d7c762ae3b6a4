"""`tonfs fetch`: bring evicted files back to this machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import click

from ..errors import NotFound, TonfsError
from .common import Context, emit, json_option, pass_context, volume_option
from .paths import volume_paths
from .progress import progress_bar, resumable


def _files(paths: tuple[str, ...]) -> list[Path]:
    found: list[Path] = []
    for word in paths:
        path = Path(word)
        if path.is_dir() and not path.is_symlink():
            for folder, folders, names in os.walk(path):  # goes on when some of it is removed
                folders.sort()
                below = (Path(folder, name) for name in sorted(names))
                found.extend(p for p in below if p.is_file() and not p.is_symlink())
        elif path.is_file():
            found.append(path)
        else:
            raise NotFound(f"{word} does not exist.")
    return found


def _read(path: Path) -> Iterator[int]:
    """Read a file, so that it comes; yields how much came. Raises TonfsError when it cannot be had, not when it was
    removed meanwhile."""
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                yield len(chunk)
    except FileNotFoundError:
        return
    except OSError as exc:
        hint = f"'tonfs why {path}' shows who should have it; the same command goes on where it was."
        raise TonfsError(f"{path} cannot be read: {exc.strerror}.", hint=hint) from None


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


@click.command(help="Bring evicted files back to this machine, verified.")
@click.argument("paths", nargs=-1, required=True, type=click.Path())
@json_option
@volume_option
@pass_context
def command(context: Context, paths: tuple[str, ...], as_json: bool) -> None:
    context.settings()
    volume_paths(context.volume, paths)  # refuses what lies outside the mount
    files = _files(paths)
    total = sum(map(_size, files))
    with resumable(), progress_bar(context, "fetching") as report:
        done = 0
        for path in files:
            for count in _read(path):
                done += count
                report(done, total)
    if as_json:
        emit("fetch", {"files": len(files), "bytes": total})
