"""Every kind of damage, made for real: it is found, nothing changes without repair, and repair keeps every byte."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.unit.volume.helpers import check
from tonfs.bagfiles import write_pack
from tonfs.bagfiles.pack import PackInput
from tonfs.cli.fsck import Outcome, _Shown, look, run
from tonfs.errors import Busy, Damaged, NotFound, UsageError
from tonfs.ids import Inode
from tonfs.volume import ROOT, PackedFile, Volume
from tonfs.volume.schema import ATTACHED, CONTENT, COVERED, DIRTY, INLINE, REMOTE, SEGMENTED, XATTRS

BIG = os.urandom(200_000)
SMALL = b"small and packed"
FRESH = os.urandom(50_000)
"""Not packed."""


class World:
    """A volume that is closed: d/big and d/small are packed, fresh is not, and a few other things."""

    def __init__(self, base: Path) -> None:
        self.path = base / "volume"
        self.path.mkdir()
        volume = Volume(self.path)
        self.dir = volume.mkdir(ROOT, b"d", 0o755, 0, 0).inode
        self.sub = volume.mkdir(self.dir, b"sub", 0o755, 0, 0).inode
        self.big = self._file(volume, self.dir, b"big", BIG)
        self.small = self._file(volume, self.dir, b"small", SMALL)
        volume.sync(self.big)
        volume.sync(self.small)
        self.pack = self._pack(volume)
        self.fresh = self._file(volume, ROOT, b"fresh", FRESH)
        volume.link(self.fresh, self.sub, b"again")
        self.link = volume.symlink(ROOT, b"link", b"target", 0, 0).inode
        volume.set_xattr(self.fresh, b"user.colour", b"blue")
        volume.close()

    @staticmethod
    def _file(volume: Volume, parent: Inode, name: bytes, data: bytes) -> Inode:
        inode = volume.create(parent, name, 0o644, 0, 0).inode
        volume.write(inode, 0, data)
        return inode

    def _pack(self, volume: Volume) -> str:
        report = volume.dirty(0.0, 1 << 30, force=True)
        inputs = [
            PackInput(
                f.inode,
                f.version,
                os.fsdecode(f.path),
                f.mode,
                f.mtime_ns,
                f.size,
                f.ranges,
                tuple((Path(path), at) for path, at in f.sources),
            )
            for f in report.files
        ]
        (self.path / "packs").mkdir()
        written = write_pack(self.path / "packs", inputs, created="2026-01-02T03:04:05Z")
        bag = written.bag.bag_id
        written.bag.close()
        files = [PackedFile(e.inode, e.version, e.ranges) for e in written.extents]
        assert len(volume.commit_pack(bag, written.manifest.data_size, files).committed) == 2
        return bag.hex()

    @contextlib.contextmanager
    def index(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self.path / "index.db", isolation_level=None)
        yield db
        db.close()

    def sql(self, *statements: str) -> None:
        with self.index() as db:
            for statement in statements:
                db.execute(statement)

    def content(self, inode: int) -> Path:
        return self.path / "content" / f"{inode & 0xFF:02x}" / f"{inode:x}"

    @property
    def pack_data(self) -> Path:
        return self.path / "packs" / self.pack / "files" / "pack" / "data"

    def evict(self) -> None:
        """The pack is proven, and the local copies of its files are given up."""
        volume = Volume(self.path)
        volume.pack_states([(bytes.fromhex(self.pack), 5, 5)])  # type: ignore[list-item]
        volume.evict([self.big, self.small])
        volume.close()

    def proven(self) -> None:
        self.sql("UPDATE pack SET proven = 5, wanted = 5")

    def fsck(self, level: int = 2, *, repair: bool = False) -> Outcome:
        return run(self.path, level, repair, _Shown(quiet=True))

    def tree(self) -> dict[str, bytes]:
        """Path -> local bytes, of a volume that mounts without complaint; remote bytes show as None would."""
        out: dict[str, bytes] = {}
        volume = Volume(self.path)

        def walk(inode: Inode, prefix: str) -> None:
            for entry in volume.list_dir(inode, 0, 1000):
                path = prefix + os.fsdecode(entry.name)
                if entry.attr.is_dir:
                    walk(entry.attr.inode, path + "/")
                elif stat.S_ISREG(entry.attr.mode):
                    read = volume.read(entry.attr.inode, 0, 1 << 20)
                    out[path] = b"remote" if read.missing else read.data
                else:
                    out[path] = b"other"

        walk(ROOT, "")
        check(volume)
        volume.close()
        return out


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


WHOLE = {"d/big": BIG, "d/small": SMALL, "fresh": FRESH, "d/sub/again": FRESH, "link": b"other"}


def test_a_healthy_volume_is_clean(world: World) -> None:
    assert world.fsck(2).found == []
    world.evict()
    assert [one for one in world.fsck(2).found if not one.harmless] == []
    assert world.tree() == {**WHOLE, "d/big": b"remote", "d/small": b"remote"}


def test_traces_of_a_crash_are_no_damage(tmp_path: Path, world: World) -> None:
    volume = Volume(world.path)
    volume.write(volume.create(ROOT, b"never committed", 0o644, 0, 0).inode, 0, FRESH)
    gone = volume.lookup(ROOT, b"fresh").inode
    volume.hold(gone)
    volume.unlink(ROOT, b"fresh")
    volume.abandon()
    assert world.fsck().damage == []
    assert world.tree() == WHOLE


Damage = Callable[[World], None]


def sql(*statements: str) -> Damage:
    """`{big}` and friends stand for inode numbers."""
    return lambda world: world.sql(*(statement.format(**vars(world)) for statement in statements))


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as stream:
        stream.seek(at)
        byte = stream.read(1)[0]
        stream.seek(at)
        stream.write(bytes([byte ^ 1]))


def lose(world: World, what: str) -> None:
    world.content(vars(world)[what]).unlink()


def cut(world: World) -> None:
    os.truncate(world.content(world.big), 1000)


def stray(world: World) -> None:
    world.content(2).parent.mkdir(exist_ok=True)
    shutil.copy(world.content(world.fresh), world.content(2))
    world.sql("UPDATE meta SET value = '9000' WHERE key IN ('inode_next', 'inode_ceiling')",
              "DELETE FROM name WHERE inode = 2", "DELETE FROM inode WHERE inode = 2",
              f"DELETE FROM name WHERE parent = 2 AND inode != {world.sub}",
              f"UPDATE name SET parent = 1 WHERE inode = {world.sub}")  # fmt: skip


def left_over(world: World) -> None:
    world.evict()
    world.content(world.big).parent.mkdir(exist_ok=True)
    world.content(world.big).write_bytes(b"old")


def beside_inline(world: World) -> None:
    """As an older tonfs left it that was killed between moving a small file out of the index and the commit."""
    volume = Volume(world.path)
    inode = world._file(volume, ROOT, b"tiny", b"inline")
    volume.close()
    world.content(inode).parent.mkdir(exist_ok=True)
    world.content(inode).write_bytes(b"what a crash undid")


def damaged_pack(world: World, *, proven: bool) -> None:
    flip(world.pack_data, 100)
    if proven:
        world.proven()


def changed_content(world: World) -> None:
    flip(world.content(world.big), 5)


def segmented(world: World, what: str) -> None:
    """The same bytes in the same content file, said in the other way."""
    inode = vars(world)[what]
    world.sql(
        f"INSERT INTO segment SELECT inode, 0, size, inode, 0, 1 FROM inode WHERE inode = {inode}",
        f"UPDATE inode SET flags = (flags & ~{CONTENT}) | {SEGMENTED} WHERE inode = {inode}",
    )


def lost_segments(world: World) -> None:
    segmented(world, "big")
    lose(world, "big")


def changed_segments(world: World) -> None:
    segmented(world, "big")
    flip(world.content(world.big), 70_000)


def without(world: World, what: str) -> None:
    """Row and names of an inode are gone."""
    world.sql(*(f"DELETE FROM {table} WHERE inode = {vars(world)[what]}" for table in ("inode", "name")))


def tiny_remains(world: World) -> None:
    volume = Volume(world.path)
    vars(world)["tiny"] = world._file(volume, ROOT, b"tiny", b"inline")
    volume.close()
    without(world, "tiny")


def shared_remains(world: World) -> None:
    """`fresh` has moved on to a content file of its own; what is in its first one, a removed copy has alone."""
    world.content(700).parent.mkdir(exist_ok=True)
    shutil.copy(world.content(world.fresh), world.content(700))
    world.sql(
        f"UPDATE inode SET blob = 700 WHERE inode = {world.fresh}",
        f"INSERT INTO segment VALUES (777, 0, {len(FRESH)}, {world.fresh}, 0, 0)",
        "UPDATE meta SET value = '9000' WHERE key IN ('inode_next', 'inode_ceiling')",
    )


MENDED: list[tuple[str, Damage, str, dict[str, bytes]]] = [
    ("no root directory", sql("DELETE FROM inode WHERE inode = 1"), "root", WHOLE),
    ("an object on a directory that is gone", sql("DELETE FROM name WHERE inode = {small}",
     "INSERT INTO attached VALUES (777, 0, 1, CAST('x' AS BLOB), {small})"), "attached",
     {k: v for k, v in WHOLE.items() if k != "d/small"} | {"lost+found/#{small}": SMALL}),
    ("a directory with an object that is gone",
     sql("INSERT INTO attached VALUES ({dir}, 0, 1, CAST('d' AS BLOB), 777)",
         f"UPDATE inode SET flags = flags | {ATTACHED} WHERE inode = {{dir}}"), "attached", WHOLE),
    ("a name whose inode row is gone, but not its bytes", sql("DELETE FROM inode WHERE inode = {fresh}"),
     "name-without-inode", WHOLE),
    ("a name with nothing behind it", sql("INSERT INTO name VALUES (999, 1, 'ghost', 777)"),
     "name-without-inode", WHOLE),
    ("a name in a directory that is gone", sql("UPDATE name SET parent = 888 WHERE inode = {big}"),
     "name-without-directory", {k: v for k, v in WHOLE.items() if k != "d/big"} | {"lost+found/#{big}": BIG}),
    ("a name in something that is no directory", sql("UPDATE name SET parent = {fresh} WHERE inode = {small}"),
     "name-without-directory", {k: v for k, v in WHOLE.items() if k != "d/small"} | {"lost+found/#{small}": SMALL}),
    ("a directory filed like a file", sql("UPDATE name SET key = CAST('sub' AS BLOB) WHERE inode = {sub}"),
     "name-key", WHOLE),
    ("a directory with two names", sql("INSERT INTO name VALUES (999, {sub}, CAST('dir/' AS BLOB), {dir})",
     "INSERT INTO name VALUES (998, 1, CAST('two/' AS BLOB), {sub})", "UPDATE inode SET nlink = 4 WHERE inode = 1"),
     "directory-names", {**{k: v for k, v in WHOLE.items() if k != "d/sub/again"}, "two/again": FRESH}),
    ("a directory without a name", sql("DELETE FROM name WHERE inode = {sub}"),
     "unreachable", {k: v for k, v in WHOLE.items() if k != "d/sub/again"} | {"lost+found/#{sub}/again": FRESH}),
    ("directories in a ring", sql("UPDATE name SET parent = {sub} WHERE inode = {dir}"), "unreachable",
     {"lost+found/#{dir}/big": BIG, "lost+found/#{dir}/small": SMALL, "lost+found/#{dir}/sub/again": FRESH,
      "fresh": FRESH, "link": b"other"}),
    ("a file without a name", sql("DELETE FROM name WHERE inode = {small}"), "unreachable",
     {k: v for k, v in WHOLE.items() if k != "d/small"} | {"lost+found/#{small}": SMALL}),
    ("a file that would be removed as an orphan", sql("UPDATE inode SET nlink = 0 WHERE inode = {fresh}"),
     "link-count", WHOLE),
    ("a wrong link count", sql("UPDATE inode SET nlink = 9 WHERE inode = {big}"), "link-count", WHOLE),
    ("a wrong link count of a directory", sql("UPDATE inode SET nlink = 9 WHERE inode = {dir}"), "link-count", WHOLE),
    ("attributes of an inode that is gone", sql("INSERT INTO xattr VALUES (777, CAST('user.x' AS BLOB), 'y')"),
     "rows-without-inode", WHOLE | {"lost+found/#777": b""}),
    ("parts of an object that is gone", sql("INSERT INTO object_part VALUES (777, 1, 0, 5, '')"),
     "rows-without-inode", WHOLE),
    ("small bytes without inode and name", partial(without, what="small"), "rows-without-inode",
     {k: v for k, v in WHOLE.items() if k != "d/small"} | {"lost+found/#{small}": SMALL}),
    ("small bytes that are not packed, without inode and name", tiny_remains, "rows-without-inode",
     WHOLE | {"lost+found/#{tiny}": b"inline"}),
    ("evicted bytes without inode and name", lambda world: (world.evict(), without(world, "big"))[1],
     "rows-without-inode", {"d/small": b"remote", "fresh": FRESH, "d/sub/again": FRESH, "link": b"other",
     "lost+found/#{big}": b"remote"}),
    ("segments without inode and name", lambda world: (segmented(world, "fresh"), without(world, "fresh"))[1],
     "rows-without-inode", {"d/big": BIG, "d/small": SMALL, "link": b"other", "lost+found/#{fresh}": FRESH}),
    ("segments in another's content file, without inode and name", shared_remains, "rows-without-inode",
     WHOLE | {"lost+found/#777": FRESH}),
    ("a symlink's target without inode and name", partial(without, what="link"), "rows-without-inode",
     {k: v for k, v in WHOLE.items() if k != "link"} | {"lost+found/#{link}": b"other"}),
    ("a name whose inode row is gone, but not its small bytes", sql("DELETE FROM inode WHERE inode = {small}"),
     "name-without-inode", WHOLE),
    ("a name whose inode row is gone, but not its segments", lambda world: (segmented(world, "big"),
     world.sql(f"DELETE FROM inode WHERE inode = {world.big}"))[1], "name-without-inode", WHOLE),
    ("a name whose inode row is gone, but not its packed bytes", lambda world: (world.evict(),
     world.sql(f"DELETE FROM inode WHERE inode = {world.big}"))[1], "name-without-inode",
     {**WHOLE, "d/big": b"remote", "d/small": b"remote"}),
    ("a symlink's name whose inode row is gone", sql("DELETE FROM inode WHERE inode = {link}"),
     "name-without-inode", WHOLE),
    ("attributes that the inode denies", sql(f"UPDATE inode SET flags = flags & ~{XATTRS} WHERE inode = {{fresh}}"),
     "flags", WHOLE),
    ("a counter behind the numbers in use", sql("UPDATE meta SET value = '3' WHERE key LIKE 'inode_%'"),
     "inode-counter", WHOLE),
    ("a dirty file that says it is clean", sql(f"UPDATE inode SET flags = flags & ~{DIRTY} WHERE inode = {{fresh}}"),
     "flags", WHOLE),
    ("a clean file that says it is dirty", sql(f"UPDATE inode SET flags = flags | {DIRTY} WHERE inode = {{big}}"),
     "flags", WHOLE),
    ("an extent beyond the file", sql("UPDATE extent SET length = length + 1 WHERE inode = {big}"), "extent", WHOLE),
    ("an extent of an unknown pack", sql("UPDATE extent SET pack = 55 WHERE inode = {big}"), "extent", WHOLE),
    ("an extent outside its pack", sql("UPDATE extent SET pack_offset = 999999 WHERE inode = {big}"), "extent", WHOLE),
    ("a content file that was cut", cut, "content-lost", {**WHOLE, "d/big": b"remote"}),
    ("a content file that is gone", partial(lose, what="big"), "content-lost", {**WHOLE, "d/big": b"remote"}),
    ("a place that the inode denies", sql(f"UPDATE inode SET flags = flags & ~{CONTENT} WHERE inode = {{big}}"),
     "flags", WHOLE),
    ("small bytes that the index lost", sql("DELETE FROM inline"), "content-lost", {**WHOLE, "d/small": b"remote"}),
    ("small bytes that the inode denies", sql(f"UPDATE inode SET flags = flags & ~{INLINE} WHERE inode = {{small}}"),
     "flags", WHOLE),
    ("small bytes that changed", sql("UPDATE inline SET data = CAST('other and packed' AS BLOB)"),
     "content-changed", {**WHOLE, "d/small": b"remote"}),
    ("segments in a content file that is gone", lost_segments, "content-lost", {**WHOLE, "d/big": b"remote"}),
    ("segments that changed by themselves", changed_segments, "content-changed", {**WHOLE, "d/big": b"remote"}),
    ("segments that the inode denies", lambda world: (segmented(world, "fresh"),
     world.sql(f"UPDATE inode SET flags = flags & ~{SEGMENTED} WHERE inode = {world.fresh}"))[1], "flags", WHOLE),
    ("bytes that belong to nobody", stray, "content-stray",
     {"sub/again": FRESH, "fresh": FRESH, "link": b"other", "lost+found/#2": FRESH, "lost+found/#{big}": BIG,
      "lost+found/#{small}": SMALL}),
    ("bytes that nobody needs", left_over, "content-stray", {**WHOLE, "d/big": b"remote", "d/small": b"remote"}),
    ("bytes of a file that are in the index as well", beside_inline, "content-stray", WHOLE | {"tiny": b"inline"}),
    ("a damaged pack that only this disk has", partial(damaged_pack, proven=False), "pack-damaged", WHOLE),
    ("a damaged pack that providers have", partial(damaged_pack, proven=True), "pack-damaged", WHOLE),
    ("a pack that cannot be opened", lambda world: (world.path / "packs" / world.pack / "tree.bin").unlink(),
     "pack-files", WHOLE),
    ("a pack that is nowhere", lambda world: shutil.rmtree(world.path / "packs"), "pack-lost", WHOLE),
    ("a local copy that changed by itself", changed_content, "content-changed", {**WHOLE, "d/big": b"remote"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "damage", "kind", "after"), MENDED, ids=[row[0] for row in MENDED])
def test_damage_is_found_and_mended(
    name: str, damage: Damage, kind: str, after: dict[str, bytes], world: World
) -> None:
    damage(world)
    seen = world.fsck()
    assert kind in {one.kind for one in seen.damage}
    assert all(one.fix is not None for one in seen.damage), "it would say what it would do"
    assert world.fsck().found == seen.found, "without --repair nothing changes"
    done = world.fsck(repair=True)
    assert done.damage == []
    assert all(done.repaired(one) for one in seen.damage)
    assert world.fsck().damage == []
    assert world.tree() == {key.format(**vars(world)): value for key, value in after.items()}


def partly_evicted(world: World) -> None:
    """Bytes of a packed file were overwritten before it was evicted: its content file has those, and holes."""
    start, end = 65_536, 65_536 + len(FRESH)
    world.proven()
    world.sql(
        f"INSERT INTO extent SELECT inode, {end}, length - {end}, pack, pack_offset + {end}, 0 FROM extent "
        f"WHERE inode = {world.big}",
        f"UPDATE extent SET length = {start}, local = 0 WHERE inode = {world.big} AND offset = 0",
        f"UPDATE inode SET flags = {CONTENT | DIRTY | COVERED | REMOTE} WHERE inode = {world.big}",
    )
    world.content(world.big).write_bytes(bytes(start) + FRESH + bytes(len(BIG) - end))
    assert world.fsck().damage == []


def overwritten(world: World) -> None:
    """Bytes of a file were overwritten after it was evicted: they lie in a content file of another number."""
    world.evict()
    volume = Volume(world.path)
    volume.write(world.big, 65_536, FRESH)
    volume.close()


@pytest.mark.parametrize(("named", "length"), [(True, None), (False, None), (True, 65_536 + len(FRESH))])
def test_a_partly_evicted_file_that_is_made_again_has_all_its_bytes(
    world: World, named: bool, length: int | None
) -> None:
    partly_evicted(world)
    extents = "SELECT * FROM extent ORDER BY inode, offset"
    with world.index() as db:
        before = db.execute(extents).fetchall()
    assert any(row[0] == world.big and not row[5] for row in before)
    world.sql(f"DELETE FROM inode WHERE inode = {world.big}")
    if not named:
        world.sql(f"DELETE FROM name WHERE inode = {world.big}")
    if length is not None:
        os.truncate(world.content(world.big), length)
    assert world.fsck(repair=True).damage == []
    with world.index() as db:
        assert db.execute(extents).fetchall() == before
    volume = Volume(world.path)
    assert volume.getattr(world.big).size == len(BIG)
    assert volume.read(world.big, 65_536, len(FRESH)).data == FRESH
    assert volume.read(world.big, 0, 10).missing
    assert volume.read(world.big, len(BIG) - 10, 10).missing
    check(volume)
    volume.close()


def _rows(world: World) -> list[str]:
    with world.index() as db:
        return list(db.iterdump())


def _files(world: World) -> dict[str, int]:
    return {str(path): path.stat().st_size for path in (world.path / "content").rglob("*") if path.is_file()}


def two_places(world: World) -> None:
    beside_inline(world)
    world.sql("DELETE FROM inode WHERE inode = (SELECT inode FROM name WHERE key = CAST('tiny' AS BLOB))")


UNCLEAR: list[tuple[str, Damage, str]] = [
    ("a name whose bytes may be in two places", two_places, "name-without-inode"),
    ("bytes that may be in two places", lambda world: (two_places(world),
     world.sql("DELETE FROM name WHERE key = CAST('tiny' AS BLOB)"))[1], "rows-without-inode"),
    ("evicted bytes with a gap", lambda world: (overwritten(world), without(world, "big"))[1],
     "rows-without-inode"),
    ("packed bytes behind a content file that was cut", lambda world: (cut(world), without(world, "big"))[1],
     "rows-without-inode"),
    ("attributes of a name that say nothing of its bytes", sql("DELETE FROM inode WHERE inode = {fresh}",
     "UPDATE name SET inode = 777 WHERE inode = {fresh}", "UPDATE xattr SET inode = 777"), "name-without-inode"),
    ("rows of an upload's part", lambda world: (without(world, "small"),
     world.sql(f"INSERT INTO upload_part VALUES ('u', 1, {world.small}, 16, '', '', 0)"))[1], "rows-without-inode"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "damage", "kind"), UNCLEAR, ids=[row[0] for row in UNCLEAR])
def test_remains_that_do_not_make_a_file_are_kept(name: str, damage: Damage, kind: str, world: World) -> None:
    damage(world)
    tables = ("xattr", "record", "extent", "inline", "segment", "symlink", "name")
    kept = [line for line in _rows(world) if line.startswith(tuple(f'INSERT INTO "{table}"' for table in tables))]
    files = _files(world)
    seen = {(one.kind, one.fix is None, "kept" in one.text) for one in world.fsck(1).damage}
    assert (kind, True, True) in seen
    assert kind in {one.kind for one in world.fsck(1, repair=True).damage}
    assert set(kept) <= set(_rows(world))
    assert _files(world).items() >= files.items()


def test_bytes_that_only_a_lost_pack_has_stay_known(world: World) -> None:
    """Its providers are not proven, which is not to say that they do not have it."""
    lose(world, "big")
    shutil.rmtree(world.path / "packs")
    assert "pack-lost" in {one.kind for one in world.fsck(repair=True).damage}
    with world.index() as db:
        assert db.execute("SELECT length, local FROM extent WHERE inode = ?", (world.big,)).fetchall() == [
            (len(BIG), 0)
        ]


@pytest.mark.parametrize("gone", [True, False])
def test_what_is_left_of_a_copy_stays_while_its_pack_is_lost(world: World, gone: bool) -> None:
    cut(world)
    if gone:
        shutil.rmtree(world.path / "packs")
    else:
        damaged_pack(world, proven=False)
    assert world.fsck(repair=True).damage
    assert world.content(world.big).read_bytes()[:1000] == BIG[:1000]


def test_segments_stay_while_the_pack_is_lost(world: World) -> None:
    segmented(world, "big")
    cut(world)
    shutil.rmtree(world.path / "packs")
    assert "pack-lost" in {one.kind for one in world.fsck(repair=True).damage}
    with world.index() as db:
        assert db.execute("SELECT count(*) FROM segment").fetchone() == (1,)
        assert db.execute("SELECT local FROM extent WHERE inode = ?", (world.big,)).fetchall() == [(0,)]
    assert world.content(world.big).read_bytes() == BIG[:1000]


def test_an_extent_that_does_not_fit_stays_when_the_local_copy_is_lost(world: World) -> None:
    lose(world, "big")
    world.sql(f"UPDATE extent SET length = length + 1 WHERE inode = {world.big}")
    assert "extent" in {one.kind for one in world.fsck(1, repair=True).damage}
    with world.index() as db:
        assert db.execute("SELECT count(*) FROM extent WHERE inode = ?", (world.big,)).fetchone() == (1,)


def test_unpacked_bytes_of_a_file_that_says_it_is_clean_are_kept(world: World) -> None:
    segmented(world, "big")
    cut(world)
    world.sql(f"UPDATE extent SET length = 100 WHERE inode = {world.big}")
    assert {one.kind for one in world.fsck(1).damage} == {"flags", "content-lost"}
    assert "content-lost" in {one.kind for one in world.fsck(1, repair=True).damage}
    with world.index() as db:
        assert db.execute("SELECT count(*) FROM segment").fetchone() == (1,)


def test_a_pack_with_a_wrong_manifest_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pieces are what they should be: it was packed so."""
    with monkeypatch.context() as patched:
        patched.setattr("tonfs.bagfiles.pack.PackManifest.to_bytes", lambda _: b'{"no": "manifest"}')
        world = World(tmp_path)
    seen = world.fsck()
    assert [(one.kind, one.fix is not None) for one in seen.damage] == [("pack-manifest", True)]
    assert world.fsck(repair=True).damage == []
    assert world.tree() == WHOLE
    volume = Volume(world.path)
    dirty = {file.path for file in volume.dirty(0.0, 1 << 30, force=True).files}
    volume.close()
    assert {b"d/big", b"d/small"} <= dirty


def test_a_wrong_manifest_of_evicted_files_is_said_with_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("tonfs.bagfiles.pack.PackManifest.to_bytes", lambda _: b'{"no": "manifest"}')
        world = World(tmp_path)
    world.evict()
    (finding,) = world.fsck(repair=True).damage
    assert finding.kind == "pack-manifest"
    assert "tonfs fetch" in finding.text


def test_a_file_that_lost_its_bytes_is_named(world: World) -> None:
    lose(world, what="fresh")
    (finding,) = world.fsck(repair=True).damage
    assert f"inode {world.fresh} ('" in finding.text
    assert "fresh')" in finding.text
    assert finding.text.endswith("or remove it.")
    world.sql(  # a ring of directories above it
        f"DELETE FROM name WHERE inode = {world.fresh} AND parent = 1",
        f"UPDATE name SET parent = {world.sub} WHERE inode = {world.dir}",
    )
    (text,) = (one.text for one in world.fsck().damage if one.kind == "content-lost")
    assert f"inode {world.fresh} ('d/sub/again')" in text


@pytest.mark.parametrize("gone", [True, False])
def test_evicted_bytes_whose_replicas_are_not_known_to_be_there_may_be_found_by_an_audit(
    world: World, gone: bool
) -> None:
    world.evict()
    world.sql("UPDATE pack SET proven = 0")
    if gone:
        shutil.rmtree(world.path / "packs")
    else:
        damaged_pack(world, proven=False)
    (finding,) = world.fsck(repair=True).damage
    assert finding.fix is None
    assert "let the agent audit them" in finding.text


def _page(world: World) -> None:
    """A page of the index becomes noise."""
    with world.index() as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'name_parent'").fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    with (world.path / "index.db").open("r+b") as stream:
        stream.seek((page - 1) * size)
        stream.write(os.urandom(size))


HOPELESS: list[tuple[str, Damage, str]] = [
    ("lost bytes that no pack has", partial(lose, what="fresh"), "content-lost"),
    ("unpacked segments in a content file that is gone", lambda world: (segmented(world, "fresh"),
     lose(world, "fresh"))[1], "content-lost"),
    ("segments beyond the file", lambda world: (segmented(world, "fresh"),
     world.sql("UPDATE segment SET length = length + 1"))[1], "segments"),
    ("bytes in two places", sql(f"UPDATE inode SET flags = flags | {SEGMENTED} WHERE inode = {{fresh}}"), "places"),
    ("more bytes in the index than in the file",
     sql("UPDATE inline SET data = CAST(data || data AS BLOB)"), "inline"),
    ("a symlink without its target", sql("DELETE FROM symlink"), "symlink-target"),
    ("a content file beside bytes that are missing", lambda world: (segmented(world, "fresh"), lose(world, "fresh"),
     world.sql(f"UPDATE segment SET blob = 9 WHERE inode = {world.fresh}"),
     world.content(world.fresh).write_bytes(FRESH))[-1], "content-stray"),
    ("evicted bytes whose pack is forgotten", lambda world: (world.evict(), world.sql("DELETE FROM pack"))[1],
     "extent"),
    ("a page of noise in the index", _page, "index-file"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "damage", "kind"), HOPELESS, ids=[row[0] for row in HOPELESS])
def test_what_cannot_be_mended_is_said_and_left_alone(name: str, damage: Damage, kind: str, world: World) -> None:
    damage(world)
    seen = world.fsck(1)
    assert kind in {one.kind for one in seen.damage}
    assert kind in {one.kind for one in world.fsck(1, repair=True).damage}


def test_a_missing_index_or_another_version_is_named(world: World, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        look(tmp_path, 1, _Shown(quiet=True))
    world.sql("PRAGMA user_version = 1")
    with pytest.raises(UsageError, match="older"):
        world.fsck()
    world.sql("PRAGMA user_version = 999")
    with pytest.raises(Damaged, match="newer"):
        world.fsck()


def test_a_volume_in_use_is_refused(world: World) -> None:
    from tonfs.cli.fsck import alone

    volume = Volume(world.path)
    with pytest.raises(Busy, match="needs it for itself"), alone(world.path, 1):
        pass
    volume.close()
    with alone(world.path, 3):
        pass
