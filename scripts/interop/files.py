"""Programs that people use on a file system every day: git, tar, rsync, SQLite."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from .kit import Judge, between, digest, mounted, need, run, sample


def git(base: Path) -> str:
    program = need("git")
    with mounted(base) as point:
        repo = point / "repo"
        shutil.copytree(sample(base), repo)
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        run(program, "init", "-q", str(repo))
        run(program, "add", "-A", cwd=repo)
        run(program, *identity, "commit", "-qm", "one", cwd=repo)
        between(point)
        run(program, "gc", "-q", cwd=repo)
        between(point)
        run(program, "fsck", "--full", "--strict", cwd=repo)
        run(program, "clone", "-q", str(repo), str(point / "clone"))
        between(point)
        if digest(point / "clone" / "fuse") != digest(repo / "fuse"):
            raise RuntimeError("a clone differs from its origin")
    return "init, add, commit, gc, fsck --full --strict, clone"


def oddities(root: Path) -> Path:
    """A tree with what copies often lose: links, holes, strange names, nanoseconds, owners, modes, attributes."""
    (root / "empty").mkdir(parents=True)
    (root / "file").write_bytes(os.urandom(70_000))
    os.link(root / "file", root / "hard")
    (root / "soft").symlink_to("file")
    (root / "dangling").symlink_to("/nowhere/at all")
    for name in (b"caf\xe9 \xff", b"line\nbreak", b" *?'\"\\", "\u540d\u524d".encode(), b"n" * 255, b"-rf"):
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_bytes(name)
    with (root / "sparse").open("wb") as stream:
        stream.write(b"begin")
        stream.seek(50 << 20)
        stream.write(b"end")
    os.mkfifo(root / "fifo", 0o640)
    (root / "program").write_bytes(b"#!/bin/true\n")
    os.setxattr(root / "program", "user.note", bytes(range(256)))
    os.setxattr(root / "empty", "user.note", b"of a directory")
    if os.geteuid() == 0:
        os.chown(root / "program", 1234, 5678)
        os.mknod(root / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.chmod(root / "program", 0o6755)
    os.chmod(root / "empty", 0o3777)
    for number, path in enumerate(sorted(root.rglob("*"))):
        when = 1_600_000_000_123_456_789 + number * 1_000_000_007
        os.utime(path, ns=(when, when), follow_symlinks=False)
    return root


def manifest(root: Path) -> dict[bytes, tuple[object, ...]]:
    """path -> mode, owner, links, mtime in ns, device, hash or target, attributes."""
    out: dict[bytes, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        info, what = path.lstat(), ""
        if path.is_symlink():
            what = os.readlink(path)
        elif stat.S_ISREG(info.st_mode):
            what = hashlib.sha256(path.read_bytes()).hexdigest()
        keys = [key for key in os.listxattr(path, follow_symlinks=False) if key.startswith("user.note")]
        out[os.fsencode(path.relative_to(root))] = (
            info.st_mode, info.st_uid, info.st_gid, 0 if stat.S_ISDIR(info.st_mode) else info.st_nlink,
            info.st_mtime_ns, info.st_rdev, what, [os.getxattr(path, key, follow_symlinks=False) for key in keys],
        )  # fmt: skip
    return out


def same(ours: Path, theirs: Path) -> None:
    left, right = manifest(ours), manifest(theirs)
    for path in sorted(left.keys() | right.keys()):
        if left.get(path) != right.get(path):
            raise RuntimeError(f"{path!r} is {left.get(path)} and was {right.get(path)}")
    if (blocks := (ours / "sparse").stat().st_blocks) > 2000:
        raise RuntimeError(f"the sparse file holds {blocks} blocks")


def tar(base: Path) -> str:
    program = need("tar")
    words = ("--format=posix", "--sparse", "--xattrs", "--numeric-owner")
    source = oddities(base / "odd")
    with mounted(base) as point:
        archive = point / "a.tar"
        run(program, "-cf", str(archive), *words, "-C", str(source), ".")
        between(point)
        (point / "out").mkdir()
        run(program, "-xpf", str(archive), *words, "-C", str(point / "out"))
        between(point)
        same(point / "out", source)
        run(program, "-df", str(archive), *words, "-C", str(point / "out"))
        run(program, "-cf", str(base / "back.tar"), *words, "-C", str(point / "out"), ".")
        (base / "back").mkdir()
        run(program, "-xpf", str(base / "back.tar"), *words, "-C", str(base / "back"))
        same(base / "back", source)
    return "in and out: hard links, holes, odd names, nanoseconds, owners, set-id, devices, attributes"


def rsync(base: Path) -> str:
    program = need("rsync")
    source = oddities(base / "odd")
    with mounted(base) as point:
        for start, end in ((source, point / "copy"), (point / "copy", base / "back")):
            run(program, "-aHAXS", f"{start}/", f"{end}/")
            between(point)
            same(end, source)
            again = run(program, "-aHAXSi", f"{start}/", f"{end}/")
            if again.strip():
                raise RuntimeError(f"a second run still moves: {again[:200]}")
        sources = sample(base)
        run(program, "-a", f"{sources}/", f"{point}/sources/")
        between(point)
        if again := run(program, "-aci", f"{sources}/", f"{point}/sources/").strip():
            raise RuntimeError(f"checksums differ: {again[:200]}")
    return "-aHAX there and back, second runs empty"


WRITER = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute(f"PRAGMA journal_mode={sys.argv[2]}")
db.execute("PRAGMA synchronous=FULL")
db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, x BLOB)")
for n in range(100_000):
    db.execute("BEGIN")
    db.execute("INSERT INTO t VALUES (?, ?)", (n, os.urandom(300)))
    db.execute("UPDATE t SET x = ? WHERE n = ?", (os.urandom(300), n // 2))
    db.execute("COMMIT")
    print(n, flush=True)
"""


def killed_writer(path: Path, mode: str, transactions: int) -> int:
    """The last transaction of which a writer heard that it is committed, when it was killed in the next ones."""
    last = -1
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path), mode], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            last = int(line)
            if last == transactions:
                writer.kill()
    return last


def sqlite(base: Path) -> str:
    modes = ("delete", "truncate", "persist", "wal")
    with mounted(base) as point:
        for mode in modes:
            path = point / f"{mode}.db"
            last = killed_writer(path, mode, 30)
            between(point)
            with closing(sqlite3.connect(path)) as db:
                if (said := db.execute("PRAGMA integrity_check").fetchone()[0]) != "ok":
                    raise RuntimeError(f"journal mode {mode}: {said}")
                if (rows := db.execute("SELECT count(*) FROM t").fetchone()[0]) < last + 1:
                    raise RuntimeError(f"journal mode {mode}: {rows} rows of {last + 1} that were committed")
        for mode in ("memory", "off"):  # these promise nothing to a writer that is killed
            with closing(sqlite3.connect(point / f"{mode}.db")) as db, db:
                db.execute(f"PRAGMA journal_mode={mode}")
                db.execute("CREATE TABLE t (x BLOB)")
                db.executemany("INSERT INTO t VALUES (?)", ((os.urandom(500),) for _ in range(500)))
                if db.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
                    raise RuntimeError(f"integrity_check fails in journal mode {mode}")
    return f"writer killed, nothing committed is lost, integrity_check ok: {', '.join(modes)}; also memory, off"


JUDGES = (
    Judge("git", git),
    Judge("tar", tar),
    Judge("rsync", rsync),
    Judge("sqlite3", sqlite),
)
