"""Do packs hold what the index says, and local copies what their packs hold? Level 2 of `tonfs fsck`: reads all bytes.

A pack that is not on this disk is no finding (its providers have it); what is on this disk must be right.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from ..bagfiles import PackManifest, StoredBag
from ..bagfiles.pack import MANIFEST_NAME, PACK_DIR
from ..errors import BadData, Damaged, NotFound, TonfsError
from ..ids import Inode
from .check import Finding, Fix, Progress
from .content import ContentStore
from .schema import CONTENT, INLINE, SEGMENTED
from .segments import Segment, pieces

_CHUNK: Final = 1 << 20
_PERHAPS: Final = " Providers may have it all the same: let the agent audit them ('tonfs up'), then look again."


def is_whole(directory: Path) -> bool:
    """All of a pack is in its directory and has the right hashes. Slow: reads it."""
    try:
        stored = StoredBag.open(directory)
    except TonfsError:
        return False
    try:
        return stored.complete and all(map(stored.intact, range(stored.info.pieces if stored.info else 0)))
    finally:
        stored.close()


@dataclass(frozen=True, slots=True)
class _Pack:
    pack: int
    bag: bytes
    size: int
    proven: int

    @property
    def name(self) -> str:
        return self.bag.hex()


class PackCheck:
    """One pass over the packs on this disk, and over the local copies of what they hold."""

    def __init__(self, db: sqlite3.Connection, volume: Path, progress: Progress) -> None:
        self._db = db
        self._volume = volume
        self._progress = progress

    def run(self) -> Iterator[Finding]:
        packs = [_Pack(*row) for row in self._db.execute("SELECT pack, bag_id, size, proven FROM pack ORDER BY pack")]
        total, done = sum(pack.size for pack in packs), 0
        for pack in packs:
            self._progress("packs", done, total)
            yield from self._one(pack)
            done += pack.size
        self._progress("packs", total, total)
        yield from self._strangers({pack.name for pack in packs})

    def _used(self, pack: _Pack) -> bool:
        """A file refers to it."""
        row = self._db.execute("SELECT 1 FROM extent WHERE pack = ? LIMIT 1", (pack.pack,)).fetchone()
        return row is not None

    def _again(self, pack: _Pack) -> Fix | None:
        """Pack the files again from their local copies; None when some have none."""
        if (
            not self._used(pack)
            or self._db.execute("SELECT 1 FROM extent WHERE pack = ? AND local = 0 LIMIT 1", (pack.pack,)).fetchone()
        ):
            return None
        return Fix("uncover_pack", (pack.pack,), "pack its files again from their local copies")

    def _one(self, pack: _Pack) -> Iterator[Finding]:
        directory = self._volume / "packs" / pack.name
        try:
            stored = StoredBag.open(directory)
        except NotFound:
            yield from self._nowhere(pack)
            return
        except TonfsError as exc:
            text = f"The pack {pack.name[:16]} cannot be opened: {exc.message}"
            yield Finding("pack-files", text, self._again(pack), harmless=not self._used(pack))
            return
        try:
            yield from self._pieces(pack, stored)
        finally:
            stored.close()

    def _nowhere(self, pack: _Pack) -> Iterator[Finding]:
        if self._used(pack) and not pack.proven:
            text, fix = (
                f"The pack {pack.name[:16]} is neither on this disk nor proven by any provider.",
                self._again(pack),
            )
            yield Finding("pack-lost", text if fix is not None else text + _PERHAPS, fix)

    def _pieces(self, pack: _Pack, stored: StoredBag) -> Iterator[Finding]:
        info = stored.info
        if info is None:
            return
        bad = [index for index in range(info.pieces) if stored.have(index) and not stored.intact(index)]
        if bad:
            text = f"{len(bad)} of {info.pieces} pieces of the pack {pack.name[:16]} are damaged on this disk."
            fix = None if pack.proven else self._again(pack)
            if pack.proven:
                fix = Fix("forget_pieces", (pack.name, tuple(bad)), "fetch them again from its providers")
            elif fix is None and self._used(pack):
                text += _PERHAPS
            yield Finding("pack-damaged", text, fix, harmless=not self._used(pack))
        manifest = self._manifest(pack, stored, bad)
        if isinstance(manifest, Finding):
            yield manifest
        elif manifest is not None:
            yield from self._compare(pack, manifest)

    def _manifest(self, pack: _Pack, stored: StoredBag, bad: list[int]) -> PackManifest | Finding | None:
        """None when its bytes are not here."""
        header, info = stored.header, stored.info
        if header is None or info is None or header.dir_name != PACK_DIR:
            return None
        length = next((entry.size for entry in header.files if entry.name == MANIFEST_NAME), 0)
        pieces = stored.pieces_for(MANIFEST_NAME, 0, length)
        if not length or any(not stored.have(index) or index in bad for index in pieces):
            return None
        path = stored.data_root / os.fsdecode(PACK_DIR + MANIFEST_NAME)
        try:
            return PackManifest.parse(path.read_bytes())
        except (BadData, OSError) as exc:
            # The index knows where everything lies; without it this pack could not be read.
            text = f"The manifest of the pack {pack.name[:16]} is wrong: {exc}"
            fix, used = self._again(pack), self._used(pack)
            if used and fix is None:
                text += " When all of it is here ('tonfs fetch'), its files can be packed again."
            return Finding("pack-manifest", text, fix, harmless=not used)

    def _compare(self, pack: _Pack, manifest: PackManifest) -> Iterator[Finding]:
        """Extents lie in what was packed of their file; local copies have the packed hash."""
        known: dict[int, list[tuple[int, int, int, bytes]]] = {}
        for entry in manifest.entries:
            for one in entry.ranges:
                known.setdefault(entry.inode, []).append((one.file_offset, one.length, one.pack_offset, one.sha256))
        rows = self._db.execute(
            "SELECT e.inode, e.offset, e.length, e.pack_offset, e.local, i.flags FROM extent e "
            "JOIN inode i ON i.inode = e.inode WHERE e.pack = ? ORDER BY e.inode, e.offset",
            (pack.pack,),
        ).fetchall()
        for inode, offset, length, place, local, flags in rows:
            if place + length > manifest.data_size:
                fix = Fix("uncover", (inode, offset), "pack these bytes again from their local copy") if local else None
                yield Finding("extent", f"Inode {inode}: the extent at {offset} lies outside its pack.", fix)
            elif local and flags & (CONTENT | INLINE | SEGMENTED):
                yield from self._hashes(pack, inode, (offset, length, place), known.get(inode, []))

    def _hashes(
        self, pack: _Pack, inode: int, extent: tuple[int, int, int], ranges: list[tuple[int, int, int, bytes]]
    ) -> Iterator[Finding]:
        """Whole packed ranges within a local extent; those that were cut since have no hash to compare with."""
        offset, length, place = extent
        for start, size, at, digest in ranges:
            inside = offset <= start and start + size <= offset + length and at - start == place - offset
            if inside and self._digest(inode, start, size) != digest:
                fix = Fix("forget_bytes", (inode, offset), "use the bytes of the pack")
                text = f"The local copy of inode {inode} at {start} is not what was packed into {pack.name[:16]}."
                yield Finding("content-changed", text, fix if self._has_good(pack) else None)
                return

    def _has_good(self, pack: _Pack) -> bool:
        return bool(pack.proven) or is_whole(self._volume / "packs" / pack.name)

    def _digest(self, inode: int, offset: int, length: int) -> bytes:
        """Of a range of a file's local bytes; b"" when some are not there (that is level 1's finding)."""
        hasher = sha256()
        for chunk in self._local(inode, offset, length):
            if chunk is None:
                return b""
            hasher.update(chunk)
        return hasher.digest()

    def _local(self, inode: int, offset: int, length: int) -> Iterator[bytes | None]:
        """Local bytes of a range, wherever they are; None once some are missing."""
        flags, blob = self._db.execute("SELECT flags, blob FROM inode WHERE inode = ?", (inode,)).fetchone()
        if flags & INLINE:
            row = self._db.execute("SELECT data FROM inline WHERE inode = ?", (inode,)).fetchone()
            data = bytes(row[0]) if row is not None else b""
            yield data[offset : offset + length].ljust(length, b"\0")  # what lies behind them is a hole
        elif flags & CONTENT:
            yield from self._file(blob or inode, offset, length)
        else:
            rows = self._db.execute(
                "SELECT offset, length, blob, blob_offset, own FROM segment WHERE inode = ? ORDER BY offset", (inode,)
            ).fetchall()
            segments = [Segment(row[0], row[1], Inode(row[2]), row[3], bool(row[4])) for row in rows]
            for low, high, part in pieces(segments, offset, offset + length):
                if part is None:
                    yield bytes(high - low)
                else:
                    yield from self._file(part.blob, part.blob_offset, high - low)

    def _file(self, number: int, offset: int, length: int) -> Iterator[bytes | None]:
        try:
            with open(ContentStore.path_below(self._volume / "content", Inode(number)), "rb", buffering=0) as stream:
                stream.seek(offset)
                while length:
                    chunk = stream.read(min(_CHUNK, length))
                    if not chunk:
                        break
                    yield chunk
                    length -= len(chunk)
        except FileNotFoundError:
            pass
        if length:
            yield None

    def _strangers(self, known: set[str]) -> Iterator[Finding]:
        """Packs on the disk that the index does not know: of a crash, or of an index that was replaced."""
        folder = self._volume / "packs"
        count = sum(
            1 for path in (folder.iterdir() if folder.is_dir() else ()) if path.name not in known and path.is_dir()
        )
        if count:
            text = f"{count} packs on this disk are not in the index; the agent keeps or removes them as it needs."
            yield Finding("pack-unknown", text, harmless=True)


def check_packs(db: sqlite3.Connection, volume: Path, progress: Progress) -> Iterator[Finding]:
    """Packs against index and content files. Raises OSError, Damaged."""
    try:
        yield from PackCheck(db, volume, progress).run()
    except sqlite3.DatabaseError as exc:
        raise Damaged(f"The index cannot be read: {exc}.") from None
