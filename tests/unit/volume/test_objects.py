from __future__ import annotations

import errno
import threading

import pytest

from tests.unit.volume.helpers import check
from tests.unit.volume.test_names import new, refused
from tonfs.errors import FsError, Stale
from tonfs.ids import Inode
from tonfs.volume import Attr, Change, Expect, S3Record, SetAttr, Volume, files
from tonfs.volume.content import write_through
from tonfs.volume.contents import INLINE_MAX

RECORD = S3Record(
    etag="d41d8cd98f00b204e9800998ecf8427e",
    content_type="image/png",
    metadata={"colour": "blue", "ünï": "cödé"},
    checksums={"crc32": "AAAAAA=="},
    headers={"cache-control": "no-store"},
)


@pytest.fixture
def bucket(volume: Volume) -> Inode:
    return volume.create_bucket(b"my-files", 3, 4).inode


def put(volume: Volume, bucket: Inode, key: bytes, data: bytes = b"data", expect: Expect | None = None) -> Attr:
    staged = volume.stage(1, 2)
    volume.write(staged, 0, data)
    try:
        return volume.publish(staged, bucket, key.split(b"/"), RECORD, expect=expect)
    except BaseException:
        volume.discard(staged)
        raise


def test_an_object_is_a_file_with_a_record(volume: Volume, bucket: Inode) -> None:
    attr = put(volume, bucket, b"image.png", b"abc")
    assert volume.lookup(bucket, b"image.png").inode == attr.inode
    assert volume.read(attr.inode, 0, 10).data == b"abc"
    assert volume.record(attr.inode) == RECORD
    assert (attr.uid, attr.gid, attr.nlink, attr.mode & 0o777) == (1, 2, 1, 0o644)


def test_parents_are_implied_and_pruned_with_the_last_key(volume: Volume, bucket: Inode) -> None:
    put(volume, bucket, b"a/b/c")
    put(volume, bucket, b"a/d")
    assert volume.resolve([b"a"], bucket).implied
    assert volume.remove_object(bucket, [b"a", b"b", b"c"])
    refused(errno.ENOENT, lambda: volume.resolve([b"a", b"b"], bucket))
    assert volume.remove_object(bucket, [b"a", b"d"])
    assert volume.is_empty(bucket)
    assert not volume.remove_object(bucket, [b"a", b"d"])


def test_directories_made_through_the_mount_are_not_pruned(volume: Volume, bucket: Inode) -> None:
    folder = volume.mkdir(bucket, b"mine", 0o755, 0, 0).inode
    put(volume, bucket, b"mine/k")
    assert volume.remove_object(bucket, [b"mine", b"k"])
    assert volume.getattr(folder).nlink == 2


def test_readers_of_the_old_object_read_on(volume: Volume, bucket: Inode) -> None:
    old = put(volume, bucket, b"k", b"old")
    volume.setattr(old.inode, SetAttr(mode=0o600, uid=9))
    volume.hold(old.inode)
    fresh = put(volume, bucket, b"k", b"new!")
    assert fresh.inode != old.inode
    assert (fresh.mode & 0o777, fresh.uid) == (0o600, 9), "owner and mode of the name are kept"
    assert volume.read(old.inode, 0, 10).data == b"old"
    assert volume.read(fresh.inode, 0, 10).data == b"new!"
    volume.drop(old.inode)
    refused(errno.ENOENT, lambda: volume.getattr(old.inode))


def test_replacing_one_of_two_hard_links_leaves_the_other(volume: Volume, bucket: Inode) -> None:
    old = put(volume, bucket, b"k", b"old")
    volume.link(old.inode, bucket, b"second")
    put(volume, bucket, b"k", b"new")
    assert volume.read(volume.lookup(bucket, b"second").inode, 0, 9).data == b"old"
    assert volume.getattr(old.inode).nlink == 1


