"""What opening a volume repairs. Automatic, quick, and it never asks."""

from __future__ import annotations

import contextlib
import os
import stat

from ..ids import Inode
from ..log import get_logger
from .api import ROOT
from .core import Core
from .node import COLUMNS, UPSERT, Node
from .schema import CONTENT, DIRTY

log = get_logger(__name__)

VERSION_JUMP = 1_000_000
"""After a crash, versions of files that were being written go on beyond any that may have been shown."""


def recover(core: Core) -> None:
    """Finish removals, drop orphans and staged files; after a crash also distrust what was being written."""
    _make_root(core)
    _finish_doomed(core)
    for (inode,) in core.db.execute("SELECT inode FROM upload_part").fetchall():
        core._holds[Inode(inode)] = 1
    orphans = core.db.execute(
        "SELECT inode FROM inode WHERE nlink = 0 AND inode NOT IN (SELECT inode FROM upload_part)"
    ).fetchall()
    for (inode,) in orphans:
        _remove(core, Inode(inode))
    if not core.clean_start:
        _remove_strays(core)
        dirty = _distrust(core)
        log.info("recovered after a crash", orphans=len(orphans), dirty=dirty)
    core._gen += 1
    core._commit_locked()
    core._sync_wal(core._committed)
    core._reap()


def _make_root(core: Core) -> None:
    if core.db.execute("SELECT 1 FROM inode WHERE inode = ?", (ROOT,)).fetchone() is None:
        now = core.now_ns()
        core._begin()
        row = (ROOT, stat.S_IFDIR | 0o755, 2, os.geteuid(), os.getegid(), 0, 0, 0, now, now, now, now, 1, now, 0)
        core.db.execute(UPSERT, row)


def _finish_doomed(core: Core) -> None:
    """A crash came between a removal (or an eviction) and the deletion of its content file."""
    for (inode,) in core.db.execute("SELECT inode FROM doomed").fetchall():
        row = core.db.execute("SELECT flags FROM inode WHERE inode = ?", (inode,)).fetchone()
        if row is None or not row[0] & CONTENT:
            core.content.remove(Inode(inode))
        core._sql("DELETE FROM doomed WHERE inode = ?", (inode,))


def _remove(core: Core, inode: Inode) -> None:
    for table in ("inode", "extent", "xattr", "record", "symlink"):
        core._sql(f"DELETE FROM {table} WHERE inode = ?", (inode,))
    core._doom(inode)


def _remove_strays(core: Core) -> None:
    """Content files of inodes whose creation was never committed."""
    for number in range(core._next_inode, core._inode_ceiling):
        inode = Inode(number)
        if core.db.execute("SELECT 1 FROM inode WHERE inode = ?", (inode,)).fetchone() is None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(core.content.path(inode))
    core._next_inode = core._inode_ceiling


def _distrust(core: Core) -> int:
    """Files with unpacked bytes: the disk may have more or less of them than the index knows.

    Their version jumps, so that no pack made of the earlier bytes is accepted and no S3 validator comes back; a size
    whose bytes never reached the disk (only a loss of power does that, and never after fsync) is cut.
    """
    count = 0
    for row in core.db.execute(f"SELECT {COLUMNS} FROM inode WHERE flags & {DIRTY}").fetchall():
        node = Node(row)
        count += 1
        version, size = node.version, node.size
        node.version += VERSION_JUMP
        node.blocks = -1
        try:
            length = os.stat(core.content.path(node.inode)).st_size
        except FileNotFoundError:
            length = 0
        if node.flags & CONTENT and length < node.size:
            _cut(core, node, length)
        core._begin()
        core.db.execute(UPSERT, node.row())
        if node.size == size:
            # An S3 record that was current still is: bytes it vouches for are never overwritten before the index
            # says so durably (rule 1).
            core.db.execute(
                "UPDATE record SET version = ? WHERE inode = ? AND version = ?", (node.version, node.inode, version)
            )
    return count


def _cut(core: Core, node: Node, length: int) -> None:
    """Bytes behind `length` exist nowhere, unless an extent has them."""
    (covered,) = core.db.execute(
        "SELECT coalesce(max(offset + length), 0) FROM extent WHERE inode = ?", (node.inode,)
    ).fetchone()
    size = max(length, covered)
    log.info("a file is shorter after the crash", inode=node.inode, was=node.size, now=size)
    node.size = size
    if size == 0:
        node.set(DIRTY, False)
    elif length < size:
        os.truncate(core.content.path(node.inode), size)
