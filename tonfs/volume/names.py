"""Names that change: made, linked, removed, renamed."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Final

from ..errors import FsError
from ..ids import Inode
from ..log import get_logger
from . import attached
from .api import ROOT, TARGET_MAX, Attr
from .core import locked
from .directories import UNKNOWN, Directories, check_name, check_new_name, missing
from .folder import Folder, Found
from .node import Node
from .schema import ATTACHED, CONTENT, COVERED, IMPLIED, INLINE, RECORD, SEGMENTED, XATTRS

log = get_logger(__name__)

LINK_MAX: Final = 1_000_000


class Names(Directories):
    """The tree. Raises FsError as POSIX wants it."""

    # Changing names in memory -----------------------------------------------------------------------------------

    def _put_name(self, node: Node, found: Found) -> None:
        """A new name, or (with the cookie it had) one that now means something else."""
        folder = node.folder or self._names(node)
        changes = self._pending.names.get(node.inode)
        if changes is None:
            changes = self._pending.names[node.inode] = {}
        if self._saved is not None:
            self._remember_name(node, folder, found, changes)
        elif found.name not in folder.names:
            self._names_kept += 1
        changes[found.cookie] = (found.key, found.inode)
        folder.put(found)

    def _remove_name(self, node: Node, found: Found) -> None:
        folder = node.folder or self._names(node)
        changes = self._pending.names.get(node.inode)
        if changes is None:
            changes = self._pending.names[node.inode] = {}
        if self._saved is not None:
            self._remember_name(node, folder, found, changes)
        if found.cookie < self._cookies_taken:
            changes[found.cookie] = (found.key, 0)
        else:
            changes.pop(found.cookie, None)  # the index never heard of it
        folder.remove(found)

    def _remember_name(self, node: Node, folder: Folder, found: Found, changes: dict[int, tuple[bytes, int]]) -> None:
        name, cookie, before = found.name, found.cookie, changes.get(found.cookie)
        known = folder.names.get(name, UNKNOWN)

        def undo() -> None:
            folder.restore(name, None if known is UNKNOWN else known, known=known is not UNKNOWN)
            if before is None:
                changes.pop(cookie, None)
            else:
                changes[cookie] = before

        self._undo.append(undo)

    def _take_cookie(self) -> int:
        self._next_cookie += 1
        return self._next_cookie - 1

    # Making -----------------------------------------------------------------------------------------------------

    def _make(self, mode: int, uid: int, gid: int, rdev: int = 0, *, nlink: int = 1, size: int = 0) -> Node:
        now = self.now_ns()
        inode = self._new_inode()
        row = (inode, mode, nlink, uid, gid, rdev, size, 0, now, now, now, now, self._version_base + 1, now, 0, 0, 0)
        self._gen = gen = self._gen + 1
        node = self._nodes[inode] = Node(row, gen, stored=False)
        if stat.S_ISDIR(mode):
            node.folder = Folder(whole=True)
        if nlink == 0:
            self._nameless.add(inode)
        self._pending.nodes[inode] = node
        if self._saved is not None:
            self._undo.append(partial(self._unmake, node))
        return node

    def _unmake(self, node: Node) -> None:
        self._nodes.pop(node.inode, None)
        self._pending.nodes.pop(node.inode, None)
        if self._saved is not None:
            self._saved.pop(node.inode, None)

    def _add_name(self, parent: Node, name: bytes, node: Node) -> None:
        is_dir = stat.S_ISDIR(node.mode)
        self._put_name(parent, Found(self._take_cookie(), node.inode, is_dir, name))
        if is_dir:
            node.parent = parent.inode
        self._changed_dir(parent, 1 if is_dir else 0)

    def _changed_dir(self, parent: Node, links: int = 0) -> None:
        parent.nlink += links
        now = self.now_ns()
        parent.mtime = now
        self._touch(parent, now=now)

    def _make_in(self, parent: Inode, name: bytes, mode: int, uid: int, gid: int, rdev: int = 0, size: int = 0) -> Node:
        folder = self._live_dir(parent)
        check_new_name(name)
        if self._find_in(folder, name) is not None:
            raise FsError(f"{name!r} exists already.", errno.EEXIST)
        if self.space.low:
            self.space.require()
        is_dir = stat.S_ISDIR(mode)
        if folder.mode & stat.S_ISGID:
            gid = folder.gid
            mode |= stat.S_ISGID if is_dir else 0
        node = self._make(mode, uid, gid, rdev, nlink=2 if is_dir else 1, size=size)
        self._add_name(folder, name, node)
        self._commit_if_large()
        return node

    def make(self, parent: Inode, name: bytes, mode: int, uid: int, gid: int, rdev: int = 0, hold: int = 0) -> Node:
        """See `Namespace.make`."""
        with self.lock:
            node = self._make_in(parent, name, mode, uid, gid, rdev)
            if hold:
                self._holds[node.inode] = hold
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
        if self._find_in(folder, name) is not None:
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
        node.nlink = 0 if stat.S_ISDIR(node.mode) else node.nlink - 1
        if node.flags & ATTACHED:
            for slot in (attached.BESIDE, attached.INSIDE):
                inode = attached.take(self, node, slot)
                if inode is not None:
                    self._unlinked(self._node(inode))
        if node.nlink == 0 and not self._holds.get(node.inode):
            self._remove_inode(node)
        else:
            if node.nlink == 0:
                self._nameless.add(node.inode)
            self._touch_size(node)

    def _remove_inode(self, node: Node) -> None:
        inode, flags, waiting = node.inode, node.flags, self._pending
        if flags & SEGMENTED:
            self._drop_segments(node)
        waiting.nodes.pop(inode, None)
        if node.data_changed and node.data is not None:
            self._data_waiting = max(0, self._data_waiting - len(node.data))
        self._nodes.pop(inode, None)
        self._ordered.pop(inode, None)
        self._trimming.pop(inode, None)
        self._nameless.discard(inode)
        tables = [
            table
            for table, there in (
                ("inode", node.indexed),
                ("inline", node.indexed and (flags & INLINE or node.data_changed)),
                ("record", node.indexed and (flags & RECORD or node.record_changed)),
                ("object_part", flags & RECORD),
                ("symlink", stat.S_ISLNK(node.mode)),
                ("xattr", flags & XATTRS),
                ("extent", flags & COVERED),
                ("segment", flags & SEGMENTED),
            )
            if there
        ]
        if tables:
            waiting.gone[inode] = tuple(tables)
        self._gen += 1
        if flags & CONTENT:
            self._doom(Inode(node.blob), at_once=not node.stored)
        if self._saved is not None:
            self._undo.append(partial(self._unremove, inode))

    def _unremove(self, inode: Inode) -> None:
        self._nameless.add(inode)
        self._pending.gone.pop(inode, None)
        self._pending.doomed.discard(inode)

    def _drop_segments(self, node: Node) -> None:
        """Give up what the file refers to in content files."""
        raise NotImplementedError

    def _drop_name(self, folder: Node, found: Found, node: Node) -> None:
        self._remove_name(folder, found)
        self._changed_dir(folder, -1 if found.is_dir else 0)
        self._unlinked(node)

    @locked
    def unlink(self, parent: Inode, name: bytes) -> None:
        folder = self._dir(parent)
        check_name(name)
        found = self._find_in(folder, name)
        if found is None:
            if name in (b".", b".."):
                raise FsError(f"{name!r} is a directory.", errno.EISDIR)
            raise missing(name)
        if found.is_dir:
            raise FsError(f"{name!r} is a directory.", errno.EISDIR)
        self._drop_name(folder, found, self._node(found.inode))
        self._commit_if_large()

    @locked
    def rmdir(self, parent: Inode, name: bytes) -> None:
        folder = self._dir(parent)
        if name == b".":
            raise FsError("A directory cannot be removed as '.'.", errno.EINVAL)
        if name == b"..":
            raise FsError("The directory above is not empty.", errno.ENOTEMPTY)
        check_name(name)
        found = self._find_in(folder, name)
        if found is None:
            raise missing(name)
        if not found.is_dir:
            raise FsError(f"{name!r} is not a directory.", errno.ENOTDIR)
        if not self._is_empty(found.inode):
            raise FsError(f"{name!r} is not empty.", errno.ENOTEMPTY)
        self._drop_name(folder, found, self._node(found.inode))
        self._commit_if_large()

    def hold(self, inode: Inode, count: int = 1) -> None:
        with self.lock:
            self._holds[inode] = self._holds.get(inode, 0) + count

    def drop(self, inode: Inode, count: int = 1) -> None:
        try:
            self._drop(inode, count)
        except Exception as exc:  # callers cannot do anything about it; the inode goes at the next start
            log.error("an unlinked inode could not be removed", inode=inode, exc=exc)

    def drop_all(self, holds: Iterable[tuple[Inode, int]]) -> None:
        """See `Namespace.drop_all`. A million come at once when the kernel gives up what it remembers."""
        held, nameless = self._holds, self._nameless
        left_alone: list[Inode] = []
        with self.lock:
            for inode, count in holds:
                left = held.get(inode, 0) - count
                if left > 0:
                    held[inode] = left
                else:
                    held.pop(inode, None)
                    if inode in nameless:
                        left_alone.append(inode)
        for inode in left_alone:
            self.drop(inode, 0)

    @locked
    def _drop(self, inode: Inode, count: int) -> None:
        left = self._holds.get(inode, 0) - count
        if left > 0:
            self._holds[inode] = left
            return
        self._holds.pop(inode, None)
        if inode not in self._nameless:
            return
        self._nameless.discard(inode)
        if self._closed or self._gone(inode):
            return
        node = self._node(inode)
        if node.nlink == 0:
            self._remove_inode(node)
            self._commit_if_large()

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
        found, there = self._find_in(source, name), self._find_in(target, new_name)
        if found is None or (exchange and there is None):
            raise missing(name if found is None else new_name)
        if there is not None and not replace and not exchange:
            raise FsError(f"{new_name!r} exists already.", errno.EEXIST)
        if found.is_dir and parent != new_parent and found.inode in self._ancestors(new_parent):
            raise FsError("A directory cannot move into itself.", errno.EINVAL)
        if there is not None:
            if there.inode == found.inode:
                return
            if exchange:
                if there.is_dir and parent != new_parent and there.inode in self._ancestors(parent):
                    raise FsError("A directory cannot move into itself.", errno.EINVAL)
                self._exchange(source, found, target, there)
                return
            self._check_replace(new_name, found, there)
        # Nothing can be refused from here on.
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
        self._remove_name(source, found)
        if there is not None:
            # The target keeps its cookie, so that a listing under way meets the name once.
            self._repoint(target, there, node)
            self._unlinked(self._node(there.inode))
        else:
            self._put_name(target, Found(self._take_cookie(), found.inode, found.is_dir, new_name))
        links = 1 if found.is_dir else 0
        self._changed_dir(source, -links)
        self._changed_dir(target, links if there is None or not found.is_dir else 0)
        if found.is_dir:
            node.parent = target.inode
        self._touch_size(node)
        node.set(IMPLIED, False)
        attached.moved(self, node, target.inode, new_name)

    def _repoint(self, folder: Node, there: Found, node: Node) -> None:
        """A name now means another inode, whose bytes are on the disk before the index says so."""
        self._put_name(folder, Found(there.cookie, node.inode, stat.S_ISDIR(node.mode), there.name))
        if node.placed:
            self._order(node.inode)
        else:
            self._replacing.add(node.inode)

    def _exchange(self, source: Node, found: Found, target: Node, there: Found) -> None:
        first, second = self._node(found.inode), self._node(there.inode)
        self._repoint(source, found, second)
        self._repoint(target, there, first)
        attached.moved(self, first, first.inode, b"")  # out of the way of the other
        attached.moved(self, second, source.inode, found.name)
        attached.moved(self, first, target.inode, there.name)
        moved = int(found.is_dir) - int(there.is_dir)
        self._changed_dir(source, -moved)
        self._changed_dir(target, moved)
        for node, parent in ((first, target), (second, source)):
            if stat.S_ISDIR(node.mode):
                node.parent = parent.inode
            self._touch_size(node)