def test_a_write_through_the_mount_makes_digests_stale_and_keeps_the_rest(volume: Volume, bucket: Inode) -> None:
    attr = put(volume, bucket, b"k")
    volume.rename(bucket, b"k", bucket, b"moved")
    volume.setattr(attr.inode, SetAttr(mode=0o600, mtime_ns=5))
    assert volume.record(attr.inode) == RECORD
    volume.write(attr.inode, 0, b"X")
    record = volume.record(attr.inode)
    assert record is not None
    assert (record.etag, record.checksums, record.current) == ("", {}, False)
    assert (record.content_type, record.metadata, record.headers) == (
        RECORD.content_type,
        RECORD.metadata,
        RECORD.headers,
    )
    volume.set_record(attr.inode, RECORD)
    assert volume.record(attr.inode) == RECORD


def test_conflicts_have_their_own_errors_and_change_nothing(volume: Volume, bucket: Inode) -> None:
    new(volume, b"file", bucket)
    put(volume, bucket, b"folder/x")
    volume.symlink(bucket, b"link", b"folder", 0, 0)
    before = [entry.name for entry in volume.list_sorted(bucket)]
    refused(errno.ENOTDIR, lambda: put(volume, bucket, b"file/below/it"))
    refused(errno.ENOTDIR, lambda: volume.put_marker(bucket, [b"file"], RECORD, 0, 0))
    refused(errno.ELOOP, lambda: put(volume, bucket, b"link/x"))
    refused(errno.ELOOP, lambda: put(volume, bucket, b"link"))
    refused(errno.ENAMETOOLONG, lambda: put(volume, bucket, b"new/" + b"x" * 256))
    refused(errno.EINVAL, lambda: put(volume, bucket, b"new//x"))
    refused(errno.EEXIST, lambda: put(volume, bucket, b"new/../x"))
    assert [entry.name for entry in volume.list_sorted(bucket)] == before
    check(volume)


def test_a_failed_publish_leaves_the_staged_file_to_its_owner(volume: Volume, bucket: Inode) -> None:
    put(volume, bucket, b"folder/x")
    staged = volume.stage(0, 0)
    volume.write(staged, 0, b"kept")
    refused(errno.EEXIST, lambda: volume.publish(staged, bucket, [b"folder", b"x"], RECORD, expect=Expect(absent=True)))
    assert volume.read(staged, 0, 9).data == b"kept"
    volume.publish(staged, bucket, [b"other"], RECORD)
    refused(errno.EINVAL, lambda: volume.publish(staged, bucket, [b"twice"], RECORD))


def test_expectations_are_checked_in_the_same_transaction(volume: Volume, bucket: Inode) -> None:
    attr = put(volume, bucket, b"k")
    refused(errno.EEXIST, lambda: put(volume, bucket, b"k", expect=Expect(absent=True)))
    put(volume, bucket, b"k2", expect=Expect(absent=True))
    right = Expect(inode=attr.inode, version=attr.version)
    refused(errno.ENOENT, lambda: put(volume, bucket, b"nothing", expect=right))
    with pytest.raises(Stale):
        put(volume, bucket, b"k2", expect=right)
    volume.write(attr.inode, 0, b"x")
    with pytest.raises(Stale):
        volume.remove_object(bucket, [b"k"], expect=right)
    now = volume.getattr(attr.inode)
    assert volume.remove_object(bucket, [b"k"], expect=Expect(inode=now.inode, version=now.version))


def test_markers_are_directories_with_a_record(volume: Volume, bucket: Inode) -> None:
    marker = volume.put_marker(bucket, [b"a", b"dir"], RECORD, 1, 2)
    assert marker.is_dir
    assert volume.record(marker.inode) == RECORD
    put(volume, bucket, b"a/dir/k")
    assert volume.remove_object(bucket, [b"a", b"dir", b"k"])
    assert volume.record(marker.inode) == RECORD, "a marker is not pruned"
    assert not volume.remove_object(bucket, [b"a", b"dir"]), "the object 'a/dir' is another one"
    put(volume, bucket, b"a/dir/k")
    assert volume.remove_object(bucket, [b"a", b"dir"], marker=True)
    assert volume.record(marker.inode) is None
    assert not volume.remove_object(bucket, [b"a", b"dir"], marker=True)
    volume.mkdir(bucket, b"empty", 0o755, 0, 0)
    assert volume.remove_object(bucket, [b"empty"], marker=True)


