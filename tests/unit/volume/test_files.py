from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from tests.unit.volume.helpers import Packer, crash_copy, everything, next_tick
from tests.unit.volume.test_names import new, refused
from tonfs.errors import FsError
from tonfs.volume import ROOT, S3Record, Volume
from tonfs.volume.api import MAX_FILE_SIZE


def read(volume: Volume, inode: int, offset: int = 0, length: int = 1 << 20) -> bytes:
    result = volume.read(inode, offset, length)  # type: ignore[arg-type]
    assert not result.missing
    return result.data


def test_what_is_written_is_read_with_holes_as_zeros(volume: Volume) -> None:
    inode = new(volume, b"f").inode
    assert volume.write(inode, 5000, b"tail") == 4
    assert read(volume, inode) == bytes(5000) + b"tail"
    assert read(volume, inode, 4999, 3) == b"\0ta"
    assert read(volume, inode, 5004) == b""
    assert read(volume, inode, 9999) == b""
    assert volume.getattr(inode).size == 5004


def test_shrinking_and_growing_leaves_zeros(volume: Volume) -> None:
    inode = new(volume, b"f").inode
    volume.write(inode, 0, b"x" * 5000)
    volume.truncate(inode, 100)
    volume.truncate(inode, 5000)
    assert read(volume, inode) == b"x" * 100 + bytes(4900)
    volume.truncate(inode, 10)
    volume.write(inode, 50, b"y")
    assert read(volume, inode) == b"x" * 10 + bytes(40) + b"y"


def test_truncating_to_the_same_size_moves_the_times(volume: Volume) -> None:
    inode = new(volume, b"f").inode
    before = volume.getattr(inode)
    next_tick(volume)
    after = volume.truncate(inode, 0)
    assert after.mtime_ns > before.mtime_ns
    assert after.ctime_ns > before.ctime_ns


def test_far_offsets_make_holes_and_too_far_ones_are_refused(volume: Volume) -> None:
    inode = new(volume, b"f").inode
    for offset in (2**31, 2**32, 2**40 + 1, 2**53 + 1, 2**62):
        volume.write(inode, offset, b"z")
        assert read(volume, inode, offset, 9) == b"z"
    assert volume.getattr(inode).blocks < 100
    size = volume.getattr(inode).size
    refused(errno.EFBIG, lambda: volume.write(inode, MAX_FILE_SIZE, b"zz"))
    refused(errno.EFBIG, lambda: volume.truncate(inode, MAX_FILE_SIZE + 1))
    refused(errno.EINVAL, lambda: volume.read(inode, -1, 1))
    assert volume.getattr(inode).size == size


def test_blocks_count_what_is_stored(volume: Volume) -> None:
    inode = new(volume, b"f").inode
    volume.truncate(inode, 1 << 20)
    assert volume.getattr(inode).blocks == 0
    volume.write(inode, 0, bytes(range(256)) * 256)
    assert 128 <= volume.getattr(inode).blocks <= 160
    Packer().pack_all(volume)
    volume.evict([inode])
    assert 128 <= volume.getattr(inode).blocks <= 160, "evicted bytes are still the file's"


def test_blocks_behind_a_new_end_do_not_count_though_they_are_there_until_the_commit(volume: Volume) -> None:
    inode = new(volume, b"f").inode
    volume.write(inode, 0, b"x" * 200_000)
    volume.write(inode, 1 << 20, b"x" * 5000)
    volume.commit()
    assert volume.truncate(inode, (1 << 20) + 100).blocks == 49 * 8 + 8
    assert volume.truncate(inode, 5000).blocks == 16
    assert volume.content.length(inode) > 5000
    volume.commit()
    volume.background()
    assert volume.content.length(inode) == 5000
    assert volume.getattr(inode).blocks == 16


