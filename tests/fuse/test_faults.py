"""What breaks inside a request becomes EIO and a log line that names the request; the mount goes on."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

SERVER = """
import sqlite3, sys, trio
from pathlib import Path
from tonfs import log
from tonfs.errors import FsError
from tonfs.fuse import Mount, MountOptions
from tonfs.volume import Volume

class Faulty:
    '''A volume that raises what nobody expects, or an errno, in the method named in the file `fault`.'''

    def __init__(self, volume, fault):
        self._volume, self._fault = volume, fault

    def __getattr__(self, name):
        real = getattr(self._volume, name)
        if not callable(real):
            return real

        def call(*args, **kwargs):
            fault = self._fault.read_text().split() if self._fault.exists() else []
            if fault[:1] == [name]:
                if len(fault) > 1:
                    raise FsError('injected', int(fault[1]))
                raise sqlite3.OperationalError('injected') if len(name) % 2 else ZeroDivisionError('injected')
            return real(*args, **kwargs)

        return call

async def main():
    log.configure()
    base = Path(sys.argv[1])
    volume = Volume(base / 'volume')
    async def fetch(ranges): raise AssertionError
    mount = Mount(Faulty(volume, base / 'fault'), fetch, MountOptions(), str(base / 'mnt'), base / 'volume')
    mount.start()
    async with trio.open_nursery() as nursery:
        await nursery.start(mount.serve)
        print('ready', flush=True)
    mount.finish()
    volume.close()

trio.run(main)
"""


@dataclass
class Faulty:
    base: Path

    @property
    def point(self) -> Path:
        return self.base / "mnt"

    def log(self) -> str:
        return (self.base / "log").read_text(encoding="utf-8")

    def fails(self, method: str, action: Callable[[], object]) -> None:
        """The call ends with EIO, and what was logged since has the traceback."""
        before = len(self.log())
        (self.base / "fault").write_text(method, encoding="ascii")
        try:
            with pytest.raises(OSError, match=os.strerror(errno.EIO)):
                action()
        finally:
            (self.base / "fault").unlink()
        said = self.log()[before:]
        assert " error " in said, f"{method}: nothing in the log"
        assert "request=" in said, f"{method}: the log does not name the request"
        assert "injected" in said


@pytest.fixture
def faulty(root_and_fuse: None, tmp_path: Path) -> Iterator[Faulty]:
    for name in ("volume", "mnt"):
        (tmp_path / name).mkdir()
    made = Faulty(tmp_path)
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-c", SERVER, str(tmp_path)], stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", made.log()
            yield made
            subprocess.run(["umount", str(made.point)], check=True)
            assert process.wait(20) == 0, made.log()
        finally:
            subprocess.run(["umount", "-l", str(made.point)], check=False, capture_output=True)
            process.kill()


def with_file(path: Path, action: Callable[[int], object], flags: int = os.O_RDWR) -> Callable[[], None]:
    def run() -> None:
        fd = os.open(path, flags)
        try:
            action(fd)
        finally:
            os.close(fd)

    return run


def test_no_request_that_breaks_inside_ends_the_mount(faulty: Faulty) -> None:
    point = faulty.point
    (point / "file").write_bytes(b"x" * 9000)
    (point / "link").symlink_to("file")
    (point / "dir").mkdir()
    (point / "other").touch()
    os.setxattr(point / "file", "user.one", b"1")
    os.sync()

    def far_write(fd: int) -> None:
        os.pwrite(fd, b"y" * 5000, 0)
        os.fsync(fd)

    cases: list[tuple[str, Callable[[], object]]] = [
        ("peek", lambda: os.stat(point / "nobody asked for this before")),
        ("make", lambda: (point / "new").touch()),
        ("make", lambda: (point / "newdir").mkdir()),
        ("make", lambda: os.mkfifo(point / "newfifo")),
        ("live", lambda: os.listdir(point)),
        ("hold", lambda: (point / "file").open().close()),
        ("hold", lambda: os.listdir(point)),
        ("resize", lambda: (point / "file").open("wb").close()),
        ("symlink", lambda: (point / "newlink").symlink_to("x")),
        ("readlink", lambda: os.readlink(point / "link")),
        ("link", lambda: os.link(point / "file", point / "second")),
        ("unlink", lambda: os.unlink(point / "other")),
        ("rmdir", lambda: os.rmdir(point / "dir")),
        ("rename", lambda: os.rename(point / "file", point / "moved")),
        ("set_live", lambda: os.chmod(point / "file", 0o600)),
        ("resize", lambda: os.truncate(point / "file", 100)),
        ("list_live", lambda: os.listdir(point)),
        ("statfs", lambda: os.statvfs(point)),
        ("get_xattr", lambda: os.getxattr(point / "file", "user.one")),
        ("set_xattr", lambda: os.setxattr(point / "file", "user.two", b"2")),
        ("list_xattrs", lambda: os.listxattr(point / "file")),
        ("remove_xattr", lambda: os.removexattr(point / "file", "user.one")),
        ("read_into", with_file(point / "file", lambda fd: os.posix_fadvise(fd, 0, 0, 4) or os.pread(fd, 9000, 0))),
        ("write", with_file(point / "file", far_write)),
        ("sync_steps", with_file(point / "dir", os.fsync, os.O_RDONLY)),
        ("sync_steps", with_file(point / "file", lambda fd: os.pwrite(fd, b"z", 1) and os.fsync(fd))),
    ]
    for method, action in cases:
        faulty.fails(method, action)
    assert sorted(os.listdir(point)) == ["dir", "file", "link", "other"]
    (point / "after").write_text("the mount goes on")
    assert (point / "after").read_text() == "the mount goes on"


def test_forget_and_release_cannot_report_and_are_only_logged(faulty: Faulty) -> None:
    (faulty.point / "file").write_bytes(b"x")
    (faulty.base / "fault").write_text("drop", encoding="ascii")
    assert (faulty.point / "file").read_bytes() == b"x"
    os.unlink(faulty.point / "file")
    (faulty.base / "fault").unlink()
    (faulty.point / "file").write_bytes(b"again")
    assert (faulty.point / "file").read_bytes() == b"again"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_what_the_disk_below_says_reaches_fsync_as_it_is(faulty: Faulty, number: int) -> None:
    """The kernel has taken the bytes by then. Of a close it tells ENOSPC, and EIO for anything else."""
    file = faulty.point / "file"
    file.touch()
    (faulty.base / "fault").write_text(f"write {number}", encoding="ascii")
    fd = os.open(file, os.O_RDWR)
    os.write(fd, b"x" * 5000)
    with pytest.raises(OSError, match=os.strerror(number)):
        os.fsync(fd)
    with contextlib.suppress(OSError):
        os.close(fd)
    fd = os.open(file, os.O_RDWR)
    os.write(fd, b"x" * 5000)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC if number == errno.ENOSPC else errno.EIO)):
        os.close(fd)
    (faulty.base / "fault").write_text(f"make {number}", encoding="ascii")
    with pytest.raises(OSError, match=os.strerror(number)):
        (faulty.point / "new").touch()
    (faulty.base / "fault").unlink()
    file.write_bytes(b"there is room again")
    assert file.read_bytes() == b"there is room again"