def test_an_object_is_found_by_its_path_and_held(volume: Volume, bucket: Inode) -> None:
    attr = put(volume, bucket, b"a/b")
    volume.symlink(bucket, b"link", b"a/b", 0, 0)
    volume.mkdir(bucket, b"empty", 0o755, 0, 0)
    found = volume.find_object(bucket, [b"a", b"b"], hold=True)
    assert found is not None
    assert found == volume.stored(attr.inode)
    assert found.attr == volume.getattr(attr.inode)
    assert found.record == volume.record(attr.inode)
    for parts, marker in (((b"a",), False), ((b"a",), True), ((b"a", b"b"), True), ((b"a", b"b", b"c"), False)):
        assert volume.find_object(bucket, parts, marker=marker) is None
    assert volume.find_object(bucket, [b"link"]) is None
    assert volume.find_object(bucket, [b"empty"]) is None
    empty = volume.find_object(bucket, [b"empty"], marker=True)
    assert empty is not None, "nothing else would show it"
    assert empty.record is None
    volume.remove_object(bucket, [b"a", b"b"])
    assert volume.read(attr.inode, 0, 9).data == b"data"
    volume.drop(attr.inode)
    refused(errno.ENOENT, lambda: volume.stored(attr.inode))
    refused(errno.ENOENT, lambda: volume.find_object(attr.inode, [b"x"]))


def test_publishing_waits_for_no_batch(volume: Volume, bucket: Inode) -> None:
    """The S3 door does it in its event loop."""
    put(volume, bucket, b"k")
    volume.commit()
    writing, done = threading.Event(), threading.Event()

    def write_a_batch() -> None:
        with volume._flushing:
            writing.set()
            done.wait(20)

    thread = threading.Thread(target=write_a_batch)
    thread.start()
    writing.wait(20)
    try:
        published = threading.Thread(target=lambda: put(volume, bucket, b"k", b"new"), daemon=True)
        published.start()
        published.join(20)
        assert not published.is_alive()
    finally:
        done.set()
        thread.join()
    found = volume.find_object(bucket, [b"k"])
    assert found is not None
    assert volume.read(found.attr.inode, 0, 9).data == b"new"


def test_a_listing_of_objects_brings_what_their_records_say(volume: Volume, bucket: Inode) -> None:
    attr = put(volume, bucket, b"a")
    new(volume, b"b", bucket)
    first, second = volume.list_objects(bucket)
    assert (first.key, first.etag, first.checksums) == (b"a", RECORD.etag, '{"crc32": "AAAAAA=="}')
    assert (first.inode, first.size, first.mtime_ns, first.folder) == (attr.inode, attr.size, attr.mtime_ns, 0)
    assert (second.key, second.etag, second.checksums) == (b"b", "", "{}")
    volume.write(attr.inode, 0, b"x")
    assert volume.list_objects(bucket)[0].etag == "", "it holds no more"


def test_a_page_costs_the_same_wherever_it_is(volume: Volume, bucket: Inode) -> None:
    for number in range(3000):
        volume.create(bucket, b"k%05d" % number, 0o100644, 0, 0)
    volume.commit()

    def steps(after: bytes, prefix: bytes) -> int:
        """Hundreds of steps of SQLite's machine."""
        count = 0

        def tick() -> int:
            nonlocal count
            count += 1
            return 0

        volume._read.set_progress_handler(tick, 100)
        try:
            assert len(volume.list_objects(bucket, after, 20, prefix=prefix)) == 20
        finally:
            volume._read.set_progress_handler(None, 0)
        return count

    early = steps(b"k00010", b"")
    assert steps(b"k02900", b"") <= early + 2
    assert steps(b"k02900", b"k") <= early + 2
    assert steps(b"", b"k029") <= early + 2


def test_buckets_are_top_level_directories(volume: Volume, bucket: Inode) -> None:
    refused(errno.EEXIST, lambda: volume.create_bucket(b"my-files", 0, 0))
    put(volume, bucket, b"k")
    refused(errno.ENOTEMPTY, lambda: volume.delete_bucket(b"my-files"))
    volume.remove_object(bucket, [b"k"])
    volume.delete_bucket(b"my-files")
    refused(errno.ENOENT, lambda: volume.delete_bucket(b"my-files"))


