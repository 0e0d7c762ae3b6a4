"""Programs that people use on a file system every day: git, tar, rsync, SQLite."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

from .kit import Judge, digest, mounted, need, run, sample


def git(base: Path) -> str:
    program = need("git")
    with mounted(base) as point:
        repo = point / "repo"
        shutil.copytree(sample(base), repo)
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        run(program, "init", "-q", str(repo))
        run(program, "add", "-A", cwd=repo)
        run(program, *identity, "commit", "-qm", "one", cwd=repo)
        run(program, "gc", "-q", cwd=repo)
        run(program, "fsck", "--full", "--strict", cwd=repo)
        run(program, "clone", "-q", str(repo), str(point / "clone"))
        if digest(point / "clone" / "fuse") != digest(repo / "fuse"):
            raise RuntimeError("a clone differs from its origin")
    return "init, add, commit, gc, fsck --full --strict, clone"


def tar(base: Path) -> str:
    program = need("tar")
    with mounted(base) as point:
        source = sample(base)
        os.link(source / "ids.py", source / "hard.py")
        (source / "soft").symlink_to("ids.py")
        archive = point / "a.tar"
        run(program, "-cf", str(archive), "-C", str(source), ".")
        (point / "out").mkdir()
        run(program, "-xf", str(archive), "-C", str(point / "out"))
        run(program, "-df", str(archive), "-C", str(point / "out"))
        if digest(point / "out") != digest(source):
            raise RuntimeError("the extracted tree differs")
        if (point / "out" / "hard.py").stat().st_nlink != 2:
            raise RuntimeError("a hard link came out as a copy")
    return "create, extract, compare, hard and symbolic links"


def rsync(base: Path) -> str:
    program = need("rsync")
    with mounted(base) as point:
        source = sample(base)
        run(program, "-aH", f"{source}/", f"{point}/copy/")
        again = run(program, "-aHi", f"{source}/", f"{point}/copy/")
        if again.strip():
            raise RuntimeError(f"a second run still moves: {again[:200]}")
    return "-aH, second run empty"


def sqlite(base: Path) -> str:
    with mounted(base) as point:
        for mode in ("delete", "wal", "truncate", "persist"):
            path = point / f"{mode}.db"
            with sqlite3.connect(path) as db:
                db.execute(f"PRAGMA journal_mode={mode}")
                db.execute("CREATE TABLE t (n INTEGER, x BLOB)")
                db.executemany("INSERT INTO t VALUES (?, ?)", ((n, os.urandom(500)) for n in range(500)))
            db.close()
            again = sqlite3.connect(path)
            if again.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
                raise RuntimeError(f"integrity_check fails in journal mode {mode}")
            again.close()
    return "journal modes delete, wal, truncate, persist; integrity_check ok"


JUDGES = (
    Judge("git", git),
    Judge("tar", tar),
    Judge("rsync", rsync),
    Judge("sqlite3", sqlite),
)
