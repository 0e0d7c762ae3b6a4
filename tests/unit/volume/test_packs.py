from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from tests.unit.volume.helpers import Packer, check, everything
from tests.unit.volume.test_names import new, refused
from tonfs.clock import ManualClock
from tonfs.errors import NotFound, Refused
from tonfs.ids import BagId, Inode
from tonfs.volume import ROOT, Change, PackedFile, Volume

BAG = BagId(b"\x11" * 32)


def file(volume: Volume, name: bytes, data: bytes) -> Inode:
    inode = new(volume, name).inode
    volume.write(inode, 0, data)
    return inode


@pytest.mark.allow_logs
@pytest.mark.parametrize("kind", ["gone", "short", "inline", "segmented"])
@pytest.mark.parametrize("proven", [5, 4])
def test_a_local_copy_that_the_disk_lost_is_read_from_proven_replicas(volume: Volume, kind: str, proven: int) -> None:
    packer, data = Packer(), b"abc" * 20_000 if kind != "inline" else b"abc"
    inode = new(volume, b"f").inode
    volume.write(inode, 0, data)
    if kind == "segmented":
        other = volume.stage(0, 0)
        volume.concat(other, [(inode, 0, len(data))])
    packer.pack_all(volume, proven)
    bags = [(bag, proven, 5) for bag in packer.packs]
    volume.close()
    if kind == "inline":
        db = sqlite3.connect(volume.directory / "index.db", isolation_level=None)
        db.execute("DELETE FROM inline")
        db.close()
    elif kind == "gone":
        volume.content.path(inode).unlink()
    else:
        os.truncate(volume.content.path(inode), 1000)
    again = Volume(volume.directory)
    assert again.read_into(inode, 0, memoryview(bytearray(100))) == (100 if kind == "short" else -1)
    refused(errno.EIO, lambda: again.read(inode, 0, len(data)))
    again.pack_states(bags)  # an agent is at work
    if proven < 5:
        refused(errno.EIO, lambda: again.read(inode, 0, len(data)))
        assert again.damaged(1) == (1, [b"f"])
    else:
        assert packer.read(again, inode, 0, len(data)) == data
        assert again.damaged(1) == (0, [])
        check(again)
    again.close()


def test_only_files_with_bytes_are_dirty(volume: Volume) -> None:
    new(volume, b"empty")
    volume.mkdir(ROOT, b"d", 0o755, 0, 0)
    volume.symlink(ROOT, b"l", b"x", 0, 0)
    assert volume.dirty(0, 1 << 20, force=True).files == ()
    inode = file(volume, b"f", b"abc")
    report = volume.dirty(0, 1 << 20, force=True)
    (item,) = report.files
    assert (item.inode, item.path, item.size, item.ranges) == (inode, b"f", 3, ((0, 3),))
    ((path, offset),) = item.sources
    assert Path(path).read_bytes()[offset : offset + 3] == b"abc"
    assert not report.more
    assert report.oldest is not None


def test_files_settle_before_they_are_offered(directory: Path) -> None:
    clock = ManualClock(1000.0)
    volume = Volume(directory, clock)
    file(volume, b"old", b"1")
    clock.advance(20)
    file(volume, b"young", b"2")
    clock.advance(15)
    report = volume.dirty(30.0, 1 << 20)
    assert [f.path for f in report.files] == [b"old"]
    assert report.oldest == 1000.0
    assert report.next_settle == 1050.0
    assert len(volume.dirty(30.0, 1 << 20, force=True).files) == 2
    clock.advance(-10_000)
    assert len(volume.dirty(30.0, 1 << 20).files) == 2, "a clock that was set back does not delay for ever"
    volume.close()


def test_a_report_ends_at_the_limit(volume: Volume) -> None:
    for number in range(5):
        file(volume, b"%d" % number, b"x" * 1000)
    report = volume.dirty(0, 2000, force=True)
    assert len(report.files) == 2
    assert report.more


