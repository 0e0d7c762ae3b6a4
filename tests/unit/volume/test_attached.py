"""Objects whose name a directory has: `a` beside `a/b`, and `a/` with data."""

from __future__ import annotations

import errno

import pytest

from tests.unit.volume.helpers import Packer, check
from tests.unit.volume.test_names import new, refused
from tests.unit.volume.test_objects import RECORD, put
from tonfs.ids import Inode
from tonfs.volume import Attr, Change, Expect, Listed, Volume


@pytest.fixture
def bucket(volume: Volume) -> Inode:
    return volume.create_bucket(b"bucket", 3, 4).inode


def put_inside(volume: Volume, bucket: Inode, key: bytes, data: bytes) -> Attr:
    staged = volume.stage(1, 2)
    volume.write(staged, 0, data)
    return volume.publish(staged, bucket, key.split(b"/"), RECORD, marker=True)


def carried(volume: Volume, bucket: Inode, key: bytes, *, marker: bool = False) -> bytes | None:
    found = volume.find_object(bucket, key.split(b"/"), marker=marker)
    return None if found is None or found.attr.is_dir else volume.read(found.attr.inode, 0, 100).data


def keys(volume: Volume, bucket: Inode) -> list[Listed]:
    return volume.list_objects(bucket)


def test_keys_below_an_object_leave_it_whole(volume: Volume, bucket: Inode) -> None:
    first = put(volume, bucket, b"a", b"one")
    put(volume, bucket, b"a/b", b"two")
    assert volume.lookup(bucket, b"a").is_dir
    assert carried(volume, bucket, b"a") == b"one"
    assert volume.record(first.inode) == RECORD
    assert [e.name for e in volume.list_dir(bucket, 0, 9)] == [b"a"]
    check(volume)


def test_an_object_is_stored_beside_keys_that_were_there_before(volume: Volume, bucket: Inode) -> None:
    put(volume, bucket, b"a/b")
    put(volume, bucket, b"a", b"one")
    assert carried(volume, bucket, b"a") == b"one"
    put(volume, bucket, b"a", b"two")
    assert carried(volume, bucket, b"a") == b"two"
    check(volume)


def test_the_last_key_below_gives_the_name_back(volume: Volume, bucket: Inode) -> None:
    put(volume, bucket, b"a", b"one")
    put(volume, bucket, b"a/b/c")
    told: list[Change] = []
    volume.on_change(told.append)
    assert volume.remove_object(bucket, [b"a", b"b", b"c"])
    found = volume.lookup(bucket, b"a")
    assert found.is_file
    assert volume.read(found.inode, 0, 9).data == b"one"
    assert (bucket, b"a") in told[-1].entries
    check(volume)


def test_removing_the_object_leaves_the_keys_below(volume: Volume, bucket: Inode) -> None:
    put(volume, bucket, b"a", b"one")
    put(volume, bucket, b"a/b")
    assert volume.remove_object(bucket, [b"a"])
    assert not volume.remove_object(bucket, [b"a"])
    assert volume.resolve([b"a", b"b"], bucket).is_file
    assert carried(volume, bucket, b"a") is None
    assert volume.remove_object(bucket, [b"a", b"b"])
    assert volume.is_empty(bucket)
    check(volume)


def test_data_under_a_directory_key_comes_back(volume: Volume, bucket: Inode) -> None:
    put_inside(volume, bucket, b"d", b"inside")
    put(volume, bucket, b"d", b"beside")
    put(volume, bucket, b"d/k", b"below")
    assert carried(volume, bucket, b"d", marker=True) == b"inside"
    assert carried(volume, bucket, b"d") == b"beside"
    listed = keys(volume, bucket)
    assert [(e.key, e.size) for e in listed] == [(b"d", 6), (b"d/", 6)]
    assert all((e.etag, e.marked) == (RECORD.etag, True) for e in listed)
    assert volume.remove_object(bucket, [b"d"], marker=True)
    assert carried(volume, bucket, b"d", marker=True) is None
    assert carried(volume, bucket, b"d") == b"beside"
    check(volume)


def test_a_marker_without_data_replaces_data(volume: Volume, bucket: Inode) -> None:
    put_inside(volume, bucket, b"d", b"inside")
    volume.put_marker(bucket, [b"d"], RECORD, 0, 0)
    assert carried(volume, bucket, b"d", marker=True) is None
    assert volume.record(volume.lookup(bucket, b"d").inode) == RECORD
    put_inside(volume, bucket, b"d", b"again")
    assert volume.record(volume.lookup(bucket, b"d").inode) is None
    assert carried(volume, bucket, b"d", marker=True) == b"again"
    check(volume)


