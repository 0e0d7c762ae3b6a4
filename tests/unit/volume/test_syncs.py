"""fsync in steps: what is handed out to be synced, and when the caller has to take a thread."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.volume.helpers import crash_copy
from tonfs.ids import Inode
from tonfs.volume import ROOT, SetAttr, Volume
from tonfs.volume import core as core_module
from tonfs.volume import inodes as inodes_module
from tonfs.volume import syncs as syncs_module
from tonfs.volume.check import open_index
from tonfs.volume.check_content import check_content

BIG = b"B" * 40_000


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    (tmp_path / "v").mkdir()
    made = Volume(tmp_path / "v")
    yield made
    made.close()


def new(volume: Volume, name: bytes, data: bytes = BIG) -> Inode:
    inode = volume.create(ROOT, name, 0o644, 0, 0).inode
    volume.write(inode, 0, data)
    return inode


def steps(volume: Volume, inode: Inode, *, data_only: bool = False) -> list[list[str] | None]:
    """Each step as the names of the files to sync."""
    out: list[list[str] | None] = []
    for step in volume.sync_steps(inode, data_only=data_only):
        out.append(None if step is None else [Path(os.readlink(f"/proc/self/fd/{fd}")).name for fd in step])
        for fd in step or ():
            os.fdatasync(fd)
    return out


def test_bytes_and_index_are_synced_side_by_side(volume: Volume) -> None:
    inode = new(volume, b"f")
    volume.sync(inode)
    content = volume.content.path(inode).name
    volume.write(inode, len(BIG), b"more")
    assert steps(volume, inode) == [["journal", content]]
    assert steps(volume, inode) == [], "nothing changed"
    volume.write(inode, 0, b"in place")
    assert steps(volume, inode, data_only=True) == [[content]], "the index has nothing that fdatasync must keep"
    assert steps(volume, inode) == [["journal"]]


def test_a_small_file_and_a_directory_need_the_index_only(volume: Volume) -> None:
    inode = new(volume, b"f", b"small")
    assert steps(volume, ROOT) == [["index.db-wal"]], "numbers of inodes were committed, and are not on the disk"
    assert steps(volume, inode) == [], "went with the directory"
    volume.write(inode, 0, b"large")
    assert steps(volume, ROOT) == [], "the directory did not change"
    assert steps(volume, inode) == [["journal"]]
    volume.setattr(ROOT, SetAttr(mode=0o700))
    assert steps(volume, ROOT) == [["journal"]]
    assert steps(volume, inode) == [], "went with the directory"
    assert steps(volume, ROOT) == []
    volume.unlink(ROOT, b"f")
    assert steps(volume, ROOT) == [["journal"]]


def test_a_new_content_file_takes_the_slow_way_until_its_name_is_on_the_disk(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    inode = new(volume, b"f")
    folders: list[Path] = []
    monkeypatch.setattr("tonfs.volume.core.sync_directory", folders.append)
    walk = volume.sync_steps(inode)
    assert next(walk) is None
    other = volume.sync_steps(inode)
    assert next(other) is None, "the first has not done it yet"
    assert list(walk) == []
    shard = volume.content.path(inode).parent
    assert set(folders) == {shard, shard.parent}, "the shard is new, too"
    assert list(other) == []
    assert len(folders) == 2


def test_many_changes_take_the_slow_way(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    inode = new(volume, b"f", b"small")
    for n in range(syncs_module.FEW + 1):
        new(volume, b"n%d" % n, b"x")
    assert steps(volume, inode) == [None]
    new(volume, b"data", b"x" * 10_000)
    monkeypatch.setattr(syncs_module, "FEW_BYTES", 9999)
    monkeypatch.setattr(syncs_module, "DATA_IN_JOURNAL", 9999)
    assert steps(volume, ROOT) == [None]
    volume.setattr(ROOT, SetAttr(mode=0o700))
    assert steps(volume, ROOT) == [["journal"]]


def test_what_is_too_much_for_the_journal_is_committed_on_the_spot(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    inode = new(volume, b"f", b"small")
    volume.commit()
    for n in range(syncs_module.FEW_IN_JOURNAL):
        new(volume, b"n%d" % n, b"x")
    assert steps(volume, ROOT) == [["index.db-wal"]], "that many files, and the directory"
    volume.write(inode, 0, b"y" * 10_000)
    monkeypatch.setattr(syncs_module, "DATA_IN_JOURNAL", 9999)
    assert steps(volume, inode) == [["index.db-wal"]]
    volume.write(inode, 0, b"x")
    monkeypatch.undo()
    assert steps(volume, inode) == [["journal"]]
    volume.set_xattr(inode, b"user.x", b"y")
    assert steps(volume, inode) == [["index.db-wal"]], "statements are in the index's open transaction"


def test_while_another_thread_commits_nobody_waits_for_it_here(volume: Volume) -> None:
    inode = new(volume, b"f", b"small")
    taken, go = threading.Event(), threading.Event()

    def commit() -> None:
        with volume._flushing:
            taken.set()
            go.wait()

    thread = threading.Thread(target=commit)
    thread.start()
    taken.wait()
    walk = volume.sync_steps(inode)
    assert next(walk) is None
    go.set()
    thread.join()
    assert list(walk) == []
    assert not volume.pending


@pytest.mark.allow_logs  # it is cut
def test_a_file_of_which_the_index_knows_more_than_the_disk_is_shorter_after_the_crash(
    volume: Volume, tmp_path: Path
) -> None:
    """The index's half of an fsync reached the disk, the bytes did not."""
    inode = new(volume, b"f")
    volume.sync(inode)
    volume.write(inode, len(BIG), b"more")
    walk = volume.sync_steps(inode)
    assert next(walk)
    crash_copy(volume.directory, tmp_path / "copy")
    os.truncate(tmp_path / "copy" / "content" / volume.content.path(inode).relative_to(volume.content.root), len(BIG))
    walk.close()
    copy = Volume(tmp_path / "copy")
    try:
        found = copy.lookup(ROOT, b"f")
        assert found.size == len(BIG)
        assert copy.read(found.inode, 0, 1 << 20).data == BIG
    finally:
        copy.abandon()