def test_reading_a_directory_or_link_is_refused(volume: Volume) -> None:
    refused(errno.EISDIR, lambda: volume.read(ROOT, 0, 1))
    refused(errno.EISDIR, lambda: volume.write(ROOT, 0, b"x"))
    link = volume.symlink(ROOT, b"l", b"x", 0, 0).inode
    refused(errno.EINVAL, lambda: volume.read(link, 0, 1))


@pytest.mark.allow_logs
def test_a_lost_content_file_is_an_error_and_never_zeros(volume: Volume, tmp_path: Path) -> None:
    inode, small = new(volume, b"f").inode, new(volume, b"small").inode
    volume.write(inode, 0, b"x" * 50_000)
    volume.write(small, 0, b"x")
    volume.commit()
    copy = Volume(crash_copy(volume.directory, tmp_path / "copy"))
    assert read(copy, inode) == b"x" * 50_000
    os.truncate(copy.content.path(inode), 40_000)
    refused(errno.EIO, lambda: copy.read(inode, 0, 50_000))
    assert copy.read_into(inode, 30_000, memoryview(bytearray(20_000))) == -1
    copy.content.forget(inode)
    os.unlink(copy.content.path(inode))
    refused(errno.EIO, lambda: copy.read(inode, 0, 50_000))
    assert copy.read_into(inode, 0, memoryview(bytearray(100))) == -1
    copy.db.execute("DELETE FROM inline")
    refused(errno.EIO, lambda: copy.read(small, 0, 1))
    copy.abandon()


def test_an_unlinked_file_lives_while_it_is_held(volume: Volume) -> None:
    inode = new(volume, b"f").inode
    volume.write(inode, 0, b"abc")
    volume.hold(inode, 2)
    volume.unlink(ROOT, b"f")
    volume.write(inode, 3, b"def")
    volume.truncate(inode, 5)
    volume.drop(inode)
    assert read(volume, inode) == b"abcde"
    assert volume.getattr(inode).nlink == 0
    refused(errno.ENOENT, lambda: volume.link(inode, ROOT, b"again"))
    volume.drop(inode)
    refused(errno.ENOENT, lambda: volume.getattr(inode))
    volume.commit()
    assert not volume.content.path(inode).exists()


def test_dropping_what_is_not_held_or_not_there_does_nothing(volume: Volume) -> None:
    inode = new(volume, b"f").inode
    volume.drop(inode, 5)
    volume.drop(type(inode)(999_999))
    assert volume.getattr(inode).nlink == 1


def test_only_a_write_over_vouched_bytes_waits(volume: Volume) -> None:
    inode = new(volume, b"f").inode
    volume.write(inode, 0, b"x" * (3 << 20))
    assert not volume.would_wait(inode, 0, 10)
    Packer().pack_all(volume)
    assert volume.would_wait(inode, 0, 10)
    assert not volume.would_wait(inode, 3 << 20, 10)
    volume.write(inode, 5, b"y")
    assert not volume.would_wait(inode, 0, 1 << 20), "a window around the write became dirty"
    assert volume.would_wait(inode, 2 << 20, 1)
    volume.set_record(inode, S3Record(etag="e"))
    assert volume.would_wait(inode, 0, 1)
    volume.write(inode, 0, b"z")
    assert not volume.would_wait(inode, 0, 1)


def test_each_change_of_bytes_gives_a_new_version_and_nothing_else_does(volume: Volume) -> None:
    inode = new(volume, b"f").inode
    versions = [volume.getattr(inode).version]

    def changed() -> bool:
        versions.append(volume.getattr(inode).version)
        return versions[-1] > versions[-2]

    volume.write(inode, 0, b"abc")
    assert changed()
    volume.truncate(inode, 1)
    assert changed()
    volume.truncate(inode, 10)
    assert changed()
    volume.rename(ROOT, b"f", ROOT, b"g")
    volume.set_xattr(inode, b"user.a", b"b")
    packer = Packer()
    packer.pack_all(volume)
    volume.evict([inode])
    packer.read(volume, inode, 0, 10)
    assert not changed()


