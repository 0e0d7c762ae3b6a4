"""`tonfs umount`: unmount, and return only when everything is safe on the disk."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ..control import call_sync
from ..control.pidfile import up_file
from ..errors import TimedOut, TonfsError
from .common import Context, parse_duration, pass_context, show_size

if TYPE_CHECKING:
    from rich.status import Status

PATIENCE: Final = 300.0
"""Seconds for what is still being written."""
LOOK_EVERY: Final = 1.0
SAY_EVERY: Final = 5.0
"""Where lines stay: not on a terminal."""

Say = Callable[[str], None]


def _status(volume: Path) -> dict[str, Any] | None:
    """What the front says. None when it does not answer."""
    try:
        return call_sync(volume / "run" / "front.sock", "status", who="front", timeout=10.0)
    except TonfsError:
        return None


class Line:
    """A line that changes in place on a terminal; elsewhere a new one now and then, from a second on."""

    def __init__(self, quiet: bool) -> None:
        self._status: Status | None = None
        if sys.stderr.isatty() and not quiet and not os.environ.get("NO_COLOR"):
            from rich.console import Console

            self._status = Console(stderr=True).status("")
        self._quiet = quiet
        self._next = 0.0

    def __call__(self, text: str) -> None:
        if self._status is not None:
            self._status.update(text)
            self._status.start()
        elif not self._quiet and time.monotonic() >= self._next:
            self._next = time.monotonic() + SAY_EVERY
            click.echo(text, err=True)

    def end(self) -> None:
        if self._status is not None:
            self._status.stop()


class _Watch:
    """Says once a second, from a thread, how far the writing is; nothing when it takes less than a second."""

    def __init__(self, volume: Path, before: dict[str, Any] | None, say: Say) -> None:
        self._volume, self._say = volume, say
        self._start = time.monotonic()
        self._before = int((before or {}).get("bytes", {}).get("dirty", 0))
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(1.0)  # it may be asking the front

    def _work(self) -> None:
        while not self._done.wait(LOOK_EVERY):
            seconds = time.monotonic() - self._start
            now = _status(self._volume)
            came = 0 if now is None else int(now["bytes"]["dirty"]) - self._before
            if self._done.is_set():
                return
            if came > 0:
                self._say(f"Writing what programs left: {show_size(came)} so far, {seconds:.0f} s …")
            else:
                self._say(f"Writing to the disk, {seconds:.0f} s …")


def leave(
    directory: Path,
    *,
    lazy: bool = False,
    timeout: float = PATIENCE,
    say: Say,
    progress: Say,
) -> tuple[Path, dict[str, Any] | None]:
    """Unmount and wait until the front has put everything on the disk and is gone; dead mounts are cleaned up.

    Returns the volume and what its front said before. Raises NotFound, Busy, Refused, TimedOut.
    """
    from ..front.turn import is_held
    from ..fuse import find_mount, is_dead, real_path, tonfs_mount, unmount

    point = real_path(directory)
    if find_mount(point) is None and os.path.islink(point):
        point = os.path.realpath(point)
    volume = tonfs_mount(point)
    if is_dead(point):
        unmount(point, lazy=True)
        say("The front had died; its mount point is cleaned up. What was fsynced is safe.")
        return volume, None
    before = _status(volume)
    end = time.monotonic() + timeout
    with _Watch(volume, before, progress):
        unmount(point, lazy=lazy, timeout=timeout)
        while is_held(volume):
            if time.monotonic() > end:
                raise TimedOut(
                    "The front has not ended: files are still open, or it is still writing.",
                    hint=f"It ends by itself; {volume / 'log' / 'front.log'} says more.",
                )
            time.sleep(0.02)
    return volume, before


@click.command(help="Unmount DIR; returns when everything is safe on the disk.")
@click.argument("directory", type=click.Path(path_type=Path, readable=False))
@click.option("--timeout", default="5m", metavar="D", help="Longest wait for what is still being written.")
@click.option("--lazy", is_flag=True, help="Also when the mount is in use: detach it now, end when it is free.")
@pass_context
def command(context: Context, directory: Path, timeout: str, lazy: bool) -> None:
    def say(text: str) -> None:
        if not context.quiet:
            click.echo(text, err=True)

    line = Line(context.quiet)
    try:
        volume, before = leave(directory, lazy=lazy, timeout=parse_duration(timeout), say=say, progress=line)
    finally:
        line.end()
    dirty = (before or {}).get("files", {}).get("dirty", 0)
    if dirty and context.verbose:
        click.echo(f"{dirty} files are not in a pack yet; they are safe in {volume}.", err=True)
    if up_file(volume).held():
        say("'tonfs up' runs and mounts it again soon; 'tonfs down' stops all of it.")
