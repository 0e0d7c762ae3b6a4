"""The part of the index that only the S3 door needs: what `schema.py` adds with version 2."""

from __future__ import annotations

import sqlite3
from typing import Final

_TABLES: Final = """
-- Tags stay when the bytes change, as user metadata does. checksum_type: how `checksums` of the record were made.
ALTER TABLE record ADD COLUMN tags TEXT NOT NULL DEFAULT '{}';
ALTER TABLE record ADD COLUMN checksum_type TEXT NOT NULL DEFAULT 'FULL_OBJECT';

-- The parts that an object was uploaded in; they hold as long as its record is current.
CREATE TABLE object_part (
    inode INTEGER NOT NULL,
    number INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    size INTEGER NOT NULL,
    checksum TEXT NOT NULL,      -- base64 in the record's algorithm, '' without one
    PRIMARY KEY (inode, number)
) WITHOUT ROWID;

-- Objects whose name a directory has: slot 0 is the object `a` beside keys `a/...`, slot 1 the object `a/` with data.
-- Each is a regular file with one link and no row in name. parent and key repeat the directory's name (without the
-- slash), so that a listing finds slot 0 in the order of keys.
CREATE TABLE attached (
    dir INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    parent INTEGER NOT NULL,
    key BLOB NOT NULL,
    inode INTEGER NOT NULL UNIQUE,
    PRIMARY KEY (dir, slot)
) WITHOUT ROWID;
CREATE UNIQUE INDEX attached_key ON attached (parent, key, slot);

-- Multipart uploads. bucket is the inode of its directory. done: JSON of the answer once it is completed.
CREATE TABLE upload (
    id TEXT PRIMARY KEY,
    bucket INTEGER NOT NULL,
    key BLOB NOT NULL,
    created INTEGER NOT NULL,
    facts TEXT NOT NULL,         -- JSON: what was said when it was begun
    done TEXT
) WITHOUT ROWID;
CREATE INDEX upload_key ON upload (bucket, key, id);
CREATE INDEX upload_created ON upload (created);

-- Their parts: staged inodes (nlink 0) that outlive a restart.
CREATE TABLE upload_part (
    upload TEXT NOT NULL,
    number INTEGER NOT NULL,
    inode INTEGER NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    etag TEXT NOT NULL,
    checksum TEXT NOT NULL,      -- base64 in the upload's algorithm, '' without one
    modified INTEGER NOT NULL,
    PRIMARY KEY (upload, number)
) WITHOUT ROWID;
"""


def create_objects(db: sqlite3.Connection) -> None:
    for statement in _TABLES.split(";\n"):
        lines = [line for line in statement.splitlines() if line.strip() and not line.startswith("--")]
        if lines:
            db.execute("\n".join(lines))
