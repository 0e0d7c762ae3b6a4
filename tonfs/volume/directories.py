"""Directories as they are read: look-ups, paths, listings."""

from __future__ import annotations

import errno
import stat
from collections.abc import Sequence
from itertools import islice
from typing import Any, Final

from ..errors import FsError
from ..ids import Inode
from .api import NAME_MAX, ROOT, Attr, Entry
from .core import locked
from .folder import MAX_WHOLE, Folder, Found
from .inodes import Inodes
from .node import COLUMNS, Node
from .schema import DIRTY

_JOINED: Final = ", ".join(f"i.{column.strip()}" for column in COLUMNS.split(","))
_WIDTH: Final = len(COLUMNS.split(","))
UNKNOWN: Final = Found(0, Inode(0), False, b"")
ASK_BEFORE_LOADING: Final = 3
"""Names asked for one by one before a directory is loaded as a whole."""
PREFETCH: Final = 4096
"""With a directory of up to so many names the inodes are loaded, too."""


def check_name(name: bytes) -> None:
    """Raises FsError(ENAMETOOLONG, EINVAL)."""
    if len(name) > NAME_MAX:
        raise FsError(f"A name of {len(name)} bytes is over the limit of {NAME_MAX}.", errno.ENAMETOOLONG)
    if not name or b"/" in name or b"\0" in name:
        raise FsError(f"{name!r} is not a file name.", errno.EINVAL)


def check_new_name(name: bytes) -> None:
    check_name(name)
    if name in (b".", b".."):
        raise FsError(f"{name!r} exists in every directory.", errno.EEXIST)


def key_range(column: str, after: bytes, prefix: bytes) -> tuple[str, list[bytes]]:
    """An SQL condition and its values: above `after` and beginning with `prefix`. One lower bound, or SQLite might
    take the wrong one for its range and read everything before the page."""
    condition, values = (f"{column} > ?", [after]) if after >= prefix else (f"{column} >= ?", [prefix])
    end = prefix.rstrip(b"\xff")
    if end:
        condition += f" AND {column} < ?"
        values.append(end[:-1] + bytes([end[-1] + 1]))
    return condition, values


def missing(name: bytes) -> FsError:
    return FsError(f"{name!r} does not exist.", errno.ENOENT)


