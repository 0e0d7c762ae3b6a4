"""What the S3 door needs besides the tree: staged files, atomic replacement with a record, implied directories."""

from __future__ import annotations

import errno
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import FsError, Stale
from ..ids import Inode
from . import attached
from .api import ROOT, Attr, Change, Expect, ObjectPart, S3Record, StoredObject
from .core import locked
from .directories import check_new_name
from .folder import Found
from .node import Node
from .records import NO_VERSION, record_of, record_row, with_tags
from .schema import ATTACHED, IMPLIED, OWN, RECORD
from .xattrs import Xattrs


class Changes:
    """Collects what the kernel must forget."""

    def __init__(self) -> None:
        self.entries: list[tuple[Inode, bytes]] = []
        self.inodes: set[Inode] = set()

    def named(self, folder: Inode, name: bytes) -> None:
        self.entries.append((folder, name))
        self.inodes.add(folder)

    def change(self) -> Change:
        return Change(tuple(self.entries), tuple(sorted(self.inodes)))


@dataclass(slots=True)
class Wish:
    """What a staged file shall become. See `Namespace.publish`."""

    parts: Sequence[bytes]
    record: S3Record
    expect: Expect | None
    marker: bool
    sources: Sequence[ObjectPart] = ()


class Objects(Xattrs):
    """Buckets are top-level directories, keys are paths below them."""

    def create_bucket(self, name: bytes, uid: int, gid: int) -> Attr:
        attr = self.mkdir(ROOT, name, 0o755, uid, gid)
        self._tell(Change(((ROOT, name),), (ROOT,)))
        return attr

    def delete_bucket(self, name: bytes) -> None:
        self.rmdir(ROOT, name)
        self._tell(Change(((ROOT, name),), (ROOT,)))

    # Records ----------------------------------------------------------------------------------------------------

    @locked
    def record(self, inode: Inode) -> S3Record | None:
        return self._record(self._node(inode))

    def _record(self, node: Node) -> S3Record | None:
        if not node.flags & RECORD:
            return None
        row = self._record_row(node)
        return record_of(row[1:], node.version) if row else None

    @locked
    def set_record(self, inode: Inode, record: S3Record) -> None:
        self._set_record(self._node(inode), record)

    def _set_record(self, node: Node, record: S3Record) -> None:
        if node.placed:
            # The record vouches for these bytes: they must be on the disk first.
            self._order(node.inode)
        node.record, node.record_changed = record_row(node.inode, node.version, record), True
        node.set(RECORD)
        self._touch(node, times=False)

    @locked
    def set_tags(self, inode: Inode, tags: Mapping[str, str]) -> None:
        node = self._node(inode)
        row = self._record_row(node)
        if row is not None:
            node.record, node.record_changed = with_tags(row, tags), True
        elif tags:
            # A file of the mount: a record that vouches for no version of its bytes.
            node.record, node.record_changed = record_row(inode, NO_VERSION, S3Record(etag="", tags=tags)), True
            node.set(RECORD)
        self._touch(node, times=False)

    # Staging ----------------------------------------------------------------------------------------------------

    @locked
    def stage(self, uid: int, gid: int, mode: int = 0o644) -> Inode:
        self.space.require()
        node = self._make(stat.S_IFREG | stat.S_IMODE(mode), uid, gid, nlink=0)
        self.hold(node.inode)
        return node.inode

    def discard(self, staged: Inode) -> None:
        self.drop(staged)

    def publish(
        self,
        staged: Inode,
        bucket: Inode,
        parts: Sequence[bytes],
        record: S3Record,
        *,
        expect: Expect | None = None,
        marker: bool = False,
        sources: Sequence[ObjectPart] = (),
    ) -> Attr:
        changes = Changes()
        attr = self._publish(staged, bucket, Wish(parts, record, expect, marker, sources), changes)
        self._tell(changes.change())
        return attr

    @locked
    def _publish(self, staged: Inode, bucket: Inode, wish: Wish, changes: Changes) -> Attr:
        with self._atomic():
            node = self._become(staged, bucket, wish, changes)
        self.drop(staged)
        self._commit_if_large()
        return self._attr(node)

    def _become(self, staged: Inode, bucket: Inode, wish: Wish, changes: Changes) -> Node:
        """The staged file takes its name. For use inside `_atomic`; the caller drops it then."""
        node = self._node(staged)
        if node.nlink or not self._holds.get(staged):
            raise FsError(f"Inode {staged} is not staged.", errno.EINVAL)
        folder, name = self._folder(bucket, wish.parts, node.uid, node.gid, changes), wish.parts[-1]
        found = self._find(folder.inode, name)
        self._check_expected(self._object_at(found, wish.marker), wish.expect)
        node = self._node(staged)
        if wish.marker:
            self._put_inside(folder, name, found, node, changes)
        else:
            self._put(folder, name, found, node, changes)
        node = self._node(staged)
        node.mtime = self.now_ns()
        self._set_record(node, wish.record)
        self._set_parts(node, wish.sources)
        return node

    def _object_at(self, found: Found | None, marker: bool) -> Node | None:
        """The inode that holds the object of this name (with `marker`: of `name/`), None when there is no object."""
        if found is None:
            return None
        node = self._node(found.inode)
        if not node.is_dir:
            return None if marker else node
        inode = attached.of(self, node, attached.INSIDE if marker else attached.BESIDE)
        if inode is not None:
            return self._node(inode)
        return node if marker and node.flags & RECORD else None

    @locked
    def find_object(
        self, start: Inode, parts: Sequence[bytes], *, marker: bool = False, hold: bool = False
    ) -> StoredObject | None:
        """See `Namespace.find_object`."""
        node, found = self._node(start), None
        for part in parts:
            found = self._find_in(node, part) if node.is_dir else None
            if found is None:
                return None
            node = self._node(found.inode)
        there = self._object_at(found, marker)
        if there is None:
            if not (marker and node.is_dir and self._is_empty(node.inode)):
                return None
            there = node
        elif not there.is_file and not there.is_dir:
            return None
        if hold:
            self.hold(there.inode)
        return StoredObject(self._attr(there), self._record(there))

    @locked
    def stored(self, inode: Inode) -> StoredObject:
        """See `Namespace.stored`."""
        node = self._node(inode)
        return StoredObject(self._attr(node), self._record(node))

    def _folder(self, bucket: Inode, parts: Sequence[bytes], uid: int, gid: int, changes: Changes) -> Node:
        """The directory that holds the last part; missing ones are made and marked as implied."""
        for part in parts:
            check_new_name(part)
        if not parts:
            raise FsError("A key has at least one part.", errno.EINVAL)
        folder = self._live_dir(bucket)
        for part in parts[:-1]:
            found = self._find(folder.inode, part)
            if found is None:
                below = self._make_in(folder.inode, part, stat.S_IFDIR | 0o755, uid, gid)
                below.set(IMPLIED)
                changes.named(folder.inode, part)
                folder = below
            elif found.is_dir:
                folder = self._node(found.inode)
            else:
                folder = self._step_aside(folder, part, found, uid, gid, changes)
        return folder

    def _step_aside(self, folder: Node, name: bytes, found: Found, uid: int, gid: int, changes: Changes) -> Node:
        """Keys are wanted below an object: a directory takes its name and carries it. A file that was only ever
        written through the mount stays what it is there. Raises FsError(ENOTDIR, ELOOP)."""
        node = self._node(found.inode)
        if not node.is_file or not node.flags & RECORD:
            raise self._not_a_directory(found, name)
        self._remove_name(folder, found)
        below = self._make_in(folder.inode, name, stat.S_IFDIR | 0o755, uid, gid)
        below.set(IMPLIED)
        attached.put(self, below, attached.BESIDE, folder.inode, name, node.inode)
        changes.named(folder.inode, name)
        changes.inodes.add(node.inode)
        return below

    def _not_a_directory(self, found: Found, part: bytes) -> FsError:
        if stat.S_ISLNK(self._node(found.inode).mode):
            return FsError(f"{part!r} is a symbolic link.", errno.ELOOP)
        return FsError(f"{part!r} is not a directory.", errno.ENOTDIR)

    def _check_expected(self, there: Node | None, expect: Expect | None) -> None:
        if expect is None:
            return
        if expect.absent and there is not None:
            raise FsError("The name is taken.", errno.EEXIST)
        if expect.inode is not None:
            if there is None:
                raise FsError("Nothing has the name.", errno.ENOENT)
            if there.inode != expect.inode or there.version != expect.version:
                raise Stale("The object has changed meanwhile.")

    def _put(self, folder: Node, name: bytes, found: Found | None, node: Node, changes: Changes) -> None:
        node.nlink = 1
        self._touch_size(node)
        if found is None:
            self.space.require()
            if folder.mode & stat.S_ISGID:
                node.gid = folder.gid
            self._add_name(folder, name, node)
        else:
            old = self._node(found.inode)
            if old.is_dir:
                self._attach(folder, name, old, attached.BESIDE, node, changes)
                return
            if not old.is_file:
                link = stat.S_ISLNK(old.mode)
                raise FsError(f"{name!r} is not a regular file.", errno.ELOOP if link else errno.EPERM)
            node.mode, node.uid, node.gid = old.mode, old.uid, old.gid
            self._repoint(folder, found, node)
            self._changed_dir(folder)
            changes.inodes.add(old.inode)
            self._unlinked(old)
        changes.named(folder.inode, name)

    def _attach(self, folder: Node, name: bytes, directory: Node, slot: int, node: Node, changes: Changes) -> None:
        """`node` becomes the object `name` (or `name/`) whose name a directory has."""
        old = attached.take(self, directory, slot)
        if old is not None:
            changes.inodes.add(old)
            self._unlinked(self._node(old))
        node.nlink = 1
        attached.put(self, directory, slot, folder.inode, name, node.inode)

    def _put_inside(self, folder: Node, name: bytes, found: Found | None, node: Node, changes: Changes) -> None:
        """The data of the object `name/`."""
        self._touch_size(node)
        directory = self._marked(folder, name, found, node.uid, node.gid, changes)
        if directory.flags & RECORD:
            self._drop_record(directory)
        self._attach(folder, name, directory, attached.INSIDE, node, changes)

    def _marked(self, folder: Node, name: bytes, found: Found | None, uid: int, gid: int, changes: Changes) -> Node:
        """The directory of an object `name/`, made when missing. It stays when the last key below it goes."""
        if found is None:
            node = self._make_in(folder.inode, name, stat.S_IFDIR | 0o755, uid, gid)
            changes.named(folder.inode, name)
        elif found.is_dir:
            node = self._node(found.inode)
            if not node.flags & (IMPLIED | RECORD | ATTACHED):
                node.set(OWN)
        else:
            node = self._step_aside(folder, name, found, uid, gid, changes)
        node.set(IMPLIED, False)
        return node

    # Markers and removal ----------------------------------------------------------------------------------------

    def put_marker(
        self,
        bucket: Inode,
        parts: Sequence[bytes],
        record: S3Record,
        uid: int,
        gid: int,
        *,
        expect: Expect | None = None,
    ) -> Attr:
        changes = Changes()
        attr = self._put_marker(bucket, parts, record, uid, gid, expect, changes)
        self._tell(changes.change())
        return attr

    @locked
    def _put_marker(
        self,
        bucket: Inode,
        parts: Sequence[bytes],
        record: S3Record,
        uid: int,
        gid: int,
        expect: Expect | None,
        changes: Changes,
    ) -> Attr:
        with self._atomic():
            folder = self._folder(bucket, parts, uid, gid, changes)
            found = self._find(folder.inode, parts[-1])
            self._check_expected(self._object_at(found, True), expect)
            node = self._marked(folder, parts[-1], found, uid, gid, changes)
            old = attached.take(self, node, attached.INSIDE)
            if old is not None:
                self._unlinked(self._node(old))
            self._set_record(node, record)
        return self._attr(node)

    def remove_object(
        self, bucket: Inode, parts: Sequence[bytes], *, marker: bool = False, expect: Expect | None = None
    ) -> bool:
        changes = Changes()
        removed = self._remove_object(bucket, parts, marker, expect, changes)
        if removed:
            self._tell(changes.change())
        return removed

    @locked
    def _remove_object(
        self, bucket: Inode, parts: Sequence[bytes], marker: bool, expect: Expect | None, changes: Changes
    ) -> bool:
        folders = [self._live_dir(bucket)]
        names = list(parts)
        if not names:
            return False
        for part in names[:-1]:
            found = self._find(folders[-1].inode, part)
            if found is None or not found.is_dir:
                return False
            folders.append(self._node(found.inode))
        found = self._find(folders[-1].inode, names[-1])
        there = self._object_at(found, marker)
        self._check_expected(there, expect)
        if found is None:
            return False
        node = self._node(found.inode)
        empty = marker and node.is_dir and self._is_empty(node.inode)
        if (there is None and not empty) or not (node.is_dir or node.is_file):
            return False
        with self._atomic(*folders, node):
            if not node.is_dir:
                self._drop_name(folders[-1], found, node)
                changes.named(folders[-1].inode, names[-1])
                changes.inodes.add(node.inode)
            else:
                self._unmark(node, marker, empty, changes)
                folders.append(node)
            self._prune(folders, names, changes)
        self._commit_if_large()
        return True

    def _unmark(self, node: Node, marker: bool, empty: bool, changes: Changes) -> None:
        """A directory loses the object `a` or `a/`; from now on it may go when it is empty."""
        inode = attached.take(self, node, attached.INSIDE if marker else attached.BESIDE)
        if inode is not None:
            changes.inodes.add(inode)
            self._unlinked(self._node(inode))
        if marker:
            if node.flags & RECORD:
                self._drop_record(node)
            if empty or not node.flags & OWN:
                node.set(IMPLIED)
            self._touch(node, times=False)

    def _drop_record(self, node: Node) -> None:
        node.record, node.record_changed = None, True
        node.set(RECORD, False)
        self._touch(node, times=False)

    def _prune(self, folders: list[Node], names: list[bytes], changes: Changes) -> None:
        """Remove directories that only keys implied, now that none is left below them."""
        for level in range(len(folders) - 1, 0, -1):
            node, above = folders[level], folders[level - 1]
            if not node.flags & IMPLIED or node.flags & RECORD or not self._is_empty(node.inode):
                return
            found = self._find(above.inode, names[level - 1])
            if found is None or found.inode != node.inode or attached.of(self, node, attached.INSIDE) is not None:
                return
            beside = attached.take(self, node, attached.BESIDE)
            self._drop_name(above, found, node)
            changes.named(above.inode, names[level - 1])
            if beside is not None:
                self._add_name(above, names[level - 1], self._node(beside))
                return

    # Parts of objects -------------------------------------------------------------------------------------------

    def _set_parts(self, node: Node, sources: Sequence[ObjectPart]) -> None:
        """Of a staged file, which had none. A statement would wait for a batch that is being written."""
        for part in sources:
            values = (node.inode, part.number, part.offset, part.size, part.checksum)
            self._sql("INSERT INTO object_part VALUES (?, ?, ?, ?, ?)", values)

    @locked
    def object_parts(self, inode: Inode, after: int = 0, limit: int = 10_000) -> list[ObjectPart]:
        """See `Namespace.object_parts`."""
        record = self._node(inode).flags & RECORD and self.record(inode)
        if not record or not record.current:
            return []
        rows = self.db.execute(
            "SELECT number, offset, size, checksum FROM object_part WHERE inode = ? AND number > ? "
            "ORDER BY number LIMIT ?",
            (inode, after, limit),
        )
        return [ObjectPart(*row) for row in rows]
