"""What every judge is made of: programs that may be missing, deadlines, a mounted volume, a tree to move about."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
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
def alone(base: Path) -> Iterator[Path]:
    """A mounted volume without network and agent."""
    volume, point = base / "volume", base / "mount"
    run(TONFS, "--volume", str(volume), "init", "--network", "none")
    run(TONFS, "--volume", str(volume), "mount", str(point))
    try:
        yield point
    except BaseException:
        subprocess.run([TONFS, "umount", "--lazy", str(point)], check=False, capture_output=True, timeout=DEADLINE)
        raise
    run(TONFS, "umount", str(point))


@dataclass(frozen=True)
class Mounting:
    """How judges get their volumes."""

    mounted: Callable[[Path], AbstractContextManager[Path]]
    between: Callable[[Path], None]
    """What happens to a mount between two steps of a judge."""


_mounting = [Mounting(alone, lambda point: None)]


def mounted(base: Path) -> AbstractContextManager[Path]:
    """A mounted volume below `base`."""
    return _mounting[-1].mounted(base)


def between(point: Path) -> None:
    """A judge has ended a step: with an agent at work, everything is evicted now."""
    _mounting[-1].between(point)


def run_disturbed(point: Path, *argv: str, deadline: float = DEADLINE) -> str:
    """As `run` in the mount; with an agent at work the command is stopped every second, and everything is evicted."""
    if len(_mounting) == 1:
        return run(*argv, cwd=point, deadline=deadline)
    end = time.monotonic() + deadline
    with tempfile.TemporaryFile("w+") as out:
        with subprocess.Popen(argv, stdout=out, stderr=subprocess.STDOUT, cwd=point) as process:
            try:
                while process.poll() is None:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(1.0)
                        break
                    if time.monotonic() > end:
                        raise RuntimeError(f"'{' '.join(argv[:5])}' did not end within {deadline:g} s")
                    process.send_signal(signal.SIGSTOP)
                    between(point)
                    process.send_signal(signal.SIGCONT)
            except BaseException:
                process.kill()
                raise
        out.seek(0)
        told = out.read()
    if process.returncode:
        raise RuntimeError(f"'{' '.join(argv[:5])}' ended with {process.returncode}: {told[-400:]}")
    return told


@contextmanager
def mounting(how: Mounting) -> Iterator[None]:
    """Judges in here get their volumes mounted in another way."""
    _mounting.append(how)
    try:
        yield
    finally:
        _mounting.pop()


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
