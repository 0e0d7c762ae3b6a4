"""The pieces of work of the file benchmark, in the order in which they run; later ones use what earlier ones left.

Plain system calls, so that little of the time is this program's. A body returns how many units it has done.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import sqlite3
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
PAGE = 4096


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    megabytes: int = 512
    small: int = 2000
    random_reads: int = 2000
    random_writes: int = 8000
    folders: int = 500
    """Of ten files each, in the archive."""
    commits: int = 100
    appends: int = 100


class Place:
    """A fresh folder of one target, and what is written there."""

    def __init__(self, folder: Path, sizes: Sizes, archive: bytes, seed: int) -> None:
        self.folder = folder
        self.sizes = sizes
        self.archive = archive
        self.random = random.Random(seed)
        self.block = self.random.randbytes(MIB)
        self.page = self.block[:PAGE]
        folder.mkdir(parents=True)

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def small(self, letter: str = "f") -> list[str]:
        return [self.path(f"small/{letter}{n:05}") for n in range(self.sizes.small)]


def make_archive(sizes: Sizes) -> bytes:
    """A tar archive of small source-like files."""
    noise = random.Random(7)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for folder in range(sizes.folders):
            info = tarfile.TarInfo(f"d{folder:03}")
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
            for n in range(10):
                data = noise.randbytes(noise.choice((200, 900, 2500, 5000)))
                info = tarfile.TarInfo(f"d{folder:03}/f{n}.c")
                info.size, info.mtime = len(data), 1_700_000_000 + n
                tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _read_through(path: str, size: int = MIB) -> None:
    fd = os.open(path, os.O_RDONLY)
    while os.read(fd, size):
        pass
    os.close(fd)


def _write_file(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.write(fd, data)
    os.close(fd)


def _in_children(count: int, body: Callable[[int], None]) -> None:
    """Run `body(0..count-1)`, each in a process of its own."""
    pids = []
    for n in range(count):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                body(n)
                status = 0
            finally:
                os._exit(status)
        pids.append(pid)
    if any(os.waitpid(pid, 0)[1] for pid in pids):
        raise RuntimeError("a worker of the benchmark failed")


def seq_write(p: Place) -> float:
    fd = os.open(p.path("big"), os.O_WRONLY | os.O_CREAT, 0o644)
    for _ in range(p.sizes.megabytes):
        os.write(fd, p.block)
    os.fsync(fd)
    os.close(fd)
    return p.sizes.megabytes


def seq_read(p: Place) -> float:
    _read_through(p.path("big"))
    return p.sizes.megabytes


def _offsets(p: Place, count: int) -> list[int]:
    return [p.random.randrange(p.sizes.megabytes * MIB // PAGE) * PAGE for _ in range(count)]


def rand_read(p: Place) -> float:
    fd = os.open(p.path("big"), os.O_RDONLY)
    for offset in _offsets(p, p.sizes.random_reads):
        os.pread(fd, PAGE, offset)
    os.close(fd)
    return p.sizes.random_reads


def rand_write(p: Place) -> float:
    fd = os.open(p.path("big"), os.O_WRONLY)
    for offset in _offsets(p, p.sizes.random_writes):
        os.pwrite(fd, p.page, offset)
    os.fsync(fd)
    os.close(fd)
    return p.sizes.random_writes


def par_read(p: Place) -> float:
    quarter = p.sizes.megabytes // 4

    def body(n: int) -> None:
        fd = os.open(p.path("big"), os.O_RDONLY)
        for block in range(n * quarter, (n + 1) * quarter):
            os.pread(fd, MIB, block * MIB)
        os.close(fd)

    _in_children(4, body)
    return quarter * 4


def create(p: Place) -> float:
    os.mkdir(p.path("small"))
    for path in p.small():
        _write_file(path, p.page)
    return p.sizes.small


def stat(p: Place) -> float:
    for path in p.small():
        os.stat(path)
    return p.sizes.small


def list_long(p: Place) -> float:
    for entry in os.scandir(p.path("small")):
        entry.stat()
    return p.sizes.small


def read_small(p: Place) -> float:
    for path in p.small():
        fd = os.open(path, os.O_RDONLY)
        os.read(fd, 2 * PAGE)
        os.close(fd)
    return p.sizes.small


def rename(p: Place) -> float:
    for old, new in zip(p.small(), p.small("g"), strict=True):
        os.rename(old, new)
    return p.sizes.small


def unlink(p: Place) -> float:
    for path in p.small("g"):
        os.unlink(path)
    return p.sizes.small


def par_create(p: Place) -> float:
    each = p.sizes.small // 4

    def body(n: int) -> None:
        os.mkdir(p.path(f"par{n}"))
        for k in range(each):
            _write_file(p.path(f"par{n}/f{k}"), p.page)

    _in_children(4, body)
    return each * 4


def _archive_entries(p: Place) -> int:
    return p.sizes.folders * 11


def untar(p: Place) -> float:
    target = p.path("tree")
    os.mkdir(target)
    subprocess.run(["tar", "-xf", "-", "-C", target], input=p.archive, check=True, capture_output=True)
    return _archive_entries(p)


def walk(p: Place) -> float:
    count = 0
    for parent, folders, files in os.walk(p.path("tree")):
        for name in (*folders, *files):
            os.lstat(os.path.join(parent, name))
            count += 1
    return count


def rm_rf(p: Place) -> float:
    subprocess.run(["rm", "-rf", p.path("tree")], check=True, capture_output=True)
    return _archive_entries(p)


def _git(p: Place, *words: str) -> None:
    identity = ["-c", "user.name=bench", "-c", "user.email=bench@example.org", "-c", "gc.auto=0"]
    environment = {"PATH": os.environ["PATH"], "HOME": p.path("."), "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", *identity, *words], cwd=p.path("repo"), env=environment, check=True, capture_output=True)


def prepare_git(p: Place) -> None:
    os.mkdir(p.path("repo"))
    _git(p, "init", "-q")
    for n in range(p.sizes.folders):
        if n % 25 == 0:
            os.mkdir(p.path(f"repo/d{n // 25}"))
        _write_file(p.path(f"repo/d{n // 25}/f{n}"), p.random.randbytes(3000))


def git_commit(p: Place) -> float:
    """Add and commit 500 files."""
    _git(p, "add", "-A")
    _git(p, "commit", "-q", "-m", "all")
    return 1


def sqlite_txn(p: Place) -> float:
    """Durable transactions with the rollback journal, which is what most programs use."""
    db = sqlite3.connect(p.path("data.sqlite"), isolation_level=None)
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE t (k INTEGER PRIMARY KEY, v BLOB)")
    for n in range(p.sizes.commits):
        db.execute("INSERT INTO t VALUES (?, ?)", (n, p.page[:200]))
    db.close()
    return p.sizes.commits


def append_fsync(p: Place) -> float:
    fd = os.open(p.path("log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for _ in range(p.sizes.appends):
        os.write(fd, p.page)
        os.fsync(fd)
    os.close(fd)
    return p.sizes.appends


def clean(p: Place) -> None:
    shutil.rmtree(p.folder, ignore_errors=True)


@dataclass(frozen=True)
class Work:
    name: str
    body: Callable[[Place], float]
    unit: str = "op"
    cold: bool = False
    """The kernel's caches are dropped before it."""
    goal: float | None = None
    """Times as fast as libfuse's C passthrough in the same run (issue 4)."""
    prepare: Callable[[Place], None] | None = None
    """Not measured."""


WORKS = (
    Work("seq_write", seq_write, "MiB", goal=0.9),
    Work("seq_read_cold", seq_read, "MiB", cold=True, goal=0.85),
    Work("seq_read_warm", seq_read, "MiB"),
    Work("rand_read_4k_cold", rand_read, cold=True),
    Work("rand_write_4k", rand_write, goal=1.2),
    Work("par_read_cold", par_read, "MiB", cold=True),
    Work("create_4k", create, goal=2.5),
    Work("stat_cold", stat, cold=True, goal=1.7),
    Work("stat_warm", stat),
    Work("ls_l_cold", list_long, cold=True, goal=2.0),
    Work("ls_l_warm", list_long),
    Work("read_4k_cold", read_small, cold=True),
    Work("read_4k_warm", read_small),
    Work("rename", rename, goal=2.2),
    Work("unlink", unlink),
    Work("par_create", par_create),
    Work("untar", untar, goal=1.5),
    Work("walk_cold", walk, cold=True),
    Work("rm_rf", rm_rf, goal=1.3),
    Work("git_commit", git_commit, "commit", goal=1.0, prepare=prepare_git),
    Work("sqlite_txn", sqlite_txn, goal=0.8),
    Work("append_fsync", append_fsync),
)
