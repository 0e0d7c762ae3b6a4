"""The journal of intents: what coins go where and why, committed before anything is signed.

Every method is one SQLite transaction, durable (synchronous=FULL) when it returns. Two tables:

    intent     planned -> signed -> sent -> confirmed | failed | expired       (what somebody wants done)
    external   signed -> sent -> landed | dead                                  (one signed message of the wallet)

An external carries one or more intents. While one is signed or sent and not yet landed or dead, no other is signed for
that wallet: the index `one_in_flight` makes a second one impossible. When an external is dead its intents are planned
again; they never carry the old signature.
"""

from __future__ import annotations

import base64
import json
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ..errors import Damaged
from ..ids import Address, BagId, NanoTon
from .cells import one_cell, to_boc
from .messages import Message
from .wallet import SignedExternal

SCHEMA_VERSION: Final = 1

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS journal_version (version INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS external (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    wallet      TEXT NOT NULL,           -- raw address
    seqno       INTEGER NOT NULL,
    valid_until INTEGER NOT NULL,        -- chain time; from then on it can never run
    hash        BLOB NOT NULL UNIQUE,    -- of the message cell
    boc         BLOB NOT NULL,
    from_lt     INTEGER NOT NULL,        -- the wallet's last transaction when it was signed
    state       TEXT NOT NULL CHECK (state IN ('signed', 'sent', 'landed', 'dead')),
    lt          INTEGER,                 -- of the transaction that ran it
    tx_hash     BLOB,
    created     REAL NOT NULL            -- UTC seconds, host clock
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS one_in_flight ON external (wallet) WHERE state IN ('signed', 'sent');
CREATE TABLE IF NOT EXISTS intent (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    key         TEXT UNIQUE,             -- the caller's name for it: the same key is never executed twice
    wallet      TEXT NOT NULL,
    kind        TEXT NOT NULL,
    bag_id      BLOB,
    contract    TEXT NOT NULL,           -- where the coins go, raw address
    amount      INTEGER NOT NULL,        -- nanoTON attached to all its messages
    reason      TEXT NOT NULL,
    query_id    TEXT NOT NULL,           -- of its first message, decimal; empty when that has none
    messages    TEXT NOT NULL,           -- JSON, see _dump
    planned_at  INTEGER NOT NULL,        -- chain time
    created     REAL NOT NULL,           -- UTC seconds, host clock
    state       TEXT NOT NULL CHECK (state IN ('planned', 'signed', 'sent', 'confirmed', 'failed', 'expired')),
    external    INTEGER REFERENCES external (id),
    attempts    INTEGER NOT NULL DEFAULT 0,
    exit_code   INTEGER,
    action_code INTEGER,
    returned    INTEGER NOT NULL DEFAULT 0,
    detail      TEXT NOT NULL DEFAULT '',
    closed      REAL
) STRICT;
CREATE INDEX IF NOT EXISTS intent_open ON intent (wallet, state) WHERE state IN ('planned', 'signed', 'sent');
"""


class IntentState(StrEnum):
    PLANNED = "planned"
    SIGNED = "signed"
    SENT = "sent"
    CONFIRMED = "confirmed"
    """The contract's code ran to its end, and what it sent back to us has arrived."""
    FAILED = "failed"
    """It ran and did not do what was wanted, or was given up before anything was signed. See `detail`."""
    EXPIRED = "expired"
    """Its time passed before it ran; nothing was paid."""


CLOSED: Final = frozenset({IntentState.CONFIRMED, IntentState.FAILED, IntentState.EXPIRED})


@dataclass(frozen=True)
class Intent:
    id: int
    key: str | None
    kind: str
    bag_id: BagId | None
    contract: Address
    amount: NanoTon
    reason: str
    messages: tuple[Message, ...]
    planned_at: int
    state: IntentState
    external: int | None
    attempts: int
    exit_code: int | None
    action_code: int | None
    returned: NanoTon
    detail: str


@dataclass(frozen=True)
class External:
    id: int
    seqno: int
    valid_until: int
    hash: bytes
    boc: bytes
    from_lt: int
    state: str
    lt: int
    tx_hash: bytes


def new_query_id() -> int:
    """A fresh query id; random, so that no two messages of ours are alike."""
    return secrets.randbits(63)


def _dump(messages: Sequence[Message]) -> str:
    def boc(cell: object) -> str | None:
        return None if cell is None else base64.b64encode(to_boc(cell)).decode("ascii")  # type: ignore[arg-type]

    return json.dumps(
        [
            {"to": m.to, "amount": m.amount, "body": boc(m.body), "init": boc(m.state_init), "bounce": m.bounce,
             "mode": m.mode}
            for m in messages
        ]
    )  # fmt: skip


def _load(text: str) -> tuple[Message, ...]:
    return tuple(
        Message(
            Address(m["to"]),
            NanoTon(m["amount"]),
            None if m["body"] is None else one_cell(base64.b64decode(m["body"])),
            None if m["init"] is None else one_cell(base64.b64decode(m["init"])),
            m["bounce"],
            m["mode"],
        )
        for m in json.loads(text)
    )


_INTENT: Final = (
    "id, key, kind, bag_id, contract, amount, reason, messages, planned_at, state, external, attempts, exit_code,"
    " action_code, returned, detail"
)
_EXTERNAL: Final = "id, seqno, valid_until, hash, boc, from_lt, state, coalesce(lt, 0), coalesce(tx_hash, x'')"


def _intent(row: tuple[object, ...]) -> Intent:
    values = list(row)
    values[7] = _load(str(row[7]))
    values[9] = IntentState(str(row[9]))
    return Intent(*values)  # type: ignore[arg-type]


def create_tables(conn: sqlite3.Connection) -> None:
    """Make the journal's tables in `agent.db` if they are absent. Raises Damaged for another version."""
    conn.executescript(_SCHEMA)
    row = conn.execute("SELECT version FROM journal_version").fetchone()
    if row is None:
        conn.execute("INSERT INTO journal_version (version) VALUES (?)", (SCHEMA_VERSION,))
        if conn.in_transaction:
            conn.commit()
    elif row[0] != SCHEMA_VERSION:
        raise Damaged(f"The journal of intents has format {row[0]}, not {SCHEMA_VERSION}.")


class Journal:
    """One wallet's part of the journal. The connection may be shared, but not inside an open transaction."""

    def __init__(self, conn: sqlite3.Connection, wallet: Address) -> None:
        self._conn = conn
        self._wallet = wallet
        if conn.execute("PRAGMA synchronous").fetchone()[0] < 2:
            conn.execute("PRAGMA synchronous=FULL")
        create_tables(conn)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        if self._conn.in_transaction:
            raise RuntimeError("the journal is used inside somebody's transaction")
        self._conn.execute("BEGIN IMMEDIATE")
        try:
            yield self._conn
        except BaseException:
            if self._conn.in_transaction:
                self._conn.execute("ROLLBACK")
            raise
        self._conn.execute("COMMIT")

    # Reading.

    def intent(self, intent_id: int) -> Intent:
        return _intent(self._conn.execute(f"SELECT {_INTENT} FROM intent WHERE id = ?", (intent_id,)).fetchone())

    def by_key(self, key: str) -> Intent | None:
        row = self._conn.execute(f"SELECT {_INTENT} FROM intent WHERE key = ?", (key,)).fetchone()
        return None if row is None else _intent(row)

    def open_intents(self) -> list[Intent]:
        """Not closed, oldest first."""
        rows = self._conn.execute(
            f"SELECT {_INTENT} FROM intent WHERE wallet = ? AND state IN ('planned', 'signed', 'sent') ORDER BY id",
            (self._wallet,),
        )
        return [_intent(row) for row in rows]

    def planned(self) -> list[Intent]:
        return [intent for intent in self.open_intents() if intent.state is IntentState.PLANNED]

    def intents_of(self, external_id: int) -> list[Intent]:
        """In the order of their messages."""
        rows = self._conn.execute(f"SELECT {_INTENT} FROM intent WHERE external = ? ORDER BY id", (external_id,))
        return [_intent(row) for row in rows]

    def in_flight(self) -> External | None:
        """The external that is signed or sent and neither landed nor dead."""
        row = self._conn.execute(
            f"SELECT {_EXTERNAL} FROM external WHERE wallet = ? AND state IN ('signed', 'sent')", (self._wallet,)
        ).fetchone()
        return None if row is None else External(*row)

    def external(self, external_id: int) -> External:
        row = self._conn.execute(f"SELECT {_EXTERNAL} FROM external WHERE id = ?", (external_id,)).fetchone()
        return External(*row)

    def committed(self) -> NanoTon:
        """Coins of all open intents: promised, and perhaps not yet gone from the wallet's balance."""
        row = self._conn.execute(
            "SELECT coalesce(sum(amount), 0) FROM intent WHERE wallet = ? AND state IN ('planned', 'signed', 'sent')",
            (self._wallet,),
        ).fetchone()
        return NanoTon(row[0])

    def last_lt(self, contract: Address, since: float) -> int:
        """Of the wallet's newest transaction that did something to this contract and was seen to the end, when that was
        seen after `since` (UTC seconds); 0: none. The contract's own transaction came later, so has a greater lt."""
        row = self._conn.execute(
            "SELECT coalesce(max(external.lt), 0) FROM intent JOIN external ON external.id = intent.external"
            " WHERE contract = ? AND intent.state = 'confirmed' AND closed >= ?",
            (contract, since),
        ).fetchone()
        return int(row[0])

    # Steps. Each is durable when it returns.

    def plan(
        self,
        kind: str,
        contract: Address,
        messages: Sequence[Message],
        reason: str,
        amount: int,
        *,
        bag_id: BagId | None,
        key: str | None,
        planned_at: int,
        created: float,
    ) -> int:
        query_id = ""
        body = messages[0].body
        if body is not None and body.bits >= 96:
            query_id = str(int.from_bytes(body.data[4:12], "big"))
        with self._transaction() as conn:
            cursor = conn.execute(
                "INSERT INTO intent (key, wallet, kind, bag_id, contract, amount, reason, query_id, messages,"
                " planned_at, created, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'planned')",
                (key, self._wallet, kind, bag_id, contract, amount, reason, query_id, _dump(messages), planned_at,
                 created),
            )  # fmt: skip
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def sign(self, intents: Sequence[Intent], signed: SignedExternal, from_lt: int, created: float) -> None:
        with self._transaction() as conn:
            cursor = conn.execute(
                "INSERT INTO external (wallet, seqno, valid_until, hash, boc, from_lt, state, created)"
                " VALUES (?, ?, ?, ?, ?, ?, 'signed', ?)",
                (self._wallet, signed.seqno, signed.valid_until, signed.hash, signed.boc, from_lt, created),
            )
            for intent in intents:
                changed = conn.execute(
                    "UPDATE intent SET state = 'signed', external = ?, attempts = attempts + 1"
                    " WHERE id = ? AND state = 'planned'",
                    (cursor.lastrowid, intent.id),
                )
                if changed.rowcount != 1:
                    raise RuntimeError(f"intent {intent.id} is not planned")

    def sent(self, external: External) -> None:
        with self._transaction() as conn:
            conn.execute("UPDATE external SET state = 'sent' WHERE id = ? AND state = 'signed'", (external.id,))
            conn.execute("UPDATE intent SET state = 'sent' WHERE external = ? AND state = 'signed'", (external.id,))

    def landed(self, external: External, lt: int, tx_hash: bytes) -> None:
        with self._transaction() as conn:
            conn.execute(
                "UPDATE external SET state = 'landed', lt = ?, tx_hash = ? WHERE id = ?", (lt, tx_hash, external.id)
            )
            conn.execute("UPDATE intent SET state = 'sent' WHERE external = ? AND state = 'signed'", (external.id,))

    def dead(self, external: External, why: str, most_attempts: int, now: float) -> None:
        """It never ran and never will: its intents are planned again, or given up after so many attempts."""
        with self._transaction() as conn:
            conn.execute("UPDATE external SET state = 'dead' WHERE id = ?", (external.id,))
            conn.execute(
                "UPDATE intent SET state = 'expired', closed = ?, detail = ?"
                " WHERE external = ? AND state IN ('signed', 'sent') AND attempts >= ?",
                (now, why, external.id, most_attempts),
            )
            conn.execute(
                "UPDATE intent SET state = 'planned', external = NULL, detail = ?"
                " WHERE external = ? AND state IN ('signed', 'sent')",
                (why, external.id),
            )

    def close(
        self,
        intent_id: int,
        state: IntentState,
        now: float,
        detail: str = "",
        *,
        exit_code: int | None = None,
        action_code: int | None = None,
        returned: int = 0,
    ) -> None:
        """Idempotent: an intent that is closed stays as it is."""
        with self._transaction() as conn:
            conn.execute(
                "UPDATE intent SET state = ?, closed = ?, detail = ?, exit_code = ?, action_code = ?, returned = ?"
                " WHERE id = ? AND state IN ('planned', 'signed', 'sent')",
                (state, now, detail, exit_code, action_code, returned, intent_id),
            )
