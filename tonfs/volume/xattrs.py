"""Extended attributes and statfs."""

from __future__ import annotations

import errno
import os
from typing import Final

from ..clock import rfc3339
from ..errors import FsError
from ..ids import Inode
from ..policy import PATH_POLICY_PREFIX, path_policy
from .api import NAME_MAX, Statfs
from .core import locked
from .schema import COVERED, DIRTY, XATTRS
from .sharing import Sharing

PREFIXES: Final = (b"user.", b"trusted.", b"security.")
RESERVED: Final = b"user.tonfs."
POLICY: Final = PATH_POLICY_PREFIX.encode()
VALUE_MAX: Final = 1 << 16
LIST_MAX: Final = 1 << 16
"""Bytes of all names of a file, each with its end: the kernel hands out no longer list, and none of a longer one."""


def _no_data(name: bytes) -> FsError:
    return FsError(f"There is no attribute {name!r}.", errno.ENODATA)


def _reserved(name: bytes) -> bool:
    """Told by the volume itself; nobody writes it."""
    return name.startswith(RESERVED) and not name.startswith(POLICY)


def _check(name: bytes) -> None:
    if not name.startswith(PREFIXES):
        raise FsError(f"Attributes like {name!r} are not supported.", errno.EOPNOTSUPP)
    if len(name) > NAME_MAX:
        raise FsError("The attribute's name is too long.", errno.ERANGE)
    if name in PREFIXES:
        raise FsError("An attribute needs a name behind its name space.", errno.EINVAL)


class Xattrs(Sharing):
    """Opaque values in the name spaces user, trusted and security. `user.tonfs.*` tells about the file, read-only;
    only `user.tonfs.policy.*` can be set, and is checked."""

    def has_xattrs(self, inode: Inode) -> bool:
        """See `Namespace.has_xattrs`."""
        with self.lock:
            return bool(self._node(inode).flags & XATTRS)

    @locked
    def get_xattr(self, inode: Inode, name: bytes) -> bytes:
        node = self._node(inode)
        _check(name)
        if _reserved(name):
            return self._virtual(inode, name)
        if not node.flags & XATTRS:
            raise _no_data(name)
        row = self.db.execute("SELECT value FROM xattr WHERE inode = ? AND name = ?", (inode, name)).fetchone()
        if row is None:
            raise _no_data(name)
        return bytes(row[0])

    def _virtual(self, inode: Inode, name: bytes) -> bytes:
        """`state`: empty, dirty, packed or proven; `replicas`: of the least replicated byte; `bag`: BagIDs;
        `proved-at`: every proven replica of every byte has passed an audit since then."""
        node = self._node(inode)
        if not node.is_file:
            raise _no_data(name)
        rows = (
            self.db.execute(
                "SELECT DISTINCT p.bag_id, p.proven, p.wanted, p.proved FROM extent e JOIN pack p ON p.pack = e.pack "
                "WHERE e.inode = ? ORDER BY p.pack",
                (inode,),
            ).fetchall()
            if node.flags & COVERED
            else []
        )
        dirty = bool(node.flags & DIRTY)
        if name == RESERVED + b"state":
            if node.size == 0:
                return b"empty"
            proven = all(got >= wanted > 0 for _, got, wanted, _ in rows)
            return b"dirty" if dirty else b"proven" if proven else b"packed"
        if name == RESERVED + b"replicas":
            return b"0" if dirty or not rows else str(min(got for _, got, *_ in rows)).encode()
        if name == RESERVED + b"bag" and rows:
            return b",".join(bytes(bag).hex().encode() for bag, *_ in rows)
        since = min((proved for *_, proved in rows), default=0)
        if name == RESERVED + b"proved-at" and since and not dirty:
            return (rfc3339(since / 1e9) or "").encode()
        raise _no_data(name)

    @locked
    def set_xattr(self, inode: Inode, name: bytes, value: bytes) -> None:
        node = self._node(inode)
        _check(name)
        if _reserved(name):
            raise FsError("user.tonfs.* attributes are read-only.", errno.EPERM)
        if name.startswith(POLICY):
            value = path_policy(os.fsdecode(name[len(POLICY) :]), os.fsdecode(value)).encode()
        if len(value) > VALUE_MAX:
            raise FsError("The value is too large.", errno.E2BIG)
        self.space.require()
        if node.flags & XATTRS:
            self._require_list_room(inode, name)
        self._sql("INSERT OR REPLACE INTO xattr VALUES (?, ?, ?)", (inode, name, value))
        node.set(XATTRS)
        self._touch(node)

    def _require_list_room(self, inode: Inode, name: bytes) -> None:
        others = "SELECT coalesce(sum(length(name) + 1), 0) FROM xattr WHERE inode = ? AND name != ?"
        if self.db.execute(others, (inode, name)).fetchone()[0] + len(name) + 1 > LIST_MAX:
            raise FsError("The file has as many attributes as a list of them can tell.", errno.ENOSPC)

    @locked
    def list_xattrs(self, inode: Inode) -> list[bytes]:
        node = self._node(inode)
        if not node.flags & XATTRS:
            return []
        rows = self.db.execute("SELECT name FROM xattr WHERE inode = ? ORDER BY name", (inode,))
        return [bytes(name) for (name,) in rows]

    @locked
    def remove_xattr(self, inode: Inode, name: bytes) -> None:
        node = self._node(inode)
        _check(name)
        if _reserved(name):
            raise FsError("user.tonfs.* attributes are read-only.", errno.EPERM)
        if not self._sql("DELETE FROM xattr WHERE inode = ? AND name = ?", (inode, name)).rowcount:
            raise _no_data(name)
        left = self.db.execute("SELECT 1 FROM xattr WHERE inode = ? LIMIT 1", (inode,)).fetchone()
        node.set(XATTRS, left is not None)
        self._touch(node)

    @locked
    def statfs(self) -> Statfs:
        disk = os.statvfs(self.directory)
        return Statfs(
            block_size=disk.f_frsize,
            blocks=disk.f_blocks,
            free=disk.f_bfree,
            available=disk.f_bavail,
            files=max(1, disk.f_files),
            files_free=disk.f_ffree,
        )
