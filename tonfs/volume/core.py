"""What every part of the volume stands on: the lock, inodes in memory, changes that wait, and their commit.

Inodes and names that are in use live in memory; the index is asked for others and learns of changes later. Everything
changed since the last batch waits in `Pending`; every 200 to 600 ms a background call writes it as one transaction
(it then survives the death of this process) and fsyncs the WAL about twice a second. `commit()` does both at once; all
who call it meanwhile share one batch and one fsync. Rarely changed tables (extents, segments, xattrs, packs) are
changed at once by `_sql`, in the transaction that the next batch ends.

Locks: `lock` guards memory and is held for the length of a call. `_flushing` is held while a batch is written; a
batch is taken only by who holds both, and is written without `lock`. Who holds `lock` may wait for `_flushing` (the
writer of a batch never waits for `lock` while it has it), never the other way round.

Three rules keep index and content files in step after a crash:

1. Before bytes that an extent or an S3 record vouches for are changed in place, the index stops vouching for them,
   durably (`files.py`, the barrier).
2. Before a commit that makes the index rely on bytes in a content file (a rename over another file, bytes fetched
   from the network, a pack's local copy, bytes that were inline and durable), these bytes are fsynced: `_order`.
3. A content file loses bytes (unlink, truncate, eviction) only after the commit that says so.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from ..clock import Clock, SystemClock
from ..errors import Busy, Damaged, FsError, NotFound, TonfsError
from ..ids import Inode
from ..log import get_logger
from . import schema
from .api import Change
from .content import ContentStore, sync_directory
from .folder import MAX_WHOLE, Folder
from .kernel import KernelCache
from .node import COLUMNS, Node
from .schema import DIRTY
from .space import FULL, SpaceGuard, no_space
from .writeback import Batch, Pending

log = get_logger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound="Core")

CLOCK_REALTIME_COARSE: Final = 5
"""Of Linux; the module `time` has no name for it."""
NODE_CACHE: Final = 60_000
"""Inodes kept in memory; with their names about 1 KiB each."""
NAME_CACHE: Final = 200_000
DATA_CACHE: Final = 24 << 20
"""Inline bytes kept in memory."""
INODE_BATCH: Final = 4096
MAX_NEW: Final = 600
"""Numbers that one atomic change may need: the directories of the longest S3 key."""
MAX_PENDING: Final = 50_000
"""Changes that may wait before the one who makes more has to write them; bounds memory."""
MAX_PENDING_DATA: Final = 16 << 20
WAL_CHECKPOINT: Final = 8 << 20
WAL_LIMIT: Final = 64 << 20
WAL_SYNC_INTERVAL: Final = 0.5


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
    """Lock, inode cache, changes that wait, commits. Opening it claims the volume for this process."""

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
            schema.migrate(self.db)
            self._checkpointer = schema.connect(path, cache_kib=1000)
            self._read = schema.connect(path, read_only=True)
            self.reader = schema.connect(path, read_only=True, cache_kib=4000)
        except sqlite3.Error as exc:
            raise Damaged(f"The index {path} cannot be opened: {exc}.") from exc
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
        self._ordered: dict[Inode, int] = {}
        self._order_serial = 0
        self._dooming: list[tuple[int, Inode]] = []
        self._trimming: dict[Inode, Node] = {}
        self._unsynced: dict[Inode, int] = {}
        """Content files written since they were last fsynced -> at which change."""
        self._synced: set[Inode] = set()
        self._listeners: list[Callable[[Change], None]] = []
        self._gen = self._committed = self._durable = 0
        self._wal_lock = threading.Lock()
        self._last_wal_sync = time.monotonic()
        self._closed = self._savepoint = False
        self._names_kept = self._data_kept = self._data_waiting = 0
        self._wal_path = path.with_name(path.name + "-wal")
        self._load_meta()
        self.db.execute("BEGIN IMMEDIATE")
        self.db.execute("UPDATE meta SET value = '0' WHERE key = 'clean'")
        self.db.execute("COMMIT")
        self._wal = os.open(self._wal_path, os.O_RDWR | os.O_CLOEXEC)
        os.fsync(self._wal)
        sync_directory(self.directory)

    def _load_meta(self) -> None:
        meta = dict(self.db.execute("SELECT key, value FROM meta").fetchall())
        self.volume_id = str(meta["volume_id"])
        self.clean_start = meta["clean"] == "1"
        self._suspect = not self.clean_start
        """What the process before wrote may not be on the disk: each content file is fsynced at least once."""
        self._next_inode = self._noted_next = int(meta["inode_next"])
        self._inode_ceiling = self._asked_ceiling = int(meta["inode_ceiling"])
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

    # Inodes -----------------------------------------------------------------------------------------------------

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

    def _order(self, inode: Inode) -> None:
        """The next commit waits until the content file's bytes are on the disk."""
        self._order_serial += 1
        self._ordered[inode] = self._order_serial

    def _sync_content(self, inode: Inode) -> None:
        """fdatasync the content files of an inode; the lock is held only to find them."""
        with self.lock:
            todo = self._take_unsynced(inode)
            shards = dict(self.content.new_shards) if todo else {}
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

    def _take_unsynced(self, inode: Inode) -> list[tuple[Inode, int, int]]:
        """(content file, descriptor of the caller's own, last change) of what an fsync must write. `lock` is held."""
        todo = []
        for blob in self._blobs(inode):
            fd = self.content.duplicate(blob)
            if fd is not None:
                todo.append((blob, fd, self._unsynced.get(blob, 0)))
        return todo

    def _note_synced(self, done: list[tuple[Inode, int, int]]) -> None:
        for blob, _, written in done:
            self._synced.add(blob)
            if self._unsynced.get(blob) == written:
                del self._unsynced[blob]

    def _blobs(self, inode: Inode) -> list[Inode]:
        """Content files with bytes of this inode that may not be on the disk yet."""
        return [inode]

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
        if self._noted_next != self._next_inode:
            self._noted_next = self._next_inode
            self._pending.meta["inode_next"] = str(self._next_inode)
        self._batch = batch = Batch(self._pending, self._cookies_taken, self._gen)
        self._pending, self._cookies_taken, self._data_waiting = Pending(), self._next_cookie, 0
        return batch

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
            for statement, values in self._pending.ops:
                if not self.db.in_transaction:
                    self.db.execute("BEGIN IMMEDIATE")
                self.db.execute(statement, values)
            return
        self._committed = batch.gen
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
            if self._durable >= target or self._closed:
                return
            upto = self._committed
            os.fdatasync(self._wal)
            self._durable = max(self._durable, upto)  # an fsync of the mount may have got further
            self._last_wal_sync = time.monotonic()

    def commit(self) -> None:
        """See `Namespace.commit`."""
        with self.lock:
            target = self._gen
        self._commit_up_to(target)

    def _commit_up_to(self, target: int) -> None:
        if self._durable >= target:
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

    @property
    def pending(self) -> bool:
        """Something waits for `background`."""
        return self._gen != self._durable or bool(self._dooming or self._trimming) or self._kept_too_much()

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
            if self._gen != self._committed:
                self._sync_ordered()
                self._commit_batch(self._gen)
            if self._committed > self._durable and time.monotonic() - self._last_wal_sync > WAL_SYNC_INTERVAL:
                self._sync_wal(self._committed)
            self._reap()
            with self.lock:
                self._shrink_cache()
            size = os.fstat(self._wal).st_size
            if size > WAL_LIMIT:
                with self.lock, self._flushing:
                    self._commit_locked()
                    self.db.execute("PRAGMA busy_timeout = 0")  # a survey may be reading: then another time
                    self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                    self.db.execute("PRAGMA busy_timeout = 10000")
            elif size > WAL_CHECKPOINT:
                self._checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except OSError as exc:
            raise self._os_error(exc) from exc
        except sqlite3.Error as exc:
            raise index_error(exc) from exc

    # Removed inodes ---------------------------------------------------------------------------------------------

    def _doom(self, blob: Inode, *, at_once: bool = False) -> None:
        """A content file goes once the removal is on the disk (rule 3), or at once if the index never knew it."""
        self._pending.doomed.add(blob)
        self._unsynced.pop(blob, None)
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
                if blob in self._pending.doomed:
                    self._pending.doomed.discard(blob)
                else:
                    self._pending.undoomed.add(blob)
                    self._gen += 1
            for node in trims:
                if self._trimming.pop(node.inode, None) is not None:
                    self._trim(node)

    def _trim(self, node: Node) -> None:
        """Cut what content files have behind the file's end; the index knows the shorter file durably."""

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
            with self.lock:
                self._pending.meta["clean"] = "1"
                self._gen += 1
                self._commit_locked()
                self._sync_wal(self._committed)
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
            os.close(self._wal)
            os.close(self._claim)


def claim(directory: Path) -> int:
    """Lock the volume for this process; the descriptor keeps it. Raises Busy, NotFound."""
    run = directory / "run"
    if not directory.is_dir():
        raise NotFound(f"There is no volume at {directory}.", hint="Make one with 'tonfs init'.")
    run.mkdir(mode=0o700, exist_ok=True)
    fd = os.open(run / "front.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise Busy(
            f"The volume {directory} is in use by another process.", hint="Unmount it first ('tonfs umount DIR')."
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd
