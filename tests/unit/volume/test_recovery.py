from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.volume.helpers import Packer, check, crash_copy
from tests.unit.volume.test_names import new, refused
from tonfs.errors import Busy, Damaged, NotFound
from tonfs.ids import Inode
from tonfs.volume import ROOT, PackedFile, Volume, schema
from tonfs.volume.check import open_index
from tonfs.volume.check_content import check_content
from tonfs.volume.recovery import VERSION_JUMP


def test_a_second_process_is_refused(volume: Volume) -> None:
    code = (
        "import sys; from pathlib import Path; from tonfs.volume import Volume; from tonfs.errors import Busy\n"
        "try: Volume(Path(sys.argv[1]))\n"
        "except Busy: print('busy')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(volume.directory)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "busy\n"
    with pytest.raises(Busy):
        Volume(volume.directory)


def test_what_is_no_volume_is_not_made_into_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        Volume(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_an_index_of_a_newer_tonfs_is_left_alone(directory: Path) -> None:
    Volume(directory).close()
    db = sqlite3.connect(directory / "index.db")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(Damaged, match="99"):
        Volume(directory)
    (directory / "index.db").write_bytes(b"this is not a database" * 1000)
    with pytest.raises(Damaged):
        Volume(directory)


@pytest.mark.parametrize("left", ["nothing", "an empty file"])
@pytest.mark.parametrize("place", ["content", "packs"])
def test_a_lost_index_is_no_new_volume_while_bytes_are_there(directory: Path, left: str, place: str) -> None:
    volume = Volume(directory)
    inode = new(volume, b"f").inode
    volume.write(inode, 0, b"x" * 1_000_000)
    volume.close()
    if place == "packs":
        shutil.rmtree(directory / "content")
        (directory / "packs" / "ab").mkdir(parents=True)
        (directory / "packs" / "ab" / "data").write_bytes(b"x")
    before = {path: path.read_bytes() for path in directory.glob("[cp]*/**/*") if path.is_file()}
    assert before
    for file in directory.glob("index.db*"):
        file.unlink()
    if left != "nothing":
        (directory / "index.db").touch()
    for open_it in (Volume, open_index, Volume):  # the second time an attempt's traces are there
        with pytest.raises(Damaged, match="gone or empty") as caught:
            open_it(directory)
        assert "copy of index.db" in caught.value.hint
    assert all(path.read_bytes() == data for path, data in before.items())
    shutil.rmtree(directory / place)
    Volume(directory).close()


def test_nothing_is_asked_and_nothing_changes_after_an_orderly_end(volume: Volume) -> None:
    inode = new(volume, b"f").inode
    volume.write(inode, 0, b"abc")
    attr = volume.getattr(inode)
    directory = volume.directory
    volume.close()
    again = Volume(directory)
    assert again.clean_start
    assert again.getattr(inode) == attr
    assert new(again, b"g").inode == inode + 1
    again.close()


def test_after_a_crash_a_large_directory_is_listed_without_keeping_its_inodes(
    volume: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only files with unpacked bytes are looked at; the others are as the index has them."""
    names_of = [b"%d" % n for n in range(50)]
    for name in names_of:
        new(volume, name)
    written = new(volume, b"written").inode
    volume.write(written, 0, b"abc")
    volume.commit()
    monkeypatch.setattr("tonfs.volume.directories.MAX_WHOLE", 10)
    copy = Volume(crash_copy(volume.directory, tmp_path / "copy"))
    assert sorted(name for name, _, _ in copy.list_live(ROOT, 0, 100)) == sorted([*names_of, b"written"])
    assert set(copy._nodes) == {ROOT, written}
    copy.close()


def test_reading_alone_makes_the_cache_shrink(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk over a million files changes nothing, and must not keep them all."""
    for number in range(50):
        new(volume, b"%d" % number)
    volume.commit()
    volume.background()
    assert not volume.pending
    monkeypatch.setattr("tonfs.volume.inodes.NODE_CACHE", 10)
    assert len(volume.list_live(ROOT, 0, 100)) == 50
    assert volume.pending, "the front must call background()"
    volume.background()
    assert len(volume._nodes) <= 10
    assert not volume.pending


def test_after_a_crash_unpacked_files_get_versions_nobody_saw(volume: Volume, tmp_path: Path) -> None:
    inode = new(volume, b"f").inode
    volume.write(inode, 0, b"abc")
    version = volume.getattr(inode).version
    volume.commit()
    copy = Volume(crash_copy(volume.directory, tmp_path / "copy"))
    assert not copy.clean_start
    assert copy.getattr(inode).version >= VERSION_JUMP > version
    done = copy.commit_pack(b"\1" * 32, 3, [PackedFile(inode, version, ((0, 3, 0),))])  # type: ignore[arg-type]
    assert done.stale == (inode,), "a pack made before the crash may hold older bytes"
    copy.close()


def test_numbers_given_out_before_a_crash_are_not_given_out_again(volume: Volume, tmp_path: Path) -> None:
    volume.commit()
    lost = [new(volume, b"%d" % n).inode for n in range(10)]
    volume.write(lost[3], 0, b"x" * 5000)
    copy = Volume(crash_copy(volume.directory, tmp_path / "copy"))
    assert not copy.content.path(lost[3]).exists(), "bytes of a file that never was are cleaned up"
    assert new(copy, b"n").inode > max(lost)
    copy.close()


def cut_content(directory: Path, inode: int, size: int) -> None:
    os.truncate(directory / "content" / f"{inode & 255:02x}" / f"{inode:x}", size)


def safe(volume: Volume, inode: int) -> int:
    """How many bytes the index knows to be on the disk."""
    (count,) = volume.reader.execute("SELECT safe FROM inode WHERE inode = ?", (inode,)).fetchone()
    return int(count)


def findings(directory: Path) -> dict[str, bool]:
    """What fsck says of the contents: kind -> is it harmless?"""
    db = schema.connect(directory / schema.INDEX_NAME)
    try:
        return {f.kind: f.harmless for f in check_content(db, directory, lambda *_: None)}
    finally:
        db.close()


@pytest.mark.allow_logs
def test_a_size_whose_bytes_the_disk_lost_is_cut_and_said(
    volume: Volume, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inode = new(volume, b"f").inode
    volume.write(inode, 0, b"x" * 50_000)
    volume.commit()
    directory = crash_copy(volume.directory, tmp_path / "copy")
    cut_content(directory, inode, 1000)
    assert findings(directory) == {"content-short": True}
    copy = Volume(directory)
    assert copy.getattr(inode).size == 1000
    assert "shorter after the crash" in caplog.text
    assert copy.read(inode, 0, 99_999).data == b"x" * 1000
    check(copy)
    copy.close()


@pytest.mark.allow_logs
@pytest.mark.parametrize("segmented", [False, True])
def test_what_an_fsync_kept_is_never_cut_but_missed(volume: Volume, tmp_path: Path, segmented: bool) -> None:
    """Whoever takes the bytes away later: a reader gets an error, fsck calls it damage."""
    inode = new(volume, b"f").inode
    volume.write(inode, 0, b"x" * 50_000)
    if segmented:
        volume.write(inode, schema.WINDOW_SIZE, b"far")
    volume.sync(inode)
    volume.background()
    size = volume.getattr(inode).size
    directory = crash_copy(volume.directory, tmp_path / "copy")
    cut_content(directory, inode, 1000)
    assert findings(directory) == {"content-lost": False}
    copy = Volume(directory)
    assert copy.getattr(inode).size == size
    refused(errno.EIO, lambda: copy.read(inode, 0, 50_000))
    refused(errno.EIO, lambda: copy.write(inode, 49_000, b"in place"))
    refused(errno.EIO, lambda: copy.write(inode, 50_000, b"behind it"))
    refused(errno.EIO, lambda: copy.read(inode, 0, 50_000))
    copy.close()
    assert findings(directory) == {"content-lost": False}


@pytest.mark.allow_logs
@pytest.mark.parametrize("kind", ["short", "empty", "gone", "segmented", "inline"])
def test_a_file_that_lost_bytes_is_not_packed_with_zeros_in_their_place(
    volume: Volume, tmp_path: Path, kind: str
) -> None:
    inode, fine = new(volume, b"lost").inode, new(volume, b"fine").inode
    volume.write(inode, 0, b"x" * (50_000 if kind != "inline" else 100))
    volume.write(fine, 0, b"y" * 50_000)
    if kind == "segmented":
        volume.write(inode, schema.WINDOW_SIZE, b"far")
    volume.truncate(inode, schema.WINDOW_SIZE + 9 if kind == "segmented" else 90_000)
    report = volume.dirty(0.0, 1 << 30, force=True)
    volume.close()
    directory = volume.directory
    path = directory / "content" / f"{inode & 255:02x}" / f"{inode:x}"
    if kind == "inline":
        db = sqlite3.connect(directory / "index.db", isolation_level=None)
        db.execute("DELETE FROM inline")
        db.close()
    elif kind == "gone":
        path.unlink()
    else:
        os.truncate(path, 0 if kind == "empty" else 1000)
    again = Volume(directory)
    assert again.damaged(9) == (0, [])
    assert [file.path for file in again.dirty(0.0, 1 << 30, force=True).files] == [b"fine"]
    assert again.damaged(9) == (1, [b"lost"])
    assert again.damaged(0) == (1, [])
    files = [PackedFile(f.inode, f.version, tuple((at, length, 0) for at, length in f.ranges)) for f in report.files]
    assert len(files) == 2
    done = again.commit_pack(b"\1" * 32, 50_000, files)  # type: ignore[arg-type]
    assert (sorted(done.committed), done.stale) == ([inode, fine], ()), "the pack has the bytes of before"
    assert not again.cover_zeros(inode, again.getattr(inode).version)
    assert again.counts().dirty == 1, "it does not know where holes were"
    refused(errno.EIO, lambda: again.read(inode, 0, 50_000))
    again.truncate(inode, 0)
    again.write(inode, 0, b"new")
    assert again.damaged(9) == (0, []), "whoever replaces it has a whole file"
    again.close()


def test_after_an_orderly_end_every_byte_was_promised(volume: Volume, tmp_path: Path) -> None:
    """A crash later, with nothing written in between, takes nothing of that back."""
    inode = new(volume, b"f").inode
    volume.write(inode, 0, b"x" * 50_000)
    volume.close()
    again = Volume(volume.directory)
    directory = crash_copy(again.directory, tmp_path / "copy")
    again.close()
    cut_content(directory, inode, 1000)
    assert findings(directory) == {"content-lost": False}


def test_a_file_found_whole_after_a_crash_is_not_doubted_again(volume: Volume, tmp_path: Path) -> None:
    inodes = [new(volume, b"%d" % n).inode for n in range(5)]
    for inode in inodes:
        volume.write(inode, 0, b"x" * 50_000)
    volume.commit()
    copy = Volume(crash_copy(volume.directory, tmp_path / "copy"))
    assert not any(safe(copy, inode) for inode in inodes)
    assert copy.pending
    copy.background()
    assert copy._syncing is not None
    copy._syncing.join()
    copy.background()
    assert all(safe(copy, inode) == 50_000 for inode in inodes)
    directory = crash_copy(copy.directory, tmp_path / "twice")
    copy.close()
    cut_content(directory, inodes[2], 1000)
    assert findings(directory) == {"content-lost": False}


@pytest.mark.allow_logs
def test_only_what_was_written_since_the_fsync_can_be_cut(volume: Volume, tmp_path: Path) -> None:
    inode = new(volume, b"f").inode
    volume.write(inode, 0, b"x" * 50_000)
    volume.sync(inode)
    volume.write(inode, 50_000, b"y" * 50_000)
    volume.commit()
    directory = crash_copy(volume.directory, tmp_path / "copy")
    shutil.copytree(directory, tmp_path / "shorter")
    cut_content(directory, inode, 60_000)
    copy = Volume(directory)
    assert copy.read(inode, 0, 99_999).data == b"x" * 50_000 + b"y" * 10_000
    copy.close()
    cut_content(tmp_path / "shorter", inode, 40_000)
    assert findings(tmp_path / "shorter") == {"content-lost": False}
    copy = Volume(tmp_path / "shorter")
    refused(errno.EIO, lambda: copy.read(inode, 0, 99_999))
    copy.close()


def test_the_first_fsync_says_itself_what_is_safe_and_others_do_with_a_later_batch(volume: Volume) -> None:
    inode = new(volume, b"f").inode
    volume.write(inode, 0, b"x" * 50_000)
    volume.background()
    assert safe(volume, inode) == 0
    volume.sync(inode)
    assert safe(volume, inode) == 50_000
    volume.write(inode, 0, b"y" * 60_000)
    volume.set_xattr(inode, b"user.x", b"")  # so that the index gets the row, not the journal
    volume.sync(inode)
    assert safe(volume, inode) == 50_000, "the row was on its way beside the bytes"
    assert volume.pending
    volume.write(inode, 60_000, b"z" * 10_000)
    volume.set_xattr(inode, b"user.y", b"")
    volume.sync(inode)
    assert safe(volume, inode) == 60_000
    volume.background()
    assert safe(volume, inode) == 70_000
    volume.write(inode, 100, b"in place")
    volume.commit()
    assert safe(volume, inode) == 70_000
    volume.truncate(inode, 30_000)
    volume.commit()
    assert safe(volume, inode) == 30_000
    volume.truncate(inode, 50_000)
    volume.commit()
    assert safe(volume, inode) == 50_000, "that it had been cut was on the disk before"
    volume.truncate(inode, 0)
    volume.write(inode, 0, b"n" * 60_000)
    volume.commit()
    assert safe(volume, inode) == 0, "another content file"


def test_many_files_reach_the_disk_at_the_end_by_one_call(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(100):
        volume.write(new(volume, b"%d" % number).inode, 0, b"x" * 20_000)
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    volume.close()
    assert len(synced) < 10
    assert findings(volume.directory) == {}
    again = Volume(volume.directory)
    (left,) = again.reader.execute(
        f"SELECT count(*) FROM inode WHERE flags & {schema.CONTENT} AND safe < size"
    ).fetchone()
    again.close()
    assert left == 0


def test_orphans_go_when_the_volume_is_opened(volume: Volume, tmp_path: Path) -> None:
    inode = new(volume, b"f").inode
    volume.write(inode, 0, b"x")
    Packer().pack_all(volume)
    volume.set_xattr(inode, b"user.a", b"b")
    volume.hold(inode)
    volume.unlink(ROOT, b"f")
    volume.commit()
    copy = Volume(crash_copy(volume.directory, tmp_path / "copy"))
    refused(errno.ENOENT, lambda: copy.getattr(inode))
    assert not copy.content.path(inode).exists()
    check(copy)
    for table in ("extent", "xattr", "doomed"):
        assert copy.reader.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    copy.close()


def after_a_loss_of_power(volume: Volume, target: Path, inode: Inode) -> Path:
    """As if the directory of the content file had been written before the file was removed from it."""
    copy = crash_copy(volume.directory, target)
    path = copy / "content" / volume.content.path(inode).relative_to(volume.content.root)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert not path.exists()
    path.write_bytes(b"x" * 50_000)
    return copy


@pytest.mark.parametrize("committed", [True, False])
def test_a_removed_file_that_comes_back_when_the_power_fails_goes_again(
    volume: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    inode = new(volume, b"f").inode
    volume.write(inode, 0, b"x" * 50_000)
    if committed:
        volume.commit()
    volume.unlink(ROOT, b"f")
    volume.commit()
    volume.background()
    lost = after_a_loss_of_power(volume, tmp_path / "lost", inode)
    assert findings(lost) == {"content-left": True}
    again = Volume(lost)
    assert not again.content.path(inode).exists()
    twice = after_a_loss_of_power(again, tmp_path / "twice", inode)
    again.close()
    assert findings(lost) == findings(volume.directory) == {}
    assert findings(twice) == {"content-left": True}
    synced: list[Path] = []
    monkeypatch.setattr("tonfs.volume.core.sync_directory", synced.append)
    monkeypatch.setattr("tonfs.volume.inodes.UNDOOM_INTERVAL", 0.0)
    volume.background()
    assert synced == [volume.content.path(inode).parent]
    volume.background()
    assert volume.reader.execute("SELECT count(*) FROM doomed").fetchone() == (0,)
    assert len(synced) == 1


def test_what_a_crash_undid_and_the_power_brings_back_goes_again(volume: Volume, tmp_path: Path) -> None:
    inode = new(volume, b"f").inode
    volume.write(inode, 0, b"x" * 50_000)
    copy = Volume(crash_copy(volume.directory, tmp_path / "copy"))
    lost = after_a_loss_of_power(copy, tmp_path / "lost", inode)
    copy.close()
    assert findings(lost) == {"content-left": True}


def test_holds_are_forgotten_and_contents_stay(volume: Volume) -> None:
    inode = new(volume, b"f").inode
    volume.write(inode, 0, b"abc")
    volume.hold(inode, 3)
    directory = volume.directory
    volume.close()
    again = Volume(directory)
    assert again.read(inode, 0, 3).data == b"abc"
    again.unlink(ROOT, b"f")
    refused(errno.ENOENT, lambda: again.getattr(inode))
    again.close()


@pytest.mark.allow_logs
def test_a_commit_that_the_disk_refuses_is_told_and_loses_nothing(
    volume: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = new(volume, b"kept").inode
    volume.commit()
    waiting = new(volume, b"waiting").inode
    volume.set_xattr(waiting, b"user.a", b"b")
    volume.write(waiting, 0, b"abc")
    real = volume.db

    class Full:
        """A connection whose COMMIT finds the disk full; SQLite rolls back then."""

        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

        def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
            if sql == "COMMIT":
                real.execute("ROLLBACK")
                raise sqlite3.OperationalError("database or disk is full")
            return real.execute(sql, *values)

    monkeypatch.setattr(volume, "db", Full())
    refused(errno.ENOSPC, volume.commit)
    refused(errno.ENOSPC, lambda: volume.sync(waiting))
    volume.write(waiting, 3, b"def")
    monkeypatch.setattr(volume, "db", real)
    copy = Volume(crash_copy(volume.directory, tmp_path / "refused"))
    refused(errno.ENOENT, lambda: copy.lookup(ROOT, b"waiting"))
    assert copy.getattr(kept).nlink == 1
    copy.abandon()
    volume.commit()
    copy = Volume(crash_copy(volume.directory, tmp_path / "taken"))
    assert copy.read(waiting, 0, 10).data == b"abcdef"
    assert copy.get_xattr(waiting, b"user.a") == b"b"
    copy.abandon()


def test_a_busy_index_is_tried_again_and_loses_nothing(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    inode = new(volume, b"f").inode
    real = volume.db

    class Held:
        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

        def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
            if sql == "COMMIT":
                raise sqlite3.OperationalError("database is locked")
            return real.execute(sql, *values)

    monkeypatch.setattr(volume, "db", Held())
    refused(errno.EIO, volume.commit)
    monkeypatch.setattr(volume, "db", real)
    volume.commit()
    assert volume.getattr(inode).nlink == 1


def test_the_wal_does_not_grow_for_ever(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tonfs.volume.inodes.WAL_CHECKPOINT", 1 << 18)
    monkeypatch.setattr("tonfs.volume.inodes.WAL_LIMIT", 1 << 20)
    for turn in range(60):
        for number in range(100):
            new(volume, b"%d-%d" % (turn, number))
        volume.background()
    assert os.stat(volume.directory / "index.db-wal").st_size < 3 << 20


def test_migrations_start_from_nothing_and_run_once(directory: Path) -> None:
    Volume(directory).close()
    first = (directory / "index.db").stat().st_ino
    volume = Volume(directory)
    assert volume.reader.execute("PRAGMA user_version").fetchone() == (len(schema.MIGRATIONS),)
    assert len(volume.volume_id) == 32
    volume.close()
    assert (directory / "index.db").stat().st_ino == first


def test_a_volume_of_the_first_version_is_taken_over_with_its_content_files(directory: Path) -> None:
    db = schema.connect(directory / "index.db")
    schema.MIGRATIONS[0](db)
    db.execute("PRAGMA user_version = 1")
    far = 3 * schema.WINDOW_SIZE
    root = (1, 0o40755, 2, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0)
    small = (2, 0o100644, 1, 0, 0, 0, 5, 8, 1, 1, 1, 1, 7, 1, schema.DIRTY | schema.CONTENT)
    large = (3, 0o100644, 1, 0, 0, 0, far + 3, -1, 1, 1, 1, 1, 7, 1, schema.DIRTY | schema.CONTENT)
    for row in (root, small, large):
        db.execute(f"INSERT INTO inode VALUES ({', '.join('?' * 15)})", row)
    db.executemany("INSERT INTO name VALUES (?, 1, ?, ?)", [(3, b"small", 2), (4, b"large", 3)])
    db.execute("UPDATE meta SET value = '4' WHERE key IN ('inode_next', 'inode_ceiling')")
    db.close()
    for number, offset, data in ((2, 0, b"hello"), (3, far, b"end")):
        path = directory / "content" / f"{number:02x}" / f"{number:x}"
        path.parent.mkdir(parents=True)
        with path.open("wb") as stream:
            stream.seek(offset)
            stream.write(data)
    volume = Volume(directory)
    assert volume.read(Inode(2), 0, 100).data == b"hello"
    assert volume.read(Inode(3), far - 1, 100).data == b"\0end"
    volume.write(Inode(2), 5, b" world")
    volume.write(Inode(3), far + 1, b"N")
    volume.write(Inode(3), far * 2, b"beyond")
    assert volume.read(Inode(3), far - 1, 5).data == b"\0eNd\0"
    assert volume.read(Inode(3), far * 2, 9).data == b"beyond"
    assert volume.read(Inode(2), 0, 100).data == b"hello world"
    check(volume)
    volume.close()


def test_what_version_5_had_on_the_disk_is_safe(directory: Path) -> None:
    db = schema.connect(directory / "index.db")
    for step in schema.MIGRATIONS[:5]:
        step(db)
    db.execute("PRAGMA user_version = 5")
    for inode, flags in ((2, schema.DIRTY | schema.CONTENT | 2048), (3, schema.DIRTY | schema.CONTENT)):
        row = (inode, 0o100644, 1, 0, 0, 0, 9, 8, 1, 1, 1, 1, 7, 1, flags, 0)
        db.execute(f"INSERT INTO inode VALUES ({', '.join('?' * 16)})", row)
    schema.migrate(db, directory)
    assert db.execute("SELECT inode, safe, flags & 2048 FROM inode").fetchall() == [(2, 9, 0), (3, 0, 0)]
    db.close()


def test_after_a_crash_a_listing_and_a_look_show_the_same_version(volume: Volume, tmp_path: Path) -> None:
    bucket = volume.create_bucket(b"bucket", 0, 0).inode
    volume.write(volume.create(bucket, b"f", 0o644, 0, 0).inode, 0, b"abc")
    volume.commit()
    copy = Volume(crash_copy(volume.directory, tmp_path / "copy"))
    (listed,) = copy.list_objects(bucket)
    assert listed.version == copy.lookup(bucket, b"f").version
    copy.close()


def test_a_small_file_that_grew_leaves_nothing_behind_when_the_commit_never_came(
    volume: Volume, tmp_path: Path
) -> None:
    """Its bytes are in the index; the content file it was moved to is known to nobody."""
    inode = new(volume, b"f").inode
    volume.write(inode, 0, b"small")
    volume.commit()
    volume.write(inode, 0, b"large" * 10_000)
    copy = crash_copy(volume.directory, tmp_path / "copy")
    assert [path for path in (copy / "content").rglob("*") if path.is_file()] != []
    again = Volume(copy)
    assert [path for path in (copy / "content").rglob("*") if path.is_file()] == []
    assert again.read(inode, 0, 100).data == b"small"
    again.close()