def test_the_kernel_is_told_what_to_forget(volume: Volume, bucket: Inode) -> None:
    told: list[Change] = []
    volume.on_change(told.append)
    attr = put(volume, bucket, b"d/k")
    folder = volume.resolve([b"d"], bucket).inode
    assert set(told.pop().entries) == {(bucket, b"d"), (folder, b"k")}
    put(volume, bucket, b"d/k")
    change = told.pop()
    assert change.entries == ((folder, b"k"),)
    assert attr.inode in change.inodes
    volume.remove_object(bucket, [b"d", b"k"])
    assert set(told.pop().entries) == {(bucket, b"d"), (folder, b"k")}
    volume.mkdir(bucket, b"by-mount", 0o755, 0, 0)
    assert told == []


SIZES = (0, 1, INLINE_MAX - 1, 1, 1, 5, 300_000, 1 << 20)


def test_what_is_poured_into_a_staged_file_is_one_behind_the_other(volume: Volume, bucket: Inode) -> None:
    staged = volume.stage(0, 0)
    whole = b""
    for number, size in enumerate(SIZES):
        piece = bytes([65 + number]) * size
        volume.pour(staged, memoryview(piece))
        whole += piece
        assert volume.getattr(staged).size == len(whole)
    version = volume.getattr(staged).version
    volume.pour(staged, b"!")
    assert volume.getattr(staged).version > version
    volume.publish(staged, bucket, [b"k"], RECORD)
    volume.commit()
    assert volume.read(staged, 0, 1 << 22).data == whole + b"!"


def test_nobody_waits_for_bytes_that_are_poured(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    staged = volume.stage(0, 0)
    seen: list[int] = []

    def write(fd: int, offset: int, data: bytes | memoryview) -> None:
        other = threading.Thread(target=lambda: seen.append(volume.getattr(staged).size))
        other.start()
        other.join(30)
        write_through(fd, offset, data)

    monkeypatch.setattr(files, "write_through", write)
    volume.pour(staged, bytes(100_000))
    assert seen == [0], "and nothing shows before it is written"
    assert volume.getattr(staged).size == 100_000


def test_a_sync_in_the_middle_of_pouring_does_not_count(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    staged = volume.stage(0, 0)

    def write(fd: int, offset: int, data: bytes | memoryview) -> None:
        volume.sync(staged)
        write_through(fd, offset, data)

    monkeypatch.setattr(files, "write_through", write)
    for _ in range(2):
        volume.pour(staged, bytes(100_000))
        assert volume._blobs(staged), "its last bytes are not on the disk"
    volume.sync(staged)
    assert not volume._blobs(staged)


def test_pouring_that_fails_says_so_and_leaves_the_size(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    staged = volume.stage(0, 0)
    volume.pour(staged, b"x" * 100_000)

    def write(fd: int, offset: int, data: bytes | memoryview) -> None:
        write_through(fd, offset, memoryview(data)[:10])
        raise OSError(errno.EIO, "disk")

    monkeypatch.setattr(files, "write_through", write)
    refused(errno.EIO, lambda: volume.pour(staged, b"y" * 100_000))
    assert volume.getattr(staged).size == 100_000
    monkeypatch.undo()
    volume.pour(staged, b"z" * 100_000)
    assert volume.read(staged, 0, 1 << 20).data == b"x" * 100_000 + b"z" * 100_000


def test_staged_files_vanish_with_the_process(volume: Volume) -> None:
    staged = volume.stage(0, 0)
    volume.write(staged, 0, b"x" * 100)
    volume.commit()
    directory = volume.directory
    volume.abandon()
    again = Volume(directory)
    with pytest.raises(FsError):
        again.getattr(staged)
    assert not again.content.path(staged).exists()
    again.close()


def test_many_first_objects_of_one_directory_at_once(volume: Volume, bucket: Inode) -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(10):
                put(volume, bucket, b"new/deep/%d-%d" % (number, turn))
                volume.commit()
                volume.remove_object(bucket, [b"new", b"deep", b"%d-%d" % (number, turn)])
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert volume.is_empty(bucket)