def test_holes_need_no_pack(volume: Volume) -> None:
    inode = new(volume, b"f").inode
    volume.truncate(inode, 10 << 20)
    assert volume.counts().dirty == 1
    assert volume.dirty(0, 1 << 20, force=True).files == (), "nothing but zeros: covered at once"
    assert volume.counts().dirty == 0
    volume.write(inode, 5 << 20, b"x")
    (item,) = volume.dirty(0, 1 << 20, force=True).files
    assert sum(length for _, length in item.ranges) <= 65536
    packer = Packer()
    assert packer.pack_all(volume) == 1
    assert volume.counts().dirty == 0
    volume.evict([inode])
    assert packer.read(volume, inode, 0, 10 << 20) == bytes(5 << 20) + b"x" + bytes((5 << 20) - 1)


def test_a_file_that_changed_meanwhile_stays_dirty(volume: Volume) -> None:
    kept, changed, gone = (file(volume, name, b"abc") for name in (b"kept", b"changed", b"gone"))
    versions = {i: volume.getattr(i).version for i in (kept, changed, gone)}
    volume.write(changed, 0, b"x")
    volume.unlink(ROOT, b"gone")
    files = [PackedFile(i, versions[i], ((0, 3, 3 * n),)) for n, i in enumerate(versions)]
    done = volume.commit_pack(BAG, 9, files)
    assert done.committed == (kept,)
    assert done.stale == (changed, gone)
    assert [f.path for f in volume.dirty(0, 1 << 20, force=True).files] == [b"changed"]
    again = volume.commit_pack(BAG, 9, files)
    assert again.pack == done.pack
    assert again.committed == (kept,), "an answer that was lost may be asked for again"
    (pack,) = volume.packs()
    assert (pack.bag_id, pack.size, pack.live, pack.files) == (BAG, 9, 3, 1)


def test_a_large_file_may_be_split_over_packs(volume: Volume) -> None:
    inode = file(volume, b"f", b"a" * 5000 + b"b" * 5000)
    version = volume.getattr(inode).version
    volume.commit_pack(BAG, 5000, [PackedFile(inode, version, ((0, 5000, 0),))])
    (item,) = volume.dirty(0, 1 << 20, force=True).files
    assert item.ranges == ((5000, 5000),)
    assert volume.counts().dirty_bytes == 5000
    volume.commit_pack(BagId(b"\x22" * 32), 5000, [PackedFile(inode, version, ((5000, 5000, 0),))])
    assert volume.counts().dirty == 0
    assert [(r.offset, r.length, r.state) for r in volume.ranges(inode)] == [
        (0, 5000, "packed"),
        (5000, 5000, "packed"),
    ]


def test_a_pack_that_lies_about_ranges_changes_nothing(volume: Volume) -> None:
    inode = file(volume, b"f", b"abc")
    version = volume.getattr(inode).version
    for ranges in (((0, 4, 0),), ((-1, 2, 0),), ((0, 0, 0),), ((0, 1, -1),)):
        refused(22, lambda ranges=ranges: volume.commit_pack(BAG, 3, [PackedFile(inode, version, ranges)]))  # type: ignore[misc]
    assert volume.packs() == []
    assert volume.counts().dirty == 1


def test_only_proven_bytes_are_evicted(volume: Volume) -> None:
    packer = Packer()
    packed = file(volume, b"packed", b"p" * 1000)
    packer.pack_all(volume, proven=4)
    dirty = file(volume, b"dirty", b"d" * 1000)
    done = volume.evict([packed, dirty])
    assert (done.files, done.bytes, done.bags) == (0, 0, ())
    assert dict(done.kept) == {packed: "4 of 5 replicas are proven", dirty: "not packed yet"}
    (pack,) = volume.packs()
    volume.pack_states([(pack.bag_id, 5, 5)])
    told: list[Change] = []
    volume.on_change(told.append)
    done = volume.evict([packed, dirty])
    assert (done.files, done.bytes, done.bags) == (1, 1000, (pack.bag_id,))
    assert told == [Change(inodes=(packed,))]
    assert not volume.content.path(packed).exists()
    assert volume.counts().local == 1000
    volume.pack_states([(pack.bag_id, 0, 5)])
    assert packer.read(volume, packed, 0, 1000) == b"p" * 1000


