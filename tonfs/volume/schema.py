"""The index: every table of `index.db`, and how older ones become the present one.

SQLite in WAL mode; one connection writes (the front), others may read. Times are integer nanoseconds since 1970,
names and keys BLOBs, file sizes and offsets bytes. `PRAGMA user_version` is the schema version.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ..errors import Damaged
from .schema_objects import create_objects

INDEX_NAME: Final = "index.db"

# Bits of inode.flags.
DIRTY: Final = 1  # a regular file with bytes that no extent covers
COVERED: Final = 2  # has at least one extent
REMOTE: Final = 4  # has at least one extent whose bytes are not in the content file
IMPLIED: Final = 8  # a directory that only exists because an S3 key needed it
XATTRS: Final = 16  # has rows in xattr
RECORD: Final = 32  # has a row in record
CONTENT: Final = 64  # has a content file of its own with the same offsets (inode.blob)
ATTACHED: Final = 128  # a directory with rows in attached
OWN: Final = 256  # a directory that was made through the mount before it became an S3 object
INLINE: Final = 512  # has a row in inline
SEGMENTED: Final = 1024  # has rows in segment, which say where its bytes lie in content files; never with CONTENT
_SYNCED: Final = 2048  # of version 5: `safe` is `size`

WINDOW_SIZE: Final = 1 << 40
"""Bytes of a file that one content file holds; what lies beyond goes to the next one. ext4 ends at 16 TiB."""
WAL_SIZE: Final = 8 << 20
"""The index's log is checkpointed when it is longer, and has this length again when it starts anew."""

_V1: Final = """
-- Facts about the volume as a whole. Keys: volume_id (random hex), clean (1 after an orderly close, else 0),
-- inode_ceiling (numbers below it may have been given out), inode_next (first number surely free at the last commit).
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- One row per file of any type. Numbers are never used twice. nlink 0: unlinked but held open, or staged by the
-- S3 door; such rows are removed when the volume is opened.
CREATE TABLE inode (
    inode INTEGER PRIMARY KEY,
    mode INTEGER NOT NULL,       -- st_mode with type bits
    nlink INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    gid INTEGER NOT NULL,
    rdev INTEGER NOT NULL,
    size INTEGER NOT NULL,
    blocks INTEGER NOT NULL,     -- 512-byte units of data; -1: not counted since the last change
    atime INTEGER NOT NULL,
    mtime INTEGER NOT NULL,
    ctime INTEGER NOT NULL,
    birth INTEGER NOT NULL,
    version INTEGER NOT NULL,    -- content generation, grows with every change of bytes or size
    changed INTEGER NOT NULL,    -- wall time of the last change of bytes; the packer's settle time counts from here
    flags INTEGER NOT NULL       -- bits of schema.py: DIRTY COVERED REMOTE IMPLIED XATTRS RECORD CONTENT ...
);
CREATE INDEX inode_dirty ON inode (changed) WHERE flags & 1;
CREATE INDEX inode_orphan ON inode (inode) WHERE nlink = 0;

-- Names. cookie is the position readdir resumes from; never used twice while the volume is open. key is the name,
-- for directories with a slash behind it: byte order of keys, depth first, is the order of whole S3 keys.
CREATE TABLE name (
    cookie INTEGER PRIMARY KEY,
    parent INTEGER NOT NULL,
    key BLOB NOT NULL,
    inode INTEGER NOT NULL
);
CREATE UNIQUE INDEX name_key ON name (parent, key);
CREATE INDEX name_parent ON name (parent);
CREATE INDEX name_inode ON name (inode);

-- Symlink targets.
CREATE TABLE symlink (
    inode INTEGER PRIMARY KEY,
    target BLOB NOT NULL
);

-- Extended attributes of the name spaces user, trusted and security, as opaque bytes.
CREATE TABLE xattr (
    inode INTEGER NOT NULL,
    name BLOB NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (inode, name)
) WITHOUT ROWID;

-- Packs that became bags. proven and wanted are what the agent last told: replicas that passed an audit with data,
-- and replicas asked for.
CREATE TABLE pack (
    pack INTEGER PRIMARY KEY AUTOINCREMENT,
    bag_id BLOB NOT NULL UNIQUE,
    size INTEGER NOT NULL,       -- bytes of the bag
    created INTEGER NOT NULL,
    proven INTEGER NOT NULL DEFAULT 0,
    wanted INTEGER NOT NULL DEFAULT 0
);

-- Where bytes of a file are besides its content file. Extents of an inode do not overlap; together they tile
-- [0, size) of a clean file. Ranges without an extent are dirty: they exist only in the content file.
CREATE TABLE extent (
    inode INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    length INTEGER NOT NULL,
    pack INTEGER,                -- NULL: zeros, stored nowhere
    pack_offset INTEGER NOT NULL,
    local INTEGER NOT NULL,      -- 1: the content file has these bytes, too (always 1 for zeros)
    PRIMARY KEY (inode, offset)
) WITHOUT ROWID;
CREATE INDEX extent_pack ON extent (pack);

-- What the S3 door keeps of an object. Etag and checksums hold for `version` of the inode only.
CREATE TABLE record (
    inode INTEGER PRIMARY KEY,
    version INTEGER NOT NULL,
    etag TEXT NOT NULL,
    content_type TEXT NOT NULL,
    metadata TEXT NOT NULL,      -- JSON object
    checksums TEXT NOT NULL,     -- JSON object
    headers TEXT NOT NULL        -- JSON object
);

-- Content files of removed inodes, to be deleted once the removal is on the disk; kept until the deletion is, too.
CREATE TABLE doomed (
    inode INTEGER PRIMARY KEY
);

INSERT INTO meta VALUES ('volume_id', lower(hex(randomblob(16)))), ('clean', '1'),
    ('inode_ceiling', '2'), ('inode_next', '2');
"""


