"""Objects whose name a directory has: `a` beside keys `a/...`, and `a/` with data (table `attached`).

They are regular files without a row in `name`, found through the directory: POSIX shows the directory only, and moves
and removes them with it. Called under the volume's lock.
"""

from __future__ import annotations

from typing import Final

from ..ids import Inode
from .inodes import Inodes
from .node import Node
from .schema import ATTACHED

BESIDE: Final = 0
"""The object `a` where `a` is a directory."""
INSIDE: Final = 1
"""The object `a/`, with data."""


def of(inodes: Inodes, folder: Node, slot: int) -> Inode | None:
    if not folder.flags & ATTACHED:
        return None
    row = inodes.db.execute("SELECT inode FROM attached WHERE dir = ? AND slot = ?", (folder.inode, slot)).fetchone()
    return Inode(row[0]) if row else None


def put(inodes: Inodes, folder: Node, slot: int, parent: Inode, name: bytes, inode: Inode) -> None:
    """The slot must be empty. The caller counts the link."""
    inodes._sql("INSERT INTO attached VALUES (?, ?, ?, ?, ?)", (folder.inode, slot, parent, name, inode))
    folder.set(ATTACHED)
    inodes._touch(folder, times=False)


def take(inodes: Inodes, folder: Node, slot: int) -> Inode | None:
    """Empty a slot; the caller gives the link back, or a name."""
    inode = of(inodes, folder, slot)
    if inode is not None:
        inodes._sql("DELETE FROM attached WHERE dir = ? AND slot = ?", (folder.inode, slot))
        left = inodes.db.execute("SELECT 1 FROM attached WHERE dir = ?", (folder.inode,)).fetchone()
        folder.set(ATTACHED, left is not None)
        inodes._touch(folder, times=False)
    return inode


def moved(inodes: Inodes, folder: Node, parent: Inode, name: bytes) -> None:
    """The directory has another name now."""
    if folder.flags & ATTACHED:
        inodes._sql("UPDATE attached SET parent = ?, key = ? WHERE dir = ?", (parent, name, folder.inode))
