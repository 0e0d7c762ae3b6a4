"""What programs do, through a real kernel mount."""

from __future__ import annotations

import ctypes
import errno
import itertools
import mmap
import os
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuse.front import Mounted, run

pytestmark = pytest.mark.root
_libc = ctypes.CDLL(None, use_errno=True)


def refused(number: int, action: Callable[[], object]) -> None:
    got: int | None = None
    try:
        action()
    except OSError as exc:
        got = exc.errno
    assert got == number


def renameat2(old: Path, new: Path, flags: int) -> None:
    if _libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


def tree(root: Path) -> dict[str, tuple[object, ...]]:
    out: dict[str, tuple[object, ...]] = {}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = Path(folder, name)
            info = path.lstat()
            what: object = None
            if path.is_symlink():
                what = os.readlink(path)
            elif path.is_file():
                what = path.read_bytes()
            size = None if path.is_dir() else info.st_size
            times = None if path.is_symlink() else info.st_mtime_ns
            out[str(path.relative_to(root))] = (info.st_mode, info.st_uid, info.st_gid, size, times, what)
    return out


def test_a_copied_tree_is_equal_also_after_a_remount(stage: Mounted, tmp_path: Path) -> None:
    source = tmp_path / "source"
    library = Path(os.__file__).parent
    for name in ("json", "email", "asyncio"):
        shutil.copytree(library / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    (source / "link").symlink_to("json/decoder.py")
    (source / "dangling").symlink_to("/nowhere")
    os.chmod(source / "json" / "tool.py", 0o4755)
    os.chown(source / "json" / "scanner.py", 12, 34)
    os.utime(source / "email" / "header.py", ns=(123_456_789, 987_654_321_012_345_678))
    stage.start()
    run("cp", "-a", str(source), str(stage.point / "copy"))
    assert tree(stage.point / "copy") == tree(source)
    stage.stop()
    stage.start()
    assert tree(stage.point / "copy") == tree(source)
    shutil.rmtree(stage.point / "copy")
    assert os.listdir(stage.point) == []


def test_rename_replaces_exchanges_and_refuses(mnt: Path) -> None:
    (mnt / "a").write_text("A")
    (mnt / "b").write_text("B")
    (mnt / "d").mkdir()
    refused(errno.EEXIST, lambda: renameat2(mnt / "a", mnt / "b", 1))
    renameat2(mnt / "a", mnt / "d", 2)
    assert (mnt / "a").is_dir()
    assert (mnt / "d").read_text() == "A"
    refused(errno.EINVAL, lambda: renameat2(mnt / "b", mnt / "e", 4))
    with (mnt / "b").open() as held:
        os.rename(mnt / "d", mnt / "b")
        assert held.read() == "B", "the victim lives while it is open"
        assert os.fstat(held.fileno()).st_nlink == 0
    assert (mnt / "b").read_text() == "A"
    refused(errno.ENOTDIR, lambda: os.rename(mnt / "a", mnt / "b"))
    refused(errno.EISDIR, lambda: os.rename(mnt / "b", mnt / "a"))
    refused(errno.EINVAL, lambda: os.rename(mnt / "a", mnt / "a" / "x"))


def test_attributes_beside_the_data(mnt: Path) -> None:
    path = mnt / "f"
    path.touch()
    os.setxattr(path, "user.a", b"1", os.XATTR_CREATE)
    refused(errno.EEXIST, lambda: os.setxattr(path, "user.a", b"2", os.XATTR_CREATE))
    refused(errno.ENODATA, lambda: os.setxattr(path, "user.b", b"2", os.XATTR_REPLACE))
    os.setxattr(path, "trusted.t", b"\0" * 5000)
    os.setxattr(path, "user.empty", b"")
    assert sorted(os.listxattr(path)) == ["trusted.t", "user.a", "user.empty"]
    assert os.getxattr(path, "trusted.t") == b"\0" * 5000
    os.removexattr(path, "user.a")
    refused(errno.ENODATA, lambda: os.getxattr(path, "user.a"))
    refused(errno.EOPNOTSUPP, lambda: os.setxattr(path, "system.posix_acl_access", b"\2\0\0\0"))
    assert os.getxattr(path, "user.tonfs.state") == b"empty"
    refused(errno.EPERM, lambda: os.setxattr(path, "user.tonfs.state", b"x"))


def test_a_listing_ends_though_everything_in_it_is_renamed(mnt: Path) -> None:
    """More names than fit one reply; each is met once, also from the start again."""
    for number in range(1000):
        (mnt / f"file-{number}").touch()
    met = 0
    with os.scandir(mnt) as entries:
        for entry in itertools.islice(entries, 3000):
            os.rename(entry.path, mnt / f"renamed-{entry.name}")
            met += 1
    assert met == 1000
    root = os.open(mnt, os.O_RDONLY)
    assert len(os.listdir(root)) == 1000
    (mnt / "new").touch()
    assert len(os.listdir(root)) == 1001, "a listing that is rewound shows what is new"
    os.close(root)


@pytest.mark.skipif(Path("/sys/fs/selinux").exists(), reason="SELinux answers itself")
def test_a_file_without_attributes_says_that_there_are_no_labels(mnt: Path) -> None:
    """`ls -l` then asks one file of a directory, not each."""
    path = mnt / "f"
    path.touch()
    refused(errno.EOPNOTSUPP, lambda: os.getxattr(path, "security.selinux"))
    refused(errno.ENODATA, lambda: os.getxattr(path, "security.capability"))
    os.setxattr(path, "security.selinux", b"label")
    assert os.getxattr(path, "security.selinux") == b"label"


class FileHandle(ctypes.Structure):
    _fields_ = (("size", ctypes.c_uint), ("type", ctypes.c_int), ("bytes", ctypes.c_ubyte * 128))


def test_file_handles_outlive_what_the_kernel_remembers(stage: Mounted) -> None:
    """What an NFS server hands out; the kernel asks for '.' of an inode that it has forgotten."""
    mnt = stage.start().point
    (mnt / "d").mkdir()
    (mnt / "d" / "f").write_text("bytes")
    handles = []
    for path in (mnt / "d" / "f", mnt / "d"):
        handle, mount_id = FileHandle(size=128), ctypes.c_int()
        at = ctypes.byref(handle), ctypes.byref(mount_id)
        assert _libc.name_to_handle_at(-100, os.fsencode(path), *at, 0) == 0, os.strerror(ctypes.get_errno())
        handles.append(handle)

    def reopen(handle: FileHandle, flags: int) -> int:
        root = os.open(mnt, os.O_RDONLY)
        try:
            fd = _libc.open_by_handle_at(root, ctypes.byref(handle), flags)
        finally:
            os.close(root)
        if fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return int(fd)

    stage.stop()
    stage.start()  # the kernel knows nothing of these inodes now
    with open(reopen(handles[0], os.O_RDONLY), encoding="ascii") as stream:
        assert stream.read() == "bytes"
    folder = reopen(handles[1], os.O_RDONLY | os.O_DIRECTORY)
    assert os.listdir(folder) == ["f"]
    os.close(folder)
    os.unlink(mnt / "d" / "f")
    stage.stop()
    stage.start()
    refused(errno.ESTALE, lambda: reopen(handles[0], os.O_RDONLY))


def test_truncation_holes_and_far_offsets(mnt: Path) -> None:
    path = mnt / "f"
    path.write_bytes(b"x" * 10_000)
    os.truncate(path, 100)
    os.truncate(path, 5000)
    assert path.read_bytes() == b"x" * 100 + bytes(4900)
    for offset in (1 << 31, 1 << 32, (1 << 40) + 1, (1 << 53) + 1, (1 << 63) - 100):
        with path.open("r+b") as stream:
            stream.seek(offset)
            stream.write(b"end")
            stream.flush()
            os.fsync(stream.fileno())
            stream.seek(offset - 6)
            assert stream.read() == bytes(6) + b"end"
        assert path.stat().st_size == offset + 3
    assert path.stat().st_blocks < 200, "holes cost nothing"
    os.truncate(path, (1 << 63) - 1)
    os.truncate(path, (1 << 53) + 3)
    with path.open("rb") as stream:
        stream.seek(1 << 53)
        assert stream.read() == b"\0en"
    with path.open("wb") as stream:
        assert os.fstat(stream.fileno()).st_size == 0


def test_flags_of_open(mnt: Path) -> None:
    path = mnt / "f"
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o400)
    os.write(fd, b"written although nobody may")
    os.close(fd)
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    refused(errno.EEXIST, lambda: os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    first, second = (os.open(path, os.O_WRONLY | os.O_APPEND) for _ in range(2))
    os.write(first, b"1")
    os.write(second, b"2")
    os.close(first)
    os.close(second)
    assert path.read_bytes().endswith(b"may12")
    refused(errno.EISDIR, lambda: os.open(mnt, os.O_WRONLY))
    refused(errno.ENOTDIR, lambda: os.open(path / "x", os.O_RDONLY))


def test_shared_mappings_reach_the_file(stage: Mounted) -> None:
    stage.start()
    path = stage.point / "f"
    path.write_bytes(bytes(100_000))
    with path.open("r+b") as stream, mmap.mmap(stream.fileno(), 100_000) as memory:
        memory[50_000:50_005] = b"hello"
        memory.flush()
        os.unlink(path)
        memory[60_000:60_003] = b"bye"
        memory.flush()
        assert os.pread(stream.fileno(), 5, 50_000) == b"hello"
    path.write_bytes(bytes(10_000))
    with path.open("r+b") as stream, mmap.mmap(stream.fileno(), 10_000) as memory:
        memory[0:3] = b"abc"
    stage.drop_caches()
    assert path.read_bytes()[:4] == b"abc\0"
    stage.stop()
    stage.start()
    assert path.read_bytes()[:4] == b"abc\0"


def test_an_open_file_outlives_its_name(mnt: Path) -> None:
    with (mnt / "f").open("w+b") as stream:
        stream.write(b"abc")
        stream.flush()
        os.unlink(mnt / "f")
        assert os.listdir(mnt) == []
        os.fsync(stream.fileno())
        os.ftruncate(stream.fileno(), 2)
        os.fchmod(stream.fileno(), 0o600)
        stream.seek(0)
        assert stream.read() == b"ab"
    os.mkdir(mnt / "d")
    fd = os.open(mnt / "d", os.O_RDONLY)
    os.rmdir(mnt / "d")
    assert os.listdir(fd) == []
    os.fsync(fd)
    os.close(fd)


def test_names_of_every_kind(mnt: Path) -> None:
    names = [b"x" * 255, b"\xff\xfe\x80", b"new\nline", b"u\xcc\x88", b"\xc3\xbc", b"A", b"a", b" ", b"-rf"]
    for name in names:
        Path(os.fsdecode(os.fsencode(mnt) + b"/" + name)).write_bytes(name)
    assert sorted(os.listdir(os.fsencode(mnt))) == sorted(names)
    for name in names:
        with open(os.fsencode(mnt) + b"/" + name, "rb") as stream:
            assert stream.read() == name
    refused(errno.ENAMETOOLONG, lambda: (mnt / ("x" * 256)).stat())
    refused(errno.ENAMETOOLONG, lambda: (mnt / ("x" * 256)).mkdir())
    assert os.statvfs(mnt).f_namemax == 255


def test_a_thousand_files_listed_while_they_go(mnt: Path) -> None:
    folder = mnt / "many"
    folder.mkdir()
    for number in range(1000):
        (folder / f"{number:04}").touch()
    assert len(set(os.listdir(folder))) == 1000
    with os.scandir(folder) as entries:
        for number, entry in enumerate(entries):
            os.unlink(entry.path)
            if number % 10 == 0:
                (mnt / f"other{number}").touch()
    assert os.listdir(folder) == []
    run("rm", "-rf", str(folder))
    for number in range(300):
        (mnt / "d" / str(number)).mkdir(parents=True)
    run("rm", "-rf", str(mnt / "d"))


def test_times_are_kept_to_the_nanosecond(mnt: Path) -> None:
    path = mnt / "f"
    path.write_text("x")
    for value in (1, -1_000_000_001, (1 << 32) * 10**9 + 7, 1_700_000_000_123_456_789):
        os.utime(path, ns=(value, value))
        assert (path.stat().st_atime_ns, path.stat().st_mtime_ns) == (value, value)
    with path.open("a") as stream:
        stream.write("y")
        stream.flush()
        os.utime(path, ns=(5, 5))
    assert path.stat().st_mtime_ns == 5, "closing does not move the times"
    before = mnt.stat().st_mtime_ns
    time.sleep(0.02)  # the kernel's clock for files moves in ticks of up to ten milliseconds
    os.rename(path, mnt / "g")
    assert mnt.stat().st_mtime_ns > before


def test_fifos_sockets_and_devices(mnt: Path) -> None:
    os.mkfifo(mnt / "fifo", 0o600)
    os.mknod(mnt / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as server:
        old = os.getcwd()
        os.chdir(mnt)
        try:
            server.bind("sock")
        finally:
            os.chdir(old)
    kinds = {name: stat.S_IFMT((mnt / name).lstat().st_mode) for name in os.listdir(mnt)}
    assert kinds == {"fifo": stat.S_IFIFO, "null": stat.S_IFCHR, "sock": stat.S_IFSOCK}
    assert (mnt / "null").stat().st_rdev == os.makedev(1, 3)
    reader = os.open(mnt / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    with (mnt / "fifo").open("wb") as writer:
        writer.write(b"through")
    assert os.read(reader, 10) == b"through"
    os.close(reader)


def test_others_are_let_in_as_far_as_the_modes_say(mnt: Path) -> None:
    (mnt / "secret").write_text("x")
    os.chmod(mnt / "secret", 0o600)
    (mnt / "open").write_text("x")
    os.chmod(mnt, 0o777)
    code = (
        "import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "base = sys.argv[1]\n"
        "def t(f, *a):\n"
        "    try: f(*a); return 'ok'\n"
        "    except OSError as e: return e.errno\n"
        "print(t(open, base + '/secret'), t(open, base + '/open'), t(open, base + '/open', 'w'),"
        " t(os.mkdir, base + '/mine'), os.stat(base + '/mine').st_uid)"
    )
    parents = [parent for parent in mnt.parents if parent.stat().st_mode & 0o005 != 0o005]
    for parent in parents:
        os.chmod(parent, 0o755)
    out = subprocess.run([sys.executable, "-c", code, str(mnt)], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["13", "ok", "13", "ok", "65534"]
    (mnt / "suid").write_text("x")
    os.chmod(mnt / "suid", 0o6755)
    os.chown(mnt / "suid", 1, 1)
    assert stat.S_IMODE((mnt / "suid").stat().st_mode) == 0o755


def test_git_works(mnt: Path) -> None:
    repository = mnt / "r"
    run("git", "init", "-q", str(repository))
    for number in range(30):
        (repository / f"file{number}").write_text(f"{number}\n" * 100)
    git = ["git", "-C", str(repository), "-c", "user.name=n", "-c", "user.email=e@x"]
    run(*git, "add", ".")
    run(*git, "commit", "-qm", "first")
    run(*git, "mv", "file1", "moved")
    run(*git, "commit", "-qm", "second")
    run(*git, "gc", "-q")
    run(*git, "fsck", "--full", "--strict")
    assert run(*git, "status", "--short") == ""
    run("git", "clone", "-q", str(repository), str(mnt / "clone"))
    assert (mnt / "clone" / "moved").read_text() == "1\n" * 100


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist", "wal"])
def test_sqlite_works(mnt: Path, mode: str) -> None:
    with sqlite3.connect(mnt / "t.db") as db:
        assert db.execute(f"PRAGMA journal_mode = {mode}").fetchone() == (mode,)
        db.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)")
        for number in range(20):
            db.execute("INSERT INTO t VALUES (?, ?)", (number, "x" * 500))
            db.commit()
        db.execute("DELETE FROM t WHERE a % 2")
    db.close()
    with sqlite3.connect(mnt / "t.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT count(*) FROM t").fetchone() == (10,)
    db.close()


def test_six_hundred_files_open_at_once(mnt: Path) -> None:
    streams = [(mnt / str(number)).open("w+b") for number in range(600)]
    for number, stream in enumerate(streams):
        stream.write(b"%d" % number)
        stream.flush()
    for number, stream in enumerate(streams):
        stream.seek(0)
        assert stream.read() == b"%d" % number
        stream.close()


def test_locks_hold_between_processes(mnt: Path) -> None:
    (mnt / "f").touch()
    code = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)"
    import fcntl

    with (mnt / "f").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert subprocess.run([sys.executable, "-c", code, str(mnt / "f")], capture_output=True, check=False).returncode
    run(sys.executable, "-c", code, str(mnt / "f"))


def blocks_of(path: Path) -> int:
    """As `du` has it."""
    done = subprocess.run(["du", "-B512", str(path)], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[0])


def test_blocks_are_those_of_now_at_every_step(mnt: Path) -> None:
    path = mnt / "f"
    with path.open("wb", buffering=0) as stream:
        fd = stream.fileno()
        assert os.fstat(fd).st_blocks == 0
        os.pwrite(fd, b"x" * 300_000, 0)
        os.fsync(fd)
        assert os.fstat(fd).st_blocks == blocks_of(path) == 592
        os.pwrite(fd, b"x" * 4096, 1 << 30)
        os.fdatasync(fd)
        assert 600 <= os.fstat(fd).st_blocks <= 640
        os.ftruncate(fd, 1 << 20)
        assert os.fstat(fd).st_blocks == blocks_of(path) == 592
        os.ftruncate(fd, 100_000)
        assert os.fstat(fd).st_blocks == blocks_of(path) == 200
        os.ftruncate(fd, 1 << 20)
        assert os.fstat(fd).st_blocks == 200
        os.pwrite(fd, b"x" * 100_000, 500_000)
    assert path.stat().st_blocks == blocks_of(path)
    assert 392 <= path.stat().st_blocks <= 408
    os.truncate(path, 0)
    assert path.stat().st_blocks == 0


def test_blocks_of_an_open_file_follow_without_an_fsync(mnt: Path) -> None:
    path = mnt / "log"
    with path.open("wb", buffering=0) as stream:
        for n in range(1, 3):
            stream.write(b"x" * 1_000_000)
            for _ in range(500):
                if path.stat().st_blocks >= n * 1950:
                    break
                time.sleep(0.02)
            else:
                pytest.fail(f"{path.stat().st_blocks} blocks are shown of {n} MB")
