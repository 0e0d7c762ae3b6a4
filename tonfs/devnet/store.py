"""The chain on disk: one SQLite file that is complete after every block, whatever kills the process.

Each tick is one transaction (WAL, synchronous NORMAL: survives the death of the process; a power cut may cost the
last blocks but never breaks the file). The file is locked while open: one devnet, one ledger.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ..errors import Busy, Damaged, NotFound, UsageError
from ..system import from_sqlite
from .chain_api import BASECHAIN, MASTERCHAIN, AccountId, BlockId

SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE blocks (
    seqno INTEGER PRIMARY KEY, utime INTEGER NOT NULL, start_lt INTEGER NOT NULL, end_lt INTEGER NOT NULL,
    transactions INTEGER NOT NULL, master_id BLOB NOT NULL, shard_id BLOB NOT NULL,
    master_state BLOB NOT NULL, shard_state BLOB NOT NULL, master BLOB NOT NULL, shard BLOB NOT NULL);
CREATE INDEX blocks_by_utime ON blocks (utime);
CREATE INDEX blocks_by_lt ON blocks (end_lt);
CREATE TABLE transactions (
    workchain INTEGER NOT NULL, account BLOB NOT NULL, lt INTEGER NOT NULL, hash BLOB NOT NULL,
    seqno INTEGER NOT NULL, in_hash BLOB, boc BLOB NOT NULL);
CREATE UNIQUE INDEX transactions_by_account ON transactions (account, workchain, lt);
CREATE INDEX transactions_by_message ON transactions (in_hash);
CREATE INDEX transactions_by_block ON transactions (seqno);
CREATE TABLE versions (
    seqno INTEGER NOT NULL, workchain INTEGER NOT NULL, account BLOB NOT NULL, value BLOB,
    PRIMARY KEY (account, workchain, seqno)) WITHOUT ROWID;
CREATE INDEX versions_by_block ON versions (seqno);
CREATE TABLE queue (position INTEGER PRIMARY KEY, external INTEGER NOT NULL, boc BLOB NOT NULL);
"""
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class BlockRow:
    """A pair of blocks. `master_state` and `shard_state` are the hashes of the states after it."""

    seqno: int
    utime: int
    start_lt: int
    end_lt: int
    transactions: int
    master_id: BlockId
    shard_id: BlockId
    master_state: bytes
    shard_state: bytes

    def id_of(self, workchain: int) -> BlockId:
        return self.master_id if workchain == MASTERCHAIN else self.shard_id


@dataclass(frozen=True, slots=True)
class TransactionRow:
    account: AccountId
    lt: int
    hash: bytes
    seqno: int
    in_hash: bytes | None
    boc: bytes

    @property
    def lt_key(self) -> tuple[bytes, int]:
        """How a block's transactions are sorted."""
        return self.account.hash, self.lt


@dataclass(frozen=True, slots=True)
class QueueRow:
    external: bool
    boc: bytes


@dataclass(frozen=True, slots=True)
class Tick:
    """Everything one block changes. `versions`: new ShardAccount BoC of each touched account, None when it is gone."""

    block: BlockRow
    master: bytes
    shard: bytes
    transactions: list[TransactionRow] = field(default_factory=list)
    versions: dict[AccountId, bytes | None] = field(default_factory=dict)
    queue: list[QueueRow] | None = None
    """The whole queue after the block; None when it did not change."""
    meta: dict[str, int | bytes] = field(default_factory=dict)


_BLOCK_COLUMNS: Final = "seqno, utime, start_lt, end_lt, transactions, master_id, shard_id, master_state, shard_state"
_TRANSACTION_COLUMNS: Final = "workchain, account, lt, hash, seqno, in_hash, boc"
_BlockTuple = tuple[int, int, int, int, int, bytes, bytes, bytes, bytes]
_TransactionTuple = tuple[int, bytes, int, bytes, int, bytes | None, bytes]


def _block(row: _BlockTuple) -> BlockRow:
    return BlockRow(*row[:5], BlockId.from_bytes(row[5]), BlockId.from_bytes(row[6]), row[7], row[8])


def _transaction(row: _TransactionTuple) -> TransactionRow:
    return TransactionRow(AccountId(row[0], row[1]), *row[2:])


