from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Callable

import pytest

from tests.unit.volume.helpers import next_tick
from tonfs.errors import FsError
from tonfs.ids import Inode
from tonfs.volume import ROOT, Attr, SetAttr, Volume


def refused(number: int, action: Callable[[], object]) -> None:
    with pytest.raises(FsError) as caught:
        action()
    assert caught.value.errno == number, os.strerror(caught.value.errno)


def new(volume: Volume, name: bytes, parent: Inode = ROOT) -> Attr:
    return volume.create(parent, name, 0o644, 1, 2)


def test_a_new_file_has_what_stat_should_show(volume: Volume) -> None:
    before = volume.getattr(ROOT)
    next_tick(volume)
    attr = volume.create(ROOT, b"f", 0o640, 7, 8)
    assert (stat.S_IFMT(attr.mode), stat.S_IMODE(attr.mode), attr.uid, attr.gid) == (stat.S_IFREG, 0o640, 7, 8)
    assert (attr.nlink, attr.size, attr.blocks) == (1, 0, 0)
    assert attr.atime_ns == attr.mtime_ns == attr.ctime_ns == attr.birth_ns
    after = volume.getattr(ROOT)
    assert after.mtime_ns > before.mtime_ns
    assert after.nlink == before.nlink
    assert volume.lookup(ROOT, b"f") == attr


def test_names_are_bytes_up_to_255_without_slash_and_nul(volume: Volume) -> None:
    longest = b"\xff" * 255
    new(volume, longest)
    assert volume.lookup(ROOT, longest).size == 0
    refused(errno.ENAMETOOLONG, lambda: new(volume, b"x" * 256))
    refused(errno.ENAMETOOLONG, lambda: volume.lookup(ROOT, b"x" * 256))
    refused(errno.ENAMETOOLONG, lambda: volume.rename(ROOT, longest, ROOT, b"x" * 256))
    for name in (b"", b"a/b", b"a\0b"):
        refused(errno.EINVAL, lambda name=name: new(volume, name))  # type: ignore[misc]
    for name in (b".", b".."):
        refused(errno.EEXIST, lambda name=name: new(volume, name))  # type: ignore[misc]


def test_a_file_and_a_directory_cannot_share_a_name(volume: Volume) -> None:
    new(volume, b"a")
    refused(errno.EEXIST, lambda: volume.mkdir(ROOT, b"a", 0o755, 0, 0))
    volume.mkdir(ROOT, b"d", 0o755, 0, 0)
    refused(errno.EEXIST, lambda: new(volume, b"d"))


def test_dot_and_dot_dot_are_looked_up_without_being_stored(volume: Volume) -> None:
    folder = volume.mkdir(ROOT, b"d", 0o755, 0, 0)
    assert volume.lookup(folder.inode, b"..").inode == ROOT
    assert volume.lookup(folder.inode, b".").inode == folder.inode
    file = new(volume, b"file")
    assert volume.lookup(file.inode, b".") == file, "so the kernel asks for an inode it has only the number of"
    assert volume.lookup(ROOT, b"..").inode == ROOT
    assert volume.list_dir(folder.inode, 0, 10) == []


def test_directories_count_their_links(volume: Volume) -> None:
    outer = volume.mkdir(ROOT, b"o", 0o755, 0, 0).inode
    inner = volume.mkdir(outer, b"i", 0o755, 0, 0).inode
    assert volume.getattr(ROOT).nlink == 3
    assert volume.getattr(outer).nlink == 3
    volume.rename(outer, b"i", ROOT, b"i")
    assert (volume.getattr(ROOT).nlink, volume.getattr(outer).nlink) == (4, 2)
    assert volume.lookup(inner, b"..").inode == ROOT


def test_rmdir_wants_an_empty_directory(volume: Volume) -> None:
    folder = volume.mkdir(ROOT, b"d", 0o755, 0, 0).inode
    new(volume, b"f", folder)
    refused(errno.ENOTEMPTY, lambda: volume.rmdir(ROOT, b"d"))
    refused(errno.EISDIR, lambda: volume.unlink(ROOT, b"d"))
    refused(errno.ENOTDIR, lambda: volume.rmdir(folder, b"f"))
    refused(errno.EINVAL, lambda: volume.rmdir(folder, b"."))
    refused(errno.ENOTEMPTY, lambda: volume.rmdir(folder, b".."))
    volume.unlink(folder, b"f")
    volume.hold(folder)
    volume.rmdir(ROOT, b"d")
    refused(errno.ENOENT, lambda: new(volume, b"late", folder))
    assert volume.getattr(folder).nlink == 0
    assert volume.list_dir(folder, 0, 10) == []
    volume.drop(folder)
    refused(errno.ENOENT, lambda: volume.getattr(folder))


def test_set_gid_directories_pass_their_group_on(volume: Volume) -> None:
    folder = volume.mkdir(ROOT, b"d", 0o2775, 1, 77).inode
    assert volume.create(folder, b"f", 0o644, 5, 6).gid == 77
    below = volume.mkdir(folder, b"s", 0o755, 5, 6)
    assert below.gid == 77
    assert below.mode & stat.S_ISGID


