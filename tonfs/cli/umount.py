"""`tonfs umount`: unmount, and return only when everything is safe on the disk."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Any

import click

from ..control import call_sync
from ..errors import NotFound, TimedOut, TonfsError
from .common import Context, parse_duration, pass_context


def _front_gone(volume: Path) -> bool:
    """Nobody holds the volume any more."""
    try:
        fd = os.open(volume / "run" / "front.lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _wait(volume: Path, timeout: float, quiet: bool) -> None:
    end = time.monotonic() + timeout
    said = time.monotonic() + 1.0
    while not _front_gone(volume):
        if time.monotonic() > end:
            raise TimedOut("The front is still writing.", hint=f"Look at {volume / 'log' / 'front.log'}.")
        if time.monotonic() > said and not quiet:
            click.echo("Writing what is left …", err=True)
            said += 5.0
        time.sleep(0.05)


def _left(volume: Path) -> dict[str, Any] | None:
    """What is only on this machine, for the last line. None when the front does not answer."""
    try:
        return call_sync(volume / "run" / "front.sock", "status", who="front", timeout=10.0)
    except TonfsError:
        return None


@click.command(help="Unmount DIR; returns when everything is safe on the disk.")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--timeout", default="5m", metavar="D", help="Longest wait for what is still being written.")
@click.option("--lazy", is_flag=True, help="Also when the mount is in use: detach it now, end when it is free.")
@pass_context
def command(context: Context, directory: Path, timeout: str, lazy: bool) -> None:
    from ..fuse import FS_TYPE, find_mount, is_dead, real_path, unmount, volume_of

    limit = parse_duration(timeout)
    point = real_path(directory)
    there = find_mount(point)
    if there is None and os.path.islink(point):
        point = os.path.realpath(point)
        there = find_mount(point)
    volume = volume_of(there.source) if there is not None else None
    if there is None or there.type != FS_TYPE or volume is None:
        raise NotFound(f"No tonfs volume is mounted at {point}.")
    if is_dead(point):
        unmount(point, lazy=True)
        click.echo("The front had died; its mount point is cleaned up.", err=True)
        return
    status = _left(volume)
    unmount(point, lazy=lazy, timeout=limit)
    _wait(volume, limit, context.quiet)
    dirty = (status or {}).get("files", {}).get("dirty", 0)
    if dirty and context.verbose:
        click.echo(f"{dirty} files are not in a pack yet; they are safe in {volume}.", err=True)
