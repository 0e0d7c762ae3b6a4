"""What a provider must not forget: accepted contracts, its registration, the fault that is switched on.

SQLite; every change is durable before the call returns. One connection, used from one thread.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from ..chain.storage2 import Terms
from ..errors import Damaged
from ..ids import Address, BagId
from ..system import from_sqlite
from .rules import Record, State

_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE contracts (
    address TEXT PRIMARY KEY,
    bag_id BLOB NOT NULL,
    owner TEXT NOT NULL,
    file_size TEXT NOT NULL,
    piece_size INTEGER NOT NULL,
    merkle_hash BLOB NOT NULL,
    max_span INTEGER NOT NULL,
    rate TEXT NOT NULL,
    accepted_at INTEGER NOT NULL,
    state TEXT NOT NULL
) STRICT;
CREATE TABLE notes (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
"""


class ProviderStore:
    """Raises Damaged when the file is not ours."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # SQLite does not say what is not allowed
        self._db = sqlite3.connect(path, isolation_level=None)
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={_VERSION}; COMMIT;")
            elif version != _VERSION:
                raise Damaged(f"{path} has version {version}; this program knows {_VERSION}.")
        except sqlite3.DatabaseError as exc:
            self._db.close()
            raise from_sqlite(exc, path) from None

    def close(self) -> None:
        self._db.close()

    def records(self) -> list[Record]:
        """All contracts, in the order of acceptance."""
        rows = self._db.execute("SELECT * FROM contracts ORDER BY accepted_at, address")
        try:
            return [_record(row) for row in rows]
        except (ValueError, TypeError) as exc:
            raise Damaged(f"{self._path} holds a contract that cannot be read: {exc}.") from None

    def put(self, record: Record) -> None:
        """Insert or replace. Numbers that may exceed 63 bits are kept as text."""
        self._db.execute(
            "INSERT OR REPLACE INTO contracts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                record.address,
                record.bag_id,
                record.owner,
                str(record.file_size),
                record.piece_size,
                record.merkle_hash,
                record.terms.max_span,
                str(record.terms.rate),
                record.accepted_at,
                str(record.state),
            ),
        )

    def remove(self, address: Address) -> None:
        self._db.execute("DELETE FROM contracts WHERE address = ?", (address,))

    def note(self, name: str) -> str:
        """A remembered word; empty when there is none."""
        row = self._db.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
        return row[0] if row is not None else ""

    def set_note(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, value))


def _record(row: tuple[str, bytes, str, str, int, bytes, int, str, int, str]) -> Record:
    address, bag_id, owner, file_size, piece_size, merkle_hash, max_span, rate, accepted_at, state = row
    return Record(
        address=Address(address),
        bag_id=BagId(bag_id),
        owner=Address(owner),
        file_size=int(file_size),
        piece_size=piece_size,
        merkle_hash=merkle_hash,
        terms=Terms(max_span, int(rate)),
        accepted_at=accepted_at,
        state=State(state),
    )
