"""What opening a volume repairs. Automatic, quick, and it never asks.

Files whose unpacked bytes were written before a crash are looked at when they are met for the first time
(`Contents._distrust`), so that opening takes the same time however many there are.
"""

from __future__ import annotations

import os
import stat
from typing import Final

from ..ids import Inode
from ..log import get_logger
from .api import ROOT
from .names import Names
from .node import Node
from .schema import CONTENT

log = get_logger(__name__)

FEW_SHARDS: Final = 64
"""With content files in so few directories these are listed."""

VERSION_JUMP: Final = 1 << 32
"""After a crash, versions of files with unpacked bytes go on beyond any that may have been shown."""


def recover(volume: Names) -> None:
    """Finish removals, drop orphans and staged files; after a crash also distrust what was being written."""
    if not volume.clean_start:
        volume._version_base += VERSION_JUMP
        volume._pending.meta["version_base"] = str(volume._version_base)
    _make_root(volume)
    _finish_doomed(volume)
    for (inode,) in volume.db.execute("SELECT inode FROM upload_part").fetchall():
        volume._holds[Inode(inode)] = 1
        volume._nameless.add(Inode(inode))
    orphans = volume.db.execute(
        "SELECT inode FROM inode WHERE nlink = 0 AND inode NOT IN (SELECT inode FROM upload_part)"
    ).fetchall()
    for (inode,) in orphans:
        volume._remove_inode(volume._node(Inode(inode)))
    if not volume.clean_start:
        _remove_strays(volume)
        log.info("recovered after a crash", orphans=len(orphans))
    volume._gen += 1
    volume._commit_locked()
    volume._sync_wal(volume._committed)
    volume._reap()


def _make_root(volume: Names) -> None:
    if volume.db.execute("SELECT 1 FROM inode WHERE inode = ?", (ROOT,)).fetchone() is None:
        now = volume.now_ns()
        row = (ROOT, stat.S_IFDIR | 0o755, 2, os.geteuid(), os.getegid(), 0, 0, 0, now, now, now, now, 1, now, 0, 0, 0)
        volume._nodes[ROOT] = volume._pending.nodes[ROOT] = Node(row, stored=False)


def _finish_doomed(volume: Names) -> None:
    """A crash came between a removal (or an eviction) and the deletion of its content file."""
    doomed = {number for (number,) in volume.db.execute("SELECT inode FROM doomed")}
    if not doomed:
        return
    used = volume.db.execute(
        f"SELECT CASE blob WHEN 0 THEN inode ELSE blob END AS number FROM inode WHERE flags & {CONTENT} "
        "AND number IN (SELECT inode FROM doomed) "
        "UNION SELECT blob FROM segment WHERE blob IN (SELECT inode FROM doomed)"
    )
    kept = {number for (number,) in used}
    for number in doomed - kept:
        volume.content.remove(Inode(number))
        volume.content.note_removed(Inode(number))  # perhaps by the process before
    volume._pending.undoomed |= kept


def _remove_strays(volume: Names) -> None:
    """Content files of inodes whose creation was never committed."""
    shards = volume.content.shards()
    if len(shards) < FEW_SHARDS:
        numbers = [number for number in volume.content.numbers() if number >= volume._next_inode]
    else:  # there may be a million files, but few numbers that were not committed
        numbers = [n for n in range(volume._next_inode, volume._inode_ceiling) if n & 0xFF in shards]
    for number in numbers:
        if volume.content.remove(Inode(number)):
            volume._pending.doomed.add(number)
    volume._next_inode = volume._inode_ceiling
