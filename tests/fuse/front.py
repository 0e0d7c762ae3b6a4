"""Real fronts for tests: started as a user would, watched so that a hang ends as a failure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from tonfs.control import call_sync
from tonfs.fuse import find_mount

HANG = 60.0
TONFS = [sys.executable, "-m", "tonfs"]


def tonfs(*words: str, check: bool = True, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*TONFS, *words], capture_output=True, text=True, timeout=timeout, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done


def run(*words: str, cwd: Path | None = None, timeout: float = 60.0) -> str:
    done = subprocess.run(words, capture_output=True, text=True, cwd=cwd, timeout=timeout, check=False)
    assert done.returncode == 0, f"{words[0]}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


class Mounted:
    """A volume and its mount point. `start` and `stop` any number of times."""

    def __init__(self, base: Path, network: str = "none") -> None:
        self.volume = base / "volume"
        self.point = base / "mnt"
        self._watchdog: threading.Timer | None = None
        self.hung = False
        if network == "none":
            tonfs("--volume", str(self.volume), "init", "--network", "none")
        else:
            self.volume.mkdir(mode=0o700)
            (self.volume / "config.toml").write_text(f'network = "{network}"\n', encoding="ascii")

    def start(self, options: str = "") -> Mounted:
        tonfs("--volume", str(self.volume), "mount", str(self.point), *(["-o", options] if options else []))
        self._watch()
        return self

    def _watch(self) -> None:
        self._calm()

        def bark() -> None:
            there = find_mount(str(self.point))
            if there is not None:
                self.hung = True
                abort = f"/sys/fs/fuse/connections/{there.device.split(':')[1]}/abort"
                Path(abort).write_text("1", encoding="ascii")

        self._watchdog = threading.Timer(HANG, bark)
        self._watchdog.daemon = True
        self._watchdog.start()

    @property
    def pid(self) -> int:
        return int((self.volume / "run" / "front.lock").read_text(encoding="ascii"))

    def kill(self) -> None:
        """kill -9, and wait until the kernel has seen it."""
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        while Path(f"/proc/{pid}").exists() and b" Z " not in Path(f"/proc/{pid}/stat").read_bytes():
            pass
        self._calm()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return call_sync(self.volume / "run" / "front.sock", method, params, who="front", timeout=30.0)

    def drop_caches(self) -> None:
        run("sync", "-f", str(self.point))
        Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")

    def log(self) -> str:
        path = self.volume / "log" / "front.log"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def _calm(self) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None

    def stop(self) -> None:
        self._calm()
        tonfs("umount", str(self.point))
        assert not self.hung, "the mount hung"

    def end(self) -> None:
        """Whatever happened, leave nothing behind."""
        self._calm()
        if find_mount(str(self.point)) is not None:
            tonfs("umount", "--lazy", str(self.point), check=False)
        if find_mount(str(self.point)) is not None:
            subprocess.run(["umount", "-l", str(self.point)], check=False, capture_output=True)
        assert not self.hung, "the mount hung"
        lines = [line for line in self.log().splitlines() if " error " in line or " warning " in line]
        assert lines == [], "the front complained"