def test_fetching_changes_nothing_that_stat_shows(volume: Volume) -> None:
    inode = new(volume, b"f").inode
    volume.write(inode, 0, b"abc" * 5000)
    packer = Packer()
    packer.pack_all(volume)
    before = volume.getattr(inode)
    volume.evict([inode])
    assert packer.read(volume, inode, 0, 1 << 20) == b"abc" * 5000
    assert volume.getattr(inode) == before


def test_bytes_that_come_too_late_are_not_put_over_newer_ones(volume: Volume) -> None:
    inode = new(volume, b"f").inode
    volume.write(inode, 0, b"a" * 1000)
    packer = Packer()
    packer.pack_all(volume)
    volume.evict([inode])
    (where,) = volume.read(inode, 0, 1000).missing
    volume.write(inode, 100, b"NEW")
    assert volume.fill(where, 0, b"a" * 1000)
    assert read(volume, inode) == b"a" * 100 + b"NEW" + b"a" * 897
    volume.truncate(inode, 0)
    assert not volume.fill(where, 0, b"a" * 1000)
    volume.unlink(ROOT, b"f")
    assert not volume.fill(where, 0, b"a" * 1000)


def test_partial_reads_name_only_what_is_missing(volume: Volume) -> None:
    inode = new(volume, b"f").inode
    volume.write(inode, 0, b"a" * 10_000)
    volume.truncate(inode, 20_000)
    packer = Packer()
    packer.pack_all(volume)
    volume.evict([inode])
    result = volume.read(inode, 9000, 5000)
    assert [(r.offset, r.length) for r in result.missing] == [(9000, 1000 + 12288 - 10_000)] or [
        (r.offset, r.length) for r in result.missing
    ] == [(9000, 1000)]
    assert result.data == b""
    assert volume.remote_ranges(inode, 15_000, 20_000) == ()
    assert packer.read(volume, inode, 15_000, 9000) == bytes(5000)


def test_sync_makes_this_file_durable_and_costs_nothing_twice(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    original = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (calls.append("sync"), original(fd))[1])
    inode = new(volume, b"f").inode
    volume.write(inode, 0, b"x" * 50_000)
    volume.sync(inode)
    assert len(calls) == 2, "content, then index"
    calls.clear()
    volume.sync(inode)
    assert calls == [], "nothing changed"
    volume.write(inode, 0, b"y")
    volume.sync(inode, data_only=True)
    assert len(calls) == 1, "nothing changed that fdatasync must keep besides the bytes"
    volume.sync(inode)
    assert len(calls) == 2, "the bytes are there already"


def test_a_small_file_and_its_name_are_durable_with_one_fsync(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    original = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (calls.append("sync"), original(fd))[1])
    inode = new(volume, b"f").inode
    volume.write(inode, 0, b"x")
    volume.sync(inode)
    assert len(calls) == 1
    volume.sync(inode)
    assert len(calls) == 1, "nothing changed"


def test_a_small_file_that_is_fsynced_again_and_again_moves_to_a_content_file(volume: Volume) -> None:
    inode = new(volume, b"f").inode
    for turn in range(6):
        volume.write(inode, turn, b"%d" % turn)
        volume.sync(inode)
    assert volume.content.path(volume.live(inode).blob).read_bytes() == b"012345"
    assert read(volume, inode) == b"012345"


def test_many_threads_write_and_sync_at_once(volume: Volume) -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(20):
                inode = volume.create(ROOT, b"%d-%d" % (number, turn), 0o644, 0, 0).inode
                volume.write(inode, 0, b"%d" % number * 100)
                volume.sync(inode)
                if turn % 3 == 0:
                    volume.unlink(ROOT, b"%d-%d" % (number, turn))
                volume.background()
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(everything(volume)) == 4 * 13


def test_calls_after_the_end_are_errors_of_the_tree(volume: Volume) -> None:
    volume.close()
    with pytest.raises(FsError):
        volume.lookup(ROOT, b"x")
    volume.background()
    volume.close()
