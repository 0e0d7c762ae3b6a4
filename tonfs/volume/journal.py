"""The journal: few changes that an fsync must make durable, put down in one piece before the index has them.

A commit of the index writes a page for each table and index that it touches, a record of the journal only what
changed. Each record holds everything that changed since the last commit, so only the last one counts; two places take
turns, and while one is being written the other still has what was promised before. The format is in docs/formats.md.

A record belongs to the commit that it builds on: `base` counts the commits that came after a record. It is written
only when that commit is on the disk and the record before it, too. With the next commit, which has everything that is
in it, it means nothing any more. So after a crash exactly one state is right: the index's last commit, and the last
whole record that builds on it, if there is one.
"""

from __future__ import annotations

import json
import os
import sqlite3
import struct
import zlib
from pathlib import Path
from typing import Any, Final

from ..log import get_logger
from .writeback import Rows

log = get_logger(__name__)

NAME: Final = "journal"
PLACE: Final = 64 << 10
"""Bytes of each of the two places: the longest record."""
BASE: Final = "journal_base"
"""The key in `meta`."""
_MAGIC: Final = b"TONFSJNL"
_VERSION: Final = 1
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode
_HEAD: Final = struct.Struct("<8sIIQQII")
"""Magic, version, CRC-32 of all that follows (volume, serial, base, lengths, JSON, bytes), serial, base, length of the
JSON, of the bytes behind it."""


def pack(serial: int, base: int, volume_id: str, rows: Rows) -> bytes:
    """A record. May be longer than a place."""
    text = _encode({"volume": volume_id, **rows.as_json()}).encode()
    data = b"".join(bytes_ for _, bytes_ in rows.data)
    head = _HEAD.pack(_MAGIC, _VERSION, 0, serial, base, len(text), len(data))
    crc = zlib.crc32(data, zlib.crc32(text, zlib.crc32(head[16:])))
    return b"".join((_HEAD.pack(_MAGIC, _VERSION, crc, serial, base, len(text), len(data)), text, data))


def unpack(place: bytes, volume_id: str) -> tuple[int, int, Rows] | None:
    """(serial, base, rows) of a whole record of this volume, else None."""
    if len(place) < _HEAD.size:
        return None
    magic, version, crc, serial, base, text_length, data_length = _HEAD.unpack_from(place)
    end = _HEAD.size + text_length + data_length
    if magic != _MAGIC or version != _VERSION or end > len(place) or zlib.crc32(place[16:end]) != crc:
        return None
    value: dict[str, Any] = json.loads(place[_HEAD.size : _HEAD.size + text_length])
    if value["volume"] != volume_id:
        return None
    return serial, base, Rows.from_json(value, place[_HEAD.size + text_length : end])


class Journal:
    """The open file. Calls are made under the volume's lock."""

    def __init__(self, directory: Path, volume_id: str, base: int) -> None:
        """Raises OSError. What is in it means nothing any more: the index has it, on the disk (`replay`)."""
        self._volume_id = volume_id
        self.base = base
        self.fd = os.open(directory / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._usable = True
        try:  # blocks for good: a sync has nothing to put down but the bytes
            os.pwrite(self.fd, bytes(2 * PLACE), 0)
            os.fsync(self.fd)
        except OSError as exc:
            log.info("there is no room for the journal; every fsync is a commit of the index", reason=str(exc))
            self._usable = False
        self._serial = self._on_disk = 0
        self.live = False
        """There may be a record that builds on the index's last commit."""

    def write(self, rows: Rows) -> int:
        """A new record; its number, for `synced`. 0: it is too long, or the record before it is not on the disk yet
        and the one before that may be needed. The commit that it builds on is on the disk."""
        if not self._usable or (self.live and self._on_disk != self._serial):
            return 0
        record = pack(self._serial + 1, self.base, self._volume_id, rows)
        if len(record) > PLACE:
            return 0
        self._serial += 1
        self.live = True  # also if this fails: the place may have any part of it
        try:
            written = os.pwrite(self.fd, record, self._serial % 2 * PLACE)
        except OSError as exc:
            log.info("the journal does not take a record, the index does", reason=str(exc))
            return 0
        return self._serial if written == len(record) else 0

    def synced(self, serial: int) -> None:
        """The file was fsynced after the record `serial` was written."""
        self._on_disk = max(self._on_disk, serial)

    def close(self) -> None:
        os.close(self.fd)


def left(db: sqlite3.Connection, directory: Path) -> Rows | None:
    """What a crash left in the journal that the index has not. Raises sqlite3.Error, OSError."""
    try:
        data = (directory / NAME).read_bytes()
    except FileNotFoundError:
        return None
    meta = dict(db.execute("SELECT key, value FROM meta").fetchall())
    places = (unpack(data[at : at + PLACE], meta["volume_id"]) for at in (0, PLACE))
    found = [record for record in places if record is not None and record[1] == int(meta[BASE])]
    return max(found, key=lambda record: record[0])[2] if found else None


def replay(db: sqlite3.Connection, directory: Path) -> bool:
    """Bring it into the index, before anything else changes that. False: there is nothing."""
    rows = left(db, directory)
    if rows is None:
        return False
    db.execute("BEGIN IMMEDIATE")
    rows.write(db)
    db.execute("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = ?", (BASE,))
    db.execute("COMMIT")
    return True
