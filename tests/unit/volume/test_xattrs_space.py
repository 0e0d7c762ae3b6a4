from __future__ import annotations

import errno
import os
import sqlite3

import pytest

from tests.unit.volume.helpers import Packer, check, next_tick
from tests.unit.volume.test_names import new, refused
from tonfs.errors import Unsupported, UsageError
from tonfs.volume import ROOT, S3Record, Volume


def test_attributes_are_opaque_bytes(volume: Volume) -> None:
    inode = new(volume, b"f").inode
    before = volume.getattr(inode)
    next_tick(volume)
    for name, value in ((b"user.a", b""), (b"trusted.b", b"\0\xff" * 32768), (b"security.c", b"x")):
        volume.set_xattr(inode, name, value)
        assert volume.get_xattr(inode, name) == value
    assert volume.list_xattrs(inode) == [b"security.c", b"trusted.b", b"user.a"]
    assert volume.getattr(inode).ctime_ns > before.ctime_ns
    volume.set_xattr(inode, b"user.a", b"new")
    assert volume.get_xattr(inode, b"user.a") == b"new"
    for name in volume.list_xattrs(inode):
        volume.remove_xattr(inode, name)
    assert volume.list_xattrs(inode) == []
    refused(errno.ENODATA, lambda: volume.get_xattr(inode, b"user.a"))
    refused(errno.ENODATA, lambda: volume.remove_xattr(inode, b"user.a"))


def test_other_name_spaces_are_refused(volume: Volume) -> None:
    inode = new(volume, b"f").inode
    refused(errno.EOPNOTSUPP, lambda: volume.set_xattr(inode, b"system.posix_acl_access", b"x"))
    refused(errno.EOPNOTSUPP, lambda: volume.get_xattr(inode, b"system.posix_acl_access"))
    refused(errno.E2BIG, lambda: volume.set_xattr(inode, b"user.a", bytes(65537)))
    refused(errno.ERANGE, lambda: volume.set_xattr(inode, b"user." + b"a" * 255, b""))
    for name in (b"user.", b"trusted.", b"security."):
        refused(errno.EINVAL, lambda name=name: volume.set_xattr(inode, name, b"x"))  # type: ignore[misc]


def test_no_more_attributes_than_a_list_can_tell(volume: Volume) -> None:
    """The kernel hands out 64 KiB of names; of a longer list it showed none at all (E2BIG)."""
    inode = new(volume, b"f").inode
    names = [b"user.%03d" % n + b"x" * 247 for n in range(256)]
    for name in names:
        volume.set_xattr(inode, name, b"")
    refused(errno.ENOSPC, lambda: volume.set_xattr(inode, b"user.x", b""))
    volume.set_xattr(inode, names[7], b"a value may change")
    assert volume.list_xattrs(inode) == names
    volume.remove_xattr(inode, names[8])
    volume.set_xattr(inode, b"user.x", b"")


def test_what_tonfs_tells_is_read_only_and_not_listed(volume: Volume) -> None:
    inode = new(volume, b"f").inode
    volume.write(inode, 0, b"x")
    assert volume.get_xattr(inode, b"user.tonfs.state") == b"dirty"
    assert volume.list_xattrs(inode) == []
    refused(errno.EPERM, lambda: volume.set_xattr(inode, b"user.tonfs.state", b"proven"))
    refused(errno.EPERM, lambda: volume.remove_xattr(inode, b"user.tonfs.state"))
    refused(errno.ENODATA, lambda: volume.get_xattr(inode, b"user.tonfs.bag"))
    refused(errno.ENODATA, lambda: volume.get_xattr(ROOT, b"user.tonfs.state"))


def test_the_time_of_the_last_proof_is_that_of_the_stalest_replica(volume: Volume) -> None:
    packer = Packer()
    inode = new(volume, b"f").inode
    volume.write(inode, 0, b"first")
    packer.pack_all(volume)
    refused(errno.ENODATA, lambda: volume.get_xattr(inode, b"user.tonfs.proved-at"))
    volume.write(inode, 5, b"second")
    packer.pack_all(volume)
    bags = list(packer.packs)
    volume.pack_states([(bag, 5, 5) for bag in bags], {bags[0]: 1_700_000_000 * 10**9, bags[1]: 1_600_000_000 * 10**9})
    assert volume.get_xattr(inode, b"user.tonfs.proved-at") == b"2020-09-13T12:26:40Z"
    volume.pack_states([(bags[1], 0, 5)], {bags[1]: 1_800_000_000 * 10**9})
    refused(errno.ENODATA, lambda: volume.get_xattr(inode, b"user.tonfs.proved-at"))


def test_policies_are_kept_checked_and_listed(volume: Volume) -> None:
    inode = new(volume, b"f").inode
    volume.set_xattr(inode, b"user.tonfs.policy.pin", b"Yes")
    assert volume.get_xattr(inode, b"user.tonfs.policy.pin") == b"true"
    assert volume.list_xattrs(inode) == [b"user.tonfs.policy.pin"]
    with pytest.raises(UsageError, match="true or false"):
        volume.set_xattr(inode, b"user.tonfs.policy.pin", b"\xff")
    with pytest.raises(UsageError) as caught:
        volume.set_xattr(inode, b"user.tonfs.policy.pinn", b"1")
    assert "'pin'" in caught.value.hint
    with pytest.raises(Unsupported, match="only for the volume"):
        volume.set_xattr(inode, b"user.tonfs.policy.deadline", b"3")
    volume.remove_xattr(inode, b"user.tonfs.policy.pin")
    assert volume.list_xattrs(inode) == []


