"""What every part of the volume stands on: the lock, inodes in memory, one open transaction, and its commit.

How changes reach the disk. All changes since the last commit sit in one open SQLite transaction and in a set of
changed inodes; a background call commits them every 200 ms (they then survive the death of this process) and fsyncs
the WAL every second. `commit()` does both at once. Three rules keep index and content files in step after a crash:

1. Before bytes that an extent or an S3 record vouches for are changed in place, the index stops vouching for them,
   durably (`files.py`, the barrier).
2. Before a commit that makes the index rely on bytes in a content file (a rename over another file, bytes fetched
   from the network, a pack's local copy), these bytes are fsynced: `_order`.
3. A content file loses bytes (unlink, truncate, eviction) only after the commit that says so.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
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
from .kernel import KernelCache
from .node import COLUMNS, UPSERT, Node
from .space import SpaceGuard, no_space

log = get_logger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound="Core")

NODE_CACHE: Final = 100_000
INODE_BATCH: Final = 4096
MAX_NEW: Final = 600
"""Inodes that one atomic change may make: the directories of the longest S3 key."""
MAX_PENDING: Final = 20_000
"""Changes that may wait in one transaction before it is committed early; bounds memory."""
WAL_CHECKPOINT: Final = 8 << 20
WAL_LIMIT: Final = 64 << 20
WAL_SYNC_INTERVAL: Final = 1.0


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


class Core:
    """Lock, transaction, inode cache, commits. Opening it claims the volume for this process."""

    def __init__(self, directory: Path, clock: Clock | None = None) -> None:
        self.directory = directory
        self.clock: Clock = clock or SystemClock()
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
            self._checkpointer = schema.connect(path)
            self.reader = schema.connect(path, read_only=True)
        except sqlite3.Error as exc:
            raise Damaged(f"The index {path} cannot be opened: {exc}.") from exc
        self.reader_lock = threading.Lock()
        self.content = ContentStore(self.directory / "content")
        self.space = SpaceGuard(self.directory)
        self._nodes: dict[Inode, Node] = {}
        self._changed: dict[Inode, Node] = {}
        self._holds: dict[Inode, int] = {}
        self._ordered: dict[Inode, int] = {}
        self._order_serial = 0
        self._dooming: list[tuple[int, Inode]] = []
        self._listeners: list[Callable[[Change], None]] = []
        self._gen = self._committed = self._durable = 0
        self._wal_lock = threading.Lock()
        self._last_wal_sync = time.monotonic()
        self._closed = self._inside = False
        self._wal_path = path.with_name(path.name + "-wal")
        meta = dict(self.db.execute("SELECT key, value FROM meta").fetchall())
        self.volume_id = str(meta["volume_id"])
        self.clean_start = meta["clean"] == "1"
        self._next_inode = self._noted_next = int(meta["inode_next"])
        self._inode_ceiling = int(meta["inode_ceiling"])
        (top,) = self.db.execute("SELECT max(cookie) FROM name").fetchone()
        self._next_cookie = max(3, (top or 0) + 1)
        self._begin()
        self.db.execute("UPDATE meta SET value = '0' WHERE key = 'clean'")
        self.db.execute("COMMIT")
        self._wal = os.open(self._wal_path, os.O_RDWR | os.O_CLOEXEC)
        os.fsync(self._wal)
        sync_directory(self.directory)

    # Time and errors --------------------------------------------------------------------------------------------

    def now_ns(self) -> int:
        return time.time_ns() if isinstance(self.clock, SystemClock) else int(self.clock.now() * 1_000_000_000)

    def _os_error(self, exc: OSError) -> TonfsError:
        number = exc.errno or 5
        if number in (28, 122):  # ENOSPC, EDQUOT: make room for the index at once
            self.space.exhausted()
        return FsError(f"{os.strerror(number)}: {exc.filename or 'content'}", number)

    # Inodes -----------------------------------------------------------------------------------------------------

    def _node(self, inode: Inode) -> Node:
        """Raises FsError(ENOENT)."""
        node = self._nodes.get(inode)
        if node is None:
            row = self.db.execute(f"SELECT {COLUMNS} FROM inode WHERE inode = ?", (inode,)).fetchone()
            if row is None:
                raise FsError(f"There is no inode {inode}.", 2)
            node = self._remember(row)
        return node

    def _remember(self, row: tuple[Any, ...]) -> Node:
        node = Node(row)
        # What changed before it left memory is not known any more: be careful when it is fsynced.
        node.gen = node.size_gen = self._gen
        self._nodes[node.inode] = node
        return node

    def _shrink_cache(self) -> None:
        """Only between operations: two objects for one inode must never exist."""
        if len(self._nodes) > NODE_CACHE:
            for inode in list(self._nodes)[: NODE_CACHE // 2]:
                if inode not in self._changed:
                    del self._nodes[inode]

    def _reserve_inodes(self, count: int) -> None:
        if self._next_inode + count > self._inode_ceiling:
            self._inode_ceiling = self._next_inode + INODE_BATCH
            self._sql("UPDATE meta SET value = ? WHERE key = 'inode_ceiling'", (str(self._inode_ceiling),))
            self._commit_locked()

    def _new_inode(self) -> Inode:
        """A number that no file ever had, also not one that a crash undid."""
        self._reserve_inodes(1)
        self._next_inode += 1
        return Inode(self._next_inode - 1)

    def _touch(self, node: Node, *, times: bool = True, now: int | None = None) -> None:
        """The inode changed: it is written with the next commit. `times` also moves its ctime."""
        self._gen += 1
        node.gen = self._gen
        if times:
            node.ctime = self.now_ns() if now is None else now
        self._changed[node.inode] = node

    def _touch_size(self, node: Node, *, times: bool = True, now: int | None = None) -> None:
        """As `_touch`, for a change without which the bytes cannot be found after a crash."""
        self._touch(node, times=times, now=now)
        node.size_gen = node.gen

    def _flush_nodes(self) -> None:
        if self._changed:
            self._begin()
            self.db.executemany(UPSERT, [node.row() for node in self._changed.values()])
            self._changed.clear()

    # The transaction --------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if not self.db.in_transaction:
            self.db.execute("BEGIN IMMEDIATE")

    def _sql(self, statement: str, values: Iterable[Any] = ()) -> sqlite3.Cursor:
        """A statement that changes the index."""
        if not self.db.in_transaction:
            self.db.execute("BEGIN IMMEDIATE")
        self._gen += 1
        return self.db.execute(statement, tuple(values))

    @contextlib.contextmanager
    def _atomic(self) -> Iterator[None]:
        """All changes inside happen, or (on an error) none. Nothing inside may commit."""
        self._reserve_inodes(MAX_NEW)
        self._flush_nodes()
        self._begin()
        self._inside = True
        self.db.execute("SAVEPOINT atomic")
        dooming = len(self._dooming)
        try:
            yield
        except BaseException:
            for inode in self._changed:
                self._nodes.pop(inode, None)
            self._changed.clear()
            del self._dooming[dooming:]
            self.db.execute("ROLLBACK TO atomic")
            self.db.execute("RELEASE atomic")
            raise
        else:
            self._flush_nodes()
            self.db.execute("RELEASE atomic")
        finally:
            self._inside = False

    def _order(self, inode: Inode) -> None:
        """The next commit waits until the content file's bytes are on the disk."""
        self._order_serial += 1
        self._ordered[inode] = self._order_serial

    def _sync_content(self, inode: Inode) -> None:
        """fdatasync a content file; the lock is held only to find it."""
        with self.lock:
            shards = self.content.take_new_shards()
            fd = self.content.duplicate(inode)
        for shard in shards:
            sync_directory(shard)
        if fd is not None:
            try:
                os.fdatasync(fd)
            finally:
                os.close(fd)

    def _sync_ordered(self) -> None:
        """Do most of rule 2's fsyncs without holding the lock; `_commit_locked` does what is left."""
        with self.lock:
            todo = list(self._ordered.items())
        for inode, serial in todo:
            self._sync_content(inode)
            with self.lock:
                if self._ordered.get(inode) == serial:
                    del self._ordered[inode]

    def _commit_locked(self) -> None:
        """Commit what is pending, so that it survives this process. Raises FsError(ENOSPC, EIO)."""
        while self._ordered:
            inode, _ = next(iter(self._ordered.items()))
            self._sync_content(inode)
            del self._ordered[inode]
        self._flush_nodes()
        if self._noted_next != self._next_inode and self.db.in_transaction:
            self.db.execute("UPDATE meta SET value = ? WHERE key = 'inode_next'", (str(self._next_inode),))
            self._noted_next = self._next_inode
        if self.db.in_transaction:
            self.space.before_commit()
            try:
                self.db.execute("COMMIT")
            except sqlite3.Error as exc:
                if not self.db.in_transaction:
                    self._transaction_lost(exc)
                raise index_error(exc) from exc
        self._committed = self._gen

    def _transaction_lost(self, exc: sqlite3.Error) -> None:
        """SQLite rolled back. Memory follows: the volume is as it was at the last commit."""
        log.error("commit failed, changes of the last moments are lost", reason=str(exc))
        self._nodes.clear()
        self._changed.clear()
        self._dooming = [(gen, inode) for gen, inode in self._dooming if gen <= self._committed]
        self._noted_next = -1
        self._committed = self._gen

    def _commit_if_large(self) -> None:
        if self._gen - self._committed > MAX_PENDING and not self._inside:
            self._commit_locked()

    def _sync_wal(self, target: int) -> None:
        """Everything committed up to change `target` is on the disk. One fsync serves all who wait."""
        with self._wal_lock:
            if self._durable >= target or self._closed:
                return
            upto = self._committed
            os.fdatasync(self._wal)
            self._durable = upto
            self._last_wal_sync = time.monotonic()

    def commit(self) -> None:
        """See `Namespace.commit`."""
        with self.lock:
            if self._durable >= self._gen:
                return
        try:
            self._sync_ordered()
        except OSError as exc:
            raise self._os_error(exc) from exc
        with self.lock:
            try:
                self._commit_locked()
            except OSError as exc:
                raise self._os_error(exc) from exc
            target = self._committed
        self._sync_wal(target)
        self._reap()

    def _barrier(self) -> None:
        """Commit durably while holding the lock (rule 1)."""
        self._commit_locked()
        self._sync_wal(self._committed)

    @property
    def pending(self) -> bool:
        """Something waits for `background`."""
        return self._gen != self._durable or bool(self._dooming)

    def background(self) -> None:
        """Commit what is pending; now and then make it durable, delete doomed files, keep the WAL small. Slow.

        To be called every 200 ms from one thread. Raises FsError when the disk does not take it.
        """
        with self._maintenance:
            if not self._closed:
                self._maintain()

    def _maintain(self) -> None:
        self.space.look()
        try:
            if self._gen != self._committed:
                self._sync_ordered()
                with self.lock:
                    self._commit_locked()
            if self._committed > self._durable and time.monotonic() - self._last_wal_sync > WAL_SYNC_INTERVAL:
                self._sync_wal(self._committed)
            self._reap()
            with self.lock:
                self._shrink_cache()
            size = os.fstat(self._wal).st_size
            if size > WAL_LIMIT:
                with self.lock:
                    self._commit_locked()
                    self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            elif size > WAL_CHECKPOINT:
                self._checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except OSError as exc:
            raise self._os_error(exc) from exc
        except sqlite3.Error as exc:
            raise index_error(exc) from exc

    # Removed inodes ---------------------------------------------------------------------------------------------

    def _doom(self, inode: Inode) -> None:
        """Its content file goes once the removal is on the disk (rule 3)."""
        self._sql("INSERT OR IGNORE INTO doomed VALUES (?)", (inode,))
        self._dooming.append((self._gen, inode))

    def _reap(self) -> None:
        with self.lock:
            if not self._dooming or self._dooming[0][0] > self._durable:
                return
            ready = [inode for gen, inode in self._dooming if gen <= self._durable]
            self._dooming = [(gen, inode) for gen, inode in self._dooming if gen > self._durable]
        for start in range(0, len(ready), 256):
            part = ready[start : start + 256]
            for inode in part:
                with self.lock:
                    self.content.forget(inode)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.content.path(inode))
            with self.lock:
                self._begin()
                self._gen += 1
                self.db.executemany("DELETE FROM doomed WHERE inode = ?", [(inode,) for inode in part])

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
                self._begin()
                self.db.execute("UPDATE meta SET value = '1' WHERE key = 'clean'")
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
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            self.content.close()
            for connection in (self.reader, self._checkpointer, self.db):
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
