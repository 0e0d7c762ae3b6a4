"""The kernel keeps what was written for up to half a minute before it tells us. We ask for it sooner, so that the end
of this process costs programs that never call fsync at most the last second.

Closing a file sends what it wrote; so there is something to ask for only while files are open for a while.
"""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
from collections.abc import Callable, Iterable
from typing import Final

import trio

from ..ids import Inode
from ..log import get_logger

log = get_logger(__name__)

INTERVAL: Final = 0.35
"""Seconds; a file that is open for writing is noticed within one and sent within two. With the time of the writes and
of the volume's commit, which then does not wait for quiet, it makes a second."""
_OPEN_TREE: Final = 428  # the number is the same on all machines
_CLONE: Final = 0x1 | os.O_CLOEXEC
_AT_FDCWD: Final = -100
_libc = ctypes.CDLL(None, use_errno=True)


def _open_beside(point: str) -> int | None:
    """A mount of our own, without a place in the tree, of the file system at `point`: what is done there does not keep
    that one from being unmounted. It is root's; others have none."""
    tree = _libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(point), _CLONE)
    return None if tree < 0 else int(tree)


def send_written(point: str) -> None:
    """Have the kernel send all that programs wrote below `point`. Waits; never call it from the event loop. Raises
    OSError.

    A process of its own waits for the kernel: one that serves a mount and is killed while a thread of it waits for that
    very mount cannot end, and everybody waits for it.
    """
    tree = _open_beside(point)
    path, fds = (point, ()) if tree is None else (f"/proc/self/fd/{tree}", (tree,))
    try:
        words = ["sync", "-f", "--", path]
        done = subprocess.run(words, pass_fds=fds, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    finally:
        if tree is not None:
            os.close(tree)
    if done.returncode != 0:
        raise OSError(errno.EIO, done.stderr.decode("utf-8", "replace").strip())


async def send_quietly(point: str) -> None:
    """`send_written` in a thread; a failure is for the writers, who hear of it from fsync or close."""
    try:
        await trio.to_thread.run_sync(send_written, point, abandon_on_cancel=True)
    except OSError as exc:  # the disk is full, or the mount goes away
        log.debug("the kernel could not send what was written", reason=str(exc))


async def keep_sending(
    point: str,
    writers: Callable[[], Iterable[Inode]],
    sent: Callable[[Iterable[Inode]], None],
    interval: float = INTERVAL,
) -> None:
    """Until cancelled: `send_quietly` for files that were `writers` already an `interval` ago, then `sent(writers)`."""
    before: set[Inode] = set()
    while True:
        await trio.sleep(interval)
        now = set(writers())
        if before.isdisjoint(now):
            before = now
            continue
        await send_quietly(point)
        sent(now)
        before = set()
