"""What every judge is made of: programs that may be missing, deadlines, a mounted volume, a tree to move about."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
JUDGES_DIR = ROOT / ".judges"
TONFS = str(ROOT / ".venv" / "bin" / "tonfs")
DEADLINE = 120.0
"""Seconds for any one command, unless a judge asks for more: one that hangs has found something too."""


@dataclass(frozen=True)
class Judge:
    """One line of the report."""

    name: str
    check: Callable[[Path], str]
    """Gets an empty folder of its own, returns what held; raises Missing, or anything else for a failure."""


class Missing(Exception):
    """Something that a judge needs is not here; the text names it."""


def run(
    *argv: str,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    deadline: float = DEADLINE,
    check: bool = True,
) -> str:
    """Standard output of a command that ended within its deadline, and (unless `check` is off) well."""
    around = {**os.environ, **(env or {})}
    done = subprocess.run(argv, capture_output=True, text=True, env=around, cwd=cwd, check=False, timeout=deadline)
    if check and done.returncode != 0:
        raise RuntimeError(
            f"'{' '.join(argv[:5])}' ended with {done.returncode}: {(done.stderr or done.stdout)[-400:]}"
        )
    return done.stdout


def need_root() -> None:
    if os.geteuid() != 0:
        raise Missing("root")


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