def test_a_failed_sync_is_asked_for_again(volume: Volume) -> None:
    inode = new(volume, b"f")
    volume.sync(inode)
    volume.write(inode, 0, b"x")
    content = volume.content.path(inode).name
    walk = volume.sync_steps(inode)
    next(walk)
    with pytest.raises(OSError, match="broken"):
        walk.throw(OSError(5, "the disk is broken"))
    assert steps(volume, inode) == [["index.db-wal", content]], "the journal's other record is needed"
    volume.write(inode, 0, b"x")
    assert steps(volume, inode) == [["journal", content]]


def test_what_a_truncate_left_is_cut_though_nothing_else_changes(volume: Volume) -> None:
    inode = new(volume, b"f")
    volume.sync(inode)
    volume.truncate(inode, 20_000)
    volume.sync(inode)
    assert volume.content.length(inode) == len(BIG), "not yet: an fsync does not wait for it"
    assert volume.pending
    volume.background()
    assert volume.content.length(inode) == 20_000
    assert not volume.pending


def test_the_log_gets_its_blocks_before_they_are_needed(
    volume: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume.background()
    size = inodes_module.WAL_CHECKPOINT
    assert (os.fstat(volume._wal).st_size, os.lseek(volume._wal, 0, os.SEEK_HOLE)) == (size, size)
    inode = new(volume, b"f", b"small")
    volume.sync(inode)
    assert os.fstat(volume._wal).st_size == size, "what is committed goes into these blocks"
    crash_copy(volume.directory, tmp_path / "copy")
    copy = Volume(tmp_path / "copy")
    assert copy.read(copy.lookup(ROOT, b"f").inode, 0, 100).data == b"small", "zeros behind the end do not matter"
    copy.abandon()
    monkeypatch.setattr(inodes_module, "WAL_LIMIT", size - 1)
    volume.background()
    assert os.fstat(volume._wal).st_size == 0
    volume.background()
    assert os.fstat(volume._wal).st_size == size, "the log was cut and gets them again"


def test_the_index_is_written_when_its_log_is_full_and_not_after_each_commit(volume: Volume) -> None:
    volume.background()
    asked: list[str] = []
    volume._checkpointer.set_trace_callback(asked.append)
    for number in range(640):
        new(volume, b"%d" % number, b"x" * 14_000)
    volume.background()
    assert len(asked) == 1, "the log has more than its size"
    for number in range(3):
        new(volume, b"later %d" % number, b"small")
        volume.background()
    volume._checkpointer.set_trace_callback(None)
    assert len(asked) == 1
    assert os.fstat(volume._wal).st_size == inodes_module.WAL_CHECKPOINT


def test_without_room_the_log_grows_as_it_needs(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "full")

    monkeypatch.setattr(os, "pwrite", full)
    new(volume, b"f", b"small")
    volume.background()
    assert volume._gen == volume._committed
    monkeypatch.undo()
    volume.background()
    assert os.fstat(volume._wal).st_size < inodes_module.WAL_CHECKPOINT, "it is not tried again and again"


def test_bytes_of_a_small_file_that_changed_in_place_cost_one_page(volume: Volume) -> None:
    inode = new(volume, b"f", b"x" * 16_000)
    volume.sync(inode)

    def frames() -> int:
        """mxFrame, in the header of SQLite's shared memory."""
        return int.from_bytes((volume.directory / "index.db-shm").read_bytes()[16:20], sys.byteorder)

    before = frames()
    volume.write(inode, 8000, b"y")
    volume.commit()
    assert frames() - before <= 4, "of the 4 pages that the bytes have, only one changed"
    assert volume._read.execute("SELECT data FROM inline").fetchone()[0][7999:8002] == b"xyx"


def test_an_inode_that_changed_while_its_bytes_were_synced_is_not_set_back(volume: Volume) -> None:
    inode = new(volume, b"f")
    walk = volume.sync_steps(inode)
    assert next(walk) is None  # the first file of its directory: slow
    with volume.lock:
        volume._commit_locked()
        del volume._nodes[inode]  # as when there are too many
    volume.setattr(inode, SetAttr(mode=0o600))
    assert list(walk) == []
    volume.commit()
    assert volume._read.execute("SELECT mode & 511 FROM inode WHERE inode = ?", (inode,)).fetchone() == (0o600,)


def test_after_a_kill_names_of_content_files_are_synced_with_them(
    volume: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in the page cache only, if the process before was killed; then the power fails."""
    inode = new(volume, b"f")
    volume.background()
    copy = Volume(crash_copy(volume.directory, tmp_path / "copy"))
    folders: list[str] = []
    monkeypatch.setattr(core_module, "sync_directory", lambda path: folders.append(path.name))
    assert steps(copy, inode) == [None]
    assert sorted(folders) == [copy.content.path(inode).parent.name, "content"]
    copy.abandon()


def test_an_empty_file_whose_content_file_is_not_there_can_be_written(volume: Volume, tmp_path: Path) -> None:
    """Its place was made, then its bytes did not fit, and the power failed."""
    inode = volume.create(ROOT, b"f", 0o644, 0, 0).inode
    with volume.lock:
        volume._spill(volume._node(inode), 40_000)
    volume.commit()
    directory = crash_copy(volume.directory, tmp_path / "copy")
    (path,) = (directory / "content").rglob(f"{inode:x}")
    path.unlink()
    with contextlib.closing(open_index(directory)) as db:
        assert list(check_content(db, directory, lambda *_: None)) == []
    copy = Volume(directory)
    copy.write(inode, 0, BIG)
    copy.sync(inode)
    assert copy.read(inode, 0, len(BIG) + 1).data == BIG
    copy.close()