def test_a_marker_that_is_gone_leaves_no_directory_behind(volume: Volume, bucket: Inode) -> None:
    volume.put_marker(bucket, [b"d"], RECORD, 0, 0)
    put(volume, bucket, b"d/k")
    assert volume.remove_object(bucket, [b"d"], marker=True)
    assert volume.remove_object(bucket, [b"d", b"k"])
    assert volume.is_empty(bucket)


def test_a_directory_of_the_mount_outlives_its_marker(volume: Volume, bucket: Inode) -> None:
    volume.mkdir(bucket, b"d", 0o755, 0, 0)
    volume.put_marker(bucket, [b"d"], RECORD, 0, 0)
    put(volume, bucket, b"d/k")
    assert volume.remove_object(bucket, [b"d"], marker=True)
    assert volume.remove_object(bucket, [b"d", b"k"])
    assert volume.lookup(bucket, b"d").is_dir


def test_listing_order_is_that_of_whole_keys(volume: Volume, bucket: Inode) -> None:
    for key in (b"a", b"a!", b"a-b", b"a/x", b"a0", b"b"):
        put(volume, bucket, key)
    assert [e.key for e in keys(volume, bucket)] == [b"a", b"a!", b"a-b", b"a/", b"a0", b"b"]
    paged: list[bytes] = []
    while entries := volume.list_objects(bucket, paged[-1] if paged else b"", 2):
        paged += [e.key for e in entries]
    assert paged == [b"a", b"a!", b"a-b", b"a/", b"a0", b"b"]
    assert [e.key for e in volume.list_objects(bucket, prefix=b"a")] == paged[:-1]
    assert [e.sort_key for e in volume.list_sorted(bucket)] == paged[1:], "POSIX shows the directory only"


def test_carried_objects_move_with_their_directory(volume: Volume, bucket: Inode) -> None:
    put(volume, bucket, b"a", b"one")
    put(volume, bucket, b"a/b")
    put(volume, bucket, b"c", b"three")
    put(volume, bucket, b"c/d")
    volume.rename(bucket, b"a", bucket, b"z")
    assert carried(volume, bucket, b"z") == b"one"
    volume.rename(bucket, b"z", bucket, b"c", exchange=True)
    assert carried(volume, bucket, b"c") == b"one"
    assert carried(volume, bucket, b"z") == b"three"
    beside = volume.find_object(bucket, [b"c"])
    assert beside is not None
    assert volume.path_of(beside.attr.inode) == b"bucket/c"
    check(volume)


def test_carried_objects_go_with_their_directory(volume: Volume, bucket: Inode) -> None:
    put(volume, bucket, b"a", b"one")
    put(volume, bucket, b"a/b")
    put_inside(volume, bucket, b"a", b"inside")
    volume.unlink(volume.lookup(bucket, b"a").inode, b"b")
    assert carried(volume, bucket, b"a") == b"one"
    volume.rmdir(bucket, b"a")
    assert keys(volume, bucket) == []
    volume.mkdir(bucket, b"new", 0o755, 0, 0)
    put(volume, bucket, b"new", b"beside")
    volume.rename(volume.mkdir(bucket, b"over", 0o755, 0, 0) and bucket, b"over", bucket, b"new")
    assert carried(volume, bucket, b"new") is None
    check(volume)


def test_carried_objects_survive_restarts_packing_and_eviction(volume: Volume, bucket: Inode) -> None:
    put(volume, bucket, b"a", b"one")
    put(volume, bucket, b"a/b", b"two")
    put_inside(volume, bucket, b"a", b"inside")
    volume.close()
    again = Volume(volume.directory)
    try:
        packer = Packer()
        assert packer.pack_all(again) == 3
        assert again.evict([inode for inode, _, _ in again.files_below(bucket)]).files == 3
        for marker, data in ((False, b"one"), (True, b"inside")):
            found = again.find_object(bucket, [b"a"], marker=marker)
            assert found is not None
            assert packer.read(again, found.attr.inode, 0, 99) == data
        check(again)
    finally:
        again.close()


def test_conditions_look_at_the_object_not_at_the_directory(volume: Volume, bucket: Inode) -> None:
    put(volume, bucket, b"a/b")
    attr = put(volume, bucket, b"a", b"one", expect=Expect(absent=True))
    refused(errno.EEXIST, lambda: put(volume, bucket, b"a", b"two", expect=Expect(absent=True)))
    put(volume, bucket, b"a", b"two", expect=Expect(inode=attr.inode, version=attr.version))


def test_a_plain_file_of_the_mount_stays_one(volume: Volume, bucket: Inode) -> None:
    new(volume, b"file", bucket)
    refused(errno.ENOTDIR, lambda: put(volume, bucket, b"file/below"))
    assert volume.lookup(bucket, b"file").is_file
    check(volume)
