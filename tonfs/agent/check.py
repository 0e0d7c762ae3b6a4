"""Does agent.db agree with the index? Level 3 of `tonfs fsck`. Reads the database only; the agent does not run."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..bag import TorrentInfo
from ..errors import BadData, Damaged
from ..ids import BagId
from .placement import PAID, State
from .store import SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class IndexedPack:
    """A row of the index's table `pack`, with how it is used."""

    bag_id: BagId
    proven: int
    used: bool
    """Files refer to it."""
    remote: bool
    """Files refer to it whose bytes are not on this disk."""


@dataclass(frozen=True, slots=True)
class Problem:
    kind: str
    text: str
    harmless: bool = False
    """The agent puts it right by itself when it runs."""


def check_placements(volume: Path, packs: Sequence[IndexedPack]) -> Iterator[Problem]:
    """Raises Damaged when agent.db cannot be read."""
    path = volume / "agent.db"
    if not path.exists():
        if any(pack.used for pack in packs):
            yield Problem("agent-db", f"{len(packs)} packs are in the index, and there is no {path}.")
        return
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        try:
            yield from _check(db, packs, volume)
        finally:
            db.close()
    except sqlite3.DatabaseError as exc:
        raise Damaged(f"{path} cannot be read: {exc}.") from None


def _check(db: sqlite3.Connection, packs: Sequence[IndexedPack], volume: Path) -> Iterator[Problem]:
    for (text,) in db.execute("PRAGMA integrity_check(20)"):
        if text != "ok":
            yield Problem("agent-db", f"SQLite says of agent.db: {text}")
            return
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version != SCHEMA_VERSION:
        yield Problem("agent-db", f"agent.db has version {version}, this tonfs knows {SCHEMA_VERSION}.")
        return
    bags = {bytes(row[0]): row[1:] for row in db.execute("SELECT bag_id, info, state, local FROM bag")}
    states: dict[bytes, list[tuple[str, int]]] = {}
    for bag_id, state, pieces in db.execute("SELECT bag_id, state, audit_pieces FROM placement"):
        states.setdefault(bytes(bag_id), []).append((str(state), int(pieces)))
    for pack in packs:
        yield from _pack(pack, bags.get(pack.bag_id), states.get(pack.bag_id, []), volume)
    known = {pack.bag_id for pack in packs}
    for bag_id, (info, state, _) in bags.items():
        yield from _bag(BagId(bag_id), info, state, bag_id in known)


def _pack(
    pack: IndexedPack, bag: tuple[bytes, str, int] | None, placements: list[tuple[str, int]], volume: Path
) -> Iterator[Problem]:
    name = pack.bag_id.hex()[:16]
    here = (volume / "packs" / pack.bag_id.hex()).is_dir()
    if bag is None:
        if pack.used:
            text = f"The agent does not know the pack {name}."
            yield Problem("pack-unknown-to-agent", text, harmless=here)  # adopted from its directory at the next start
        return
    _, state, local = bag
    if state != "live" and pack.used:
        yield Problem("pack-given-up", f"Files need the pack {name}, which the agent has given up ({state}).")
    good = sum(one == State.ACTIVE and pieces > 0 for one, pieces in placements)
    if pack.proven > good:
        text = f"The index says that {pack.proven} replicas of the pack {name} are proven, the agent knows {good}."
        yield Problem("proven-count", text, harmless=not pack.remote)
    paid = sum(State(one) in PAID for one, _ in placements)
    if pack.remote and not paid and not here:
        yield Problem("pack-lost", f"The bytes of the pack {name} are neither on this disk nor at any provider.")
    if local and not here:
        text = f"The pack {name} should be on this disk."
        yield Problem("pack-missing", text, harmless=paid > 0)  # fetched again from its providers


def _bag(bag_id: BagId, info: bytes, state: str, known: bool) -> Iterator[Problem]:
    try:
        TorrentInfo.parse(info, expect=bag_id)
    except BadData as exc:
        yield Problem("bag-info", f"The description of bag {bag_id.hex()[:16]} in agent.db is damaged: {exc.message}")
    if state == "live" and not known:
        yield Problem("bag-unused", f"The agent pays for bag {bag_id.hex()[:16]}, which the index does not know.")
