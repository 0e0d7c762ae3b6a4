"""The same judges once more on a mount with an agent at work.

What they write is packed, replicated, audited, evicted and read back from providers under their hands.
`make interop ONLY=agent` runs all of them, `ONLY=agent:git` one.
"""

from __future__ import annotations

import atexit
import os
import shutil
import stat
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

from tonfs.control import call_sync
from tonfs.errors import TonfsError

from . import files, kit, suites
from .kit import DEADLINE, TONFS, Judge, need_root, run

PROVIDERS = 2
CONFIG = """\
network = "devnet"
devnet_state = "{devnet}"
[policy.pack]
settle = 0.2
deadline = 0.5
[policy.replica]
replicas = 1
[policy.audit]
interval = 10.0
"""
"""Everything is packed as soon as it rests for a moment, and may go as soon as one provider was audited."""
PAUSE = 0.3
"""Seconds between two evictions of everything that may go."""
PATIENCE = "100s"
"""Within this time what rests is proven."""


@cache
def devnet() -> Path:
    """The state of a devnet that all judges of this run share."""
    state = Path(tempfile.mkdtemp(prefix="tonfs-interop-devnet-", dir="/var/tmp"))

    def down() -> None:
        subprocess.run(
            [TONFS, "devnet", "down", "--state", str(state)], check=False, capture_output=True, timeout=DEADLINE
        )
        shutil.rmtree(state, ignore_errors=True)

    atexit.register(down)
    words = ("--providers", str(PROVIDERS), "--block-interval", "0.5s", "--detach")
    run(TONFS, "devnet", "up", "--state", str(state), *words)
    return state


class Evictor(threading.Thread):
    """Frees whatever may go, again and again."""

    def __init__(self, volume: Path) -> None:
        super().__init__(daemon=True)
        self.volume = volume
        self.over = threading.Event()
        self.files = self.size = 0
        self.broke: list[str] = []

    def once(self) -> None:
        """What `tonfs evict` does, without the start of a program."""
        sockets = self.volume / "run"
        front = call_sync(sockets / "front.sock", "evict", {"paths": [""]}, who="front", timeout=DEADLINE)
        bags = {"bag_ids": front["bag_ids"]}
        call_sync(sockets / "agent.sock", "drop_local", bags, who="agent", timeout=DEADLINE)
        self.files += front["files"]
        self.size += front["bytes"]

    def run(self) -> None:
        while not self.over.wait(PAUSE):
            try:
                self.once()
            except TonfsError as exc:
                self.broke.append(str(exc))


class AtWork:
    """Volumes with everything: a devnet with providers, front, agent, and somebody who evicts."""

    def __init__(self) -> None:
        self.files = self.size = 0
        """What was evicted."""

    @contextmanager
    def mounted(self, base: Path) -> Iterator[Path]:
        volume, point = base / "volume", base / "mount"
        state = devnet()
        run(TONFS, "--volume", str(volume), "init", "--network", "devnet")
        (volume / "config.toml").write_text(CONFIG.format(devnet=state), encoding="utf-8")
        run(TONFS, "--volume", str(volume), "up", str(point), "--detach", "--s3", "")
        evictor = Evictor(volume)
        evictor.start()
        try:
            yield point
            evictor.over.set()
            evictor.join()
            if evictor.broke:
                raise RuntimeError(f"evict: {evictor.broke[:3]}")
            self.files += evictor.files
            self.size += evictor.size
        finally:
            evictor.over.set()
            down = [TONFS, "--volume", str(volume), "down"]
            subprocess.run(down, check=False, capture_output=True, timeout=DEADLINE)

    def between(self, point: Path) -> None:
        """Everything is proven, evicted (by the one who always does), and forgotten by the kernel."""
        volume = str(point.parent / "volume")
        run("sync", "-f", str(point))
        run(TONFS, "--volume", volume, "wait", "--timeout", PATIENCE, str(point))
        run(TONFS, "--volume", volume, "evict", str(point))
        for path in point.rglob("*"):
            if stat.S_ISREG(path.lstat().st_mode):
                fd = os.open(path, os.O_RDONLY)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(fd)


def disturbed(judge: Judge, base: Path) -> str:
    need_root()
    work = AtWork()
    with kit.mounting(kit.Mounting(work.mounted, work.between)):
        told = judge.check(base)
    return f"{told}; {work.files} files ({work.size / 1e6:.1f} MB) were evicted meanwhile"


JUDGES = tuple(Judge(f"agent:{judge.name}", partial(disturbed, judge)) for judge in (*files.JUDGES, *suites.JUDGES))