class Directories(Inodes):
    """What the tree says. Raises FsError as POSIX wants it."""

    # Looking ----------------------------------------------------------------------------------------------------

    def _blocks(self, node: Node) -> int:
        """512-byte units of what is stored."""
        raise NotImplementedError

    def _attr(self, node: Node) -> Attr:
        return node.attr(node.blocks if node.blocks >= 0 else self._blocks(node))

    @locked
    def getattr(self, inode: Inode) -> Attr:
        return self._attr(self._node(inode))

    def live(self, inode: Inode) -> Node:
        """See `Namespace.live`."""
        with self.lock:
            node = self._nodes.get(inode) or self._node(inode)
            node.used = True
            if node.blocks < 0:
                self._blocks(node)
            return node

    def _dir(self, inode: Inode) -> Node:
        node = self._node(inode)
        if not stat.S_ISDIR(node.mode):
            raise FsError(f"Inode {inode} is not a directory.", errno.ENOTDIR)
        return node

    def _live_dir(self, inode: Inode) -> Node:
        """A directory that can take names. A removed one cannot."""
        node = self._dir(inode)
        if node.nlink == 0:
            raise FsError("The directory was removed.", errno.ENOENT)
        return node

    def _names(self, node: Node) -> Folder:
        if node.folder is None:
            node.folder = Folder()
        return node.folder

    def _find(self, parent: Inode, name: bytes) -> Found | None:
        return self._find_in(self._node(parent), name)

    def _find_in(self, node: Node, name: bytes) -> Found | None:
        folder = node.folder or self._names(node)
        found = folder.names.get(name, UNKNOWN)
        if found is not UNKNOWN:
            return found
        return None if folder.whole else self._find_stored(node, folder, name)

    def _find_stored(self, node: Node, folder: Folder, name: bytes) -> Found | None:
        folder.asked += 1
        if folder.asked > ASK_BEFORE_LOADING and self._load_folder(node, folder):
            return folder.names.get(name)
        row = self._read.execute(
            "SELECT cookie, inode, key FROM name WHERE parent = ? AND key IN (?, ?)", (node.inode, name, name + b"/")
        ).fetchone()
        found = Found(row[0], Inode(row[1]), row[2] != name, name) if row else None
        folder.names[name] = found
        self._names_kept += 1
        return found

    def _load_folder(self, node: Node, folder: Folder) -> bool:
        """Have all names in memory, unless there are too many. Inodes come with those of a small directory."""
        if folder.whole or folder.large:
            return folder.whole
        (count,) = self._read.execute(
            "SELECT count(*) FROM (SELECT 1 FROM name WHERE parent = ? LIMIT ?)", (node.inode, MAX_WHOLE + 1)
        ).fetchone()
        if count > MAX_WHOLE:
            folder.large = True
            return False
        few = count <= PREFETCH
        columns, join = (f", {_JOINED}", "JOIN inode i ON i.inode = n.inode ") if few else ("", "")
        rows = self._read.execute(
            f"SELECT n.cookie, n.key, n.inode{columns} FROM name n {join}WHERE n.parent = ?", (node.inode,)
        ).fetchall()
        stored = []
        for row in rows:
            key = row[1]
            is_dir = key.endswith(b"/")
            stored.append(Found(row[0], row[2], is_dir, key[:-1] if is_dir else key))
        folder.became_whole(stored)
        self._names_kept += len(stored)
        if few:
            nodes, gone = self._nodes, self._gone
            for row in rows:
                if row[2] not in nodes and not gone(row[2]):
                    self._remember(row[3:])
        return True

    def _gone(self, inode: Inode) -> bool:
        """Removed, and the index may not know yet."""
        batch = self._batch
        return inode in self._pending.gone or (batch is not None and inode in batch.gone)

    def _parent_of(self, inode: Inode) -> Inode:
        """Of a directory; the root is its own, a removed one has the root."""
        node = self._node(inode)
        if not node.parent:
            row = self._read.execute("SELECT parent FROM name WHERE inode = ?", (inode,)).fetchone()
            node.parent = row[0] if row and node.nlink else ROOT
        return Inode(node.parent)

    def _lookup(self, parent: Inode, name: bytes) -> Node | None:
        if name == b".":  # also of a file: so the kernel, which was given a file handle, asks whether it is still there
            return self._node(parent)
        node = self._dir(parent)
        if len(name) > NAME_MAX or not name or b"/" in name or b"\0" in name:
            check_name(name)
        found = self._find_in(node, name)
        if found is not None:
            return self._nodes.get(found.inode) or self._node(found.inode)
        if name == b"..":
            return self._node(self._parent_of(parent))
        return None

    @locked
    def lookup(self, parent: Inode, name: bytes) -> Attr:
        node = self._lookup(parent, name)
        if node is None:
            raise missing(name)
        return self._attr(node)

    def peek(self, parent: Inode, name: bytes, hold: int = 0) -> Node | None:
        """See `Namespace.peek`."""
        with self.lock:
            node = self._lookup(parent, name)
            if node is not None:
                node.used = True
                if node.blocks < 0:
                    self._blocks(node)
                if hold:
                    self._holds[node.inode] = self._holds.get(node.inode, 0) + hold
            return node

    @locked
    def resolve(self, parts: Sequence[bytes], start: Inode = ROOT) -> Attr:
        node = self._node(start)
        for part in parts:
            if stat.S_ISLNK(node.mode):
                raise FsError("There is a symbolic link on the way.", errno.ELOOP)
            below = self._lookup(node.inode, part)
            if below is None:
                raise missing(part)
            node = below
        return self._attr(node)

    @locked
    def path_of(self, inode: Inode) -> bytes:
        self._commit_locked()
        parts: list[bytes] = []
        while inode != ROOT:
            row = self._read.execute(
                "SELECT parent, key FROM name WHERE inode = ? UNION ALL "
                "SELECT parent, key FROM attached WHERE inode = ? LIMIT 1",
                (inode, inode),
            ).fetchone()
            if row is None:
                raise FsError(f"Inode {inode} has no name.", errno.ENOENT)
            parts.append(row[1].rstrip(b"/"))
            inode = Inode(row[0])
        return b"/".join(reversed(parts))

    # Listing ----------------------------------------------------------------------------------------------------

    def _row_node(self, row: tuple[Any, ...]) -> Node:
        """The inode of a row that was just read: the one in memory, or one that is not kept there."""
        node = self._nodes.get(row[0])
        if node is None:
            node = Node(row, self._committed)
            if node.blocks < 0 or (node.flags & DIRTY and node.version < self._version_base):
                node = self._node(node.inode)
                self._attr(node)
        return node

    @property
    def next_cookie(self) -> int:
        """See `Namespace.next_cookie`."""
        return self._next_cookie

    def list_live(self, inode: Inode, after: int, limit: int) -> list[tuple[bytes, int, Node]]:
        """See `Namespace.list_live`."""
        with self.lock:
            node = self._dir(inode)
            folder = self._names(node)
            if folder.whole or self._load_folder(node, folder):
                found = list(islice(folder.after(after), limit))
                self._load_many([f.inode for f in found if f.inode not in self._nodes])
                out = [(f.name, f.cookie, self._nodes[f.inode]) for f in found]
            else:
                out = self._list_stored(node, after, limit)
            for _, _, child in out:
                if child.blocks < 0:
                    self._blocks(child)
            return out

    def _load_many(self, inodes: list[Inode]) -> None:
        for start in range(0, len(inodes), 64):
            part = inodes[start : start + 64]
            marks = ", ".join("?" * len(part))
            for row in self._read.execute(f"SELECT {COLUMNS} FROM inode WHERE inode IN ({marks})", part).fetchall():
                self._remember(row)

    def _list_stored(self, node: Node, after: int, limit: int) -> list[tuple[bytes, int, Node]]:
        """A page of a large directory: what the index has, and what it does not know yet."""
        batch, waiting = self._batch, self._pending.names.get(node.inode, {})
        if batch is not None:
            waiting = {**batch.names.get(node.inode, {}), **waiting}
        while True:
            rows = self._read.execute(
                f"SELECT n.cookie, n.key, {_JOINED} FROM name n JOIN inode i ON i.inode = n.inode "
                "WHERE n.parent = ? AND n.cookie > ? ORDER BY n.cookie LIMIT ?",
                (node.inode, after, limit),
            ).fetchall()
            last = rows[-1][0] if len(rows) == limit else self._next_cookie
            out = [(row[1].rstrip(b"/"), row[0], self._row_node(row[2:])) for row in rows if row[0] not in waiting]
            new = [(c, key, i) for c, (key, i) in waiting.items() if i and after < c <= last]
            if new:
                out += [(key.rstrip(b"/"), cookie, self._node(Inode(number))) for cookie, key, number in new]
                out.sort(key=lambda item: item[1])
            if out or len(rows) < limit:
                return out[:limit]
            after = last

    @locked
    def list_dir(self, inode: Inode, after: int, limit: int) -> list[Entry]:
        return [Entry(name, self._attr(node), cookie) for name, cookie, node in self.list_live(inode, after, limit)]

    @locked
    def list_sorted(self, parent: Inode, after: bytes = b"", limit: int = 1000, *, prefix: bytes = b"") -> list[Entry]:
        self._dir(parent)
        self._commit_locked()
        condition, values = key_range("n.key", after, prefix)
        rows = self._read.execute(
            f"SELECT n.cookie, n.key, {_JOINED} FROM name n JOIN inode i ON i.inode = n.inode "
            f"WHERE n.parent = ? AND {condition} ORDER BY n.key LIMIT ?",
            (parent, *values, limit),
        ).fetchall()
        return [Entry(row[1].rstrip(b"/"), self._attr(self._row_node(row[2 : 2 + _WIDTH])), row[0]) for row in rows]

    @locked
    def is_empty(self, inode: Inode) -> bool:
        self._dir(inode)
        return self._is_empty(inode)

    def _is_empty(self, inode: Inode) -> bool:
        folder = self._names(self._node(inode))
        if folder.whole:
            return not folder.names
        if any(folder.names.values()):
            return False
        rows = self._read.execute("SELECT key FROM name WHERE parent = ?", (inode,))
        try:
            return all(folder.names.get(row[0].rstrip(b"/"), UNKNOWN) is None for row in rows)
        finally:
            rows.close()
