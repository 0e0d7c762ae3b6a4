"""The names of one directory in memory: all of them, or those that were asked for or changed lately."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

from ..ids import Inode

MAX_WHOLE: Final = 20_000
"""Names of a directory that are kept in memory as a whole; larger ones are looked up in the index."""


class Found:
    """A name: a row of the table `name`."""

    __slots__ = ("cookie", "inode", "is_dir", "name")

    def __init__(self, cookie: int, inode: Inode, is_dir: bool, name: bytes) -> None:
        self.cookie = cookie
        self.inode = inode
        self.is_dir = is_dir
        self.name = name

    @property
    def key(self) -> bytes:
        return self.name + b"/" if self.is_dir else self.name


class Folder:
    __slots__ = ("_by_cookie", "_order", "asked", "large", "names", "whole")

    def __init__(self, *, whole: bool = False) -> None:
        self.names: dict[bytes, Found | None] = {}
        """None: surely not there, whatever the index says."""
        self.whole = whole
        """Names that are not here do not exist."""
        self.large = False
        """Too large to be loaded as a whole."""
        self.asked = 0
        """Names looked up in the index one by one."""
        self._order: list[int] | None = None
        self._by_cookie: dict[int, bytes] = {}

    def put(self, found: Found) -> None:
        """A new name, or a name that now means something else (with the cookie it had)."""
        self.names[found.name] = found
        if self._order is not None and found.cookie not in self._by_cookie:
            self._order.append(found.cookie)  # cookies only grow
            self._by_cookie[found.cookie] = found.name

    def remove(self, found: Found) -> None:
        if self.whole:
            self.names.pop(found.name, None)
        else:
            self.names[found.name] = None
        if self._order is not None:
            self._by_cookie.pop(found.cookie, None)
            if len(self._order) > 2 * len(self._by_cookie) + 64:
                self._order = None

    def restore(self, name: bytes, found: Found | None, *, known: bool) -> None:
        """Undo a change."""
        if known:
            self.names[name] = found
        else:
            self.names.pop(name, None)
        self._order = None

    def after(self, cookie: int) -> Iterator[Found]:
        """Names of a whole directory with a cookie above this one, in order. Nothing may change meanwhile."""
        order, by_cookie = self._order, self._by_cookie
        if order is None:
            pairs = sorted((found.cookie, name) for name, found in self.names.items() if found is not None)
            by_cookie = self._by_cookie = dict(pairs)
            order = self._order = list(by_cookie)
        for position in range(bisect_right(order, cookie), len(order)):
            name = by_cookie.get(order[position])
            if name is not None:
                found = self.names[name]
                assert found is not None
                yield found

    def became_whole(self, stored: list[Found]) -> None:
        """These are all names in the index; what is here already is newer."""
        for found in stored:
            self.names.setdefault(found.name, found)
        self.names = {name: found for name, found in self.names.items() if found is not None}
        self.whole = True

    def grow_out(self, gone: dict[int, tuple[bytes, int]]) -> None:
        """Too many names to keep them all: from now on the index is asked. `gone` are changes on their way there."""
        self.whole, self.large, self._order, self._by_cookie = False, True, None, {}
        for key, inode in gone.values():
            if not inode:
                self.names.setdefault(key.rstrip(b"/"), None)

    def trim(self, keep: set[bytes]) -> None:
        """Forget what the index knows as well. Only for those that are not whole."""
        self.names = {name: found for name, found in self.names.items() if name in keep}