def test_special_files_keep_type_and_device(volume: Volume) -> None:
    for kind in (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK):
        attr = volume.create(ROOT, str(kind).encode(), kind | 0o600, 0, 0, rdev=os.makedev(7, 300))
        assert stat.S_IFMT(attr.mode) == kind
        assert attr.rdev == os.makedev(7, 300)


def test_symlinks_hold_any_bytes_and_are_not_followed(volume: Volume) -> None:
    attr = volume.symlink(ROOT, b"l", b"../\xff/x" + b"y" * 4000, 0, 0)
    assert attr.size == len(volume.readlink(attr.inode)) == 4006
    refused(errno.ENAMETOOLONG, lambda: volume.symlink(ROOT, b"m", b"y" * 4096, 0, 0))
    refused(errno.EINVAL, lambda: volume.readlink(new(volume, b"f").inode))
    refused(errno.ELOOP, lambda: volume.resolve([b"l", b"x"]))
    refused(errno.ENOTDIR, lambda: volume.resolve([b"f", b"x"]))
    refused(errno.ENOENT, lambda: volume.resolve([b"q", b"x"]))


def test_hard_links_share_one_inode_until_the_last_goes(volume: Volume) -> None:
    inode = new(volume, b"a").inode
    folder = volume.mkdir(ROOT, b"d", 0o755, 0, 0).inode
    assert volume.link(inode, folder, b"b").nlink == 2
    refused(errno.EEXIST, lambda: volume.link(inode, folder, b"b"))
    refused(errno.EPERM, lambda: volume.link(folder, ROOT, b"dd"))
    volume.rename(ROOT, b"a", folder, b"b")  # the same inode: nothing happens, both stay
    assert volume.lookup(ROOT, b"a").inode == inode
    volume.unlink(ROOT, b"a")
    assert volume.getattr(inode).nlink == 1
    assert volume.path_of(inode) == b"d/b"
    volume.unlink(folder, b"b")
    refused(errno.ENOENT, lambda: volume.getattr(inode))


def test_rename_refuses_what_posix_refuses(volume: Volume) -> None:
    new(volume, b"f")
    empty = volume.mkdir(ROOT, b"empty", 0o755, 0, 0).inode
    full = volume.mkdir(ROOT, b"full", 0o755, 0, 0).inode
    new(volume, b"x", full)
    refused(errno.ENOENT, lambda: volume.rename(ROOT, b"nothing", ROOT, b"g"))
    refused(errno.EISDIR, lambda: volume.rename(ROOT, b"f", ROOT, b"empty"))
    refused(errno.ENOTDIR, lambda: volume.rename(ROOT, b"empty", ROOT, b"f"))
    refused(errno.ENOTEMPTY, lambda: volume.rename(ROOT, b"empty", ROOT, b"full"))
    refused(errno.EINVAL, lambda: volume.rename(ROOT, b"full", full, b"inside"))
    refused(errno.EEXIST, lambda: volume.rename(ROOT, b"f", ROOT, b"empty", replace=False))
    refused(errno.EBUSY, lambda: volume.rename(ROOT, b".", ROOT, b"g"))
    volume.rename(ROOT, b"full", ROOT, b"empty")
    refused(errno.ENOENT, lambda: volume.getattr(empty))
    assert volume.lookup(ROOT, b"empty").inode == full


def test_exchange_swaps_a_file_and_a_directory(volume: Volume) -> None:
    file = new(volume, b"a").inode
    upper = volume.mkdir(ROOT, b"u", 0o755, 0, 0).inode
    folder = volume.mkdir(upper, b"d", 0o755, 0, 0).inode
    refused(errno.ENOENT, lambda: volume.rename(ROOT, b"a", ROOT, b"nothing", exchange=True))
    volume.rename(ROOT, b"a", upper, b"d", exchange=True)
    assert volume.lookup(ROOT, b"a").inode == folder
    assert volume.lookup(upper, b"d").inode == file
    assert (volume.getattr(ROOT).nlink, volume.getattr(upper).nlink) == (4, 2)
    refused(errno.EINVAL, lambda: volume.rename(ROOT, b"u", upper, b"d", exchange=True))


def test_times_of_rename_and_link_reach_inode_and_directories(volume: Volume) -> None:
    inode = new(volume, b"a").inode
    folder = volume.mkdir(ROOT, b"d", 0o755, 0, 0).inode
    before = [volume.getattr(i) for i in (inode, folder, ROOT)]
    next_tick(volume)
    volume.rename(ROOT, b"a", folder, b"a")
    after = [volume.getattr(i) for i in (inode, folder, ROOT)]
    assert after[0].ctime_ns > before[0].ctime_ns
    assert after[0].mtime_ns == before[0].mtime_ns
    assert all(b.mtime_ns > a.mtime_ns and b.ctime_ns > a.ctime_ns for a, b in zip(before[1:], after[1:], strict=True))


