"""Pinned files: local copies that are never given up. Said by `user.tonfs.policy.pin`, inherited by directory.

The nearest word counts: a directory below a pinned one may be unpinned again. A file with several names is pinned when
one of them is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from ..ids import Inode
from ..policy import PATH_POLICY_PREFIX
from .packs import Evicted
from .survey import Survey

PIN: Final = f"{PATH_POLICY_PREFIX}pin".encode()
WHY: Final = "pinned"


class Pins(Survey):
    """Eviction that spares what is pinned."""

    def evict(self, inodes: Sequence[Inode]) -> Evicted:
        """See `Packs.evict`; pinned files are kept, and say why."""
        pinned = self.pinned_among(inodes)
        done = super().evict([inode for inode in inodes if inode not in pinned])
        if not pinned:
            return done
        return Evicted(done.files, done.bytes, done.bags, done.kept + tuple((inode, WHY) for inode in sorted(pinned)))

    def pinned_among(self, inodes: Sequence[Inode]) -> set[Inode]:
        """Those of these inodes that are pinned. Slow."""
        with self._fresh() as db:
            said = {
                int(inode): bytes(value) == b"true"
                for inode, value in db.execute("SELECT inode, value FROM xattr WHERE name = ?", (PIN,))
            }
            if not any(said.values()):
                return set()
            known: dict[int, bool] = {}
            return {inode for inode in inodes if _pinned(db, inode, said, known)}


def _pinned(db: sqlite3.Connection, inode: int, said: dict[int, bool], known: dict[int, bool]) -> bool:
    own = said.get(inode)
    if own is not None:
        return own
    parents = db.execute("SELECT DISTINCT parent FROM name WHERE inode = ?", (inode,)).fetchall()
    return any(_directory(db, parent, said, known) for (parent,) in parents)


def _directory(db: sqlite3.Connection, inode: int, said: dict[int, bool], known: dict[int, bool]) -> bool:
    """The nearest word at or above a directory."""
    chain: list[int] = []
    answer = said.get(inode, known.get(inode))
    while answer is None:
        chain.append(inode)
        row = db.execute("SELECT parent FROM name WHERE inode = ?", (inode,)).fetchone()
        if row is None or row[0] in chain[-2:]:  # the root; or a damaged index
            answer = False
        else:
            inode = row[0]
            answer = said.get(inode, known.get(inode))
    known.update(dict.fromkeys(chain, answer))
    return answer
