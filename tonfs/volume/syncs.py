"""fsync, in steps: what it must wait for is handed out, so that the mount's loop waits without a thread.

The bytes in content files and the index's log reach the disk side by side. Neither order harms: before the fsync has
returned nothing was promised, and what a crash between the two leaves is what the background commits may leave at any
time, an index that knows a file longer than its content file (`Trust._cut_what_is_missing`). Where the order does
matter (rule 2 of core.py) the fsync takes the slow way, content first.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from typing import Final

from ..ids import Inode
from .contents import INLINE_MAX
from .node import Node
from .schema import INLINE
from .trust import Trust

INLINE_SYNCS: Final = 3
"""A small file that is fsynced more often moves to a content file: rewriting it in the index costs more."""
FEW: Final = 64
"""Changes of each kind that a commit on the spot may have: a fraction of a millisecond."""
FEW_BYTES: Final = 256 << 10

Step = tuple[int, ...] | None
"""Descriptors to fdatasync, all of them, before going on; None: what comes next is slow, go on in a thread."""


class Syncs(Trust):
    def sync(self, inode: Inode, *, data_only: bool = False) -> None:
        """See `Namespace.sync`."""
        try:
            for step in self.sync_steps(inode, data_only=data_only):
                for fd in step or ():
                    os.fdatasync(fd)
        except OSError as exc:
            raise self._os_error(exc) from exc

    def sync_steps(self, inode: Inode, *, data_only: bool = False) -> Generator[Step, None, None]:
        """See `Namespace.sync_steps`."""
        with self.lock:
            node = self._node(inode)
            if node.flags & INLINE and node.size_gen > self._durable:
                node.syncs += 1
                if node.syncs > INLINE_SYNCS and node.nlink:
                    self._move_out(node)
            need = 0 if node.nlink == 0 else node.size_gen if data_only else node.gen
            quick = not (self.content.new_shards and self._blobs(inode)) and self._commit_few(need)
            upto = self._committed
            todo = self._take_unsynced(self._blobs(inode)) if quick else []
        if not quick:
            yield None
            try:
                self._sync_content(inode)
            except OSError as exc:
                raise self._os_error(exc) from exc
            self._commit_up_to(self._mark_now(node, need))
            with self.lock:
                self._mark_soon(node)
            return
        wal = (self._wal,) if need > self._durable else ()
        try:
            if wal or todo:
                yield (*wal, *(fd for _, fd, _ in todo))
        finally:
            for _, fd, _ in todo:
                os.close(fd)
        with self.lock:
            self._note_synced(todo)
            self._mark_soon(node)
            if wal and upto > self._durable:
                self._durable = upto
                self._last_wal_sync = time.monotonic()

    def _move_out(self, node: Node) -> None:
        """A small file that is fsynced again and again gets a content file."""
        try:
            self._spill(node, INLINE_MAX + 1)
        except OSError as exc:
            raise self._os_error(exc) from exc
        self._touch_size(node, times=False)

    def _commit_few(self, need: int) -> bool:
        """Commit up to change `need` here and now; False when that would take a while. `lock` is held."""
        self._settle()
        if self._committed >= need or self._closed:
            return True
        waiting = self._pending
        if (
            self._ordered
            or self._data_waiting > FEW_BYTES
            or len(waiting.nodes) + len(waiting.gone) + len(waiting.doomed) + len(waiting.ops) > FEW
            or sum(len(names) for names in waiting.names.values()) > FEW
            or not self._flushing.acquire(blocking=False)
        ):
            return False
        try:
            self._commit_locked()
        finally:
            self._flushing.release()
        return True