def test_listing_goes_on_while_names_come_and_go(volume: Volume) -> None:
    for number in range(50):
        new(volume, b"n%d" % number)
    seen = []
    after, step = 0, 0
    while entries := volume.list_dir(ROOT, after, 7):
        assert all(a.cookie < b.cookie for a, b in itertools.pairwise(entries))
        seen += [entry.name for entry in entries]
        after = entries[-1].cookie
        if step < 5:
            volume.unlink(ROOT, seen[-1])  # rm -r deletes while it reads
            volume.rename(ROOT, seen[-2], ROOT, seen[-3])  # a name that is replaced is not met again
            new(volume, b"new%d" % step)
        step += 1
    old = [name for name in seen if name.startswith(b"n") and not name.startswith(b"new")]
    assert sorted(old) == sorted(b"n%d" % number for number in range(50))
    assert len(seen) == len(set(seen))


def test_sorted_listing_is_the_byte_order_of_whole_keys(volume: Volume) -> None:
    volume.mkdir(ROOT, b"a", 0o755, 0, 0)
    for name in (b"a-b", b"a0", b"a.txt", b"B", b"\xc3\xa9"):
        new(volume, name)
    keys = [entry.sort_key for entry in volume.list_sorted(ROOT)]
    assert keys == sorted(keys) == [b"B", b"a-b", b"a.txt", b"a/", b"a0", b"\xc3\xa9"]
    assert [e.name for e in volume.list_sorted(ROOT, b"a-b", 2)] == [b"a.txt", b"a"]
    assert [e.name for e in volume.list_sorted(ROOT, prefix=b"a.")] == [b"a.txt"]
    assert [e.name for e in volume.list_sorted(ROOT, prefix=b"\xff")] == []
    new(volume, b"\xff\xff")
    assert [e.name for e in volume.list_sorted(ROOT, prefix=b"\xff")] == [b"\xff\xff"]


def test_times_keep_nanoseconds_before_1970_and_after_2106(volume: Volume) -> None:
    inode = new(volume, b"f").inode
    for value in (-1, -(10**18) - 1, (1 << 33) * 10**9 // 2 + 123_456_789, 0):
        attr = volume.setattr(inode, SetAttr(atime_ns=value, mtime_ns=value))
        assert (attr.atime_ns, attr.mtime_ns) == (value, value)
    far = volume.setattr(inode, SetAttr(mtime_ns=10**30))
    assert far.mtime_ns == (1 << 63) - 1


def test_setattr_changes_only_what_it_is_told(volume: Volume) -> None:
    before = new(volume, b"f")
    next_tick(volume)
    after = volume.setattr(before.inode, SetAttr(mode=0o4711, uid=9))
    assert (stat.S_IFMT(after.mode), stat.S_IMODE(after.mode), after.uid, after.gid) == (stat.S_IFREG, 0o4711, 9, 2)
    assert after.version == before.version
    assert after.ctime_ns > before.ctime_ns
    assert after.mtime_ns == before.mtime_ns


def test_inode_numbers_are_never_used_twice(volume: Volume) -> None:
    seen = set()
    for _ in range(20):
        inode = new(volume, b"f").inode
        assert inode not in seen
        seen.add(inode)
        volume.unlink(ROOT, b"f")


def test_letting_go_of_files_with_names_asks_the_index_nothing(volume: Volume) -> None:
    """The kernel may give up a million inodes at once; none of them is in memory any more."""
    directory = volume.directory
    inodes = [new(volume, b"%d" % number).inode for number in range(20)]
    volume.close()
    again = Volume(directory)
    for inode in inodes:
        again.hold(inode)
    asked: list[str] = []
    again._read.set_trace_callback(asked.append)
    again.drop_all((inode, 1) for inode in inodes)
    again._read.set_trace_callback(None)
    assert asked == []
    assert not again._holds
    again.close()


def test_of_many_that_are_let_go_those_without_a_name_are_removed(volume: Volume) -> None:
    inodes = [new(volume, b"%d" % number).inode for number in range(4)]
    for inode in inodes:
        volume.hold(inode, 2)
    volume.unlink(ROOT, b"1")
    volume.unlink(ROOT, b"2")
    volume.drop_all([(inodes[0], 2), (inodes[1], 2), (inodes[2], 1), (type(inodes[0])(999_999), 7)])
    refused(errno.ENOENT, lambda: volume.getattr(inodes[1]))
    assert volume.getattr(inodes[2]).nlink == 0, "somebody still holds it"
    assert volume.getattr(inodes[0]).nlink == 1
    volume.drop_all([(inodes[2], 1)])
    refused(errno.ENOENT, lambda: volume.getattr(inodes[2]))
    assert volume._holds == {inodes[3]: 2}


def test_a_removed_file_that_left_memory_goes_when_it_is_let_go(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    inode = new(volume, b"held").inode
    volume.hold(inode)
    volume.unlink(ROOT, b"held")
    volume.commit()
    monkeypatch.setattr("tonfs.volume.inodes.NODE_CACHE", 0)
    volume.background()
    assert inode not in volume._nodes
    assert volume.getattr(inode).nlink == 0
    volume.background()
    volume.drop(inode)
    refused(errno.ENOENT, lambda: volume.getattr(inode))
    assert not volume._nameless
