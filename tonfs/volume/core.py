"""What every part of the volume stands on: the lock, the index, changes that wait, and their commit.

Inodes and names that are in use live in memory; the index is asked for others and learns of changes later. Everything
changed since the last batch waits in `Pending`; every 200 to 600 ms a background call writes it as one transaction
(it then survives the death of this process) and fsyncs the WAL about twice a second. `commit()` does both at once; all
who call it meanwhile share one batch and one fsync. What an fsync must make durable goes into a journal first, if it is
little, and still waits for the index then (`syncs.py`, `journal.py`). Rarely changed tables (extents, segments,
xattrs, packs) are changed at once by `_sql`, in the transaction that the next batch ends.

Locks: `lock` guards memory and is held for the length of a call. `_flushing` is held while a batch is written; a
batch is taken only by who holds both, and is written without `lock`. Who holds `lock` may wait for `_flushing` (the
writer of a batch never waits for `lock` while it has it), never the other way round.

Three rules keep index and content files in step after a crash:

1. Before bytes that an extent or an S3 record vouches for are changed in place, the index stops vouching for them,
   durably (`files.py`, the barrier).
2. Before a commit that makes the index rely on bytes in a content file (a rename over another file, bytes fetched
   from the network, a pack's local copy, bytes that were inline and durable, a file that grows again after it was cut),
   these bytes are fsynced: `_order`.
3. A content file loses bytes (unlink, truncate, eviction) only after the commit that says so.

What may be missing after a loss of power nevertheless, and what never: `trust.py`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from ..clock import Clock, SystemClock
from ..errors import Damaged, FsError, TonfsError
from ..ids import Inode
from ..log import get_logger
from ..system import FULL, from_sqlite
from . import schema
from .api import Change
from .claim import claim
from .content import ContentStore, sync_directory
from .journal import BASE, Journal, replay
from .kernel import KernelCache
from .node import Node
from .schema import CONTENT
from .space import SpaceGuard, no_space
from .writeback import Batch, Pending

log = get_logger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound="Core")

CLOCK_REALTIME_COARSE: Final = 5
"""Of Linux; the module `time` has no name for it."""
MAX_PENDING: Final = 50_000
"""Changes that may wait before the one who makes more has to write them; bounds memory."""
MAX_PENDING_DATA: Final = 16 << 20


def locked(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """The method runs under the volume's lock; OSError and SQLite errors come out as errors of the tree."""

    @wraps(method)
    def guarded(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self.lock:
            try:
                return method(self, *args, **kwargs)
            except OSError as exc:
                raise self._os_error(exc) from exc
            except sqlite3.Error as exc:
                raise index_error(exc) from exc

    return guarded


def index_error(exc: sqlite3.Error) -> TonfsError:
    if "full" in str(exc):
        return no_space()
    if isinstance(exc, sqlite3.DatabaseError) and "malformed" in str(exc):
        return Damaged(f"The index is damaged: {exc}.", hint="Run 'tonfs fsck'.")
    return FsError(f"The index cannot be used: {exc}.")


class Index:
    """The index as `extents.py` uses it: reads see everything, changes go the way of `Core._sql`."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> sqlite3.Cursor:
        if statement.startswith("SELECT"):
            return self._core.db.execute(statement, values)
        return self._core._sql(statement, values)

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]], /) -> None:
        for row in rows:
            self._core._sql(statement, row)


class Core:
    """Lock, changes that wait, commits. Opening it claims the volume for this process."""

    def __init__(self, directory: Path, clock: Clock | None = None) -> None:
        self.directory = directory
        self.clock: Clock = clock or SystemClock()
        self._system_time = isinstance(self.clock, SystemClock)
        self.kernel = KernelCache()
        self.lock = threading.RLock()
        self._maintenance = threading.RLock()
        """Held by `background` and while closing; always taken before `lock`."""
        self._claim = claim(directory)
        try:
            self._open()
        except BaseException:
            os.close(self._claim)
            raise

    def _open(self) -> None:
        path = self.directory / schema.INDEX_NAME
        try:
            self.db = schema.connect(path)
            schema.migrate(self.db, self.directory)
            self._checkpointer = schema.connect(path, cache_kib=1000)
            self._read = schema.connect(path, read_only=True)
            self.reader = schema.connect(path, read_only=True, cache_kib=4000)
            if replay(self.db, self.directory):
                log.info("changes that the index had not got were in the journal")
        except sqlite3.Error as exc:
            raise from_sqlite(exc, path, f"The index {path}") from exc
        self.index = Index(self)
        self.reader_lock = threading.Lock()
        self.content = ContentStore(self.directory / "content")
        self.space = SpaceGuard(self.directory)
        self._nodes: dict[Inode, Node] = {}
        self._pending = Pending()
        self._batch: Batch | None = None
        """Is being written, or was written and still has to be let go of."""
        self._flushing = threading.RLock()
        self._saved: dict[Inode, tuple[Node, tuple[Any, ...]]] | None = None
        self._undo: list[Callable[[], None]] = []
        self._holds: dict[Inode, int] = {}
        self._nameless: set[Inode] = set()
        """Held inodes that go when nobody holds them any more, and perhaps some that got a name since."""
        self._ordered: dict[Inode, int] = {}
        self._order_serial = 0
        self._dooming: list[tuple[int, Inode]] = []
        self._trimming: dict[Inode, Node] = {}
        self._unsynced: dict[Inode, int] = {}
        """Content files written since they were last fsynced -> the number of the last write."""
        self._writes = 0
        self._cut: set[Inode] = set()
        """Content files that were cut since they were last fsynced: what they lost may come back."""
        self._replacing: set[Inode] = set()
        """Inodes that took another's name since the last batch and have no content file."""
        self._synced: set[Inode] = set()
        """After a crash: content files fsynced since."""
        self._new_blobs = False
        """There are content files that the index has not heard of."""
        self._unmarked = False
        """The index may have rows of files in content files that are not safe to their end."""
        self._listeners: list[Callable[[Change], None]] = []
        self._gen = self._committed = self._durable = 0
        self._wal_synced = 0
        """What was committed up to this change is on the disk in the index; `_durable`: or in the journal."""
        self._wal_lock = threading.Lock()
        self._last_wal_sync = self._last_undoom = time.monotonic()
        self._closed = self._savepoint = False
        self._names_kept = self._data_kept = self._data_waiting = 0
        self._wal_laid_out = False
        self._wal_path = path.with_name(path.name + "-wal")
        self._load_meta()
        self.db.execute("BEGIN IMMEDIATE")
        self.db.execute("UPDATE meta SET value = '0' WHERE key = 'clean'")
        self.db.execute("COMMIT")
        self._wal = os.open(self._wal_path, os.O_RDWR | os.O_CLOEXEC)
        os.fsync(self._wal)
        self.journal = Journal(self.directory, self.volume_id, self._journal_base)
        sync_directory(self.directory)

    def _load_meta(self) -> None:
        meta = dict(self.db.execute("SELECT key, value FROM meta").fetchall())
        self.volume_id = str(meta["volume_id"])
        self.clean_start = meta["clean"] == "1"
        self._suspect = not self.clean_start
        """What the process before wrote may not be on the disk: each content file is fsynced at least once."""
        self._next_inode = self._noted_next = int(meta["inode_next"])
        self._inode_ceiling = self._asked_ceiling = int(meta["inode_ceiling"])
        self._journal_base = int(meta[BASE])
        self._version_base = int(meta["version_base"])
        (top,) = self.db.execute("SELECT max(cookie) FROM name").fetchone()
        self._next_cookie = self._cookies_taken = max(3, (top or 0) + 1)

    # Time and errors --------------------------------------------------------------------------------------------

    def now_ns(self) -> int:
        """By the clock of the kernel's time stamps: when ours are equal to its own it need not send them."""
        if self._system_time:
            return time.clock_gettime_ns(CLOCK_REALTIME_COARSE)
        return int(self.clock.now() * 1_000_000_000)

    def _os_error(self, exc: OSError) -> TonfsError:
        number = exc.errno or 5
        if number in FULL:  # make room for the index at once
            self.space.exhausted(number)
        return FsError(f"{os.strerror(number)}: {exc.filename or 'content'}", number)

    # The transaction --------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Before `self.db` is used to change something: no batch is being written, and a transaction is open."""
        with self._flushing:
            self._settle()
            if not self.db.in_transaction:
                self.db.execute("BEGIN IMMEDIATE")
            if self._saved is not None and not self._savepoint:
                self.db.execute("SAVEPOINT atomic")
                self._savepoint = True
            self._gen += 1

    def _sql(self, statement: str, values: Iterable[Any] = ()) -> sqlite3.Cursor:
        """A statement that changes the index, in the transaction of the next batch. Not for the tables inode, name,
        inline and record: memory is ahead of these."""
        self._begin()
        row = tuple(values)
        cursor = self.db.execute(statement, row)
        self._pending.ops.append((statement, row))
        return cursor

    def _order(self, inode: Inode) -> None:
        """The next commit waits until the content file's bytes are on the disk."""
        self._order_serial += 1
        self._ordered[inode] = self._order_serial

    def _sync_content(self, inode: Inode) -> None:
        """fdatasync the content files of an inode; the lock is held only to find them."""
        with self.lock:
            todo = self._take_unsynced(self._blobs(inode))
            shards = self.content.unsynced_names(blob for blob, _, _ in todo)
        self._sync_taken(todo, shards)

    def _sync_taken(self, todo: list[tuple[Inode, int, int]], shards: dict[int, int]) -> None:
        try:
            for shard in shards:
                sync_directory(self.content.shard(shard))
            for _, fd, _ in todo:
                os.fdatasync(fd)
        finally:
            for _, fd, _ in todo:
                os.close(fd)
        with self.lock:
            self.content.shards_synced(shards)
            self._note_synced(todo)

    def _take_unsynced(self, blobs: Iterable[Inode]) -> list[tuple[Inode, int, int]]:
        """(content file, descriptor of the caller's own, last change) of what an fsync must write. `lock` is held."""
        todo = []
        for blob in blobs:
            fd = self.content.duplicate(blob)
            if fd is not None:
                todo.append((blob, fd, self._unsynced.get(blob, 0)))
        return todo

    def _note_written(self, blob: Inode) -> None:
        """A content file was changed, or is going to be before the lock is given back."""
        self._writes += 1
        self._unsynced[blob] = self._writes

    def _note_synced(self, done: list[tuple[Inode, int, int]]) -> None:
        for blob, _, written in done:
            if self._suspect:
                self._synced.add(blob)
            if self._unsynced.get(blob) == written:
                del self._unsynced[blob]
                self._cut.discard(blob)

    def _blobs(self, inode: Inode) -> list[Inode]:
        """Content files with bytes of this inode that may not be on the disk yet."""
        return [inode]

    def _on_disk(self, node: Node) -> bool:
        """Its bytes lie in content files, and the disk has all of them."""
        return False

    def _note_safe(self, node: Node) -> None:
        """How many bytes from its beginning are on the disk, as it is now. A content file that once was that long
        still is, unless the file became shorter (rule 3 lets the index know first)."""
        if self._on_disk(node):
            node.safe = node.size
        else:
            node.safe = min(node.safe, node.size) if node.flags & CONTENT else 0

    def _sync_ordered(self) -> None:
        """Do most of rule 2's fsyncs without holding the lock; `_take` does what is left."""
        with self.lock:
            todo = list(self._ordered.items())
        for inode, serial in todo:
            self._sync_content(inode)
            with self.lock:
                if self._ordered.get(inode) == serial:
                    del self._ordered[inode]

    # Batches ----------------------------------------------------------------------------------------------------

    def _take(self) -> Batch:
        """Everything that waits, as rows. Both locks are held."""
        self._settle()
        while self._ordered:
            inode = next(iter(self._ordered))
            self._sync_content(inode)
            del self._ordered[inode]
        self._mark_rows()
        if self.journal.live:
            self._pending.meta[BASE] = str(self.journal.base + 1)
        self._new_blobs = False
        self._replacing.clear()
        self._batch = batch = Batch(self._pending, self._cookies_taken, self._gen)
        self._pending, self._cookies_taken, self._data_waiting = Pending(), self._next_cookie, 0
        return batch

    def _mark_rows(self) -> None:
        """What the index is to know of all that waits."""
        for node in self._pending.nodes.values():
            if node.placed:
                self._note_safe(node)
                self._unmarked |= node.safe < node.size
        if self._noted_next != self._next_inode:
            self._noted_next = self._next_inode
            self._pending.meta["inode_next"] = str(self._next_inode)

    def _write(self, batch: Batch) -> None:
        """Into the index. Only `_flushing` is held (or both). What goes wrong is told by `_settle`."""
        batch.failure = self._try_to_write(batch)
        if isinstance(batch.failure, sqlite3.Error) and self.space.made_room():
            batch.failure = self._try_to_write(batch, batch.ops)
        batch.written = True

    def _try_to_write(
        self, batch: Batch, again: Iterable[tuple[str, tuple[Any, ...]]] = ()
    ) -> sqlite3.Error | OSError | None:
        """`again`: what was in the transaction that failed."""
        db = self.db
        try:
            self.space.before_commit()
            if not db.in_transaction:
                db.execute("BEGIN IMMEDIATE")
            for statement, values in again:
                db.execute(statement, values)
            batch.write(db)
            db.execute("COMMIT")
        except (sqlite3.Error, OSError) as exc:
            with contextlib.suppress(sqlite3.Error):
                if db.in_transaction:
                    db.execute("ROLLBACK")
            return exc
        return None

    def _settle(self) -> None:
        """Let go of a batch that was written; after a failure all of it waits again. `lock` is held."""
        batch = self._batch
        if batch is None or not batch.written:
            return
        self._batch = None
        if batch.failure is not None:
            log.info("the index did not take a batch, it is tried again", reason=str(batch.failure))
            batch.put_back(self._pending)
            self._noted_next = -1
            self._new_blobs = True
            for statement, values in self._pending.ops:
                if not self.db.in_transaction:
                    self.db.execute("BEGIN IMMEDIATE")
                self.db.execute(statement, values)
            return
        self._committed = batch.gen
        if BASE in batch.meta:
            self.journal.base, self.journal.live = int(batch.meta[BASE]), False
        if "inode_ceiling" in batch.meta:
            self._inode_ceiling = int(batch.meta["inode_ceiling"])
        for parent, changes in batch.names.items():
            node = self._nodes.get(parent)
            if node is not None and node.folder is not None and not node.folder.whole:
                names = node.folder.names
                for key, inode in changes.values():
                    if not inode and names.get(name := key.rstrip(b"/"), node) is None:
                        del names[name]

    def _raise_failure(self, batch: Batch) -> None:
        if isinstance(batch.failure, OSError):
            raise self._os_error(batch.failure) from batch.failure
        if batch.failure is not None:
            if self.space.low and not isinstance(index_error(batch.failure), Damaged):
                raise no_space(self.space.number) from batch.failure  # of a quota SQLite says only "disk I/O error"
            raise index_error(batch.failure) from batch.failure

    def _commit_locked(self) -> None:
        """Commit what waits while holding the lock. Raises FsError(ENOSPC, EIO)."""
        with self._flushing:
            self._settle()
            if self._pending or self.db.in_transaction:
                batch = self._take()
                self._write(batch)
                self._settle()
                self._raise_failure(batch)

    def _commit_batch(self, target: int) -> None:
        """Commit what waits, at least up to change `target`; the lock is held only to collect it and to let go."""
        while True:
            with self.lock:
                self._settle()
                if self._closed or self._committed >= target:
                    return
                if self._flushing.acquire(blocking=False):
                    try:
                        batch = self._take()
                    except BaseException:
                        self._flushing.release()
                        raise
                    break
            with self._flushing:  # another thread writes; what waits goes with the next batch
                pass
        try:
            self._write(batch)
        finally:
            self._flushing.release()
        with self.lock:
            self._settle()
        self._raise_failure(batch)

    def _commit_if_large(self) -> None:
        waiting = self._pending
        many = len(waiting.nodes) + len(waiting.gone) > MAX_PENDING or self._data_waiting > MAX_PENDING_DATA
        if many and self._saved is None:
            self._commit_locked()

    def _sync_wal(self, target: int) -> None:
        """Everything committed up to change `target` is on the disk. One fsync serves all who wait."""
        with self._wal_lock:
            if self._wal_synced >= target or self._closed:
                return
            upto = self._committed
            os.fdatasync(self._wal)
            self._note_wal_synced(upto)

    def _note_wal_synced(self, upto: int) -> None:
        """Others may have got further."""
        self._wal_synced = max(self._wal_synced, upto)
        self._durable = max(self._durable, upto)
        self._last_wal_sync = time.monotonic()

    def commit(self) -> None:
        """See `Namespace.commit`."""
        with self.lock:
            target = self._gen
        self._commit_up_to(target)

    def _commit_up_to(self, target: int) -> None:
        if self._wal_synced >= target:
            return
        try:
            if self._committed < target:
                self._sync_ordered()
                self._commit_batch(target)
            self._sync_wal(target)
            self._reap()
        except OSError as exc:
            raise self._os_error(exc) from exc
        except sqlite3.Error as exc:
            raise index_error(exc) from exc

    def _barrier(self) -> None:
        """Commit durably while holding the lock (rule 1)."""
        self._commit_locked()
        self._sync_wal(self._committed)

    # Removed inodes ---------------------------------------------------------------------------------------------

    def _doom(self, blob: Inode, *, at_once: bool = False) -> None:
        """A content file goes once the removal is on the disk (rule 3), or at once if the index never knew it."""
        self._pending.doomed.add(blob)
        self._unsynced.pop(blob, None)
        self._cut.discard(blob)
        if self._saved is not None:
            self._undo.append(lambda: self._pending.doomed.discard(blob))
        self._gen += 1
        self._dooming.append((0 if at_once else self._gen, blob))

    def _reap(self) -> None:
        with self.lock:
            ready = [blob for gen, blob in self._dooming if gen <= self._durable]
            trims = [node for node in self._trimming.values() if node.shrunk <= self._durable]
            if ready:
                self._dooming = [(gen, blob) for gen, blob in self._dooming if gen > self._durable]
        for blob in ready:
            with self.lock:
                self.content.forget(blob)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.content.path(blob))
        with self.lock:
            for blob in ready:
                self.content.note_removed(blob)
            for node in trims:
                if self._trimming.pop(node.inode, None) is not None:
                    self._trim(node)

    def _undoom(self) -> None:
        """The index forgets deleted content files when their directories say so on the disk: before, a loss of power
        would bring them back as files that belong to nobody."""
        while self.content.removed:
            with self.lock:
                shard, blobs = self.content.removed.popitem()
            with contextlib.suppress(FileNotFoundError):
                sync_directory(self.content.shard(shard))
            with self.lock:
                self._pending.undoomed.update(blobs - self._pending.doomed)
                self._pending.doomed.difference_update(blobs)
                self._gen += 1
        self._last_undoom = time.monotonic()

    def _trim(self, node: Node) -> None:
        """Cut what content files have behind the file's end; the index knows the shorter file durably."""
