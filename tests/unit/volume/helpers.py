"""What the tests of the volume share: a packer, a pack store, a consistency check, a dump."""

from __future__ import annotations

import hashlib
import shutil
import stat
from dataclasses import dataclass, field
from pathlib import Path

from tonfs.ids import BagId, Inode
from tonfs.volume import ROOT, PackedFile, Volume
from tonfs.volume.schema import (
    ATTACHED,
    CONTENT,
    COVERED,
    DIRTY,
    INLINE,
    REMOTE,
    SEGMENTED,
    WINDOW_SIZE,
)


@dataclass
class Packer:
    """Does what the agent does with dirty files, without bags: packs are byte strings in memory."""

    packs: dict[BagId, bytes] = field(default_factory=dict)

    def pack_all(self, volume: Volume, proven: int = 5) -> int:
        """Pack whatever is dirty and say that `proven` of 5 replicas are good. Number of files committed."""
        report = volume.dirty(0.0, 1 << 30, force=True)
        data = bytearray()
        files = []
        for item in report.files:
            ranges = []
            for (offset, length), (path, place) in zip(item.ranges, item.sources, strict=True):
                ranges.append((offset, length, len(data)))
                with open(path, "rb") as stream:
                    stream.seek(place)
                    data += stream.read(length)
            files.append(PackedFile(item.inode, item.version, tuple(ranges)))
        if not files:
            return 0
        bag = BagId(hashlib.sha256(bytes(data) + repr(files).encode()).digest())
        self.packs[bag] = bytes(data)
        done = volume.commit_pack(bag, len(data), files)
        volume.pack_states([(bag, proven, 5)])
        return len(done.committed)

    def read(self, volume: Volume, inode: Inode, offset: int, length: int) -> bytes:
        """Read, fetching what is remote."""
        for _ in range(3):
            result = volume.read(inode, offset, length)
            if not result.missing:
                return result.data
            for where in result.missing:
                data = self.packs[where.bag_id][where.pack_offset : where.pack_offset + where.length]
                assert len(data) == where.length
                assert volume.fill(where, where.offset, data)
        raise AssertionError("fetched ranges stay remote")


def evict_all(volume: Volume) -> None:
    """Evict what may go, after the agent has told again what it told before (a volume that was opened anew asks)."""
    volume.pack_states([(pack.bag_id, pack.proven, pack.wanted) for pack in volume.packs()])
    volume.evict(everything(volume))


def everything(volume: Volume) -> list[Inode]:
    return [inode for inode, _, _ in volume.files_below(ROOT)]


def dump(volume: Volume, packer: Packer | None = None, *, contents: bool = True) -> dict[bytes, tuple[object, ...]]:
    """path -> (type, permissions, links, what it holds)."""
    out: dict[bytes, tuple[object, ...]] = {}

    def walk(inode: Inode, prefix: bytes) -> None:
        after = 0
        while entries := volume.list_dir(inode, after, 7):
            for entry in entries:
                attr = entry.attr
                path = prefix + entry.name
                what: object = attr.size
                if attr.is_file and contents:
                    read = (packer or Packer()).read
                    what = read(volume, attr.inode, 0, attr.size + 1)
                elif stat.S_ISLNK(attr.mode):
                    what = volume.readlink(attr.inode)
                elif attr.is_dir:
                    what = None
                links = None if attr.is_dir else attr.nlink
                assert path not in out, "a name was listed twice"
                out[path] = (stat.S_IFMT(attr.mode), stat.S_IMODE(attr.mode), links, what)
                if attr.is_dir:
                    walk(attr.inode, path + b"/")
            after = entries[-1].cookie

    walk(ROOT, b"")
    return out


def check(volume: Volume) -> None:
    """The index agrees with itself and with the content files."""
    volume.commit()
    db = volume.reader
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    names = db.execute("SELECT parent, key, inode FROM name").fetchall()
    carried = db.execute("SELECT dir, slot, parent, key, inode FROM attached").fetchall()
    nodes = {row[0]: row for row in db.execute("SELECT inode, mode, nlink, size, flags FROM inode")}
    links: dict[int, int] = {}
    subdirs: dict[int, int] = {}
    for parent, key, inode in names:
        assert stat.S_ISDIR(nodes[parent][1]), "a name lies in something that is no directory"
        is_dir = stat.S_ISDIR(nodes[inode][1])
        assert key.endswith(b"/") == is_dir
        links[inode] = links.get(inode, 0) + 1
        subdirs[parent] = subdirs.get(parent, 0) + is_dir
    for folder, _, parent, key, inode in carried:
        links[inode] = links.get(inode, 0) + 1
        assert (parent, key + b"/", folder) in names, "a directory carries an object under another name than its own"
    for inode, row in nodes.items():
        assert bool(row[4] & ATTACHED) == any(folder == inode for folder, *_ in carried)
    for inode, mode, nlink, size, flags in nodes.values():
        if stat.S_ISDIR(mode):
            assert nlink in (0, 2 + subdirs.get(inode, 0))
            assert inode == ROOT or nlink == 0 or links[inode] == 1
            continue
        assert nlink == links.get(inode, 0)
        extents = db.execute(
            'SELECT "offset", length, pack, local FROM extent WHERE inode = ? ORDER BY "offset"', (inode,)
        ).fetchall()
        end = covered = 0
        for offset, length, pack, local in extents:
            assert offset >= end, "extents overlap"
            assert length > 0
            assert local or pack is not None
            end = offset + length
            covered += length
        assert end <= size
        assert bool(flags & COVERED) == bool(extents)
        assert bool(flags & REMOTE) == any(not row[3] for row in extents)
        if stat.S_ISREG(mode):
            assert bool(flags & DIRTY) == (covered < size)
            check_places(volume, inode, size, flags)
        else:
            assert not flags & (CONTENT | SEGMENTED | INLINE)
    orphans = db.execute("SELECT count(*) FROM extent WHERE inode NOT IN (SELECT inode FROM inode)").fetchone()
    assert orphans == (0,)


def check_places(volume: Volume, inode: int, size: int, flags: int) -> None:
    """Bytes of a regular file are in exactly one of the places where they may be, and all there."""
    db = volume.reader
    kind = flags & (CONTENT | SEGMENTED | INLINE)
    assert kind in (0, CONTENT, SEGMENTED, INLINE)
    data = db.execute("SELECT data FROM inline WHERE inode = ?", (inode,)).fetchone()
    assert (data is not None) == (kind == INLINE), "inline bytes and the flag disagree"
    assert data is None or 0 < len(data[0]) <= size
    (blob,) = db.execute("SELECT blob FROM inode WHERE inode = ?", (inode,)).fetchone()
    if kind == CONTENT:
        assert volume.content.path(Inode(blob or inode)).stat().st_size >= min(size, WINDOW_SIZE)
    segments = db.execute(
        "SELECT offset, length, blob, blob_offset FROM segment WHERE inode = ? ORDER BY offset", (inode,)
    ).fetchall()
    assert kind == SEGMENTED or not segments
    end = 0
    for offset, length, number, place in segments:
        assert offset >= end
        end = offset + length
        assert end <= size
        assert volume.content.path(Inode(number)).stat().st_size >= place + length, "a content file is too short"


def crash_copy(source: Path, target: Path) -> Path:
    """The volume's directory as a kill at this moment would leave it. sqlite's shared memory is rebuilt."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("index.db-shm", "ballast", "*.sock"))
    return target


def next_tick(volume: Volume) -> None:
    """Time stamps come from the kernel's coarse clock, which moves a few hundred times a second."""
    now = volume.now_ns()
    while volume.now_ns() == now:
        pass