_V3: Final = """
-- Bytes of small files. What lies behind them up to the inode's size is a hole.
CREATE TABLE inline (
    inode INTEGER PRIMARY KEY,
    data BLOB NOT NULL
);

-- Where bytes of a file lie when it has more than its own content file: byte `offset` of the file is byte
-- `blob_offset` of content file `blob`. Segments of an inode do not overlap; ranges without one are holes. With own = 1
-- no other inode refers to these bytes and they may be changed in place; else a write goes to a new place.
CREATE TABLE segment (
    inode INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    length INTEGER NOT NULL,
    blob INTEGER NOT NULL,       -- a number of the same counter as inode numbers, and of the file in content/
    blob_offset INTEGER NOT NULL,
    own INTEGER NOT NULL,
    PRIMARY KEY (inode, offset)
) WITHOUT ROWID;
CREATE INDEX segment_blob ON segment (blob);

-- The number of the content file of an inode with the flag CONTENT; 0: the inode's own. Without the flag: the last
-- such number, which is not used again.
ALTER TABLE inode ADD COLUMN blob INTEGER NOT NULL DEFAULT 0;

INSERT INTO meta VALUES ('version_base', '0');
"""


def _create_v1(db: sqlite3.Connection) -> None:
    _script(db, _V1)


def _inline_and_segments_v3(db: sqlite3.Connection) -> None:
    """Contents in the index and content files shared between inodes; content files as they are stay valid."""
    _script(db, _V3)
    # One content file could have up to 16 TiB before.
    db.execute(
        f"INSERT INTO segment SELECT inode, 0, size, inode, 0, 1 FROM inode "
        f"WHERE flags & {CONTENT} AND size > {WINDOW_SIZE}"
    )
    db.execute(
        f"UPDATE inode SET flags = (flags & ~{CONTENT}) | {SEGMENTED}, blob = inode "
        f"WHERE flags & {CONTENT} AND size > {WINDOW_SIZE}"
    )


def _proof_times_v4(db: sqlite3.Connection) -> None:
    """pack.proved: when the least recently audited of the proven replicas passed its last audit; 0: not known."""
    db.execute("ALTER TABLE pack ADD COLUMN proved INTEGER NOT NULL DEFAULT 0")


