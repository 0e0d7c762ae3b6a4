"""fsync in steps: what is handed out to be synced, and when the caller has to take a thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.volume.helpers import crash_copy
from tonfs.ids import Inode
from tonfs.volume import ROOT, SetAttr, Volume
from tonfs.volume import syncs as syncs_module

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
    assert steps(volume, inode) == [["index.db-wal", content]]
    assert steps(volume, inode) == [], "nothing changed"
    volume.write(inode, 0, b"in place")
    assert steps(volume, inode, data_only=True) == [[content]], "the index has nothing that fdatasync must keep"
    assert steps(volume, inode) == [["index.db-wal"]]


def test_a_small_file_and_a_directory_need_the_index_only(volume: Volume) -> None:
    inode = new(volume, b"f", b"small")
    assert steps(volume, ROOT) == [["index.db-wal"]]
    assert steps(volume, inode) == [], "went with the directory"
    assert steps(volume, ROOT) == []
    volume.unlink(ROOT, b"f")
    assert steps(volume, ROOT) == [["index.db-wal"]]


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
    assert steps(volume, ROOT) == [None]
    volume.setattr(ROOT, SetAttr(mode=0o700))
    assert steps(volume, ROOT) == [["index.db-wal"]]


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
    assert steps(volume, inode) == [["index.db-wal", content]]


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