def test_nothing_is_evicted_on_the_old_word_of_an_agent_that_does_not_run(tmp_path: Path) -> None:
    clock = ManualClock()
    (tmp_path / "v").mkdir()
    volume = Volume(tmp_path / "v", clock)
    inode = file(volume, b"f", b"x" * 1000)
    packer = Packer()
    packer.pack_all(volume)
    clock.advance(301)
    done = volume.evict([inode])
    assert (done.bytes, dict(done.kept)) == (0, {inode: "the agent has not told of its replicas lately"})
    volume.close()
    volume = Volume(tmp_path / "v", clock)
    assert volume.evict([inode]).bytes == 0
    volume.evict_down_to(0)
    assert volume.counts().local == 1000
    (pack,) = volume.packs()
    volume.pack_states([(pack.bag_id, 5, 5)])
    assert volume.evict([inode]).bytes == 1000
    volume.close()


def test_bytes_of_another_pack_than_the_file_has_now_are_not_filled_in(volume: Volume) -> None:
    packer = Packer()
    inode = file(volume, b"f", b"old" * 400)
    packer.pack_all(volume)
    volume.evict([inode])
    (old,) = volume.remote_ranges(inode, 0, 1200)
    volume.write(inode, 0, b"new" * 400)
    packer.pack_all(volume)
    volume.evict([inode])
    assert not volume.fill(old, old.offset, b"old" * 400)  # a fetch that began before
    assert packer.read(volume, inode, 0, 1200) == b"new" * 400


def test_a_pack_that_nobody_promised_replicas_for_is_not_proven(volume: Volume) -> None:
    inode = file(volume, b"f", b"x")
    packer = Packer()
    packer.pack_all(volume)
    (pack,) = volume.packs()
    volume.pack_states([(pack.bag_id, 0, 0)])
    assert volume.evict([inode]).files == 0
    assert volume.counts().proven == 0


def test_part_of_a_file_is_evicted_when_the_rest_is_dirty(volume: Volume) -> None:
    inode = file(volume, b"f", b"x" * (4 << 20))
    packer = Packer()
    packer.pack_all(volume)
    volume.write(inode, 0, b"NEW")
    done = volume.evict([inode])
    assert done.bytes == 3 << 20
    assert dict(done.kept) == {inode: "not packed yet"}
    assert os.stat(volume.content.path(inode)).st_blocks * 512 < 2 << 20
    assert packer.read(volume, inode, 0, 4 << 20) == b"NEW" + b"x" * ((4 << 20) - 3)


def test_a_pack_is_dropped_only_when_no_file_refers_to_it(volume: Volume) -> None:
    file(volume, b"f", b"x")
    packer = Packer()
    packer.pack_all(volume)
    (pack,) = volume.packs()
    with pytest.raises(Refused):
        volume.drop_pack(pack.bag_id)
    volume.unlink(ROOT, b"f")
    assert volume.packs()[0].live == 0
    volume.drop_pack(pack.bag_id)
    assert volume.packs() == []
    with pytest.raises(NotFound):
        volume.drop_pack(pack.bag_id)


def test_an_unlinked_file_that_is_held_keeps_its_pack(volume: Volume) -> None:
    inode = file(volume, b"f", b"x")
    packer = Packer()
    packer.pack_all(volume)
    volume.evict([inode])
    volume.hold(inode)
    volume.unlink(ROOT, b"f")
    with pytest.raises(Refused):
        volume.drop_pack(next(iter(packer.packs)))
    assert packer.read(volume, inode, 0, 1) == b"x"
    volume.drop(inode)
    volume.drop_pack(next(iter(packer.packs)))


