"""`make interop`: foreign software against tonfs. Says what it ran and what it could not find; exit 1 on a failure."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TONFS = str(ROOT / ".venv" / "bin" / "tonfs")
AWS = ROOT / ".judges" / "aws" / "bin" / "aws"
STOCK = ROOT / ".judges" / "tonutils" / "bin" / "python"
DEADLINE = 120.0
"""Seconds for any one command: a judge that hangs has found something too."""


class Missing(Exception):
    """The foreign program is not here."""


def run(*argv: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    around = {**os.environ, **(env or {})}
    done = subprocess.run(argv, capture_output=True, text=True, env=around, cwd=cwd, check=False, timeout=DEADLINE)
    if done.returncode != 0:
        raise RuntimeError(
            f"'{' '.join(argv[:5])}' ended with {done.returncode}: {(done.stderr or done.stdout)[-400:]}"
        )
    return done.stdout


def need(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise Missing(program)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def mounted(base: Path) -> Iterator[Path]:
    volume, point = base / "volume", base / "mount"
    run(TONFS, "--volume", str(volume), "init", "--network", "none")
    run(TONFS, "--volume", str(volume), "mount", str(point))
    try:
        yield point
    except BaseException:
        subprocess.run([TONFS, "umount", "--lazy", str(point)], check=False, capture_output=True, timeout=DEADLINE)
        raise
    run(TONFS, "umount", str(point))


def digest(root: Path) -> dict[str, str]:
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file() and not p.is_symlink()
    }


def sample(base: Path) -> Path:
    """A small real tree: this checkout's sources."""
    source = base / "source"
    shutil.copytree(ROOT / "tonfs", source, ignore=shutil.ignore_patterns("__pycache__"))
    return source


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


def aws(base: Path) -> str:
    if not AWS.exists():
        raise Missing("aws cli (.judges/aws)")
    volume, port = base / "volume", free_port()
    run(TONFS, "--volume", str(volume), "init", "--network", "none")
    key = json.loads(run(TONFS, "--volume", str(volume), "s3", "key", "new", "--json"))
    env = {
        "AWS_ACCESS_KEY_ID": key["access_key"],
        "AWS_SECRET_ACCESS_KEY": key["secret_key"],
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    door = subprocess.Popen(
        [TONFS, "--volume", str(volume), "s3", "serve", "--listen", f"127.0.0.1:{port}"], stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 30
        while socket.socket().connect_ex(("127.0.0.1", port)):
            if time.monotonic() > end:
                raise RuntimeError("the S3 door does not listen")
            time.sleep(0.1)
        tool = (str(AWS), "--endpoint-url", f"http://127.0.0.1:{port}")
        source = sample(base) / "s3shim"
        run(*tool, "s3", "mb", "s3://bucket", env=env)
        run(*tool, "s3", "cp", str(source), "s3://bucket/tree", "--recursive", "--only-show-errors", env=env)
        moved = run(*tool, "s3", "sync", str(source), "s3://bucket/tree", env=env)
        if moved.strip():
            raise RuntimeError(f"a sync after the copy still moves: {moved[:200]}")
        listed = run(*tool, "s3", "ls", "s3://bucket/tree/", "--recursive", env=env).split()
        run(*tool, "s3", "cp", "s3://bucket/tree", str(base / "back"), "--recursive", "--only-show-errors", env=env)
        if digest(base / "back") != digest(source):
            raise RuntimeError("what came back differs")
        run(*tool, "s3", "rm", "s3://bucket/tree", "--recursive", "--only-show-errors", env=env)
        run(*tool, "s3", "rb", "s3://bucket", env=env)
        return f"mb, cp, sync (empty), ls ({len(listed) // 4} keys), cp back, rm, rb"
    finally:
        door.terminate()
        door.wait(30)


def tonutils(base: Path) -> str:
    if not STOCK.exists():
        raise Missing("tonutils (.judges/tonutils)")
    state = base / "devnet"
    run(TONFS, "devnet", "up", "--state", str(state), "--providers", "0", "--detach")
    try:
        address = "0:" + "ab" * 32
        run(TONFS, "devnet", "faucet", address, "5", "--state", str(state))
        status = json.loads(run(TONFS, "devnet", "status", "--state", str(state), "--json"))
        script = str(ROOT / "scripts" / "stock_client.py")
        seen = json.loads(run(str(STOCK), script, status["global_config"], address, "0:" + "cd" * 32))
        if seen["wallet_balance"] != 5 * 10**9 or seen["contract_state"] != "nonexist":
            raise RuntimeError(f"the stock client sees {seen}")
    finally:
        run(TONFS, "devnet", "down", "--state", str(state))
    return "global config, funded account and absent account through the lite server"


JUDGES: tuple[tuple[str, Callable[[Path], str]], ...] = (
    ("git", git),
    ("tar", tar),
    ("rsync", rsync),
    ("sqlite3", sqlite),
    ("aws cli", aws),
    ("tonutils", tonutils),
)


def main() -> int:
    failed = 0
    for name, judge in JUDGES:
        base = Path(tempfile.mkdtemp(prefix="tonfs-interop-", dir="/var/tmp"))
        started = time.monotonic()
        try:
            text = f"passed: {judge(base)}"
        except Missing as exc:
            text = f"not run: {exc} is not installed"
        except Exception as exc:  # whatever a judge trips over is its verdict
            failed += 1
            text = f"FAILED: {exc}"
        finally:
            shutil.rmtree(base, ignore_errors=True)
        print(f"interop {name} ({time.monotonic() - started:.1f} s): {text}", flush=True)
    return 1 if failed else 0


sys.exit(main())
