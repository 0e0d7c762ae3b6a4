"""What the nearest word at or above a file says: policies are extended attributes that directories hand down."""

from __future__ import annotations

import sqlite3
from typing import Final

_ABOVE: Final = "SELECT DISTINCT parent FROM name WHERE inode = ?1 UNION SELECT parent FROM attached WHERE inode = ?1 "
"""Directories that hold an inode; also of objects whose name in S3 a directory has."""


class Words:
    """One policy, as one snapshot of the index has it. For one thread."""

    def __init__(self, db: sqlite3.Connection, attribute: bytes) -> None:
        self._db = db
        self.said: dict[int, bytes] = {
            int(inode): bytes(value)
            for inode, value in db.execute("SELECT inode, value FROM xattr WHERE name = ?", (attribute,))
        }
        self._known: dict[int, bytes | None] = {}

    def of(self, inode: int) -> set[bytes | None]:
        """One word for each name of a file, None for a name above which nothing is said; its own word alone counts."""
        if not self.said:
            return {None}
        own = self.said.get(inode)
        if own is not None:
            return {own}
        return {self._directory(parent) for (parent,) in self._db.execute(_ABOVE, (inode,)).fetchall()} or {None}

    def _directory(self, inode: int) -> bytes | None:
        """The nearest word at or above a directory."""
        chain: list[int] = []
        answer: bytes | None = None
        while inode not in self._known:
            answer = self.said.get(inode)
            if answer is not None:
                break
            chain.append(inode)
            row = self._db.execute("SELECT parent FROM name WHERE inode = ?", (inode,)).fetchone()
            if row is None or row[0] in chain[-2:]:  # the root; or a damaged index
                break
            inode = row[0]
        else:
            answer = self._known[inode]
        self._known.update(dict.fromkeys(chain, answer))
        return answer
