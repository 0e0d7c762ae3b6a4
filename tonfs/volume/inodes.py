"""Inodes in memory: found by number, counted, kept while they are in use; changes that happen whole or not at all;
what is done in the background, and the end.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from ..errors import FsError
from ..ids import Inode
from ..log import get_logger
from .api import Change
from .core import Core, index_error
from .folder import MAX_WHOLE, Folder
from .node import COLUMNS, Node
from .schema import DIRTY, WAL_SIZE

log = get_logger(__name__)

NODE_CACHE: Final = 60_000
"""Inodes kept in memory; with their names about 1 KiB each."""
NAME_CACHE: Final = 200_000
DATA_CACHE: Final = 24 << 20
"""Inline bytes kept in memory."""
INODE_BATCH: Final = 4096
MAX_NEW: Final = 600
"""Numbers that one atomic change may need: the directories of the longest S3 key."""
WAL_CHECKPOINT: Final = WAL_SIZE
WAL_LIMIT: Final = 64 << 20
WAL_SYNC_INTERVAL: Final = 0.5
UNDOOM_INTERVAL: Final = 10.0
"""Seconds; an fsync of each directory that lost files since. Nobody waits for it."""


class Inodes(Core):
    """See the module."""

    def _node(self, inode: Inode) -> Node:
        """Raises FsError(ENOENT)."""
        node = self._nodes.get(inode)
        if node is None:
            node = self._load(inode)
        else:
            node.used = True
        if self._saved is not None and inode not in self._saved:
            self._save(node)
        return node

    def _load(self, inode: Inode) -> Node:
        if self._closed:
            raise FsError("The volume is closed.")
        batch = self._batch
        row = None
        if inode not in self._pending.gone and (batch is None or inode not in batch.gone):
            row = self._read.execute(f"SELECT {COLUMNS} FROM inode WHERE inode = ?", (inode,)).fetchone()
        if row is None:
            raise FsError(f"There is no inode {inode}.", 2)
        return self._remember(row)

    def _remember(self, row: tuple[Any, ...], *, stored: bool = True) -> Node:
        # What changed before it left memory is not known any more: be careful when it is fsynced.
        node = Node(row, self._committed if stored else self._gen, stored=stored)
        self._nodes[node.inode] = node
        if node.flags & DIRTY and node.version < self._version_base:
            self._distrust(node)
        return node

    def _distrust(self, node: Node) -> None:
        """Unpacked bytes that were written before a crash."""
        raise NotImplementedError

    def _keep_trust(self) -> None:
        """In the background; see `trust.py`."""
        raise NotImplementedError

    def _trust_all(self) -> None:
        """At the end."""
        raise NotImplementedError

    def _next_version(self, node: Node) -> int:
        return max(node.version, self._version_base) + 1

    def _evictable(self, node: Node) -> bool:
        """Nothing of it waits to be written."""
        batch = self._batch
        inode = node.inode
        return (
            inode not in self._pending.nodes
            and (batch is None or inode not in batch.nodes)
            and inode not in self._trimming
        )

    def _kept_too_much(self) -> bool:
        return len(self._nodes) > NODE_CACHE or self._names_kept > NAME_CACHE or self._data_kept > DATA_CACHE

    def _shrink_cache(self) -> None:
        """Only between operations: two objects for one inode must never exist. Those asked for lately stay."""
        self._settle()
        if not self._kept_too_much():
            return
        kept: list[Node] = []
        room = NODE_CACHE // 2
        for node in reversed(self._nodes.values()):
            if (node.used and room > 0) or not self._evictable(node):
                node.used = False
                room -= 1
                kept.append(node)
        self._nodes = {node.inode: node for node in reversed(kept)}
        names, data = self._names_kept, self._data_kept
        self._names_kept = self._data_kept = 0
        for node in kept:
            if node.folder is not None:
                self._shrink_folder(node, node.folder, forget=names > NAME_CACHE)
            if node.data is not None:
                if data > DATA_CACHE and self._evictable(node):
                    node.data = None
                else:
                    self._data_kept += len(node.data)

    def _shrink_folder(self, node: Node, folder: Folder, *, forget: bool) -> None:
        waiting = self._pending.names.get(node.inode, {})
        if forget and self._evictable(node):
            node.folder = None
            return
        if folder.whole and len(folder.names) > MAX_WHOLE:
            batch = self._batch
            folder.grow_out({**(batch.names.get(node.inode, {}) if batch else {}), **waiting})
        if not folder.whole and len(folder.names) > MAX_WHOLE and self._batch is None:
            folder.trim({key.rstrip(b"/") for key, _ in waiting.values()})
        self._names_kept += len(folder.names)

    def _reserve_inodes(self, count: int) -> None:
        """Numbers below the ceiling of the last batch may be given out; the next ceiling is asked for early."""
        if self._next_inode + count + INODE_BATCH > self._asked_ceiling:
            self._asked_ceiling = self._next_inode + count + 2 * INODE_BATCH
            self._pending.meta["inode_ceiling"] = str(self._asked_ceiling)
            self._gen += 1
        if self._next_inode + count > self._inode_ceiling:
            self._commit_locked()

    def _new_inode(self) -> Inode:
        """A number that no file ever had, also not one that a crash undid."""
        number = self._next_inode
        if number + 1 + INODE_BATCH > self._asked_ceiling or number >= self._inode_ceiling:
            self._reserve_inodes(1)
        self._next_inode = number + 1
        return Inode(number)

    def _touch(self, node: Node, *, times: bool = True, now: int | None = None) -> None:
        """The inode changed: it is written with the next batch. `times` also moves its ctime."""
        self._gen = node.gen = self._gen + 1
        if times:
            node.ctime = self.now_ns() if now is None else now
        self._pending.nodes[node.inode] = node

    def _touch_size(self, node: Node, *, times: bool = True, now: int | None = None) -> None:
        """As `_touch`, for a change without which the bytes cannot be found after a crash."""
        self._touch(node, times=times, now=now)
        node.size_gen = node.gen

    # Whole or not at all ----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _atomic(self, *nodes: Node) -> Iterator[None]:
        """All changes inside happen, or (on an error) none. Nothing inside may commit.

        Inodes must be fetched (`_node`) inside, or be given in `nodes`, before they are changed.
        """
        self._reserve_inodes(MAX_NEW)
        self._saved, self._undo = {}, []
        for node in nodes:
            self._save(node)
        ops, dooming = len(self._pending.ops), len(self._dooming)
        try:
            yield
        except BaseException:
            self._roll_back(ops, dooming)
            raise
        finally:
            if self._savepoint:
                self.db.execute("RELEASE atomic")
            self._saved, self._savepoint = None, False

    def _save(self, node: Node) -> None:
        assert self._saved is not None
        extra = (
            node.gen,
            node.size_gen,
            node.data,
            node.record,
            node.record_changed,
            node.inode in self._pending.nodes,
        )
        self._saved[node.inode] = (node, (node.row(), *extra))

    def _roll_back(self, ops: int, dooming: int) -> None:
        for step in reversed(self._undo):
            step()
        if self._savepoint:
            self.db.execute("ROLLBACK TO atomic")
        del self._pending.ops[ops:]
        del self._dooming[dooming:]
        assert self._saved is not None
        for inode, (node, (row, gen, size_gen, data, record, record_changed, changed)) in self._saved.items():
            node.restore(row)
            node.gen, node.size_gen, node.data = gen, size_gen, data
            node.record, node.record_changed, node.segments = record, record_changed, None
            self._nodes[inode] = node
            if not changed:
                self._pending.nodes.pop(inode, None)

    # In the background ------------------------------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """Something waits for `background`."""
        waits = self._dooming or self._trimming or self.content.removed
        return self._gen != self._wal_synced or bool(waits) or self._kept_too_much()

    def background(self) -> None:
        """Commit what is pending; now and then make it durable, delete doomed files, keep the WAL small. Slow.

        To be called every 200 to 600 ms from one thread. Raises FsError when the disk does not take it.
        """
        with self._maintenance:
            if not self._closed:
                self._maintain()

    def _maintain(self) -> None:
        self.space.look()
        try:
            self._keep_trust()
            in_use = self.journal.live
            if self._gen != self._committed:
                self._sync_ordered()
                self._commit_batch(self._gen)
            late = time.monotonic() - self._last_wal_sync > WAL_SYNC_INTERVAL
            if self._committed > self._wal_synced and (in_use or late):
                self._sync_wal(self._committed)  # the journal takes nothing before that
            self._reap()
            if self.content.removed and time.monotonic() - self._last_undoom > UNDOOM_INTERVAL:
                self._undoom()
            with self.lock:
                self._shrink_cache()
            size = os.fstat(self._wal).st_size
            if size > WAL_LIMIT:
                with self.lock, self._flushing:
                    self._commit_locked()
                    self.db.execute("PRAGMA busy_timeout = 0")  # a survey may be reading: then another time
                    self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                    self.db.execute("PRAGMA busy_timeout = 10000")
                    self._wal_laid_out = False
            elif size > WAL_CHECKPOINT:
                self._checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            elif not self._wal_laid_out and not self.space.low:
                self._lay_out_wal()
        except OSError as exc:
            raise self._os_error(exc) from exc
        except sqlite3.Error as exc:
            raise index_error(exc) from exc

    def _lay_out_wal(self) -> None:
        """Give the index's log the blocks that it fills before it starts anew. Syncs of what is written into these take
        half the time: the file system below has nothing to put down but the bytes."""
        self._wal_laid_out = True
        try:
            with self.lock, self._flushing:  # nobody else makes it longer
                size = os.fstat(self._wal).st_size
                os.pwrite(self._wal, bytes(max(0, WAL_CHECKPOINT - size)), size)
            os.fdatasync(self._wal)
        except OSError as exc:
            log.debug("the index's log keeps its size", reason=str(exc))

    # Listeners, closing -----------------------------------------------------------------------------------------

    def on_change(self, listener: Callable[[Change], None]) -> None:
        """See `Namespace.on_change`."""
        self._listeners.append(listener)

    def _tell(self, change: Change) -> None:
        for listener in self._listeners:
            listener(change)

    def close(self) -> None:
        """Make everything durable and release the volume. Idempotent."""
        with self._maintenance:
            if self._closed:
                return
            self.commit()
            try:
                self._trust_all()
                self._undoom()
                with self.lock:
                    self._pending.meta["clean"] = "1"
                    self._gen += 1
                    self._commit_locked()
                    self._sync_wal(self._committed)
            except OSError as exc:
                raise self._os_error(exc) from exc
            except sqlite3.Error as exc:
                raise index_error(exc) from exc
            self.abandon()

    def abandon(self) -> None:
        """Release the volume as it is, as a crash would: what was not committed is lost."""
        with self._maintenance, self.lock:
            if self._closed:
                return
            self._closed = True
            with self._flushing:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                self.content.close()
                for connection in (self.reader, self._read, self._checkpointer, self.db):
                    connection.close()
            self.journal.close()
            os.close(self._wal)
            os.close(self._claim)
