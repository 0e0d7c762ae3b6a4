"""agent.db: what the agent knows of bags, placements, providers and audits. The agent is its only writer.

Every method is one short transaction, committed durably before it returns (synchronous=FULL). The intents journal
(chain room) keeps its tables in the same file.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..audit import Record, Verdict
from ..errors import Damaged
from ..ids import Address, AdnlId, BagId, NanoTon, ProviderKey
from ..system import from_sqlite
from .placement import Event, State, advance

SCHEMA_VERSION: Final = 2
MOST_DOUBLINGS: Final = 6

_SCHEMA: Final = """
-- One row per bag that the agent is responsible for. state: live -> closing -> closed.
CREATE TABLE IF NOT EXISTS bag (
    bag_id    BLOB PRIMARY KEY,          -- 32 bytes
    info      BLOB NOT NULL,             -- TorrentInfo cell as a BoC: enough to find contract and check pieces
    size      INTEGER NOT NULL,          -- bytes of the stream, header included
    files     INTEGER NOT NULL,
    state     TEXT NOT NULL CHECK (state IN ('live', 'closing', 'closed')),
    contract  TEXT,                      -- raw address, known as soon as the owner wallet is
    local     INTEGER NOT NULL,          -- 1: the whole pack is on this disk
    created   REAL NOT NULL,             -- UTC seconds
    replicas  INTEGER                    -- what its files ask for; NULL: the volume's number
) STRICT;
-- One bag at one provider. A provider that comes back to a bag reuses its row; history is in `audit`.
CREATE TABLE IF NOT EXISTS placement (
    bag_id    BLOB NOT NULL REFERENCES bag (bag_id),
    provider  BLOB NOT NULL,             -- Ed25519 public key
    state     TEXT NOT NULL,
    rate      INTEGER NOT NULL,          -- nanoTON per MB and day, as written into the contract
    span      INTEGER NOT NULL,          -- seconds between proofs
    since     REAL NOT NULL,             -- when `state` was entered
    adnl      BLOB,                      -- storage ADNL id, signature checked; NULL until asked
    last_proof INTEGER NOT NULL DEFAULT 0,
    strikes   INTEGER NOT NULL DEFAULT 0,
    wrong     INTEGER NOT NULL DEFAULT 0,
    reason    TEXT NOT NULL DEFAULT '',
    audit_at  REAL,
    audit_verdict TEXT,
    audit_pieces INTEGER NOT NULL DEFAULT 0,
    audit_bytes INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (bag_id, provider)
) STRICT;
-- Evidence: every audit that was carried out, never changed.
CREATE TABLE IF NOT EXISTS audit (
    id        INTEGER PRIMARY KEY,
    bag_id    BLOB NOT NULL,
    provider  BLOB NOT NULL,
    at        REAL NOT NULL,
    verdict   TEXT NOT NULL,
    pieces    TEXT NOT NULL,             -- "7:ok 19:silent": piece number and outcome
    bytes     INTEGER NOT NULL,
    last_proof INTEGER NOT NULL,
    reason    TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS audit_by_placement ON audit (bag_id, provider, id);
-- What is known of a provider across bags.
CREATE TABLE IF NOT EXISTS provider (
    key       BLOB PRIMARY KEY,
    price     INTEGER,                   -- nanoTON per MB and day, as last quoted
    quoted_at REAL,
    failures  INTEGER NOT NULL DEFAULT 0,
    failed_at REAL,
    answered_at REAL                     -- last time it answered anything
) STRICT;
-- What a deleted bag cost: written when its contract is wound down.
CREATE TABLE IF NOT EXISTS receipt (
    bag_id    BLOB PRIMARY KEY,
    contract  TEXT NOT NULL,
    at        REAL NOT NULL,
    funded    INTEGER NOT NULL,
    returned  INTEGER NOT NULL,
    rewards   INTEGER NOT NULL,
    fees      INTEGER NOT NULL,
    left_over INTEGER NOT NULL
) STRICT;
-- Single values that must survive a restart.
CREATE TABLE IF NOT EXISTS note (
    name      TEXT PRIMARY KEY,
    value     TEXT NOT NULL
) STRICT;
"""


@dataclass(frozen=True)
class Bag:
    bag_id: BagId
    info: bytes
    size: int
    files: int
    state: str
    contract: Address | None
    local: bool
    created: float
    replicas: int | None
    """What its files ask for; None: the volume's number."""


@dataclass(frozen=True)
class Placement:
    bag_id: BagId
    provider: ProviderKey
    state: State
    rate: NanoTon
    span: int
    since: float
    adnl: AdnlId | None
    last_proof: int
    record: Record
    reason: str
    audit_at: float | None
    audit_verdict: Verdict | None
    audit_pieces: int
    audit_bytes: int


@dataclass(frozen=True)
class ProviderInfo:
    key: ProviderKey
    price: int | None
    failures: int
    failed_at: float | None
    answered_at: float | None

    def avoid_until(self, base: float) -> float:
        """UTC seconds until when it is not hired: `base` seconds after its failure, doubled for each further one."""
        return 0.0 if self.failed_at is None else self.failed_at + base * 2.0 ** min(self.failures - 1, MOST_DOUBLINGS)


@dataclass(frozen=True)
class AuditEntry:
    verdict: Verdict
    outcomes: tuple[tuple[int, str], ...]
    bytes: int
    last_proof: int
    record: Record
    reason: str


@dataclass(frozen=True)
class Receipt:
    bag_id: BagId
    contract: Address
    at: float
    funded: int
    returned: int
    rewards: int
    fees: int
    left_over: int


class AgentStore:
    """Typed access to agent.db. Synchronous: each call is well under a millisecond plus one disk flush."""

    def __init__(self, path: Path) -> None:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # SQLite does not say what is not allowed
        self.conn = sqlite3.connect(path, isolation_level=None)
        try:
            self._prepare(path)
        except sqlite3.Error as exc:
            self.conn.close()
            raise from_sqlite(exc, path) from None

    def _prepare(self, path: Path) -> None:
        self.conn.row_factory = sqlite3.Row
        self.conn.execute("PRAGMA journal_mode=WAL")
        self.conn.execute("PRAGMA synchronous=FULL")
        self.conn.execute("PRAGMA foreign_keys=ON")
        version = self.conn.execute("PRAGMA user_version").fetchone()[0]
        if version == 1:
            self.conn.execute("ALTER TABLE bag ADD COLUMN replicas INTEGER")
        elif version not in (0, SCHEMA_VERSION):
            raise Damaged(f"{path} has schema version {version}, this tonfs knows {SCHEMA_VERSION}.")
        self.conn.executescript(_SCHEMA)
        self.conn.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def close(self) -> None:
        self.conn.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.conn.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.conn.execute("ROLLBACK")
            raise
        self.conn.execute("COMMIT")

    def note(self, name: str) -> str | None:
        row = self.conn.execute("SELECT value FROM note WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else None

    def set_note(self, name: str, value: str) -> None:
        self.conn.execute("INSERT OR REPLACE INTO note VALUES (?, ?)", (name, value))

    def delete_note(self, name: str) -> None:
        self.conn.execute("DELETE FROM note WHERE name = ?", (name,))

    def notes(self, prefix: str) -> dict[str, str]:
        rows = self.conn.execute("SELECT name, value FROM note WHERE substr(name, 1, ?) = ?", (len(prefix), prefix))
        return {str(r["name"]): str(r["value"]) for r in rows}

    # Bags.

    def add_bag(
        self, bag_id: BagId, info: bytes, size: int, files: int, now: float, replicas: int | None = None
    ) -> None:
        """Idempotent: a bag that is known keeps its row; one that was closed lives again."""
        self.conn.execute(
            "INSERT INTO bag (bag_id, info, size, files, state, local, created, replicas) "
            "VALUES (?, ?, ?, ?, 'live', 1, ?, ?) ON CONFLICT (bag_id) DO UPDATE SET state = 'live', local = 1, "
            "created = excluded.created, replicas = excluded.replicas WHERE state = 'closed'",
            (bag_id, info, size, files, now, replicas),
        )

    def set_replicas(self, bag_id: BagId, replicas: int | None) -> None:
        self.conn.execute("UPDATE bag SET replicas = ? WHERE bag_id = ?", (replicas, bag_id))

    def bags(self, *states: str) -> list[Bag]:
        wanted = states or ("live", "closing")
        marks = ", ".join("?" * len(wanted))
        rows = self.conn.execute(f"SELECT * FROM bag WHERE state IN ({marks}) ORDER BY created", wanted)
        return [_bag(row) for row in rows]

    def bag(self, bag_id: BagId) -> Bag | None:
        row = self.conn.execute("SELECT * FROM bag WHERE bag_id = ?", (bag_id,)).fetchone()
        return _bag(row) if row else None

    def set_contract(self, bag_id: BagId, contract: Address) -> None:
        self.conn.execute("UPDATE bag SET contract = ? WHERE bag_id = ?", (contract, bag_id))

    def set_local(self, bag_id: BagId, local: bool) -> None:
        self.conn.execute("UPDATE bag SET local = ? WHERE bag_id = ?", (int(local), bag_id))

    def set_bag_state(self, bag_id: BagId, state: str) -> None:
        self.conn.execute("UPDATE bag SET state = ? WHERE bag_id = ?", (state, bag_id))

    # Placements.

    def placements(self, bag_id: BagId | None = None) -> list[Placement]:
        if bag_id is None:
            rows = self.conn.execute("SELECT * FROM placement ORDER BY bag_id, provider")
        else:
            rows = self.conn.execute("SELECT * FROM placement WHERE bag_id = ? ORDER BY provider", (bag_id,))
        return [_placement(row) for row in rows]

    def placements_by_bag(self) -> dict[BagId, list[Placement]]:
        """All of them with one query; bags without any are absent."""
        found: dict[BagId, list[Placement]] = {}
        for placement in self.placements():
            found.setdefault(placement.bag_id, []).append(placement)
        return found

    def placement(self, bag_id: BagId, provider: ProviderKey) -> Placement | None:
        row = self.conn.execute(
            "SELECT * FROM placement WHERE bag_id = ? AND provider = ?", (bag_id, provider)
        ).fetchone()
        return _placement(row) if row else None

    def quote(self, bag_id: BagId, provider: ProviderKey, rate: int, span: int, now: float) -> None:
        """A new placement with agreed terms, or a gone one taken up again."""
        old = self.placement(bag_id, provider)
        state = advance(old.state if old else State.WANTED, Event.QUOTE)
        self.conn.execute(
            "INSERT INTO placement (bag_id, provider, state, rate, span, since) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (bag_id, provider) DO UPDATE SET state = excluded.state, rate = excluded.rate, "
            "span = excluded.span, since = excluded.since, strikes = 0, wrong = 0, reason = '', last_proof = 0, "
            "audit_at = NULL, audit_verdict = NULL, audit_pieces = 0, audit_bytes = 0",
            (bag_id, provider, state, rate, span, now),
        )

    def event(self, bag_id: BagId, provider: ProviderKey, event: Event, now: float, reason: str = "") -> State:
        """Apply one event of the table; `since` moves only when the state does. Returns the new state."""
        old = self.placement(bag_id, provider)
        if old is None:
            raise Damaged(f"agent.db has no placement of bag {bag_id.hex()} at {provider.hex()}.")
        state = advance(old.state, event)
        if state != old.state:
            self.conn.execute(
                "UPDATE placement SET state = ?, since = ?, reason = ? WHERE bag_id = ? AND provider = ?",
                (state, now, reason or old.reason, bag_id, provider),
            )
        return state

    def set_adnl(self, bag_id: BagId, provider: ProviderKey, adnl: AdnlId | None) -> None:
        self.conn.execute("UPDATE placement SET adnl = ? WHERE bag_id = ? AND provider = ?", (adnl, bag_id, provider))

    def set_last_proof(self, bag_id: BagId, provider: ProviderKey, last_proof: int) -> None:
        self.conn.execute(
            "UPDATE placement SET last_proof = ? WHERE bag_id = ? AND provider = ?", (last_proof, bag_id, provider)
        )

    def record_audit(self, bag_id: BagId, provider: ProviderKey, entry: AuditEntry, now: float) -> None:
        """Keep the evidence and bring the placement's record up to date, in one transaction."""
        pieces = " ".join(f"{piece}:{outcome}" for piece, outcome in entry.outcomes)
        with self.transaction():
            self.conn.execute(
                "INSERT INTO audit (bag_id, provider, at, verdict, pieces, bytes, last_proof, reason) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (bag_id, provider, now, entry.verdict, pieces, entry.bytes, entry.last_proof, entry.reason),
            )
            self.conn.execute(
                "UPDATE placement SET audit_at = ?, audit_verdict = ?, audit_pieces = ?, audit_bytes = ?, "
                "last_proof = max(last_proof, ?), strikes = ?, wrong = ?, reason = ? "
                "WHERE bag_id = ? AND provider = ?",
                (now, entry.verdict, sum(o == "ok" for _, o in entry.outcomes), entry.bytes, entry.last_proof,
                 entry.record.strikes, entry.record.wrong, entry.reason, bag_id, provider),
            )  # fmt: skip

    # Providers.

    def provider_quoted(self, key: ProviderKey, price: int, now: float) -> None:
        self.conn.execute(
            "INSERT INTO provider (key, price, quoted_at, answered_at) VALUES (?, ?, ?, ?) ON CONFLICT (key) "
            "DO UPDATE SET price = excluded.price, quoted_at = excluded.quoted_at, answered_at = excluded.answered_at",
            (key, price, now, now),
        )

    def provider_failed(self, key: ProviderKey, now: float, base: float) -> None:
        """Count a failure. What fails while the provider is avoided for the last one belongs to the same incident: a
        provider with a hundred bags that vanishes has failed once."""
        old = self.providers().get(key)
        again = old is not None and now < old.avoid_until(base)
        self.conn.execute(
            "INSERT INTO provider (key, failures, failed_at) VALUES (?, 1, ?) "
            "ON CONFLICT (key) DO UPDATE SET failures = failures + ?, failed_at = excluded.failed_at",
            (key, now, 0 if again else 1),
        )

    def providers(self) -> dict[ProviderKey, ProviderInfo]:
        rows = self.conn.execute("SELECT * FROM provider ORDER BY key")
        return {
            ProviderKey(r["key"]): ProviderInfo(
                ProviderKey(r["key"]), r["price"], r["failures"], r["failed_at"], r["answered_at"]
            )
            for r in rows
        }

    # The journal (chain room) in the same file.

    def open_intents(self, bag_id: BagId) -> int:
        """Payments for this bag whose end nobody has seen yet."""
        query = "SELECT count(*) FROM intent WHERE bag_id = ? AND state IN ('planned', 'signed', 'sent')"
        return int(self.conn.execute(query, (bag_id,)).fetchone()[0])

    def last_topup(self, contract: Address) -> float:
        """UTC seconds when coins last arrived at a contract that was running out of them; 0: never."""
        query = "SELECT max(closed) FROM intent WHERE contract = ? AND kind = 'topup' AND state = 'confirmed'"
        return float(self.conn.execute(query, (contract,)).fetchone()[0] or 0.0)

    # Receipts.

    def add_receipt(self, receipt: Receipt) -> None:
        self.conn.execute(
            "INSERT OR REPLACE INTO receipt VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (receipt.bag_id, receipt.contract, receipt.at, receipt.funded, receipt.returned, receipt.rewards,
             receipt.fees, receipt.left_over),
        )  # fmt: skip

    def receipts(self) -> list[Receipt]:
        rows = self.conn.execute("SELECT * FROM receipt ORDER BY at")
        return [
            Receipt(BagId(r["bag_id"]), Address(r["contract"]), r["at"], r["funded"], r["returned"], r["rewards"],
                    r["fees"], r["left_over"])
            for r in rows
        ]  # fmt: skip


def _bag(row: sqlite3.Row) -> Bag:
    contract = row["contract"]
    return Bag(
        BagId(row["bag_id"]), row["info"], row["size"], row["files"], row["state"],
        Address(contract) if contract else None, bool(row["local"]), row["created"], row["replicas"],
    )  # fmt: skip


def _placement(row: sqlite3.Row) -> Placement:
    verdict = row["audit_verdict"]
    adnl = row["adnl"]
    return Placement(
        bag_id=BagId(row["bag_id"]),
        provider=ProviderKey(row["provider"]),
        state=State(row["state"]),
        rate=NanoTon(row["rate"]),
        span=row["span"],
        since=row["since"],
        adnl=AdnlId(adnl) if adnl else None,
        last_proof=row["last_proof"],
        record=Record(row["strikes"], row["wrong"]),
        reason=row["reason"],
        audit_at=row["audit_at"],
        audit_verdict=Verdict(verdict) if verdict else None,
        audit_pieces=row["audit_pieces"],
        audit_bytes=row["audit_bytes"],
    )