def test_statfs_tells_of_the_disk_below(volume: Volume) -> None:
    got = volume.statfs()
    assert got.name_max == 255
    assert got.blocks >= got.free >= got.available
    assert got.files > 0
    assert got.block_size > 0


@pytest.fixture
def full(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> Volume:
    """The disk below has no room left."""
    volume.space.look()
    real = os.statvfs

    def statvfs(path: object) -> os.statvfs_result:
        got = list(real(path))  # type: ignore[arg-type]
        got[3] = got[4] = 0
        return os.statvfs_result(got)

    monkeypatch.setattr("tonfs.volume.space.os.statvfs", statvfs)
    volume.space.look()
    return volume


def test_a_full_disk_refuses_new_things_and_lets_old_ones_go(volume: Volume, request: pytest.FixtureRequest) -> None:
    inode = new(volume, b"f").inode
    volume.write(inode, 0, b"x" * 100)
    assert (volume.directory / "ballast").stat().st_size > 0
    request.getfixturevalue("full")
    for action in (
        lambda: new(volume, b"g"),
        lambda: volume.mkdir(ROOT, b"d", 0o755, 0, 0),
        lambda: volume.symlink(ROOT, b"l", b"x", 0, 0),
        lambda: volume.link(inode, ROOT, b"h"),
        lambda: volume.write(inode, 0, b"y"),
        lambda: volume.truncate(inode, 1000),
        lambda: volume.set_xattr(inode, b"user.a", b"b"),
        lambda: volume.stage(0, 0),
    ):
        refused(errno.ENOSPC, action)
    volume.rename(ROOT, b"f", ROOT, b"g")
    volume.commit()
    assert not (volume.directory / "ballast").exists(), "the index took the room that was kept back"
    volume.truncate(inode, 10)
    volume.unlink(ROOT, b"g")
    volume.commit()
    check(volume)


def test_a_write_that_meets_the_end_of_the_disk_says_so(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    inode = new(volume, b"f").inode
    volume.write(inode, 0, b"x" * 50_000)
    volume.set_record(inode, S3Record(etag="e"))
    version = volume.getattr(inode).version

    def fail(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(volume.content, "write", fail)
        refused(errno.ENOSPC, lambda: volume.write(inode, 0, b"y" * 100))
    assert volume.getattr(inode).version > version, "some bytes may have been written"
    record = volume.record(inode)
    assert record is not None
    assert not record.current
    volume.background()
    assert not volume.space.low, "there is room again"
    volume.write(inode, 0, b"z")


class Refusing:
    """A connection whose next COMMIT fails, as SQLite tells of a disk that takes no more because of a quota."""

    def __init__(self, real: sqlite3.Connection) -> None:
        self._real, self.refused = real, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        if statement == "COMMIT" and not self.refused:
            self.refused = 1
            raise sqlite3.OperationalError("disk I/O error")
        return self._real.execute(statement, *values)


@pytest.fixture
def quota(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system below has room, but nothing more for us."""

    def refuse(*_args: object) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr("tonfs.volume.space.os.posix_fallocate", refuse)


def test_a_quota_that_a_write_meets_is_told_as_such_until_there_is_room(
    volume: Volume, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    inode = new(volume, b"f").inode
    volume.write(inode, 0, b"x" * 50_000)
    waiting = new(volume, b"waiting").inode
    request.getfixturevalue("quota")

    def fail(*_args: object) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with monkeypatch.context() as patched:
        patched.setattr(volume.content, "write", fail)
        refused(errno.EDQUOT, lambda: volume.write(inode, 0, b"y" * 100))
    for _ in range(2):
        volume.background()
        refused(errno.EDQUOT, lambda: new(volume, b"g"))
        refused(errno.EDQUOT, lambda: volume.write(waiting, 0, b"z"))
    volume.sync(waiting)
    monkeypatch.undo()
    volume.background()
    new(volume, b"g")
    volume.write(inode, 0, b"z")


def test_a_commit_that_meets_a_quota_gets_the_room_that_was_kept_back(
    volume: Volume, request: pytest.FixtureRequest
) -> None:
    """SQLite says only that there was an I/O error."""
    inode = new(volume, b"f").inode
    volume.set_xattr(inode, b"user.a", b"in the transaction already")
    request.getfixturevalue("quota")
    real = volume.db
    volume.db = refusing = Refusing(real)  # type: ignore[assignment]
    volume.sync(inode)
    assert refusing.refused
    volume.db = real
    assert not (volume.directory / "ballast").exists()
    row = volume._read.execute("SELECT value FROM xattr WHERE inode = ?", (inode,)).fetchone()
    assert row == (b"in the transaction already",)
    refused(errno.EDQUOT, lambda: new(volume, b"g"))
