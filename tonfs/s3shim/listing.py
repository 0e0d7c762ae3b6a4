"""Keys of a bucket in S3's order: the byte order of whole keys, which is not the order of directories.

Pure on top of `Namespace.list_objects`: each directory gives its entries by sort key (`name` for files, `name/` for
directories); depth first in that order is the order of keys. A page reads only what it shows.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ..errors import FsError
from ..ids import Inode
from ..volume.api import Namespace
from ..volume.listed import Listed
from .mapping import MAX_KEY, visible

PAGE: Final = 1001
"""One more than a page of S3 shows: whether there are more is known without another look."""
SKIP: Final = 8
"""How many entries are read at first behind a common prefix that was passed over, or a directory that is gone into."""


class Item(NamedTuple):
    """A key with its object, or (found None) a common prefix."""

    key: bytes
    found: Listed | None = None

    @property
    def is_prefix(self) -> bool:
        return self.found is None


@dataclass
class _Folder:
    """A directory that is being read: `base` is its key prefix, `start` the last sort key done."""

    inode: Inode
    base: bytes
    start: bytes = b""
    limit: int = PAGE
    entries: list[Listed] = field(default_factory=list)
    position: int = 0
    ended: bool = False


class Lister:
    """Walks one bucket."""

    def __init__(
        self, namespace: Namespace, bucket: Inode, prefix: bytes = b"", delimiter: bytes = b"", *, first: int = PAGE
    ) -> None:
        """`first`: how many entries of a directory are read at first; the number grows with each step."""
        self._namespace = namespace
        self._bucket = bucket
        self._prefix = prefix
        self._delimiter = delimiter
        self._first = min(max(first, 1), PAGE)

    def page(self, after: bytes, count: int) -> tuple[list[Item], bool]:
        """Up to `count` items with keys above `after`, and whether there are more."""
        items: list[Item] = []
        for item in self.items(after):
            if len(items) == count:
                return items, True
            items.append(item)
        return items, False

    def items(self, after: bytes = b"") -> Iterator[Item]:
        """Keys and common prefixes above `after`, in order."""
        if self._delimiter in (b"", b"/"):
            yield from self._walk(after)
            return
        start, resume, first = after, True, self._first
        while resume:
            resume = False
            for item in self._walk(start, first):
                common = self._common(item.key)
                if common is None:
                    yield item
                    continue
                if common > after:
                    yield Item(common)
                # 0xff is in no key: this passes over everything that begins with the common prefix.
                start, resume, first = common + b"\xff", True, min(SKIP, self._first)
                break

    def _common(self, key: bytes) -> bytes | None:
        end = key.find(self._delimiter, len(self._prefix))
        return None if end < 0 else key[: end + len(self._delimiter)]

    # The walk: an explicit stack, because paths may be deeper than Python's.

    def _walk(self, after: bytes, first: int = 0) -> Iterator[Item]:
        first = first or self._first
        stack = self._descend(after, first)
        prefix, grouping = self._prefix, self._delimiter == b"/"
        while stack:
            folder = stack[-1]
            entry = self._next(folder)
            if entry is None:
                stack.pop()
                continue
            key = folder.base + entry.key
            if not self._shown(entry, key):
                continue
            if not entry.folder:
                yield Item(key, entry)
            elif grouping and len(key) > len(prefix) and key.startswith(prefix):
                if self._has_keys(entry):
                    yield Item(key)
            else:
                if key.startswith(prefix) and self._is_object(entry):
                    yield Item(key, entry)
                stack.append(_Folder(entry.folder, key, limit=first))

    def _descend(self, after: bytes, first: int) -> list[_Folder]:
        """The directories on the way to `after`, each set to go on behind it; the deepest last."""
        stack = [_Folder(self._bucket, b"", limit=first)]
        if not after:
            return stack
        *folders, last = after.split(b"/")
        for name in folders:
            folder = stack[-1]
            folder.start = name + b"/"
            folder.limit = min(SKIP, first)  # what is below comes first, and may fill the page
            child = self._child(folder.inode, name)
            key = folder.base + folder.start
            skipped = self._delimiter == b"/" and key.startswith(self._prefix) and len(key) > len(self._prefix)
            if child is None or skipped:
                return stack
            stack.append(_Folder(child, key, limit=first))
        stack[-1].start = last
        return stack

    def _child(self, inode: Inode, name: bytes) -> Inode | None:
        if name in (b"", b".", b".."):
            return None
        try:
            attr = self._namespace.lookup(inode, name)
        except FsError:
            return None
        return attr.inode if attr.is_dir else None

    def _next(self, folder: _Folder) -> Listed | None:
        if folder.position == len(folder.entries):
            if folder.ended:
                return None
            folder.entries = self._read(folder)
            folder.position = 0
            folder.ended = len(folder.entries) < folder.limit
            folder.limit = min(PAGE, 4 * folder.limit)
            if not folder.entries:
                return None
            folder.start = folder.entries[-1].key
        folder.position += 1
        return folder.entries[folder.position - 1]

    def _read(self, folder: _Folder) -> list[Listed]:
        """The next entries that can lead to keys with the prefix."""
        wanted = b""
        if self._prefix.startswith(folder.base):
            name, slash, _ = self._prefix[len(folder.base) :].partition(b"/")
            # Exactly one directory leads to a prefix that goes on below it; it sorts as `name/`.
            wanted = name + slash
        elif not folder.base.startswith(self._prefix):
            return []
        try:
            return self._namespace.list_objects(folder.inode, folder.start, folder.limit, prefix=wanted)
        except FsError:
            return []  # removed meanwhile

    def _shown(self, entry: Listed, key: bytes) -> bool:
        if len(key) > MAX_KEY or not (entry.folder or stat.S_ISREG(entry.mode)):
            return False
        return (entry.key.isascii() and b"\0" not in entry.key) or visible(entry.key)

    def _is_object(self, entry: Listed) -> bool:
        """Does a directory show itself as a key? When it is marked, has data, or is empty."""
        if entry.marked:
            return True
        try:
            return self._namespace.is_empty(entry.folder)
        except FsError:
            return False

    def _has_keys(self, entry: Listed) -> bool:
        """Is there at least one key at or below this directory? (There is none below one that holds only links.)"""
        if self._is_object(entry):
            return True
        below = Lister(self._namespace, entry.folder, first=4)
        return next(below._walk(b""), None) is not None
