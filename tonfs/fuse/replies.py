"""What every request stands on: the state of a mount, and the entries that answer for inodes.

What is asked for thousands of times a second costs no thread, no copy and no new object: replies are the entries that
live with the inodes, changed in place.

Reference fuse.md, "Known traps": numbers in comments of this room's request handlers are of that list.
"""

from __future__ import annotations

import errno
import os
from typing import Any, Final

import pyfuse3

from ..ids import Inode
from ..volume.api import Attr, Fetch, Live, Namespace
from .options import MountOptions
from .virtual import Reports, VirtualTree

CACHE_SECONDS: Final = 3600.0
"""The kernel may trust names and attributes this long: all changes go through this process, which tells it."""
BLOCK_SIZE: Final = 4096


class Replies(pyfuse3.Operations):  # type: ignore[misc]  # pyfuse3 is untyped for us
    """See the module."""

    supports_dot_lookup = True
    enable_acl = False

    def __init__(
        self, namespace: Namespace, fetch: Fetch, options: MountOptions, reports: Reports | None = None
    ) -> None:
        """Without `reports` there is no `.tonfs`."""
        super().__init__()
        self._ns = namespace
        self._fetch = fetch
        self._options = options
        self.enable_writeback_cache = not options.read_only
        self.under_way = 0
        """Requests that may wait and have not been answered."""
        self._shown_bits = ~(0 if options.umask is None else options.umask)
        self._uid, self._gid = options.uid, options.gid
        uid = os.geteuid() if options.uid is None else options.uid
        gid = os.getegid() if options.gid is None else options.gid
        self._virtual = None if reports is None else VirtualTree(namespace, reports, (uid, gid), self._shown)
        self._begin()

    def _begin(self) -> None:
        """What the classes above need of their own."""

    def suspended(self) -> bool:
        """Asked between requests: one of them waits for disk or network."""
        return self.under_way > 0

    def _entry(self, node: Live) -> Any:
        """The reply for an inode: kept with it, filled anew when it has changed. Send it before anything else runs."""
        out = node.kept
        if node.kept_gen == node.gen:
            return out
        if out is None:
            out = node.kept = pyfuse3.EntryAttributes()
            out.st_ino = node.inode
            out.generation = 0
            out.entry_timeout = CACHE_SECONDS
            out.attr_timeout = CACHE_SECONDS
            out.st_rdev = node.rdev
            out.st_blksize = BLOCK_SIZE
        out.st_mode = node.mode & self._shown_bits
        out.st_nlink = node.nlink
        out.st_uid = node.uid if self._uid is None else self._uid
        out.st_gid = node.gid if self._gid is None else self._gid
        out.st_size = node.size
        out.st_blocks = node.blocks
        out.st_atime_ns = node.atime
        out.st_mtime_ns = node.mtime
        out.st_ctime_ns = node.ctime
        node.kept_gen = node.gen
        return out

    def _shown(self, attr: Attr) -> Any:
        return self._entry(self._ns.live(attr.inode))

    def _held(self, inode: Inode) -> Any:
        """The reply, and a reference for the kernel."""
        self._ns.hold(inode)
        return self._entry(self._ns.live(inode))

    def _tree(self) -> VirtualTree:
        if self._virtual is None:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self._virtual