def test_counts_and_states_tell_dirty_packed_and_proven_apart(volume: Volume) -> None:
    packer = Packer()
    file(volume, b"proven", b"12345")
    packer.pack_all(volume, proven=5)
    packed = file(volume, b"packed", b"123")
    packer.pack_all(volume, proven=0)
    file(volume, b"dirty", b"1")
    new(volume, b"empty")
    counts = volume.counts()
    assert (counts.files, counts.dirty, counts.packed, counts.proven, counts.empty) == (4, 1, 1, 1, 1)
    assert (counts.logical, counts.local, counts.dirty_bytes, counts.proven_bytes) == (9, 9, 1, 5)
    for name, state in ((b"proven", b"proven"), (b"packed", b"packed"), (b"dirty", b"dirty"), (b"empty", b"empty")):
        inode = volume.lookup(ROOT, name).inode
        assert volume.get_xattr(inode, b"user.tonfs.state") == state
    assert volume.get_xattr(packed, b"user.tonfs.replicas") == b"0"
    bags = {bytes.fromhex(volume.get_xattr(packed, b"user.tonfs.bag").decode())}
    assert bags < set(packer.packs)


def test_sizes_that_pass_63_bits_together_are_added_up(volume: Volume) -> None:
    """Two sparse files suffice."""
    largest = (1 << 63) - 1
    folder = volume.mkdir(ROOT, b"d", 0o755, 0, 0).inode
    inodes = [volume.create(folder, name, 0o644, 0, 0).inode for name in (b"a", b"b")]
    for inode in inodes:
        volume.truncate(inode, largest)
    counts = volume.counts()
    assert (counts.logical, counts.local, counts.dirty_bytes) == (2 * largest,) * 3
    assert volume.bags_below(ROOT) == (set(), 2, 2 * largest)
    assert volume.bags_below(folder) == (set(), 2, 2 * largest)
    for inode in inodes:
        assert volume.cover_zeros(inode, volume.getattr(inode).version)
    assert volume.counts().dirty_bytes == 0


def test_bags_below_a_directory(volume: Volume) -> None:
    folder = volume.mkdir(ROOT, b"d", 0o755, 0, 0).inode
    below = new(volume, b"f", folder).inode
    volume.write(below, 0, b"abc")
    packer = Packer()
    packer.pack_all(volume)
    file(volume, b"g", b"xy")
    packer.pack_all(volume)
    assert volume.bags_below(ROOT) == (set(packer.packs), 0, 0)
    assert len(volume.bags_below(folder)[0]) == 1
    volume.write(below, 10, b"z")
    assert volume.bags_below(folder)[1:] == (1, 8)
    assert volume.bags_below(below)[1:] == (1, 8)
    assert volume.bags_below(ROOT)[1:] == (1, 8)
    assert [f[0] for f in volume.files_below(folder)] == [below]


def test_the_cache_is_kept_small_oldest_first(volume: Volume) -> None:
    packer = Packer()
    old = file(volume, b"old", b"o" * 1000)
    young = file(volume, b"young", b"y" * 1000)
    packer.pack_all(volume)
    assert volume.evict_down_to(5000) is None
    done = volume.evict_down_to(1500)
    assert done is not None
    assert done.files == 1
    assert volume.read(old, 0, 1).missing
    assert not volume.read(young, 0, 1).missing


def test_extents_grow_back_together(volume: Volume) -> None:
    inode = file(volume, b"f", b"x" * 100_000)
    packer = Packer()
    packer.pack_all(volume)
    volume.evict(everything(volume))
    for offset in range(0, 100_000, 10_000):
        packer.read(volume, inode, offset, 10_000)
    assert len(volume.ranges(inode)) == 1
