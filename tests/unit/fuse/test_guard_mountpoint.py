from __future__ import annotations

import contextlib
import errno
from pathlib import Path

import pyfuse3
import pytest

from tonfs.errors import Busy, Damaged, FsError, NoSpace, Refused, UsageError
from tonfs.fuse import find_mount, mountpoint, prepare, real_path, volume_of
from tonfs.fuse.guard import handler, silent
from tonfs.fuse.mountpoint import _unescape, mounts, source_of


class Handlers:
    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.under_way = 0
        self.seen = 0

    @handler
    async def fsync(self) -> None:
        self.seen = self.under_way
        if self.error is not None:
            raise self.error

    @handler
    async def read(self, inode: int, name: bytes) -> None:
        assert self.error is not None
        raise self.error

    @silent
    async def forget(self, inode: int) -> None:
        assert self.error is not None
        raise self.error


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (FsError("gone", errno.ENOENT), errno.ENOENT),
        (NoSpace("full"), errno.ENOSPC),
        (OSError(errno.EDQUOT, "quota"), errno.EDQUOT),
        (OSError("without a number"), errno.EIO),
        (pyfuse3.FUSEError(errno.ENOSYS), errno.ENOSYS),
    ],
)
async def test_errors_become_their_errno(error: Exception, number: int) -> None:
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await Handlers(error).read(5, b"name")
    assert caught.value.errno == number


@pytest.mark.allow_logs
@pytest.mark.parametrize("error", [ValueError("bug"), KeyError(3), RecursionError(), Damaged("bad bytes")])
async def test_the_unexpected_becomes_eio_and_a_log_line(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await Handlers(error).read(5, b"name")
    assert caught.value.errno == errno.EIO
    assert caplog.records[0].fields["target"] == "5 b'name'"  # type: ignore[attr-defined]


@pytest.mark.parametrize("error", [None, FsError("gone", errno.ENOENT)])
async def test_requests_under_way_are_counted(error: Exception | None) -> None:
    handlers = Handlers(error)
    with contextlib.suppress(pyfuse3.FUSEError):
        await handlers.fsync()
    assert (handlers.seen, handlers.under_way) == (1, 0)


@pytest.mark.allow_logs
async def test_forget_never_raises() -> None:
    await Handlers(ValueError("bug")).forget(5)


def test_a_volume_path_survives_the_mount_table() -> None:
    for name in ("/plain/path", "/with space, comma\\and\tü", "/q?#%41"):
        source = source_of(Path(name))
        assert source.isascii()
        assert not set(source) & set(" ,\\\t")
        assert volume_of(source) == Path(name)
    assert volume_of("/dev/sda1") is None


def test_the_mount_table_is_read() -> None:
    assert [mount for mount in mounts() if mount.point == "/proc"]  # not "/": in a chroot that is no mount point
    assert find_mount("/no/such/mount") is None
    assert _unescape("/a\\040b\\134c") == "/a b\\c"


def test_mount_points_are_checked(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="not a directory"):
        prepare(tmp_path / "file")
    assert prepare(tmp_path / "new" / "below") == str(tmp_path / "new" / "below")
    assert (tmp_path / "new" / "below").is_dir()
    (tmp_path / "link").symlink_to(tmp_path / "new")
    assert prepare(tmp_path / "link") == str(tmp_path / "new")
    assert real_path(tmp_path / "link" / "below") == str(tmp_path / "new" / "below")


@pytest.mark.parametrize("point", ["volume", ".", "link"])
def test_a_volume_is_not_mounted_over_itself(tmp_path: Path, point: str) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(Refused, match="would hide it"):
        prepare(tmp_path / point, tmp_path / "volume")
    (tmp_path / "volume2").mkdir()
    prepare(tmp_path / "volume2", tmp_path / "volume")
    prepare(tmp_path / "volume" / "mnt", tmp_path / "volume")


@pytest.mark.parametrize(("kind", "ours"), [("fuse.tonfs", True), ("fuse.sshfs", False)])
def test_only_dead_mounts_of_ours_are_cleaned_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, ours: bool
) -> None:
    table = [mountpoint.Mounted(str(tmp_path), "source", kind, "0:1")]
    monkeypatch.setattr(mountpoint, "mounts", lambda: list(table))
    monkeypatch.setattr(mountpoint, "is_dead", lambda point: True)
    monkeypatch.setattr(mountpoint, "unmount", lambda point, lazy: table.clear())
    if ours:
        assert prepare(tmp_path) == str(tmp_path)
    else:
        with pytest.raises(Busy, match="sshfs"):
            prepare(tmp_path)
    assert bool(table) != ours


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("fusermount3: option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf", "fuse.conf"),
        ("fuse: failed to open /dev/fuse: Permission denied", "chmod 666 /dev/fuse"),
        ("fusermount3: mount failed: Operation not permitted", "set-user-ID"),
        ("fusermount3: could not determine username", "/etc/passwd"),
        ("something else", ""),
    ],
)
def test_what_fusermount_says_comes_with_what_to_do(said: str, hint: str) -> None:
    refused = mountpoint.refusal("/mnt", said)
    assert said in refused.message
    assert hint in refused.hint