class LedgerStore:
    """Opens or creates `chain.db`. Raises Busy when another process has it, Damaged when it is something else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._snapshots = path.parent / "snapshots"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=1.0, check_same_thread=False)
        try:
            self._prepare()
        except sqlite3.OperationalError as exc:
            self._db.close()
            if "locked" in str(exc):
                raise Busy(f"{path} belongs to a devnet that is running.", hint="Stop it first.") from None
            raise from_sqlite(exc, path) from None
        except sqlite3.DatabaseError as exc:
            self._db.close()
            raise Damaged(f"{path} is not a devnet's chain: {exc}.") from None

    def _prepare(self) -> None:
        db = self._db
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version == 0 and not db.execute("SELECT 1 FROM sqlite_master").fetchone():
            db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
        elif version != SCHEMA_VERSION:
            self._db.close()
            raise Damaged(f"{self.path} has format {version}, not {SCHEMA_VERSION}.", hint="Start a new devnet.")
        else:
            db.execute("BEGIN IMMEDIATE")
            db.execute("COMMIT")

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # Writing.

    def write_tick(self, tick: Tick) -> None:
        """Make a block durable, with all that it changed."""
        block = tick.block
        with self._transaction() as db:
            db.execute(
                f"INSERT INTO blocks ({_BLOCK_COLUMNS}, master, shard) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
                (
                    *(block.seqno, block.utime, block.start_lt, block.end_lt, block.transactions),
                    *(block.master_id.to_bytes(), block.shard_id.to_bytes(), block.master_state, block.shard_state),
                    *(tick.master, tick.shard),
                ),
            )
            db.executemany(
                f"INSERT INTO transactions ({_TRANSACTION_COLUMNS}) VALUES (?,?,?,?,?,?,?)",
                ((*t.account, t.lt, t.hash, t.seqno, t.in_hash, t.boc) for t in tick.transactions),
            )
            db.executemany(
                "INSERT INTO versions (seqno, workchain, account, value) VALUES (?,?,?,?)",
                ((block.seqno, *account, value) for account, value in tick.versions.items()),
            )
            if tick.queue is not None:
                db.execute("DELETE FROM queue")
                db.executemany(
                    "INSERT INTO queue (external, boc) VALUES (?,?)", ((q.external, q.boc) for q in tick.queue)
                )
            self._put_meta(db, tick.meta)

    def _put_meta(self, db: sqlite3.Connection, meta: dict[str, int | bytes]) -> None:
        db.executemany("INSERT OR REPLACE INTO meta (key, value) VALUES (?,?)", meta.items())

    def put_meta(self, meta: dict[str, int | bytes]) -> None:
        with self._transaction() as db:
            self._put_meta(db, meta)

    def enqueue(self, item: QueueRow, meta: dict[str, int | bytes]) -> None:
        """Make a message that waits durable, with the counters it changed."""
        with self._transaction() as db:
            db.execute("INSERT INTO queue (external, boc) VALUES (?,?)", (item.external, item.boc))
            self._put_meta(db, meta)

    def forget_versions(self, before: int) -> None:
        """Drop account states that no state from block `before` on needs."""
        with self._transaction() as db:
            db.execute(
                "DELETE FROM versions AS old WHERE old.seqno < ?1 AND EXISTS (SELECT 1 FROM versions AS new WHERE "
                "new.account = old.account AND new.workchain = old.workchain AND new.seqno > old.seqno "
                "AND new.seqno <= ?1)",
                (before,),
            )

    # Reading.

    def meta(self) -> dict[str, int | bytes]:
        return dict(self._db.execute("SELECT key, value FROM meta"))

    def queue(self) -> list[QueueRow]:
        rows = self._db.execute("SELECT external, boc FROM queue ORDER BY position")
        return [QueueRow(bool(external), boc) for external, boc in rows]

    def _block_where(self, where: str, *values: int) -> BlockRow | None:
        row = self._db.execute(f"SELECT {_BLOCK_COLUMNS} FROM blocks WHERE {where} LIMIT 1", values).fetchone()
        return _block(row) if row else None

    def block(self, seqno: int) -> BlockRow | None:
        return self._block_where("seqno = ?", seqno)

    def last_block(self) -> BlockRow | None:
        return self._block_where("1 ORDER BY seqno DESC")

    def block_at_lt(self, lt: int) -> BlockRow | None:
        """The first block whose end_lt is not below `lt`."""
        return self._block_where("end_lt >= ? ORDER BY end_lt", lt)

    def block_at_utime(self, utime: int) -> BlockRow | None:
        """The first block made at or after `utime`."""
        return self._block_where("utime >= ? ORDER BY utime, seqno", utime)

    def blocks_from(self, seqno: int) -> list[BlockRow]:
        rows = self._db.execute(f"SELECT {_BLOCK_COLUMNS} FROM blocks WHERE seqno >= ? ORDER BY seqno", (seqno,))
        return [_block(row) for row in rows]

    def block_boc(self, seqno: int, workchain: int) -> bytes | None:
        column = "master" if workchain == MASTERCHAIN else "shard"
        row = self._db.execute(f"SELECT {column} FROM blocks WHERE seqno = ?", (seqno,)).fetchone()
        return bytes(row[0]) if row else None

    def _transactions_where(self, where: str, *values: int | bytes) -> list[TransactionRow]:
        rows = self._db.execute(f"SELECT {_TRANSACTION_COLUMNS} FROM transactions WHERE {where}", values)
        return [_transaction(row) for row in rows]

    def transaction(self, account: AccountId, lt: int) -> TransactionRow | None:
        rows = self._transactions_where("account = ? AND workchain = ? AND lt = ?", account.hash, account.workchain, lt)
        return rows[0] if rows else None

    def transactions(self, account: AccountId, limit: int, max_lt: int) -> list[TransactionRow]:
        """Newest first, from `max_lt` (included) on."""
        where = "account = ? AND workchain = ? AND lt <= ? ORDER BY lt DESC LIMIT ?"
        return self._transactions_where(where, account.hash, account.workchain, max_lt, limit)

    def transaction_of_message(self, message_hash: bytes) -> TransactionRow | None:
        rows = self._transactions_where("in_hash = ? ORDER BY lt LIMIT 1", message_hash)
        return rows[0] if rows else None

    def block_transactions(self, seqno: int, workchain: int) -> list[TransactionRow]:
        """Sorted by (account, lt)."""
        return self._transactions_where("seqno = ? AND workchain = ? ORDER BY account, lt", seqno, workchain)

    def accounts_at(self, seqno: int) -> Iterable[tuple[AccountId, bytes]]:
        """All accounts that exist at a block: the newest version of each that is not younger."""
        rows = self._db.execute(
            "SELECT workchain, account, MAX(seqno), value FROM versions WHERE seqno <= ? GROUP BY account, workchain",
            (seqno,),
        )
        return ((AccountId(workchain, account), value) for workchain, account, _, value in rows if value is not None)

    def versions_from(self, seqno: int) -> Iterable[tuple[int, AccountId, bytes | None]]:
        """Changes of blocks from `seqno` on, in block order."""
        rows = self._db.execute(
            "SELECT seqno, workchain, account, value FROM versions WHERE seqno >= ? ORDER BY seqno", (seqno,)
        )
        return ((at, AccountId(workchain, account), value) for at, workchain, account, value in rows)

    # Snapshots.

    def _snapshot_path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name[:80]!r} is not a snapshot name.", hint="Use letters, digits, '-', '_' and '.'.")
        return self._snapshots / f"{name}.db"

    def snapshot(self, name: str) -> None:
        """Copy the chain; an older snapshot of that name is replaced when the copy is complete."""
        path = self._snapshot_path(name)
        self._snapshots.mkdir(exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        self._db.execute("VACUUM INTO ?", (str(partial),))
        os.replace(partial, path)

    def restore(self, name: str) -> None:
        """Put the chain back to a snapshot, all or nothing. Raises NotFound."""
        path = self._snapshot_path(name)
        if not path.exists():
            raise NotFound(f"There is no snapshot {name!r}.", hint=f"Known: {', '.join(self.snapshots()) or 'none'}.")
        source = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            source.backup(self._db)
        finally:
            source.close()
        self._prepare()

    def snapshots(self) -> list[str]:
        return sorted(path.stem for path in self._snapshots.glob("*.db"))


__all__ = ["BASECHAIN", "BlockRow", "LedgerStore", "QueueRow", "Tick", "TransactionRow"]
