"""The steps of `tonfs fsck --repair`. Nothing that may be somebody's data is deleted: it goes to `lost+found`.

Rows and files go only when the check has proved, reading everything without an error, that nothing refers to them.
All changes of the index are one durable transaction; content files are cut and removed only after it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from ..bagfiles import StoredBag
from ..errors import Damaged, NotFound
from ..ids import Inode
from . import extents as ext
from . import schema
from .api import ROOT
from .check import Finding
from .check_packs import is_whole
from .content import ContentStore
from .remains import Leftovers, Remains
from .schema import CONTENT, COVERED, DIRTY, INLINE, REMOTE, SEGMENTED, WINDOW_SIZE

LOST: Final = b"lost+found"


class Repair:
    """Takes the fixes of findings. The caller holds the volume's claim for as long as this lives."""

    def __init__(self, volume: Path) -> None:
        self._volume = volume
        self._content = volume / "content"
        self._db = schema.connect(volume / schema.INDEX_NAME)
        self._leftovers = Leftovers(self._db, self._content)
        self._after: list[Callable[[], None]] = []
        self._lost: int | None = None
        self._whole_packs: dict[str, bool] = {}
        self._now = time.time_ns()

    def run(self, findings: Iterable[Finding]) -> int:
        """Take every fix there is; number of those taken. Raises OSError, sqlite3.Error: then nothing was changed."""
        done = 0
        try:
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("BEGIN IMMEDIATE")
            for finding in findings:
                if finding.fix is not None and not finding.harmless:
                    getattr(self, finding.fix.action)(*finding.fix.values)
                    done += 1
            self._count_directories()
            self._db.execute("COMMIT")
            for step in self._after:
                step()
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            self._db.close()
        return done

    # Numbers and inodes -----------------------------------------------------------------------------------------

    def raise_numbers(self, number: int) -> None:
        for key in ("inode_next", "inode_ceiling"):
            self._db.execute("UPDATE meta SET value = ? WHERE key = ? AND CAST(value AS INTEGER) < ?",
                             (str(number), key, number))  # fmt: skip

    def _new_number(self) -> int:
        meta = dict(self._db.execute("SELECT key, value FROM meta").fetchall())
        (top,) = self._db.execute("SELECT max(inode) FROM inode").fetchone()
        number = max(int(meta["inode_ceiling"]), (top or 0) + 1)
        self.raise_numbers(number + 1)
        return number

    def _insert_inode(self, inode: int, mode: int, nlink: int, size: int = 0, flags: int = 0) -> None:
        columns = (
            "inode, mode, nlink, uid, gid, rdev, size, blocks, atime, mtime, ctime, birth, version, changed, flags"
        )
        now = self._now
        row = (inode, mode, nlink, os.geteuid(), os.getegid(), 0, size, -1 if size else 0, now, now, now, now,
               self._new_version(), now, flags)  # fmt: skip
        self._db.execute(f"INSERT INTO inode ({columns}) VALUES ({', '.join('?' * len(row))})", row)

    def _new_version(self) -> int:
        """Beyond every version that was ever given out, so that no pack of earlier bytes is taken for these."""
        (top,) = self._db.execute("SELECT coalesce(max(version), 0) FROM inode").fetchone()
        (base,) = self._db.execute("SELECT value FROM meta WHERE key = 'version_base'").fetchone()
        return max(int(top), int(base)) + 1

    def make_root(self) -> None:
        self._insert_inode(ROOT, stat.S_IFDIR | 0o755, 2)

    def set_links(self, inode: int, count: int) -> None:
        self._db.execute("UPDATE inode SET nlink = ? WHERE inode = ?", (count, inode))

    def set_flag(self, inode: int, bit: int) -> None:
        self._db.execute("UPDATE inode SET flags = flags | ? WHERE inode = ?", (bit, inode))

    def _count_directories(self) -> None:
        """Directories whose number of subdirectories was changed by the steps before."""
        self._db.execute(
            "UPDATE inode SET nlink = 2 + (SELECT count(*) FROM name n WHERE n.parent = inode.inode "
            "AND substr(n.key, -1) = x'2f') WHERE (mode & 61440) = 16384 AND nlink > 0"
        )

    # Names ------------------------------------------------------------------------------------------------------

    def _lost_and_found(self) -> int:
        """The directory at the root, made when it is needed."""
        if self._lost is None:
            row = self._db.execute(
                "SELECT inode FROM name WHERE parent = ? AND key = ?", (ROOT, LOST + b"/")
            ).fetchone()
            if row is None:
                number = self._new_number()
                self._insert_inode(number, stat.S_IFDIR | 0o700, 2)
                self._add_name(ROOT, LOST + b"/", number)
                row = (number,)
            self._lost = int(row[0])
        return self._lost

    def _add_name(self, parent: int, key: bytes, inode: int) -> None:
        (cookie,) = self._db.execute("SELECT coalesce(max(cookie), 2) + 1 FROM name").fetchone()
        self._db.execute("INSERT INTO name (cookie, parent, key, inode) VALUES (?, ?, ?, ?)",
                         (cookie, parent, key, inode))  # fmt: skip

    def _key(self, inode: int) -> bytes:
        row = self._db.execute("SELECT mode FROM inode WHERE inode = ?", (inode,)).fetchone()
        return b"#%d" % inode + (b"/" if row is not None and stat.S_ISDIR(row[0]) else b"")

    def rescue_inode(self, inode: int) -> None:
        """Give it a name in lost+found; a directory loses the name that leads round in a ring."""
        key = self._key(inode)
        if key.endswith(b"/"):
            self._db.execute("DELETE FROM name WHERE inode = ?", (inode,))
        else:
            self.set_links(inode, 1)
        self._add_name(self._lost_and_found(), key, inode)

    def rescue_name(self, cookie: int, inode: int) -> None:
        """Move a name into lost+found."""
        if self._db.execute("SELECT 1 FROM inode WHERE inode = ?", (inode,)).fetchone() is None:
            return  # settle_name has it
        move = "UPDATE name SET parent = ?, key = ? WHERE cookie = ?"
        lost, key = self._lost_and_found(), self._key(inode)
        try:
            self._db.execute(move, (lost, key, cookie))
        except sqlite3.IntegrityError:  # another link of the same file is there already
            self._db.execute(move, (lost, b"#%d-%d" % (inode, cookie), cookie))

    def rekey_name(self, cookie: int, key: bytes) -> None:
        with contextlib.suppress(sqlite3.IntegrityError):  # taken: stays a finding
            self._db.execute("UPDATE name SET key = ? WHERE cookie = ?", (key, cookie))

    def keep_one_name(self, inode: int, cookie: int) -> None:
        """Of a directory. The others lead to the same place."""
        self._db.execute("DELETE FROM name WHERE inode = ? AND cookie != ?", (inode, cookie))

    def settle_name(self, cookie: int, inode: int) -> None:
        """A name without inode: the file is made again from what is left; with nothing left, the name goes."""
        if self._db.execute("SELECT 1 FROM inode WHERE inode = ?", (inode,)).fetchone() is not None:
            return  # another name of the file was settled before
        left = self._leftovers.remains(inode)
        if left is not None and not left.bare:
            self._make_file(inode, left)
        elif self._leftovers.nothing_of(inode):
            self._db.execute("DELETE FROM name WHERE cookie = ?", (cookie,))

    def _make_file(self, inode: int, left: Remains) -> None:
        """A file of what is left of it. What packs have of it and its local bytes do not is fetched when it is read."""
        (links,) = self._db.execute("SELECT count(*) FROM name WHERE inode = ?", (inode,)).fetchone()
        self._insert_inode(inode, left.mode, max(1, links), left.size, left.place)
        if stat.S_ISLNK(left.mode):
            self._db.execute("UPDATE inode SET blocks = 0 WHERE inode = ?", (inode,))
        for table, bit in (("xattr", schema.XATTRS), ("record", schema.RECORD)):
            if self._db.execute(f"SELECT 1 FROM {table} WHERE inode = ?", (inode,)).fetchone() is not None:
                self.set_flag(inode, bit)
        if not left.place:
            self._db.execute("UPDATE extent SET local = 0 WHERE inode = ? AND pack IS NOT NULL", (inode,))
        if left.place == CONTENT and left.length < left.size:
            # Before the commit: without it the file would be damaged, and without the commit it is as good as before.
            with ContentStore.path_below(self._content, Inode(inode)).open("r+b") as stream:
                stream.truncate(left.size)
                os.fsync(stream.fileno())
        if stat.S_ISREG(left.mode):
            self.reshape(inode)

    def adopt(self, inode: int) -> None:
        """What is left of an inode that nobody knows, a content file or rows, becomes a file in lost+found. Rows of
        several tables may be the last that know where somebody's bytes are."""
        if self._db.execute("SELECT 1 FROM inode WHERE inode = ?", (inode,)).fetchone() is not None:
            return  # made by an earlier step
        left = self._leftovers.remains(inode)
        if left is not None:
            self._make_file(inode, left)
            self._add_name(self._lost_and_found(), self._key(inode), inode)

    def drop_attached(self, folder: int, slot: int, inode: int) -> None:
        self._db.execute("DELETE FROM attached WHERE dir = ? AND slot = ?", (folder, slot))
        if not self._db.execute("SELECT 1 FROM attached WHERE dir = ?", (folder,)).fetchone():
            self._db.execute(f"UPDATE inode SET flags = flags & ~{schema.ATTACHED} WHERE inode = ?", (folder,))
        here = self._db.execute("SELECT 1 FROM inode WHERE inode = ?", (inode,)).fetchone()
        named = self._db.execute("SELECT 1 FROM name WHERE inode = ?", (inode,)).fetchone()
        if here is not None and named is None:
            self.rescue_inode(inode)

    def drop_parts(self, inode: int) -> None:
        """Sizes and checksums of the parts of an object of which nothing else is left."""
        self._db.execute("DELETE FROM object_part WHERE inode = ?", (inode,))

    # Bytes ------------------------------------------------------------------------------------------------------

    def uncover(self, inode: int, offset: int) -> None:
        """Bytes that are here count as not packed. If they are not, what leads to a pack stays."""
        if not self._all_here(inode):
            return
        self._db.execute("DELETE FROM extent WHERE inode = ? AND offset = ?", (inode, offset))
        self.reshape(inode)

    def uncover_pack(self, pack: int) -> None:
        """The same for every file of a pack."""
        if self._db.execute("SELECT 1 FROM extent WHERE pack = ? AND local = 0 LIMIT 1", (pack,)).fetchone():
            return  # an earlier step found that some of the bytes are not here
        inodes = self._db.execute("SELECT DISTINCT inode FROM extent WHERE pack = ?", (pack,)).fetchall()
        if not all(self._all_here(inode) for (inode,) in inodes):
            return
        self._db.execute("DELETE FROM extent WHERE pack = ?", (pack,))
        for (inode,) in inodes:
            self.reshape(inode)

    def _all_here(self, inode: int) -> bool:
        """The file has local bytes, and its content files are as long as they must be."""
        row = self._db.execute("SELECT size, flags, blob FROM inode WHERE inode = ?", (inode,)).fetchone()
        if row is None:
            return False
        size, flags, blob = row
        ends = [(blob or inode, min(size, WINDOW_SIZE))] if flags & CONTENT else []
        if flags & SEGMENTED:
            ends = self._db.execute(
                "SELECT blob, max(blob_offset + length) FROM segment WHERE inode = ? GROUP BY blob", (inode,)
            ).fetchall()
        if flags & INLINE:
            return self._db.execute("SELECT 1 FROM inline WHERE inode = ?", (inode,)).fetchone() is not None
        return bool(ends) and all(self._length(number) >= end for number, end in ends)

    def _length(self, number: int) -> int:
        """Of a content file; -1: it is not there."""
        try:
            return ContentStore.path_below(self._content, Inode(number)).stat().st_size
        except FileNotFoundError:
            return -1

    def _packs_known(self, inode: int) -> bool:
        """Every pack of the file is whole on this disk (all of it is read), or proven by providers."""
        packs = self._db.execute(
            "SELECT p.bag_id, p.proven FROM extent e LEFT JOIN pack p ON p.pack = e.pack "
            "WHERE e.inode = ? AND e.pack IS NOT NULL",
            (inode,),
        ).fetchall()
        return all(bag and (proven or self._whole(bag.hex())) for bag, proven in packs)

    def _whole(self, pack: str) -> bool:
        if pack not in self._whole_packs:
            self._whole_packs[pack] = is_whole(self._volume / "packs" / pack)
        return self._whole_packs[pack]

    def reshape(self, inode: int) -> None:
        """Flags from the extents."""
        row = self._db.execute("SELECT size, flags FROM inode WHERE inode = ?", (inode,)).fetchone()
        covered, remote, whole = ext.shape(self._db, Inode(inode), row[0])
        flags = row[1] & ~(DIRTY | COVERED | REMOTE)
        flags |= (COVERED if covered else 0) | (REMOTE if remote else 0) | (0 if whole or not row[0] else DIRTY)
        self._db.execute("UPDATE inode SET flags = ?, changed = ? WHERE inode = ?", (flags, self._now, inode))

    def make_remote(self, inode: int, length: int) -> None:
        """Packed bytes behind `length` of the content file are not here: they are fetched when they are read."""
        self._db.execute(
            "UPDATE extent SET local = 0 WHERE inode = ? AND pack IS NOT NULL AND offset + length > ?", (inode, length)
        )
        self.reshape(inode)
        size, flags, blob = self._db.execute("SELECT size, flags, blob FROM inode WHERE inode = ?", (inode,)).fetchone()
        here = self._db.execute(
            "SELECT 1 FROM extent WHERE inode = ? AND local = 1 AND pack IS NOT NULL", (inode,)
        ).fetchone()
        path = ContentStore.path_below(self._content, Inode(blob or inode))
        if here is None and not flags & DIRTY and (not length or self._packs_known(inode)):
            self._db.execute(f"UPDATE inode SET flags = flags & ~{CONTENT} WHERE inode = ?", (inode,))
            self._after.append(lambda: path.unlink(missing_ok=True))
        elif path.exists():
            self._after.append(lambda: os.truncate(path, min(size, WINDOW_SIZE)))

    def make_all_remote(self, inode: int) -> None:
        """The same for a file whose bytes are in the index or in several content files, all of them packed."""
        self._db.execute("UPDATE extent SET local = 0 WHERE inode = ? AND pack IS NOT NULL", (inode,))
        (size,) = self._db.execute("SELECT size FROM inode WHERE inode = ?", (inode,)).fetchone()
        if not ext.shape(self._db, Inode(inode), size)[2] or not self._packs_known(inode):
            self.reshape(inode)  # not all of it is packed, or a pack is nowhere: what is here of it stays
            return
        for table in ("inline", "segment"):
            self._db.execute(f"DELETE FROM {table} WHERE inode = ?", (inode,))
        self._db.execute(f"UPDATE inode SET flags = flags & ~{INLINE | SEGMENTED} WHERE inode = ?", (inode,))
        self.reshape(inode)

    def forget_bytes(self, inode: int, offset: int) -> None:
        """A local copy is not what its pack holds: the pack's bytes count."""
        self._db.execute("UPDATE extent SET local = 0 WHERE inode = ? AND offset = ?", (inode, offset))
        self.reshape(inode)

    def drop_content(self, number: int) -> None:
        """A content file of an inode whose every byte is elsewhere."""
        path = ContentStore.path_below(self._content, Inode(number))
        self._after.append(lambda: path.unlink(missing_ok=True))

    def forget_pieces(self, pack: str, pieces: Sequence[int]) -> None:
        """Damaged pieces of a pack on this disk count as missing, so that they are fetched again."""

        def forget() -> None:
            stored = StoredBag.open(self._volume / "packs" / pack)
            try:
                for index in pieces:
                    with contextlib.suppress(Damaged, NotFound):
                        stored.read_piece(index)
                stored.sync()
            finally:
                stored.close()

        self._after.append(forget)
