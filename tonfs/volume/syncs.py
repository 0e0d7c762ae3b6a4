"""fsync, in steps: what it must wait for is handed out, so that the mount's loop waits without a thread.

What the index must have goes into the journal first, if it is little (`journal.py`), else into the index itself. That
and the bytes in content files reach the disk side by side. Neither order harms: before the fsync has returned nothing
was promised, and what a crash between the two leaves is what the background commits may leave at any time, an index
that knows a file longer than its content file (`Trust._cut_what_is_missing`). Where the order does matter (rule 2 of
core.py) the fsync takes the slow way, content first.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Final

from ..ids import Inode
from .contents import INLINE_MAX
from .node import Node
from .schema import INLINE
from .trust import Trust
from .writeback import Rows

INLINE_SYNCS: Final = 3
"""A small file that is fsynced more often moves to a content file: rewriting it in the index costs more."""
FEW: Final = 64
"""Changes of each kind that a commit on the spot may have: a fraction of a millisecond."""
FEW_BYTES: Final = 256 << 10
FEW_IN_JOURNAL: Final = 32
DATA_IN_JOURNAL: Final = 32 << 10
"""The same for what goes into the journal first; each record has all that waits again."""

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
            blobs = self._blobs(inode)
            quick = not self.content.unsynced_names(blobs)
            serial = self._put_down(need) if quick else 0
            quick = quick and (serial > 0 or self._commit_few(need))
            upto = self._gen if serial else self._committed
            todo = self._take_unsynced(blobs) if quick else []
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
        log = () if need <= self._durable else (self.journal.fd,) if serial else (self._wal,)
        try:
            if log or todo:
                yield (*log, *(fd for _, fd, _ in todo))
        finally:
            for _, fd, _ in todo:
                os.close(fd)
        with self.lock:
            self._note_synced(todo)
            self._mark_soon(node)
            if serial:
                self.journal.synced(serial)
                self._durable = max(self._durable, upto)
            elif log:
                self._note_wal_synced(upto)

    def _move_out(self, node: Node) -> None:
        """A small file that is fsynced again and again gets a content file."""
        try:
            self._spill(node, INLINE_MAX + 1)
        except OSError as exc:
            raise self._os_error(exc) from exc
        self._touch_size(node, times=False)

    def _few(self, changes: int, size: int) -> bool:
        """No more waits, and nothing that a commit would have to wait for."""
        waiting = self._pending
        return not (
            self._ordered
            or self._data_waiting > size
            or len(waiting.nodes) + len(waiting.gone) + len(waiting.doomed) + len(waiting.ops) > changes
            or sum(len(names) for names in waiting.names.values()) > changes
        )

    def _put_down(self, need: int) -> int:
        """Put what waits into the journal; the record's number. 0: there is no need, or it is the index's turn. `lock`
        is held."""
        self._settle()
        if (
            max(self._durable, self._committed) >= need
            or self._closed
            or self._committed != self._wal_synced
            or self._new_blobs
            or not self._few(FEW_IN_JOURNAL, FEW_BYTES)
            or sum(len(n.data or b"") for n in self._pending.nodes.values() if n.data_changed) > DATA_IN_JOURNAL
            or not self._flushing.acquire(blocking=False)
        ):
            return 0
        try:
            if self.db.in_transaction or self._batch is not None:  # a thread has just written one that is not settled
                return 0
            self._mark_rows()
            return self.journal.write(Rows(self._pending, self._cookies_taken))
        finally:
            self._flushing.release()

    def _commit_few(self, need: int) -> bool:
        """Commit up to change `need` here and now; False when that would take a while. `lock` is held."""
        self._settle()
        if max(self._committed, self._durable) >= need or self._closed:
            return True
        if not self._few(FEW, FEW_BYTES) or not self._flushing.acquire(blocking=False):
            return False
        try:
            self._commit_locked()
        finally:
            self._flushing.release()
        return True
