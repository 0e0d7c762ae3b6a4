"""Changes that wait for the index, and how a batch of them is written.

`Pending` collects what changed in memory since the last batch, by primary key; `take` turns it into rows (quick, under
the volume's lock), `Batch.write` puts them into a transaction. Statements carry many rows each: SQLite then works for
a whole chunk without coming back to the interpreter, so that the doors go on meanwhile.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Final

from ..ids import Inode
from .node import COLUMNS, Node
from .records import RECORD_COLUMNS
from .schema import INLINE, RECORD

CHUNKS: Final = (128, 16, 1)
_INODE: Final = f"INSERT OR REPLACE INTO inode ({COLUMNS})"
_NAME: Final = "INSERT INTO name (cookie, parent, key, inode)"
_INLINE: Final = "INSERT INTO inline (inode, data)"
_SAME_ROW: Final = "ON CONFLICT (inode) DO UPDATE SET data = excluded.data"
"""Of bytes that only changed in place SQLite then writes the pages that differ."""
_RECORD: Final = f"INSERT OR REPLACE INTO record (inode, {', '.join(RECORD_COLUMNS)})"
_DOOMED: Final = "INSERT OR IGNORE INTO doomed (inode)"
_META: Final = "INSERT OR REPLACE INTO meta (key, value)"
_OF_INODE: Final = ("inode", "inline", "record", "object_part", "symlink", "xattr", "extent", "segment")


def insert(db: sqlite3.Connection, head: str, rows: Sequence[Sequence[Any]], tail: str = "") -> None:
    """`head` is everything before VALUES, `tail` what comes after."""
    start = 0
    for size in CHUNKS:
        if len(rows) - start >= size:
            statement = f"{head} VALUES " + ", ".join(["(" + ", ".join("?" * len(rows[0])) + ")"] * size)
            statement = f"{statement} {tail}"
            while len(rows) - start >= size:
                db.execute(statement, list(chain.from_iterable(rows[start : start + size])))
                start += size


def delete(db: sqlite3.Connection, table: str, column: str, keys: Iterable[int]) -> None:
    values = list(keys)
    start = 0
    for size in CHUNKS:
        if len(values) - start >= size:
            statement = f"DELETE FROM {table} WHERE {column} IN ({', '.join('?' * size)})"
            while len(values) - start >= size:
                db.execute(statement, values[start : start + size])
                start += size


class Rows:
    """What goes into the index at once, by table."""

    def __init__(self, pending: Pending, cookies: int) -> None:
        self.gone = pending.gone
        self.names = pending.names
        self.doomed = pending.doomed
        self.undoomed = pending.undoomed
        self.meta = pending.meta
        self.data: list[tuple[int, bytes]] = []
        self._cookies = cookies
        """Names from here on are not in the index."""
        self._inodes: list[tuple[int, ...]] = []
        self._no_data: list[int] = []
        self._records: list[tuple[Any, ...]] = []
        self._no_record: list[int] = []
        for node in pending.nodes.values():
            self._inodes.append(node.row())
            node.stored = True
            if node.data_changed:
                if node.flags & INLINE and node.data is not None:
                    self.data.append((node.inode, bytes(node.data)))
                else:
                    self._no_data.append(node.inode)
            if node.record_changed:
                if node.flags & RECORD and node.record is not None:
                    self._records.append(node.record)
                else:
                    self._no_record.append(node.inode)

    def write(self, db: sqlite3.Connection) -> None:
        """Inside a transaction."""
        for table in _OF_INODE if self.gone else ():
            # What other tables have of an inode is told by its flags; most have nothing.
            inodes = [i for i, tables in self.gone.items() if table in tables]
            delete(db, table, "inode", inodes)
        names = [(c, p, key, i) for p, changes in self.names.items() for c, (key, i) in changes.items()]
        delete(db, "name", "cookie", [row[0] for row in names if row[0] < self._cookies or not row[3]])
        insert(db, _NAME, [row for row in names if row[3]])
        insert(db, _INODE, self._inodes)
        delete(db, "inline", "inode", self._no_data)
        insert(db, _INLINE, self.data, _SAME_ROW)
        delete(db, "record", "inode", self._no_record)
        insert(db, _RECORD, self._records)
        insert(db, _DOOMED, [(number,) for number in self.doomed])
        delete(db, "doomed", "inode", self.undoomed)
        insert(db, _META, list(self.meta.items()))

    def as_json(self) -> dict[str, Any]:
        """All but the bytes of `data`: of these only the lengths. Names are Latin-1."""
        names = [
            (parent, cookie, key.decode("latin-1"), inode)
            for parent, changes in self.names.items()
            for cookie, (key, inode) in changes.items()
        ]
        return {
            "cookies": self._cookies, "gone": list(self.gone.items()), "names": names, "inodes": self._inodes,
            "no_data": self._no_data, "data": [(inode, len(data)) for inode, data in self.data],
            "no_record": self._no_record, "records": self._records, "doomed": list(self.doomed),
            "undoomed": list(self.undoomed), "meta": self.meta,
        }  # fmt: skip

    @classmethod
    def from_json(cls, value: dict[str, Any], data: bytes) -> Rows:
        rows = cls(Pending(), value["cookies"])
        rows.gone = {Inode(inode): tuple(tables) for inode, tables in value["gone"]}
        for parent, cookie, key, inode in value["names"]:
            rows.names.setdefault(Inode(parent), {})[cookie] = (key.encode("latin-1"), inode)
        at = 0
        for inode, length in value["data"]:
            rows.data.append((inode, data[at : at + length]))
            at += length
        rows._inodes, rows._records = value["inodes"], value["records"]
        rows._no_data, rows._no_record = value["no_data"], value["no_record"]
        rows.doomed, rows.undoomed, rows.meta = set(value["doomed"]), set(value["undoomed"]), value["meta"]
        return rows


class Batch(Rows):
    """Rows of one moment. `nodes`, `gone` and `names` also stand for what is on its way to the index."""

    def __init__(self, pending: Pending, cookies: int, gen: int) -> None:
        super().__init__(pending, cookies)
        self.gen = gen
        """The change counter: everything up to here is inside."""
        self.nodes = pending.nodes
        self.ops = pending.ops
        self.written = False
        """Or refused; its writer is done with it."""
        self.failure: sqlite3.Error | OSError | None = None
        for node in self.nodes.values():
            node.indexed = True
            node.data_changed = node.record_changed = False

    def put_back(self, pending: Pending) -> None:
        """The disk did not take it: all of it waits again, except what changed since."""
        for inode, node in self.nodes.items():
            if inode not in pending.gone:
                pending.nodes.setdefault(inode, node)
        inline = {inode for inode, _ in self.data} | set(self._no_data)
        records = {row[0] for row in self._records} | set(self._no_record)
        for inode, node in self.nodes.items():
            node.data_changed |= inode in inline
            node.record_changed |= inode in records
        for inode, tables in self.gone.items():
            pending.gone.setdefault(inode, tables)
        for parent, changes in self.names.items():
            newer = pending.names.setdefault(parent, {})
            for cookie, change in changes.items():
                newer.setdefault(cookie, change)
        pending.doomed |= self.doomed - pending.undoomed
        pending.undoomed |= self.undoomed
        pending.meta = {**self.meta, **pending.meta}
        pending.ops = self.ops + pending.ops


class Pending:
    def __init__(self) -> None:
        self.nodes: dict[Inode, Node] = {}
        self.gone: dict[Inode, tuple[str, ...]] = {}
        """Removed inode -> the tables that have rows of it."""
        self.names: dict[Inode, dict[int, tuple[bytes, int]]] = {}
        """Directory -> cookie -> (key, inode); inode 0: the name is gone."""
        self.doomed: set[int] = set()
        self.undoomed: set[int] = set()
        self.meta: dict[str, str] = {}
        self.ops: list[tuple[str, tuple[Any, ...]]] = []
        """Statements that were executed in the open transaction already; kept for the case that it fails."""

    def __bool__(self) -> bool:
        return bool(self.nodes or self.gone or self.names or self.doomed or self.undoomed or self.meta or self.ops)
