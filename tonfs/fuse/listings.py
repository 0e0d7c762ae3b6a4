"""Requests that list a directory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pyfuse3

from ..ids import Inode
from ..volume.api import ROOT, Live
from .guard import answer, silent
from .names import Names
from .virtual import LAST_COOKIE, NAME, VIRTUAL

FIRST_COOKIE: Final = 2
"""`.` is 1 and `..` is 2 in a listing; the volume's cookies lie above."""
FIRST_BATCH: Final = 32
"""The least number of names to fetch at first, if the kernel had less room the last time."""
LIST_BATCH: Final = 256
"""And what is fetched when it takes them all."""


class Listings(Names):
    """See the module."""

    def _begin(self) -> None:
        super()._begin()
        self._listings: dict[int, tuple[Inode, int]] = {}
        """Handles of directories -> the directory; the cookie that a listing ends before. Or a program that renames
        what it meets would meet it again, without end."""
        self._last_listing = 0
        self._room = FIRST_BATCH
        """Entries that the kernel took in the last reply it had no room left in."""

    @answer
    def opendir(self, inode: int, ctx: Any) -> int:
        if inode >= VIRTUAL:
            self._tree().getattr(inode)
            return inode
        self._ns.live(Inode(inode))
        self._ns.hold(Inode(inode))
        self._last_listing += 1
        self._listings[self._last_listing] = (Inode(inode), self._ns.next_cookie)
        return self._last_listing

    @answer
    def readdir(self, fh: int, start_id: int, token: Any) -> None:
        if fh >= VIRTUAL:
            self._tree().readdir(fh, start_id, token)
            return
        inode, end = self._listings[fh]
        here = self._ns.live(inode)
        if here.nlink == 0:
            return
        if start_id == 0:  # rewound
            end = self._ns.next_cookie
            self._listings[fh] = (inode, end)
        if start_id < 1 and not pyfuse3.readdir_reply(token, b".", self._entry(here), 1):
            return
        if start_id < FIRST_COOKIE:
            above = self._ns.peek(inode, b"..") or here
            if not pyfuse3.readdir_reply(token, b"..", self._entry(above), FIRST_COOKIE):
                return
        for taken, (name, cookie, node) in enumerate(self._listed(inode, max(start_id, FIRST_COOKIE), end)):
            if not pyfuse3.readdir_reply(token, name, self._entry(node), cookie):
                self._room = max(taken, FIRST_BATCH)
                return
            self._ns.hold(node.inode)
        if self._options.show_control and inode == ROOT and start_id < LAST_COOKIE and self._virtual is not None:
            pyfuse3.readdir_reply(token, NAME, self._virtual.top(), LAST_COOKIE)

    def _listed(self, inode: Inode, after: int, end: int) -> Iterator[tuple[bytes, int, Live]]:
        batch = self._room + 1
        while entries := self._ns.list_live(inode, after, batch):
            for entry in entries:
                if entry[1] >= end:
                    return
                yield entry
            after, batch = entries[-1][1], LIST_BATCH

    @silent
    async def releasedir(self, fh: int) -> None:
        if fh < VIRTUAL:
            self._ns.drop(self._listings.pop(fh)[0])
