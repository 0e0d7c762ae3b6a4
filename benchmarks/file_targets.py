"""What the file benchmark measures: a directory each, and where a server stands behind it its CPU time and memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

TONFS = [sys.executable, "-m", "tonfs"]
PASSTHROUGH_VARIABLE = "TONFS_BENCH_PASSTHROUGH"
PASSTHROUGHS = ("passthrough_hp", "passthrough_ll")
START_TIMEOUT = 20.0
CLOCK_TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Target:
    """A directory to work in. `pid` is the process that serves it, None for a file system of the kernel."""

    name: str
    folder: Path
    pid: int | None = None
    stop: Callable[[], None] = lambda: None
    rates: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    """Work that it could not do, and why."""
    peak_rss: int = 0
    """Bytes, the highest that any of its servers had."""

    def cpu_seconds(self) -> float:
        """User and system time of the serving process so far."""
        if self.pid is None:
            return 0.0
        try:
            text = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii")
        except OSError:
            return 0.0
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / CLOCK_TICK

    def note_memory(self) -> None:
        if self.pid is None:
            return
        for line in Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                self.peak_rss = max(self.peak_rss, int(line.split()[1]) * 1024)


def _wait_mounted(point: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not os.path.ismount(point):
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with status {process.returncode}")
        if time.monotonic() > deadline:
            process.kill()
            raise RuntimeError(f"{process.args!r} did not mount within {START_TIMEOUT:g} s")
        time.sleep(0.02)


def _foreground(name: str, argv: list[str], point: Path) -> Target:
    """A file system whose program stays in the foreground until it is unmounted."""
    point.mkdir(parents=True)
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _wait_mounted(point, process)

    def stop() -> None:
        command = ["umount", str(point)] if os.geteuid() == 0 else ["fusermount3", "-u", str(point)]
        for _ in range(50):
            if subprocess.run(command, check=False, capture_output=True).returncode == 0:
                break
            time.sleep(0.1)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    return Target(name, point, process.pid, stop)


def plain(base: Path) -> Target:
    """The file system that all the others keep their data on."""
    folder = base / "plain"
    folder.mkdir(parents=True)
    return Target("below", folder)


def tonfs(base: Path) -> Target:
    """A fresh volume without network."""
    volume, point = base / "volume", base / "tonfs"
    command = [*TONFS, "--volume", str(volume)]
    subprocess.run([*command, "init", "--network", "none"], check=True, capture_output=True)
    subprocess.run([*command, "mount", str(point)], check=True, capture_output=True)
    pid = int((volume / "run" / "front.lock").read_text(encoding="ascii"))

    def stop() -> None:
        subprocess.run([*TONFS, "umount", str(point)], check=False, capture_output=True)

    return Target("tonfs", point, pid, stop)


def find_passthrough() -> str | None:
    """libfuse's example program, where somebody installed it or named it."""
    named = os.environ.get(PASSTHROUGH_VARIABLE)
    if named:
        return named
    return next((path for path in map(shutil.which, PASSTHROUGHS) if path), None)


def passthrough(base: Path) -> Target | None:
    """libfuse's C passthrough, without the kernel's own, which no server of ours can be compared with."""
    program = find_passthrough()
    if program is None:
        return None
    source, point = base / "passthrough-source", base / "passthrough"
    source.mkdir(parents=True)
    if "_ll" in Path(program).name:
        return _foreground("C", [program, "-f", "-o", f"source={source},writeback,cache=always", str(point)], point)
    usage = subprocess.run([program, "--help"], check=False, capture_output=True, text=True)
    words = ["--nopassthrough"] if "--nopassthrough" in usage.stdout + usage.stderr else []
    return _foreground("C", [program, "--foreground", *words, str(source), str(point)], point)


def rclone(base: Path) -> Target | None:
    """`rclone mount` of a local directory with its full cache."""
    program = shutil.which("rclone")
    if program is None:
        return None
    source, point = base / "rclone-source", base / "rclone"
    source.mkdir(parents=True)
    argv = [program, "mount", f":local:{source}", str(point), "--vfs-cache-mode", "full"]
    argv += ["--cache-dir", str(base / "rclone-cache"), "--config", os.devnull]
    return _foreground("rclone", argv, point)


def floor(base: Path) -> Target:
    """A server on pyfuse3 that does nothing but answer (floor.py)."""
    source, point = base / "floor-source", base / "floor"
    source.mkdir(parents=True)
    return _foreground(
        "floor", [sys.executable, str(Path(__file__).with_name("floor.py")), str(source), str(point)], point
    )


MAKERS: dict[str, Callable[[Path], Target | None]] = {
    "tonfs": tonfs,
    "C": passthrough,
    "floor": floor,
    "below": plain,
    "rclone": rclone,
}


def start(names: list[str], base: Path) -> list[Target]:
    """Start those of the named targets that this machine has; the caller stops them."""
    targets: list[Target] = []
    try:
        for name in names:
            target = MAKERS[name](base)
            if target is not None:
                targets.append(target)
    except BaseException:
        for target in targets:
            target.stop()
        raise
    return targets
