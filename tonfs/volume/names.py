"""Names and directories: lookup, create, link, unlink, rename, listings."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator, Sequence
from typing import Any, Final

from ..errors import FsError
from ..ids import Inode
from ..log import get_logger
from . import attached
from .api import NAME_MAX, ROOT, TARGET_MAX, Attr, Entry
from .core import Core, locked
from .node import COLUMNS, Node
from .records import RECORD_COLUMNS, record_of
from .schema import ATTACHED, CONTENT, COVERED, IMPLIED, RECORD, REMOTE, XATTRS

log = get_logger(__name__)

LINK_MAX: Final = 1_000_000
_JOINED: Final = ", ".join(f"i.{column.strip()}" for column in COLUMNS.split(","))
_WIDTH: Final = len(COLUMNS.split(","))


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


def key_of(name: bytes, is_dir: bool) -> bytes:
    return name + b"/" if is_dir else name


def _missing(name: bytes) -> FsError:
    return FsError(f"{name!r} does not exist.", errno.ENOENT)


class Found:
    """A row of the table `name`."""

    __slots__ = ("cookie", "inode", "is_dir")

    def __init__(self, cookie: int, inode: Inode, is_dir: bool) -> None:
        self.cookie = cookie
        self.inode = inode
        self.is_dir = is_dir


class Names(Core):
    """The tree. Raises FsError as POSIX wants it."""

    # Looking ----------------------------------------------------------------------------------------------------

    def _blocks(self, node: Node) -> int:
        if node.blocks < 0:
            blocks = self.content.blocks(node.inode) if node.flags & CONTENT else 0
            if node.flags & REMOTE:
                (away,) = self.db.execute(
                    "SELECT coalesce(sum(length), 0) FROM extent WHERE inode = ? AND local = 0", (node.inode,)
                ).fetchone()
                blocks += -(-away // 512)
            node.blocks = blocks
        return node.blocks

    def _attr(self, node: Node) -> Attr:
        return node.attr(self._blocks(node))

    @locked
    def getattr(self, inode: Inode) -> Attr:
        return self._attr(self._node(inode))

    def _dir(self, inode: Inode) -> Node:
        node = self._node(inode)
        if not node.is_dir:
            raise FsError(f"Inode {inode} is not a directory.", errno.ENOTDIR)
        return node

    def _live_dir(self, inode: Inode) -> Node:
        """A directory that can take names. A removed one cannot."""
        node = self._dir(inode)
        if node.nlink == 0:
            raise FsError("The directory was removed.", errno.ENOENT)
        return node

    def _find(self, parent: Inode, name: bytes) -> Found | None:
        row = self.db.execute(
            "SELECT cookie, inode, key FROM name WHERE parent = ? AND key IN (?, ?)", (parent, name, name + b"/")
        ).fetchone()
        return Found(row[0], Inode(row[1]), row[2] != name) if row else None

    def _parent_of(self, inode: Inode) -> Inode:
        """Of a directory; the root is its own, a removed one has the root."""
        row = self.db.execute("SELECT parent FROM name WHERE inode = ?", (inode,)).fetchone()
        return Inode(row[0]) if row else ROOT

    def _lookup(self, parent: Inode, name: bytes) -> Node:
        node = self._dir(parent)
        check_name(name)
        if name == b".":
            return node
        if name == b"..":
            return self._node(self._parent_of(parent))
        found = self._find(parent, name)
        if found is None:
            raise _missing(name)
        return self._node(found.inode)

    @locked
    def lookup(self, parent: Inode, name: bytes) -> Attr:
        return self._attr(self._lookup(parent, name))

    @locked
    def resolve(self, parts: Sequence[bytes], start: Inode = ROOT) -> Attr:
        node = self._node(start)
        for part in parts:
            if stat.S_ISLNK(node.mode):
                raise FsError("There is a symbolic link on the way.", errno.ELOOP)
            node = self._lookup(node.inode, part)
        return self._attr(node)

    @locked
    def path_of(self, inode: Inode) -> bytes:
        parts: list[bytes] = []
        while inode != ROOT:
            row = self.db.execute(
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

    def _entry(self, row: tuple[Any, ...]) -> Entry:
        node = self._nodes.get(row[2]) or Node(row[2 : 2 + _WIDTH])
        return Entry(row[1].rstrip(b"/"), self._attr(node), row[0])

    @locked
    def list_dir(self, inode: Inode, after: int, limit: int) -> list[Entry]:
        self._dir(inode)
        self._flush_nodes()
        rows = self.db.execute(
            f"SELECT n.cookie, n.key, {_JOINED} FROM name n JOIN inode i ON i.inode = n.inode "
            "WHERE n.parent = ? AND n.cookie > ? ORDER BY n.cookie LIMIT ?",
            (inode, after, limit),
        ).fetchall()
        return [self._entry(row) for row in rows]

    @locked
    def list_sorted(
        self, parent: Inode, after: bytes = b"", limit: int = 1000, *, prefix: bytes = b"", records: bool = False
    ) -> list[Entry]:
        self._dir(parent)
        self._flush_nodes()
        values: list[Any] = [parent, after, prefix]
        upper = ""
        end = prefix.rstrip(b"\xff")
        if end:
            upper = "AND n.key < ? "
            values.append(end[:-1] + bytes([end[-1] + 1]))
        columns = ", ".join(f"r.{name}" for name in RECORD_COLUMNS) if records else "NULL"
        join = "LEFT JOIN record r ON r.inode = n.inode " if records else ""
        rows = self.db.execute(
            f"SELECT n.cookie, n.key, {_JOINED}, {columns} FROM name n JOIN inode i ON i.inode = n.inode {join}"
            f"WHERE n.parent = ? AND n.key > ? AND n.key >= ? {upper}ORDER BY n.key LIMIT ?",
            (*values, limit),
        ).fetchall()
        if not records:
            return [self._entry(row) for row in rows]
        entries = [self._object_entry(row) for row in rows]
        beside = attached.listed(self, parent, after, prefix, values[3] if upper else None, limit)
        if beside:
            entries += [self._object_entry((0, *row)) for row in beside]
            entries = sorted(entries, key=lambda entry: entry.sort_key)[:limit]
        return entries

    def _object_entry(self, row: tuple[Any, ...]) -> Entry:
        """With its record; of a directory that has data under `name/`, with these."""
        entry = self._entry(row)
        raw, data = row[2 + _WIDTH :], None
        node = self._nodes.get(entry.attr.inode)
        if entry.attr.is_dir and (node.flags if node else row[1 + _WIDTH]) & ATTACHED:
            inside = attached.inside(self, entry.attr.inode)
            if inside is not None:
                data = self._attr(self._nodes.get(inside[0]) or Node(inside[:_WIDTH]))
                raw = inside[_WIDTH:]
        record = None if raw[0] is None else record_of(raw, (data or entry.attr).version)
        return Entry(entry.name, entry.attr, entry.cookie, record, data)

    @locked
    def is_empty(self, inode: Inode) -> bool:
        self._dir(inode)
        return self._is_empty(inode)

    def _is_empty(self, inode: Inode) -> bool:
        return self.db.execute("SELECT 1 FROM name WHERE parent = ? LIMIT 1", (inode,)).fetchone() is None

    # Making -----------------------------------------------------------------------------------------------------

    def _make(self, mode: int, uid: int, gid: int, rdev: int = 0, *, nlink: int = 1, size: int = 0) -> Node:
        now = self.now_ns()
        inode = self._new_inode()
        node = self._remember((inode, mode, nlink, uid, gid, rdev, size, 0, now, now, now, now, 1, now, 0))
        self._touch_size(node, now=now)
        return node

    def _add_name(self, parent: Node, name: bytes, node: Node) -> None:
        cookie = self._next_cookie
        self._next_cookie += 1
        key = key_of(name, node.is_dir)
        self._sql("INSERT INTO name VALUES (?, ?, ?, ?)", (cookie, parent.inode, key, node.inode))
        self._changed_dir(parent, 1 if node.is_dir else 0)

    def _changed_dir(self, parent: Node, links: int = 0) -> None:
        parent.nlink += links
        now = self.now_ns()
        parent.mtime = now
        self._touch(parent, now=now)

    def _make_in(self, parent: Inode, name: bytes, mode: int, uid: int, gid: int, rdev: int = 0, size: int = 0) -> Node:
        folder = self._live_dir(parent)
        check_new_name(name)
        if self._find(parent, name) is not None:
            raise FsError(f"{name!r} exists already.", errno.EEXIST)
        self.space.require()
        is_dir = stat.S_ISDIR(mode)
        if folder.mode & stat.S_ISGID:
            gid = folder.gid
            mode |= stat.S_ISGID if is_dir else 0
        node = self._make(mode, uid, gid, rdev, nlink=2 if is_dir else 1, size=size)
        self._add_name(folder, name, node)
        self._commit_if_large()
        return node

    @locked
    def create(self, parent: Inode, name: bytes, mode: int, uid: int, gid: int, rdev: int = 0) -> Attr:
        if stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
            raise FsError("create() makes neither directories nor links.", errno.EINVAL)
        return self._attr(
            self._make_in(parent, name, mode if stat.S_IFMT(mode) else mode | stat.S_IFREG, uid, gid, rdev)
        )

    @locked
    def mkdir(self, parent: Inode, name: bytes, mode: int, uid: int, gid: int) -> Attr:
        return self._attr(self._make_in(parent, name, stat.S_IFDIR | stat.S_IMODE(mode), uid, gid))

    @locked
    def symlink(self, parent: Inode, name: bytes, target: bytes, uid: int, gid: int) -> Attr:
        if len(target) > TARGET_MAX:
            raise FsError("The link's target is too long.", errno.ENAMETOOLONG)
        if not target or b"\0" in target:
            raise FsError("The link's target is empty or has a NUL.", errno.ENOENT)
        node = self._make_in(parent, name, stat.S_IFLNK | 0o777, uid, gid, size=len(target))
        self._sql("INSERT OR REPLACE INTO symlink VALUES (?, ?)", (node.inode, target))
        return self._attr(node)

    @locked
    def readlink(self, inode: Inode) -> bytes:
        row = self.db.execute("SELECT target FROM symlink WHERE inode = ?", (inode,)).fetchone()
        if row is None:
            raise FsError(f"Inode {inode} is not a symbolic link.", errno.EINVAL)
        return bytes(row[0])

    @locked
    def link(self, inode: Inode, parent: Inode, name: bytes) -> Attr:
        node = self._node(inode)
        folder = self._live_dir(parent)
        check_new_name(name)
        if self._find(parent, name) is not None:
            raise FsError(f"{name!r} exists already.", errno.EEXIST)
        if node.is_dir:
            raise FsError("A directory has only one name.", errno.EPERM)
        if node.nlink == 0:
            raise FsError("The file was removed.", errno.ENOENT)
        if node.nlink >= LINK_MAX:
            raise FsError("The file has too many names.", errno.EMLINK)
        self.space.require()
        node.nlink += 1
        self._touch_size(node)
        self._add_name(folder, name, node)
        return self._attr(node)

    # Removing ---------------------------------------------------------------------------------------------------

    def _unlinked(self, node: Node) -> None:
        """One name fewer; without names and holds the inode goes."""
        node.nlink = 0 if node.is_dir else node.nlink - 1
        self._touch_size(node)
        if node.flags & ATTACHED:
            for slot in (attached.BESIDE, attached.INSIDE):
                inode = attached.take(self, node, slot)
                if inode is not None:
                    self._unlinked(self._node(inode))
        if node.nlink == 0 and not self._holds.get(node.inode):
            self._remove_inode(node)

    def _remove_inode(self, node: Node) -> None:
        inode, flags = node.inode, node.flags
        self._changed.pop(inode, None)
        self._nodes.pop(inode, None)
        self._ordered.pop(inode, None)
        self._sql("DELETE FROM inode WHERE inode = ?", (inode,))
        if flags & COVERED:
            self._sql("DELETE FROM extent WHERE inode = ?", (inode,))
        if flags & XATTRS:
            self._sql("DELETE FROM xattr WHERE inode = ?", (inode,))
        if flags & RECORD:
            self._sql("DELETE FROM record WHERE inode = ?", (inode,))
            self._sql("DELETE FROM object_part WHERE inode = ?", (inode,))
        if stat.S_ISLNK(node.mode):
            self._sql("DELETE FROM symlink WHERE inode = ?", (inode,))
        if flags & CONTENT:
            self._doom(inode)
        self._commit_if_large()

    def _drop_name(self, folder: Node, found: Found, node: Node) -> None:
        self._sql("DELETE FROM name WHERE cookie = ?", (found.cookie,))
        self._changed_dir(folder, -1 if found.is_dir else 0)
        self._unlinked(node)

    @locked
    def unlink(self, parent: Inode, name: bytes) -> None:
        folder = self._dir(parent)
        check_name(name)
        found = self._find(parent, name)
        if found is None:
            raise _missing(name)
        if found.is_dir:
            raise FsError(f"{name!r} is a directory.", errno.EISDIR)
        self._drop_name(folder, found, self._node(found.inode))

    @locked
    def rmdir(self, parent: Inode, name: bytes) -> None:
        folder = self._dir(parent)
        if name == b".":
            raise FsError("A directory cannot be removed as '.'.", errno.EINVAL)
        if name == b"..":
            raise FsError("The directory above is not empty.", errno.ENOTEMPTY)
        check_name(name)
        found = self._find(parent, name)
        if found is None:
            raise _missing(name)
        if not found.is_dir:
            raise FsError(f"{name!r} is not a directory.", errno.ENOTDIR)
        if not self._is_empty(found.inode):
            raise FsError(f"{name!r} is not empty.", errno.ENOTEMPTY)
        self._drop_name(folder, found, self._node(found.inode))

    @locked
    def hold(self, inode: Inode, count: int = 1) -> None:
        self._holds[inode] = self._holds.get(inode, 0) + count

    def drop(self, inode: Inode, count: int = 1) -> None:
        try:
            self._drop(inode, count)
        except Exception as exc:  # callers cannot do anything about it; the inode goes at the next start
            log.error("an unlinked inode could not be removed", inode=inode, exc=exc)

    @locked
    def _drop(self, inode: Inode, count: int) -> None:
        left = self._holds.get(inode, 0) - count
        if left > 0:
            self._holds[inode] = left
            return
        self._holds.pop(inode, None)
        if self._closed:
            return
        node = self._nodes.get(inode)
        if node is None:
            row = self.db.execute(f"SELECT {COLUMNS} FROM inode WHERE inode = ? AND nlink = 0", (inode,)).fetchone()
            node = Node(row) if row else None
        if node is not None and node.nlink == 0:
            self._remove_inode(node)

    # Renaming ---------------------------------------------------------------------------------------------------

    def _ancestors(self, inode: Inode) -> Iterator[Inode]:
        while inode != ROOT:
            yield inode
            inode = self._parent_of(inode)
        yield ROOT

    @locked
    def rename(
        self,
        parent: Inode,
        name: bytes,
        new_parent: Inode,
        new_name: bytes,
        *,
        replace: bool = True,
        exchange: bool = False,
    ) -> None:
        source, target = self._live_dir(parent), self._live_dir(new_parent)
        for word in (name, new_name):
            check_name(word)
            if word in (b".", b".."):
                raise FsError("'.' and '..' cannot be renamed.", errno.EBUSY)
        found, there = self._find(parent, name), self._find(new_parent, new_name)
        if found is None or (exchange and there is None):
            raise _missing(name if found is None else new_name)
        if there is not None and not replace and not exchange:
            raise FsError(f"{new_name!r} exists already.", errno.EEXIST)
        if found.is_dir and found.inode in self._ancestors(new_parent):
            raise FsError("A directory cannot move into itself.", errno.EINVAL)
        if there is not None:
            if there.inode == found.inode:
                return
            if exchange:
                if there.is_dir and there.inode in self._ancestors(parent):
                    raise FsError("A directory cannot move into itself.", errno.EINVAL)
                with self._atomic():
                    self._exchange(source, name, found, target, new_name, there)
                return
            self._check_replace(new_name, found, there)
        with self._atomic():
            self._move(source, found, target, new_name, there)
        self._commit_if_large()

    def _check_replace(self, name: bytes, found: Found, there: Found) -> None:
        if there.is_dir and not found.is_dir:
            raise FsError(f"{name!r} is a directory.", errno.EISDIR)
        if found.is_dir and not there.is_dir:
            raise FsError(f"{name!r} is not a directory.", errno.ENOTDIR)
        if there.is_dir and not self._is_empty(there.inode):
            raise FsError(f"{name!r} is not empty.", errno.ENOTEMPTY)

    def _move(self, source: Node, found: Found, target: Node, new_name: bytes, there: Found | None) -> None:
        node = self._node(found.inode)
        if there is not None:
            # The row of the target stays, so that a listing under way meets the name once.
            self._sql("DELETE FROM name WHERE cookie = ?", (found.cookie,))
            self._sql("UPDATE name SET inode = ? WHERE cookie = ?", (found.inode, there.cookie))
            self._unlinked(self._node(there.inode))
            if node.flags & CONTENT:
                self._order(node.inode)
        else:
            cookie = self._next_cookie
            self._next_cookie += 1
            self._sql(
                "UPDATE name SET cookie = ?, parent = ?, key = ? WHERE cookie = ?",
                (cookie, target.inode, key_of(new_name, found.is_dir), found.cookie),
            )
        links = 1 if found.is_dir else 0
        self._changed_dir(source, -links)
        self._changed_dir(target, links if there is None or not found.is_dir else 0)
        self._touch_size(node)
        node.set(IMPLIED, False)
        attached.moved(self, node, target.inode, new_name)

    def _exchange(self, source: Node, name: bytes, found: Found, target: Node, new_name: bytes, there: Found) -> None:
        # Keys carry the type's slash: free the first row's key before the second row may need it.
        self._sql("UPDATE name SET inode = ?, key = x'00' WHERE cookie = ?", (there.inode, found.cookie))
        self._sql(
            "UPDATE name SET inode = ?, key = ? WHERE cookie = ?",
            (found.inode, key_of(new_name, found.is_dir), there.cookie),
        )
        self._sql("UPDATE name SET key = ? WHERE cookie = ?", (key_of(name, there.is_dir), found.cookie))
        attached.moved(self, self._node(found.inode), found.inode, b"")
        attached.moved(self, self._node(there.inode), source.inode, name)
        attached.moved(self, self._node(found.inode), target.inode, new_name)
        moved = int(found.is_dir) - int(there.is_dir)
        self._changed_dir(source, -moved)
        self._changed_dir(target, moved)
        for inode in (found.inode, there.inode):
            node = self._node(inode)
            self._touch_size(node)
            if node.flags & CONTENT:
                self._order(inode)
