"""Pages of a listing, straight from the index: what the S3 door shows of a directory's entries, and nothing more."""

from __future__ import annotations

import stat
from typing import Final

from ..ids import Inode
from .core import locked
from .directories import key_range
from .listed import Listed
from .objects import Objects
from .schema import ATTACHED, DIRTY, RECORD

# After a crash files with unpacked bytes have a version from `version_base` on (`Contents._distrust`).
_VERSION: Final = (
    f"max(i.version, CASE WHEN i.flags & {DIRTY} "
    "THEN (SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'version_base') ELSE 0 END)"
)
_OBJECT: Final = (
    f"i.inode, i.mode, i.size, i.mtime, {_VERSION}, CASE WHEN r.version = i.version THEN r.etag ELSE '' END, "
    "CASE WHEN r.version = i.version THEN r.checksums ELSE '{}' END, coalesce(r.checksum_type, 'FULL_OBJECT')"
)
_RECORDS: Final = "JOIN inode i ON i.inode = x.inode LEFT JOIN record r ON r.inode = x.inode"
_NAMES: Final = (
    f"SELECT x.key, {_OBJECT}, CASE WHEN (i.mode & {0o170000}) = {stat.S_IFDIR} THEN i.inode ELSE 0 END, "
    f"(i.flags & {RECORD}) != 0, i.flags & {ATTACHED} FROM name x {_RECORDS}"
)
_BESIDE: Final = f"SELECT x.key, {_OBJECT}, 0, 1, 0 FROM attached x {_RECORDS}"
_INSIDE: Final = f"SELECT {_OBJECT} FROM attached x {_RECORDS} WHERE x.dir = ? AND x.slot = 1"


class Listings(Objects):
    @locked
    def list_objects(
        self, parent: Inode, after: bytes = b"", limit: int = 1000, *, prefix: bytes = b""
    ) -> list[Listed]:
        """See `Namespace.list_objects`."""
        self._dir(parent)
        self._commit_locked()
        condition, values = key_range("x.key", after, prefix)
        tail = f"WHERE x.parent = ? AND {condition} ORDER BY x.key LIMIT ?"
        rows = self._read.execute(f"{_NAMES} {tail}", (parent, *values, limit)).fetchall()
        entries = [Listed._make(row[:-1]) if not row[-1] else self._with_data(row) for row in rows]
        slot = tail.replace("WHERE", "WHERE x.slot = 0 AND")
        beside = self._read.execute(f"{_BESIDE} {slot}", (parent, *values, limit)).fetchall()
        if beside:
            entries += [Listed._make(row[:-1]) for row in beside]
            entries.sort()
            del entries[limit:]
        return entries

    def _with_data(self, row: tuple[object, ...]) -> Listed:
        """A directory that carries objects; what is under `name/` is shown, if there is something."""
        inside = self._read.execute(_INSIDE, (row[1],)).fetchone()
        return Listed._make((row[0], *inside, row[1], True) if inside else row[:-1])