def _synced_v5(db: sqlite3.Connection) -> None:
    """The flag _SYNCED. After an orderly close nothing was being written; after a crash each file is looked at."""
    (clean,) = db.execute("SELECT value FROM meta WHERE key = 'clean'").fetchone()
    if clean == "1":
        db.execute(f"UPDATE inode SET flags = flags | {_SYNCED} WHERE flags & {CONTENT | SEGMENTED}")


def _safe_v6(db: sqlite3.Connection) -> None:
    """inode.safe: that many bytes from the file's beginning were on the disk, in its content files, before the row was
    written."""
    db.execute("ALTER TABLE inode ADD COLUMN safe INTEGER NOT NULL DEFAULT 0")
    db.execute(f"UPDATE inode SET safe = size, flags = flags & ~{_SYNCED} WHERE flags & {_SYNCED}")


ALL_SAFE: Final = f"UPDATE inode SET safe = size WHERE flags & {CONTENT | SEGMENTED} AND safe < size"
"""The statement for: all content files are on the disk, and as long as their files."""


def _journal_v7(db: sqlite3.Connection) -> None:
    """The journal (journal.py): how many commits came after one of its records."""
    db.execute("INSERT INTO meta VALUES ('journal_base', '0')")


def _script(db: sqlite3.Connection, statements: str) -> None:
    for statement in statements.split(";\n"):
        if statement.strip():
            db.execute(statement)


MIGRATIONS: Final[tuple[Callable[[sqlite3.Connection], None], ...]] = (
    _create_v1,
    create_objects,
    _inline_and_segments_v3,
    _proof_times_v4,
    _synced_v5,
    _safe_v6,
    _journal_v7,
)
"""MIGRATIONS[n] takes a database from version n to n + 1, inside one transaction."""


def connect(
    path: Path,
    *,
    read_only: bool = False,
    cache_kib: int = 8000,
    factory: type[sqlite3.Connection] = sqlite3.Connection,
) -> sqlite3.Connection:
    """A connection with our settings. Transactions are explicit (`BEGIN`)."""
    mode = "ro" if read_only else "rwc"
    db = sqlite3.connect(
        f"file:{_quote(path)}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        factory=factory,
        cached_statements=256,
    )
    db.execute("PRAGMA busy_timeout = 10000")
    if not read_only:
        db.execute("PRAGMA journal_mode = WAL")
    # Commits reach the disk by our own fsync of the WAL; see core.py. Checkpoints sync what they must.
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("PRAGMA wal_autocheckpoint = 0")
    db.execute(f"PRAGMA journal_size_limit = {WAL_SIZE}")
    db.execute("PRAGMA temp_store = MEMORY")
    # Debian's SQLite overwrites what is freed with zeros, which doubles the pages of a commit.
    db.execute("PRAGMA secure_delete = OFF")
    db.execute(f"PRAGMA cache_size = -{cache_kib}")
    # A full disk must show at COMMIT, never in the middle of a change.
    db.execute("PRAGMA cache_spill = OFF")
    return db


def _quote(path: Path) -> str:
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def refuse_to_forget(directory: Path) -> None:
    """For a volume without an index, or with an empty one: a new one would give out the numbers of files whose bytes
    are still here. An index is on the disk before the first byte is, so no crash looks like this. Raises Damaged."""
    if any(files for name in ("content", "packs") for _, _, files in os.walk(directory / name)):
        raise Damaged(
            f"The index {directory / INDEX_NAME} is gone or empty, and the bytes of files are still beside it.",
            hint="Put a copy of index.db back. To begin anew, move the directories content and packs away first.",
        )


def migrate(db: sqlite3.Connection, directory: Path) -> None:
    """Bring the database to the present version. Raises Damaged for one made by a newer tonfs, or a lost one."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version == 0:
        refuse_to_forget(directory)
    if version > len(MIGRATIONS):
        raise Damaged(
            f"The index has version {version}, this tonfs knows versions up to {len(MIGRATIONS)}.",
            hint="Use the tonfs that made it, or a newer one.",
        )
    for number in range(version, len(MIGRATIONS)):
        db.execute("BEGIN IMMEDIATE")
        try:
            MIGRATIONS[number](db)
            db.execute(f"PRAGMA user_version = {number + 1}")
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")
