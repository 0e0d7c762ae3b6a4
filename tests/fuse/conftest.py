"""Real mounts of volumes without network, by the command line, as a user makes them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .front import Mounted

TONFS = (sys.executable, "-m", "tonfs")


@dataclass
class MountedVolume:
    """A volume and its mount point."""

    volume: Path
    point: Path
    environment: dict[str, str] = field(default_factory=dict)

    def tonfs(self, *words: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        argv = [*TONFS, "--volume", str(self.volume), *words]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        if ok:
            assert done.returncode == 0, done.stderr
        return done

    def mount(self, *options: str) -> None:
        self.tonfs("mount", str(self.point), *options)

    def umount(self) -> None:
        self.tonfs("umount", str(self.point))

    def pid(self) -> int:
        from tonfs.control import call_sync

        return int(call_sync(self.volume / "run" / "front.sock", "ping", who="front")["pid"])

    def kill(self) -> None:
        """kill -9 of the serving process; the mount point is left behind, dead."""
        pid = self.pid()
        os.kill(pid, signal.SIGKILL)
        for _ in range(200):
            try:
                os.kill(pid, 0)
                if b"Z" in Path(f"/proc/{pid}/stat").read_bytes().split()[2]:
                    return
            except (ProcessLookupError, FileNotFoundError):
                return
            subprocess.run(["sleep", "0.02"], check=True)

    def status(self) -> dict[str, object]:
        value: dict[str, object] = json.loads(self.tonfs("status", "--json").stdout)
        return value


@pytest.fixture
def mounted(tmp_path: Path, root_and_fuse: None) -> Iterator[MountedVolume]:
    """A fresh volume, mounted; unmounted at the end whatever happened."""
    place = MountedVolume(tmp_path / "volume", tmp_path / "mnt")
    place.tonfs("init", "--network", "none")
    place.mount()
    try:
        yield place
    finally:
        if place.tonfs("umount", str(place.point), ok=False).returncode != 0:
            subprocess.run(["umount", "-l", str(place.point)], check=False, capture_output=True)


@pytest.fixture
def stage(root_and_fuse: None, tmp_path: Path) -> Iterator[Mounted]:
    """A volume without network, not mounted yet; watched, and its log must stay without complaints."""
    place = Mounted(tmp_path)
    yield place
    place.end()


@pytest.fixture
def mnt(stage: Mounted) -> Path:
    """The mount point of a mounted volume."""
    return stage.start().point
